"""ARCHITECTURE.md: its house is the tree, and what it names is there."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import REPOSITORY
from tests.house import PAGE, WINGS, halls, house

MOST_ROOMS = 14
OF_SEVERAL = (
    "serving/rpc/security/test_audit.py",
    "serving/rpc/test_hostile_requests.py",
    "serving/test_event_loop.py",
    "training/backbones/test_families.py",
    "training/backbones/test_own_weights.py",
    "training/data/test_folders.py",
    "training/test_learning.py",
)
"""Tests of what several modules do together."""
HALLS = dict(halls())


def test_the_house_is_the_tree() -> None:
    assert f"\n```text\n{house()}\n```\n" in PAGE.read_text(), "run `make docs`"


@pytest.mark.parametrize("hall", HALLS, ids=lambda hall: str(hall.relative_to(REPOSITORY)))
def test_no_hall_has_too_many_rooms(hall: Path) -> None:
    assert len(HALLS[hall]) <= MOST_ROOMS


def test_every_room_says_what_it_is() -> None:
    assert not [line for line in house().splitlines() if len(line.split()) == 1]


def test_every_path_that_the_page_names_leads_to_one_place() -> None:
    there = list(files())
    for named in re.findall(r"`([\w./-]+(?:\.(?:py|md|toml)|/))`", PAGE.read_text()):
        if named.endswith("/"):
            assert (REPOSITORY / named).is_dir(), named
        else:
            assert len([path for path in there if f"/{path}".endswith(f"/{named}")]) == 1, named


def test_every_path_that_another_page_names_is_there() -> None:
    pages = [REPOSITORY / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")]
    for page in [*pages, *(REPOSITORY / "docs").glob("*.md")]:
        for named in re.findall(
            r"`((?:benchmarks|deploy|docs|regraft|serving|tests|training)/[\w./-]+)", page.read_text()
        ):
            assert (REPOSITORY / named).exists(), f"{page.name}: {named}"


def test_the_tests_mirror_the_source() -> None:
    tests = REPOSITORY / "tests"
    mirrored = {path for wing in WINGS for path in (tests / wing).rglob("test_*.py")} - {
        tests / name for name in OF_SEVERAL
    }

    for path in mirrored:
        module = REPOSITORY / path.relative_to(tests).with_name(path.name.removeprefix("test_"))
        names = (module.name, module.stem, f"{module.stem}_.py", f"__{module.stem}__.py")
        assert any(module.with_name(name).exists() for name in names), path


def files() -> Iterator[Path]:
    """Yield the repository's files, but for those of environments."""
    for folder, folders, names in os.walk(REPOSITORY):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "node_modules"]
        yield from (Path(folder, name).relative_to(REPOSITORY) for name in names)
