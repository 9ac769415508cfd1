"""Commands of docs/http.md, run as they stand there but for the port."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from regraft.stores.models import ModelStore
from tests import REPOSITORY
from tests.live_server import LiveServer
from tests.tiny import picture, publish_tiny
from tests.waiting import PATIENCE_S

_SNIPPETS: Final = re.findall(r"```(sh|python|js)\n(.*?)```", (REPOSITORY / "docs" / "http.md").read_text(), re.DOTALL)
_READ: Final = 'import { readFileSync } from "node:fs"; const picture = readFileSync("flower.jpg");'
_TELL: Final = "console.log(predictions[0].label)"


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    store = ModelStore(tmp_path_factory.mktemp("flowers") / "store")
    publish_tiny(store, name="flowers")
    with LiveServer(store, http="127.0.0.1:0") as server:
        yield server


@pytest.mark.parametrize(("language", "code"), _SNIPPETS, ids=[f"{kind} {n}" for n, (kind, _) in enumerate(_SNIPPETS)])
def test_each_snippet_of_the_page_is_answered(flowers: LiveServer, language: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "flower.jpg").write_bytes(picture("red"))
    here = code.replace("localhost:8000", f"127.0.0.1:{flowers.ready.http_port}")
    commands = {
        "sh": ["bash", "-euo", "pipefail", "-c", here],
        "python": [sys.executable, "-c", here],
        "js": ["node", "--input-type=module", "--eval", f"{_READ}\n{here}\n{_TELL}"],
    }
    done = subprocess.run(
        commands[language], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert ("flowers" if "ListModels" in code else "red") in done.stdout


def test_the_page_speaks_every_language_that_it_promises() -> None:
    assert {language for language, _ in _SNIPPETS} == {"sh", "python", "js"}
