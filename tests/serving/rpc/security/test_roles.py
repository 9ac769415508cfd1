from pathlib import Path

import pytest

from regraft.auth import hash_token
from regraft.errors import OperatorError
from serving.rpc.security.roles import Caller, Callers, Role

TOKEN = "correct-horse"  # noqa: S105 - a test's own


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "callers"
    path.write_text(
        f"# who may call\n\nshop classify sha256:{hash_token(TOKEN)}  # the web shop\n"
        "annotators  label  certificate:annotators.example.com\n"
    )
    return path


def test_a_caller_is_known_by_its_token(file: Path) -> None:
    assert Callers(file).with_token(TOKEN) == Caller("shop", Role.CLASSIFY)
    assert Callers(file).with_token("another") is None
    assert Callers(file).with_token("") is None


def test_a_line_may_name_the_models_that_its_caller_knows(file: Path) -> None:
    file.write_text(f"shop classify sha256:{hash_token(TOKEN)} models=flowers*,Mo\u0308we  # a tenant")

    assert Callers(file).with_token(TOKEN) == Caller("shop", Role.CLASSIFY, ("flowers*", "Möwe"))


@pytest.mark.parametrize("limit", ["models=", "models=a,,b", "model=a", "flowers", "models=a models=b"])
def test_a_line_whose_models_cannot_be_read_opens_nothing(file: Path, limit: str) -> None:
    file.write_text(f"shop classify sha256:{hash_token(TOKEN)} {limit}")

    with pytest.raises(OperatorError, match="line 1: need a name, a role"):
        Callers(file)


def test_the_hash_of_a_token_is_no_token(file: Path) -> None:
    assert Callers(file).with_token(hash_token(TOKEN)) is None


def test_a_hash_may_be_written_in_capitals(file: Path) -> None:
    file.write_text(f"shop classify sha256:{hash_token(TOKEN).upper()}")

    assert Callers(file).with_token(TOKEN) == Caller("shop", Role.CLASSIFY)


def test_a_caller_is_known_by_any_name_of_its_certificate(file: Path) -> None:
    callers = Callers(file)

    assert callers.with_certificate(["elsewhere", "annotators.example.com"]) == Caller("annotators", Role.LABEL)
    assert callers.with_certificate(["annotators", "example.com"]) is None
    assert callers.with_certificate([]) is None


def test_a_caller_may_have_two_tokens_while_one_takes_the_others_place(file: Path) -> None:
    file.write_text(f"shop classify sha256:{hash_token('old')}\nshop classify sha256:{hash_token('new')}")
    callers = Callers(file)

    assert callers.with_token("old") == callers.with_token("new") == Caller("shop", Role.CLASSIFY)


@pytest.mark.parametrize(
    "line",
    [
        "shop",
        "shop classify",
        "shop classify secret",
        "shop classify sha256:",
        "shop classify sha256:abcd",
        f"shop classify sha256:{'g' * 64}",
        f"shop classify md5:{'a' * 64}",
        f"shop root sha256:{'a' * 64}",
        f"the shop classify sha256:{'a' * 64}",
    ],
)
def test_a_line_that_says_nothing_is_named(file: Path, line: str) -> None:
    with file.open("a") as opened:
        opened.write(line)

    with pytest.raises(OperatorError, match=r"--callers .*callers, line 5"):
        Callers(file)


def test_a_file_that_is_not_there_is_the_operators_to_bring(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"--callers .*nowhere: No such file"):
        Callers(tmp_path / "nowhere")


def test_a_change_of_the_file_is_heeded(file: Path) -> None:
    callers = Callers(file)
    file.write_text(f"shop operate sha256:{hash_token('another')}")
    callers.refresh()

    assert callers.with_token("another") == Caller("shop", Role.OPERATE)
    assert callers.with_token(TOKEN) is None
    assert callers.with_certificate(["annotators.example.com"]) is None


def test_a_change_that_makes_no_sense_changes_nothing_until_it_is_mended(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callers = Callers(file)
    file.write_text("shop")
    callers.refresh()
    callers.refresh()

    assert callers.with_token(TOKEN) == Caller("shop", Role.CLASSIFY)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    file.unlink()
    callers.refresh()
    assert callers.with_token(TOKEN) == Caller("shop", Role.CLASSIFY)
    file.write_text(f"shop label sha256:{hash_token(TOKEN)}")
    callers.refresh()
    assert callers.with_token(TOKEN) == Caller("shop", Role.LABEL)
