import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import BaseModel, BeforeValidator, Field
from typer.testing import CliRunner

from regraft.cli.options import Flags, with_flags
from regraft.cli.settings_flags import REQUIRED, flags_of, pop_fields


@dataclass(frozen=True)
class Run:
    """Settings as a dataclass has them; what has no description is no flag."""

    data: Annotated[str, Field(description="What to learn from.")]
    kind: Annotated[Literal["probe", "finetune"], Field(description="How.", json_schema_extra={"section": "Ways"})] = (
        "probe"
    )
    epochs: Annotated[int | None, Field(description="At most.", ge=1, le=9)] = None
    keeps: Annotated[bool, Field(description="Keep it.")] = True
    is_quick: Annotated[bool, Field(description="Hurry.")] = False
    notes: str = ""


class Served(BaseModel):
    """Settings as a pydantic model has them."""

    names: tuple[str, ...] = Field(default=(), description="Those.")
    grace: Annotated[float, BeforeValidator(lambda text: float(str(text).rstrip("s")))] = Field(5.0, description="For.")


def printed(values: dict[str, Any]) -> None:
    print(json.dumps(values))  # noqa: T201 - what a command does


def settings(flags: Flags, *arguments: str) -> dict[str, Any]:
    """Return what a command with these flags is given."""
    app = typer.Typer()
    app.command()(with_flags(printed, "values", flags, dict))
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    given: dict[str, Any] = json.loads(done.stdout)
    return given


def test_fields_of_a_dataclass_are_flags_with_their_defaults_and_the_first_is_an_argument() -> None:
    said = ["pictures", "--kind", "finetune", "--epochs", "3", "--no-keeps", "--is-quick"]

    assert settings(flags_of(Run), "pictures") == {
        "data": "pictures",
        "kind": "probe",
        "epochs": None,
        "keeps": True,
        "is_quick": False,
    }
    assert Run(**settings(flags_of(Run), *said)) == Run("pictures", "finetune", 3, keeps=False, is_quick=True)


def test_what_is_not_given_is_left_to_other_sources() -> None:
    names = {"names": "name"}
    flags = flags_of(Served, names=names, unset=True)

    assert pop_fields(Served, settings(flags), names) == {}
    typed = pop_fields(Served, settings(flags, "--name", "a", "--name", "b", "--grace", "7s"), names)
    assert Served(**typed) == Served(names=("a", "b"), grace=7.0)


def test_a_command_may_leave_fields_out_and_ask_for_others() -> None:
    flags = flags_of(Run, without=("keeps", "is_quick"), defaults={"kind": REQUIRED, "epochs": 2}, as_text=("data",))

    assert settings(flags, "--kind", "probe") == {"data": "", "kind": "probe", "epochs": 2}


@pytest.mark.parametrize("shown", ["<probe|finetune>", "[1<=x<=9]", "Ways", "At most.", "[default: probe]"])
def test_the_help_says_choices_limits_sections_and_defaults(shown: str) -> None:
    app = typer.Typer()
    app.command()(with_flags(printed, "values", flags_of(Run), dict))

    assert shown in CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout
