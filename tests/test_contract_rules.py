"""Rules of ``make lint`` for the contract: its style, and its compatibility."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests import REPOSITORY
from tests.test_import_rules import lint

CLASSIFIER: Final = "proto/regraft/v1/classifier.proto"
BREACHES: Final = {
    "a field taken away": ("  uint32 top_k = 3;\n", "", 'field "3" with name "top_k" on message "ClassifyRequest"'),
    "a field of another type": ("uint32 top_k", "string top_k", "changed type"),
    "an RPC taken away": (
        "  rpc BatchClassify(BatchClassifyRequest) returns (BatchClassifyResponse);\n",
        "",
        'Previously present RPC "BatchClassify"',
    ),
}


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    """A copy of the contract and of what is known of it."""
    shutil.copytree(REPOSITORY / "proto", tmp_path / "proto")
    shutil.copy(REPOSITORY / "buf.yaml", tmp_path)
    return tmp_path


def plant(contract: Path, before: str, after: str) -> None:
    text = (contract / CLASSIFIER).read_text()
    assert before in text
    (contract / CLASSIFIER).write_text(text.replace(before, after, 1))


def said(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode, "it should fail"
    return run.stdout + run.stderr


@pytest.mark.parametrize("breach", BREACHES)
def test_make_lint_fails_where_clients_of_the_last_release_would(contract: Path, breach: str) -> None:
    assert lint(contract, "buf breaking").returncode == 0

    before, after, complaint = BREACHES[breach]
    plant(contract, before, after)

    assert complaint in said(lint(contract, "buf breaking"))


def test_make_lint_fails_where_two_rpcs_share_an_answer(contract: Path) -> None:
    assert lint(contract, "buf lint").returncode == 0

    plant(contract, "returns (BatchClassifyResponse)", "returns (ClassifyResponse)")

    assert "RPC" in said(lint(contract, "buf lint"))


def test_what_is_added_breaks_nobody(contract: Path) -> None:
    plant(contract, "message BatchClassifyRequest {", "message ComesLater {}\n\nmessage BatchClassifyRequest {")

    assert lint(contract, "buf breaking").returncode == 0
