# syntax=docker/dockerfile:1
# Three targets: `serve` (CPU, no torch), `serve-gpu` (CUDA 13) and `train`.
#
#   docker build --target serve --tag regraft .
#   docker run --read-only --tmpfs /tmp --volume models:/models --volume data:/data --publish 127.0.0.1:50051:50051 regraft
#
# What is installed is pinned in deploy/locks, with hashes; `make locks` brings it up to date.
ARG PYTHON=3.13-slim-trixie

FROM python:${PYTHON} AS base
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini=0.19.0-* \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --home-dir /data --no-create-home regraft \
 && install --directory --owner=regraft --group=regraft /models /data

# pip stays behind here, and so do the tests of the packages; a layer of packages changes only with its lock.
FROM base AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv --without-pip /opt/regraft
COPY deploy/locks /locks

FROM build AS wheel
COPY pyproject.toml README.md LICENSE /src/
COPY regraft /src/regraft
COPY serving /src/serving
COPY training /src/training
RUN pip wheel --no-deps --wheel-dir /wheel /src

FROM build AS build-serve
RUN pip --python /opt/regraft/bin/python install --require-hashes --requirement /locks/serve.txt \
 && find /opt/regraft -type d -name tests -prune -exec rm -r {} +
COPY --from=wheel /wheel /wheel
RUN pip --python /opt/regraft/bin/python install --no-deps /wheel/regraft-*.whl

FROM build AS build-serve-gpu
RUN pip --python /opt/regraft/bin/python install --require-hashes --requirement /locks/serve-gpu.txt \
 && find /opt/regraft -type d -name tests -prune -exec rm -r {} +
COPY --from=wheel /wheel /wheel
RUN pip --python /opt/regraft/bin/python install --no-deps /wheel/regraft-*.whl

FROM build AS build-train
RUN pip --python /opt/regraft/bin/python install --require-hashes --requirement /locks/train.txt \
 && find /opt/regraft -type d -name tests -prune -exec rm -r {} +
COPY --from=wheel /wheel /wheel
RUN pip --python /opt/regraft/bin/python install --no-deps /wheel/regraft-*.whl

# Made here, so that a server without torch has something to begin a model with.
FROM build-train AS backbones
ENV REGRAFT_CACHE=/tmp/cache REGRAFT_STORE=/tmp/models
RUN mkdir /backbones \
 && /opt/regraft/bin/regraft backbones add efficientnet_lite0 \
 && /opt/regraft/bin/regraft backbones export efficientnet_lite0 /backbones/efficientnet_lite0.onnx

FROM base AS runtime
ENV PATH=/opt/regraft/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    HOME=/data \
    REGRAFT_STORE=/models \
    REGRAFT_EXAMPLES=/data/examples \
    REGRAFT_CACHE=/data/cache
USER 10001:10001
WORKDIR /data
VOLUME ["/models", "/data"]
# tini reaps what a killed retrain job leaves behind, and hands SIGTERM on: the server drains, and exits with the truth.
ENTRYPOINT ["tini", "--", "regraft"]

FROM runtime AS train
COPY --from=build-train /opt/regraft /opt/regraft
CMD ["train", "--help"]

FROM runtime AS server
COPY --from=backbones /backbones /opt/backbones
ENV REGRAFT_BACKBONES=/opt/backbones
EXPOSE 50051 8002
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --start-interval=2s CMD ["regraft", "health"]
# --insecure: plaintext within the container's network. Give REGRAFT_TLS_CERT and REGRAFT_TLS_KEY for TLS, REGRAFT_CALLERS
# for who may call (SECURITY.md).
CMD ["serve", "--grpc", "0.0.0.0:50051", "--metrics", "0.0.0.0:8002", "--insecure"]

FROM server AS serve-gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-serve-gpu /opt/regraft /opt/regraft

# The last one is what a build without --target makes.
FROM server AS serve
COPY --from=build-serve /opt/regraft /opt/regraft
