import asyncio
import json
import sys

import pytest

from serving.backbones.addable import AddableBackbones
from serving.threads import Threads

ENTRY = {
    "name": "resnet18",
    "parameters": 11_689_512,
    "size_mb": 46.8,
    "image_px": 224,
    "embedding_size": 512,
    "top1": 69.758,
    "top1_source": "torchvision IMAGENET1K_V1",
    "weights": "download of 47 MB",
    "at_hand": False,
    "ms": None,
    "suits": [],
}


def ask(code: str, needs: str = "json", times: int = 1) -> list[list[str]]:
    """Return the names that a process lists, each time it is asked."""

    async def names() -> list[list[str]]:
        threads = Threads(1)
        addable = AddableBackbones(threads, [sys.executable, "-c", code], needs)
        try:
            return [[each.name for each in await addable.list()] for _ in range(times)]
        finally:
            addable.close()
            threads.close()

    return asyncio.run(names())


def test_what_the_process_lists_can_be_added() -> None:
    assert ask(f"print({json.dumps(json.dumps([ENTRY, {**ENTRY, 'name': 'resnet34', 'size_mb': None}]))})") == [
        ["resnet18", "resnet34"]
    ]


def test_the_process_is_asked_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    trace = tmp_path_factory.mktemp("asked") / "trace"
    code = f"open({str(trace)!r}, 'a').write('.'); print({json.dumps(json.dumps([ENTRY]))})"

    assert ask(code, times=3) == 3 * [["resnet18"]]
    assert trace.read_text() == "."


def test_without_the_package_nobody_is_asked() -> None:
    assert ask("raise SystemExit('asked')", needs="no_such_package") == [[]]


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "print('[{}]')", "print('hello')"])
def test_a_process_that_fails_is_no_error_and_is_asked_again(code: str) -> None:
    assert ask(code, times=2) == [[], []]
