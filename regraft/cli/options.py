"""Flags that several commands share."""

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from regraft.client.connection import DEFAULT_TARGET, Connection
from regraft.errors import InvalidRequestError
from regraft.stores.models import MODEL_FILE, ModelStore

Flags: TypeAlias = Mapping[str, tuple[Any, Any]]
"""Parameters by name: the annotation, which typer reads, and the default."""

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Name: TypeAlias = Annotated[str, typer.Option(help="The model; not needed while there is just one.")]
Store: TypeAlias = Annotated[Path, typer.Option(help="The model store.", envvar="REGRAFT_STORE")]

_EXAMPLES: Final = "Default: .examples in the store."

Examples: TypeAlias = Annotated[
    str, typer.Option(help=f"Pictures labelled over gRPC. {_EXAMPLES}", envvar="REGRAFT_EXAMPLES")
]
RunExamples: TypeAlias = Annotated[
    str,
    typer.Option(
        help=f"Where labelled pictures are, for the gate, and where this run's are kept. {_EXAMPLES}",
        envvar="REGRAFT_EXAMPLES",
    ),
]
KeepPictures: TypeAlias = Annotated[
    bool,
    typer.Option(
        help="Keep the pictures as examples, to be seen, corrected and trained on again over gRPC; as hard links where "
        "the file system can."
    ),
]
Database: TypeAlias = Annotated[str, typer.Option(help="URL of the examples' database.", envvar="REGRAFT_DATABASE")]

_PANEL: Final = "The server"


def read_training_flags(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of flags as fields of `TrainSettings`.

    Raises:
        InvalidRequestError: ``--augment`` and ``--no-augment`` contradict each other.
    """
    augment, no_augment, share = (values.pop(name) for name in ("augment", "no_augment", "target_error"))
    if no_augment and augment not in ("full", "none"):
        raise InvalidRequestError(f"--no-augment: is --augment none, and --augment {augment} was given too: drop one")
    target_error = share_of(share, "--target-error") if share else None
    return {**values, "augment": "none" if no_augment else augment, "target_error": target_error}


def share_of(text: str, flag: str) -> float:
    """Return the share of a text such as ``2%`` or ``0.02``."""
    try:
        return float(text.removesuffix("%").strip()) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: need a share, such as 2% or 0.02", param_hint=flag) from None


def model_file(model: str, store: Path) -> Path:
    """Return the path of a file, or of a store's NAME[:VERSION]."""
    file = Path(model)
    if not file.is_file():
        if file.suffix == ".onnx":
            raise InvalidRequestError(f"{model}: there is no such file")
        models = ModelStore(store)
        file = models.folder(*models.find(model)) / MODEL_FILE
    return file


def _option(text: str, envvar: str, *flags: str) -> Any:  # noqa: ANN401 - typer's own type is not public
    return typer.Option(*flags, help=text, envvar=envvar, rich_help_panel=_PANEL, show_envvar=False)


_SERVER: Final[Flags] = {
    "target": (Annotated[str, _option("HOST:PORT, or unix:PATH of a socket.", "REGRAFT_TARGET")], DEFAULT_TARGET),
    "token": (Annotated[str, _option("Says who you are; better given as REGRAFT_TOKEN.", "REGRAFT_TOKEN")], ""),
    "tls_ca": (
        Annotated[Path | None, _option("PEM certificates that the server's must go back to.", "REGRAFT_TLS_CA")],
        None,
    ),
    "tls_cert": (Annotated[Path | None, _option("PEM certificate of yourself.", "REGRAFT_CLIENT_CERT")], None),
    "tls_key": (Annotated[Path | None, _option("PEM, its private key.", "REGRAFT_CLIENT_KEY")], None),
    "insecure": (
        Annotated[bool, _option("The token may cross a network in the clear.", "REGRAFT_INSECURE", "--insecure")],
        False,
    ),
}
"""The fields of a `Connection`."""


def asks_a_server(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command with a parameter ``server`` a connection's flags."""
    return with_flags(command, "server", _SERVER, lambda options: Connection(**options))


def may_ask_servers(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``connect``, from HOST:PORT to a `Connection`."""
    options = {name: option for name, option in _SERVER.items() if name != "target"}
    return with_flags(command, "connect", options, lambda options: lambda target: Connection(target, **options))


def with_flags(
    command: Callable[..., None], parameter: str, flags: Flags, make: Callable[[dict[str, Any]], Any]
) -> Callable[..., None]:
    """Return a command with flags in place of one parameter.

    Args:
        command: it.
        parameter: the one that is replaced.
        flags: in its place.
        make: makes the argument from the values of the flags.
    """
    signature = inspect.signature(command)
    others = [each for name, each in signature.parameters.items() if name != parameter]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in flags.items()
    ]

    @functools.wraps(command)
    def run(**values: Any) -> None:  # noqa: ANN401 - whatever the command takes
        argument = make({name: values.pop(name) for name in flags})
        command(**{parameter: argument}, **values)

    run.__signature__ = signature.replace(parameters=[*others, *added])  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {each.name: each.annotation for each in (*others, *added)}
    return run
