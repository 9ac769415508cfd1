import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests import REPOSITORY
from training.strategies.finetuning.distributed import Processes, processes

CPU = torch.device("cpu")


@pytest.fixture
def alone() -> Processes:
    return Processes(0, 1, CPU)


def test_a_lone_process_is_the_first_and_talks_to_itself(alone: Processes) -> None:
    model = nn.Linear(2, 2)

    assert alone.is_first
    assert alone.share(model, with_buffers=True) is model
    assert alone.any(True)
    assert not alone.any(False)
    assert alone.total(2.5) == 2.5
    assert alone.gather("mine") == ["mine"]
    assert alone.from_first("mine") == "mine"


def test_only_the_one_of_rank_0_is_first() -> None:
    assert [Processes(rank, 3, CPU).is_first for rank in range(3)] == [True, False, False]


def test_without_torchrun_a_process_is_alone() -> None:
    with processes() as group:
        assert (group.rank, group.count) == (0, 1)
        assert not torch.distributed.is_initialized()


TWO_PROCESSES = """
import json, sys
from pathlib import Path
import torch
from training.strategies.finetuning.distributed import processes

with processes() as group:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0 + group.rank)  # everybody starts from the first one's weights
    shared = group.share(model, with_buffers=False)
    shared(torch.tensor([[10.0 ** group.rank]])).sum().backward()
    found = {
        "rank": group.rank,
        "count": group.count,
        "is_first": group.is_first,
        "any of one": group.any(group.rank == 1),
        "any of none": group.any(False),
        "total": group.total(10.0 ** group.rank),
        "gathered": group.gather({"rank": group.rank, "words": ["x"] * group.rank}),
        "from the first": group.from_first("first" if group.rank == 0 else "second"),
        "weight": model.weight.item(),
        "gradient": model.weight.grad.item(),
    }
    del shared
found["left"] = not torch.distributed.is_initialized()
Path(sys.argv[1], f"{found['rank']}.json").write_text(json.dumps(found))
"""


def test_two_processes_hear_of_each_other(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(tmp_path)]

    child = subprocess.run(
        [sys.executable, *start],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )

    assert child.returncode == 0, child.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert (first.pop("rank"), second.pop("rank")) == (0, 1)
    assert (first.pop("is_first"), second.pop("is_first")) == (True, False)
    assert (
        first
        == second
        == {
            "count": 2,
            "any of one": True,
            "any of none": False,
            "total": 11.0,
            "gathered": [{"rank": 0, "words": []}, {"rank": 1, "words": ["x"]}],
            "from the first": "first",
            "weight": 1.0,
            "gradient": 5.5,
            "left": True,
        }
    )
