"""The lessons of docs/learning.md, with the very commands of the page, on a few pictures and small networks."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.stores.models import ModelStore
from tests import REPOSITORY
from tests.tiny import picture
from training.backbones.listing import list_backbones

PAGE = (REPOSITORY / "docs/learning.md").read_text()
COLOURS = {"roses": "red", "tulips": "blue", "daisy": "grey"}
SMALLER = {
    r"(--backbone|--backbones) \S+": r"\1 timm/test_resnet --weights none",
    r"--strategies \S+": "--strategies probe",
    r"--shares \S+ --seeds \d+": "--shares 6,all --seeds 1",
    r"--epochs \d+": "--epochs 1",
    r"--batch \d+": "--batch 8",
}
"""What is done here instead, since a test has seconds and no weights."""

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def commands() -> list[str]:
    return [line for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL) for line in block.splitlines()]


def smaller(command: str) -> str:
    for wanted, instead in SMALLER.items():
        command = re.sub(wanted, instead, command)
    return command


def pictures(folder: Path, labels: dict[str, str], count: int) -> None:
    for label, colour in labels.items():
        (folder / label).mkdir(parents=True)
        for number in range(count):
            (folder / label / f"{number}.jpg").write_bytes(picture(colour, number, side_px=32))


def test_every_lesson_works_in_the_order_of_the_page(
    tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split, count in (("train", 8), ("test", 4)):
        pictures(tmp_path / "hotdog" / split, {"hotdog": "red", "not-hotdog": "green"}, count)
    for split, count in (("train", 8), ("val", 4)):
        pictures(tmp_path / "flower_photos" / split, COLOURS, count)
    pictures(tmp_path / "merch", {"cap": "red", "cube": "green", "torch": "blue"}, 12)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REGRAFT_CACHE", str(shared_cache))

    for command in map(smaller, commands()):
        program, *arguments = shlex.split(command)
        done = CliRunner().invoke(app, arguments)
        assert (program, done.exit_code) == ("regraft", 0), f"{command}\n{done.output}"

    store = ModelStore(Path("models"))
    assert [store.versions(name) for name in ("tuned", "control", "flowers", "merch")] == [[1], [1], [1, 2], [1]]
    assert "Accuracy against the number of training pictures" in Path("hotdog-compared/comparison.html").read_text()
    assert Path("merch-compared/comparison.html").is_file()


def test_every_network_of_the_page_can_be_trained() -> None:
    named = re.findall(r"--backbones? (\S+)", PAGE)

    for name in {name for names in named for name in names.split(",")}:
        (found,) = list_backbones(name)[0]
        assert found["name"] == name
