"""Every command, behind a proxy and under a library that record: no request but what was asked for."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
import typer

from regraft.cli.main import app
from regraft.label_rules import image_hash
from tests.e2e.conftest import ServerProcess
from tests.e2e.recorder import Recorder
from tests.tiny import COLOURS, picture

NETWORK = "timm/test_resnet"
SHA256 = image_hash(picture("red", 0, side_px=32))
UNLABELLED = image_hash(picture("red", 1, side_px=32))
RELEASE = f"examples release {SHA256} --name colours"
"""Refused by the server that it asks: nothing is in quarantine."""
CREATE = "models create begun --backbone none"
"""Likewise: there is no such backbone."""

COMMANDS = f"""
backbones networks resnet18
look photos --backbone {NETWORK} --weights none --sheet look.html
train photos --store store --name colours --backbone {NETWORK} --weights none
train photos --store store --name tuned --backbone {NETWORK} --weights none --mlflow sqlite:///runs.db
backbones add store:colours:1 --store store
backbones list
backbones export {NETWORK}-random backbone.onnx --store store
backbones import backbone.onnx --store store
compare photos --backbones {NETWORK} --weights none --out compared
import finished.pth --store store --name finished --backbone {NETWORK} --labels no,yes
evaluate colours photos --store store --report evaluated.html
plan colours --store store
export colours --to onnx --out exported --data photos --store store --max-drop 100
export colours --to openvino --out exported-openvino --data photos --store store --max-drop 100
models quantise colours --data photos --store store
models diff colours:1 2 --store store
verify colours --store store
upgrade store
refresh photos --name colours --store store --weights none
token ada
health
classify photos/red/0.png --name colours
bench photos --name colours --duration 1
label photos --name colours
pictures add photos/red/1.png --name colours
pictures list --name colours
pictures remove {UNLABELLED} --name colours
preview --name colours
retrain --wait --name colours
models train --wait --name colours
jobs --name colours
suggest --name colours
models report --name colours
models confusion --name colours
models export exported.zip --name colours
explain photos/red/0.png --name colours
models list
models show colours
models promote 1 --name colours
models rollback --name colours
models shadow 1 --name colours
{CREATE}
models delete colours
models restore colours
examples list --name colours
examples curve --name colours
examples neighbours photos/red/0.png --name colours
examples map --name colours
examples show {SHA256} --name colours
examples relabel {SHA256} blue --name colours
{RELEASE}
examples remove {SHA256} --name colours
examples restore hashes --name colours
examples relabel-many blue hashes --name colours
examples remove-many hashes --name colours
examples rename red crimson --name colours
examples remove-label crimson --name colours
examples export examples --name colours
backbones remove {NETWORK}-random --store store
"""
"""One a line. The server runs meanwhile; `demo`, which starts other commands, is recorded in test_demo.py."""

RUN = """
import json, sys
from regraft.cli.main import main
codes = {}
for command in json.loads(sys.argv[1]):
    sys.argv = ["regraft", *command.split()]
    try:
        main()
    except SystemExit as end:
        codes[command] = end.code
print(json.dumps(codes))
"""
"""Runs commands through the front door, in one process, so that torch is imported once."""


def test_no_command_asks_for_anything_that_it_was_not_told_to(
    recorded: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one end because the terminal knows ASCII alone, which the name of a class is not written in."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    for label, colour in {**dict.fromkeys(COLOURS), "Möwe": "grey"}.items():
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for number in range(10):
            (folder / f"{number}.png").write_bytes(picture(colour or label, number + (20 if colour else 0), side_px=32))
    torch.save(timm.create_model(NETWORK.removeprefix("timm/"), num_classes=2).state_dict(), tmp_path / "finished.pth")
    (tmp_path / "store").mkdir()
    (tmp_path / "hashes").write_text(SHA256)
    commands = COMMANDS.strip().splitlines()

    with ServerProcess(tmp_path / "store", "--keep-requests", "1") as server:
        os.environ["REGRAFT_TARGET"] = server.places["grpc"]
        done = subprocess.run(
            [sys.executable, "-c", RUN, json.dumps(commands)], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert server.stop() == 0

    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout.splitlines()[-1])
    assert {command: code for command, code in codes.items() if code} == {RELEASE: 1, CREATE: 1}
    assert codes.keys() == set(commands)
    assert "M\\xf6we" in done.stdout
    for exported in ("exported", "exported-openvino"):
        (tmp_path / exported / "photo.jpg").write_bytes(picture("red"))
        [code] = re.findall(r"```python\n(.*?)```", (tmp_path / exported / "README.md").read_text(), re.DOTALL)
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path / exported, stdout=subprocess.DEVNULL, check=True)
    assert recorded.asked() == []
    assert recorded.left_at_home() == []


def test_the_list_names_every_command() -> None:
    """A new one is recorded too."""
    recorded = {command for command in names(app) if re.search(rf"^{command}\b", COMMANDS, re.MULTILINE)}
    assert set(names(app)) - recorded == {"serve", "demo"}


def names(commands: typer.Typer, before: str = "") -> Iterator[str]:
    for command in commands.registered_commands:
        yield before + (command.name or command.callback.__name__)  # type: ignore[union-attr]  # all have one
    for group in commands.registered_groups:
        assert group.typer_instance is not None
        yield from names(group.typer_instance, f"{before}{group.name} ")


def test_what_would_be_asked_for_is_recorded(recorded: Recorder) -> None:
    """The weights of a network, from whichever way a library takes."""
    program = "import socket\ntry: socket.create_connection(('example.com', 80))\nexcept OSError: pass\n"
    program += "import urllib.request\ntry: urllib.request.urlopen('http://example.org')\nexcept OSError: pass\n"
    program += "import socket\ntry: socket.create_connection(('192.0.2.1', 80))\nexcept OSError: pass\n"
    subprocess.run([sys.executable, "-c", program], check=True)

    assert recorded.asked() == ["GET http://example.org HTTP/1.1", "example.com", "192.0.2.1"]
