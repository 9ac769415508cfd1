import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import InvalidRequestError, StorageError
from tests.full_disk import disk_full_after
from training.strategies.finetuning.checkpoint import Checkpoint, load_checkpoint

SETTINGS = {"backbone": "tiny", "epochs": "3", "seed": "0"}
STATE: dict[str, Any] = {
    "tensors": {
        "float": torch.randn(5, 7, generator=torch.Generator().manual_seed(1)),
        "half": torch.arange(5).to(torch.bfloat16) / 3,
        "whole": torch.tensor(2**62 + 1),
        "flags": torch.tensor([True, False]),
        "none": torch.zeros(0, 3),
        "odd": torch.tensor([math.nan, math.inf, -0.0, 5e-324, 1e-45]),
    },
    "plain": [1, 0.1 + 0.2, "ü", None, True, (1, 2), {"deep": [math.inf]}],
}


def bits(value: Any) -> Any:  # noqa: ANN401 - whatever is in a state
    """Return a value that equals another's only if both are the same to the last bit."""
    if isinstance(value, torch.Tensor):
        flat = value.contiguous().view(-1)
        return str(value.dtype), tuple(value.shape), bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""
    if isinstance(value, dict):
        return {name: bits(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [bits(member) for member in value]
    return repr(value)


def test_what_was_saved_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there yet" / "checkpoint.pt"

    Checkpoint(SETTINGS, STATE).save(path)

    found = load_checkpoint(path, SETTINGS)
    assert found.settings == SETTINGS
    assert bits(found.state) == bits(STATE)


def test_a_real_optimizer_comes_back(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW([{"params": model.parameters(), "peak": 0.5}])
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()

    Checkpoint({}, {"model": model.state_dict(), "optimizer": optimizer.state_dict()}).save(tmp_path / "c.pt")

    found = load_checkpoint(tmp_path / "c.pt", {}).state
    assert bits(found["optimizer"]) == bits(optimizer.state_dict())
    torch.nn.Linear(3, 2).load_state_dict(found["model"])


def test_a_new_checkpoint_takes_the_place_of_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for step in range(3):
        Checkpoint(SETTINGS, {"step": step}).save(path)

    assert load_checkpoint(path, SETTINGS).state == {"step": 2}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({**SETTINGS, "epochs": "5"}, ["epochs was 3, now 5"]),
        ({**SETTINGS, "epochs": "5", "seed": "1"}, ["epochs was 3, now 5", "seed was 0, now 1"]),
        ({"backbone": "tiny", "epochs": "3"}, ["seed was 0, now None"]),
        ({**SETTINGS, "init": "head"}, ["init was None, now head"]),
    ],
)
def test_a_run_with_other_settings_is_told_which(tmp_path: Path, asked: dict[str, str], said: list[str]) -> None:
    path = tmp_path / "checkpoint.pt"
    Checkpoint(SETTINGS, STATE).save(path)

    with pytest.raises(InvalidRequestError, match=r"--resume: .* of a run with other settings: ") as refusal:
        load_checkpoint(path, asked)

    assert str(refusal.value).endswith("settings: " + "; ".join(said))


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"--resume: there is no checkpoint at .*nowhere\.pt"):
        load_checkpoint(tmp_path / "nowhere.pt", SETTINGS)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, (f"open({str(self.path)!r}, 'w').close()",))


def saved_by_torch(value: object) -> Callable[[Path], object]:
    return lambda path: torch.save(value, path)


DAMAGED: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("this is no checkpoint"),
    "a folder": lambda path: path.mkdir(),
    "a list": saved_by_torch([1, 2]),
    "without a state": saved_by_torch({"settings": SETTINGS}),
    "without settings": saved_by_torch({"state": STATE}),
    "a tensor": saved_by_torch(torch.zeros(3)),
    "code in a pickle": lambda path: path.write_bytes(pickle.dumps(Evil(path.parent / "was here"))),
    "code in a torch file": lambda path: torch.save(
        {"settings": SETTINGS, "state": {"step": Evil(path.parent / "was here")}}, path
    ),
}


@pytest.mark.parametrize("which", DAMAGED)
def test_a_file_that_is_no_checkpoint_is_refused_and_runs_no_code(tmp_path: Path, which: str) -> None:
    path = tmp_path / "checkpoint.pt"
    DAMAGED[which](path)

    with pytest.raises(InvalidRequestError, match=r"--resume: .*checkpoint\.pt is damaged \(.+\): start without it"):
        load_checkpoint(path, SETTINGS)

    assert not (tmp_path / "was here").exists()


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "checkpoint.pt"
    Checkpoint(SETTINGS, STATE).save(path)
    return path


@given(st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_off_anywhere_is_refused(whole_file: Path, share: float) -> None:
    data = whole_file.read_bytes()
    cut = whole_file.with_name("cut.pt")
    cut.write_bytes(data[: int(share * len(data))])

    with pytest.raises(InvalidRequestError, match="is damaged"):
        load_checkpoint(cut, SETTINGS)


def test_the_old_checkpoint_is_whole_when_the_disk_refuses_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    Checkpoint(SETTINGS, {"step": 1}).save(path)
    before = path.read_bytes()

    with (
        disk_full_after(len(before) + 100),
        pytest.raises(StorageError, match=r"checkpoint cannot be written; the one before is still at .*checkpoint\.pt"),
    ):
        Checkpoint(SETTINGS, {"step": 2, "much": torch.zeros(10_000)}).save(path)

    assert path.read_bytes() == before
    assert load_checkpoint(path, SETTINGS).state == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_checkpoint_that_the_disk_refuses_leaves_nothing(tmp_path: Path) -> None:
    with disk_full_after(100), pytest.raises(StorageError, match=r"checkpoint cannot be written: ") as refusal:
        Checkpoint(SETTINGS, STATE).save(tmp_path / "checkpoint.pt")

    assert "the one before" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_the_folder_is_an_error_that_people_understand(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("in the way")

    with pytest.raises(StorageError, match="the checkpoint cannot be written"):
        Checkpoint(SETTINGS, STATE).save(tmp_path / "runs" / "checkpoint.pt")
