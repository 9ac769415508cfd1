"""Flags made from the fields of settings."""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import typer
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from regraft.cli.options import Flags, Store, with_flags
from regraft.gate_limits import GateLimits

REQUIRED: Final = inspect.Parameter.empty


def flags_of(
    settings: type[Any],
    *,
    without: Collection[str] = (),
    names: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    unset: bool = False,
    as_text: Collection[str] = (),
    section: str | None = None,
) -> Flags:
    """Make a flag of each field that has a description.

    Type, limits, default and help are the field's. A field without a default is an argument.

    Args:
        settings: a pydantic model, or a dataclass whose annotations carry `pydantic.Field`.
        without: fields that are no flags here.
        names: of flags that are not called like their fields.
        defaults: of flags, where fields have others; `REQUIRED` for none.
        unset: whether all flags are None where they are not given.
        as_text: fields whose flags are texts, empty where they are not given.
        section: of the help, for fields that name none.
    """
    flags = {}
    for field, info, own_default in _described(settings):
        if field in without:
            continue
        name = (names or {}).get(field, field)
        default = None if unset else "" if field in as_text else (defaults or {}).get(field, own_default)
        kind = str if field in as_text else _type(info)
        if own_default is REQUIRED and not unset:
            parameter = typer.Argument(help=info.description)
        else:
            parameter = _option(name, info, kind, own_default, section=section, unset=unset)
        flags[name] = (Annotated[kind | None if default is None else kind, parameter], default)
    return flags


def pop_fields(settings: type[Any], values: dict[str, Any], names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Take the flags of settings out of ``values``.

    Returns:
        Those that are not None, by their fields.
    """
    popped = {field: values.pop((names or {}).get(field, field), None) for field, _, _ in _described(settings)}
    return {field: value for field, value in popped.items() if value is not None}


def training_flags(without: Collection[str] = (), defaults: Mapping[str, Any] | None = None) -> Flags:
    """Make the flags of `TrainSettings`, for `read_training_flags`.

    Arguments are those of `flags_of`.
    """
    from training.settings import CHANGING, TrainSettings  # noqa: PLC0415 - it takes a moment, which others spare

    no_augment = typer.Option("--no-augment", help="The same as --augment none.", rich_help_panel=CHANGING)
    return {
        **flags_of(TrainSettings, without=without, defaults=defaults, as_text=("target_error",)),
        "store": (Store, Path("models")),
        "no_augment": (Annotated[bool, no_augment], False),
    }


def takes_limits(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command with a parameter ``limits`` the flags of `GateLimits`.

    The argument has the limits that are given, by name.
    """
    flags = flags_of(GateLimits, unset=True, section="Limits of the gate")
    return with_flags(command, "limits", flags, lambda values: pop_fields(GateLimits, values))


def _described(settings: type[Any]) -> Iterator[tuple[str, FieldInfo, Any]]:
    """Yield name, info and default of each field with a description."""
    if dataclasses.is_dataclass(settings):
        hints = get_type_hints(settings, include_extras=True)
        own = dataclasses.fields(settings)
        fields = {each.name: (FieldInfo.from_annotation(hints[each.name]), each.default) for each in own}
    else:
        fields = {name: (info, info.default) for name, info in settings.model_fields.items()}
    for name, (info, default) in fields.items():
        if info.description:
            yield name, info, REQUIRED if default in (dataclasses.MISSING, PydanticUndefined) else default


def _type(info: FieldInfo) -> Any:  # noqa: ANN401 - a type
    """Return the type that typer reads a flag as.

    It is text where the settings check the value themselves.
    """
    bare = _bare(info)
    if get_origin(bare) is tuple:
        return list[str]
    reads_text = any(isinstance(each, BeforeValidator) for each in info.metadata)
    return str if reads_text or _choices(info) else bare


def _choices(info: FieldInfo) -> tuple[Any, ...]:
    bare = _bare(info)
    return get_args(bare) if get_origin(bare) is Literal else ()


def _bare(info: FieldInfo) -> Any:  # noqa: ANN401 - a type
    """Return the type of a field without its None and its validators."""
    arguments = get_args(info.annotation)
    bare = next(each for each in arguments if each is not NoneType) if NoneType in arguments else info.annotation
    return get_args(bare)[0] if get_origin(bare) is Annotated else bare


def _option(name: str, info: FieldInfo, kind: Any, default: Any, *, section: str | None, unset: bool) -> Any:  # noqa: ANN401 - typer's own type
    choices = _choices(info)
    limits = {key: getattr(each, key) for each in info.metadata for key in ("ge", "le") if hasattr(each, key)}
    is_number = kind in (int, float)
    is_said = default is not False and default not in (None, "", (), REQUIRED)
    extra = info.json_schema_extra
    return typer.Option(
        *([f"--{name.replace('_', '-')}"] if default is False else []),
        help=info.description,
        min=limits.get("ge") if is_number else None,
        max=limits.get("le") if is_number else None,
        metavar=f"<{'|'.join(choices)}>" if choices else "<str>" if kind == list[str] else None,
        autocompletion=(lambda: list(choices)) if choices else None,
        show_default=str(default) if unset and is_said else True,
        rich_help_panel=str(extra["section"]) if isinstance(extra, dict) else section,
    )
