"""The command ``regraft serve``."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import typer

from regraft.auth import is_socket
from regraft.cli import terminal
from regraft.cli.json_output import print_json
from regraft.cli.options import Json, with_flags
from regraft.logs import write_log
from regraft.machine import schedule_in_batches, share_heaps
from regraft.process_exit import end_process

if TYPE_CHECKING:  # it takes a moment, which other commands spare
    from serving.settings import Settings

FLAG_NAMES: Final = {"names": "name"}
"""Of settings whose flags have other names."""


def flag_of(field: str) -> str:
    """Return the flag of a setting."""
    return "--" + FLAG_NAMES.get(field, field).replace("_", "-")


def serve() -> Callable[..., None]:
    """Serve the champions of a model store over gRPC.

    Every setting can also come from REGRAFT_<NAME>.

    Stops on SIGTERM or SIGINT; exit code 1 if calls had to be cut after the grace time.
    """
    from regraft.cli.settings_flags import flags_of  # noqa: PLC0415 - pydantic takes a moment
    from serving.settings import Settings  # noqa: PLC0415 - as above

    return with_flags(_serve, "settings", flags_of(Settings, names=FLAG_NAMES, unset=True), _settings)


def _settings(values: dict[str, Any]) -> "Settings":
    """Return the settings of flags, the environment and the defaults."""
    from pydantic import ValidationError  # noqa: PLC0415 - as above

    from regraft.cli.settings_flags import pop_fields  # noqa: PLC0415 - as above
    from serving.settings import Settings  # noqa: PLC0415 - as above

    try:
        return Settings(**pop_fields(Settings, values, FLAG_NAMES))
    except ValidationError as error:
        first = error.errors()[0]
        text = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:  # of several settings together; the text names them
            raise typer.BadParameter(text) from error
        flag = flag_of(str(first["loc"][0]))
        raise typer.BadParameter(f"{first['input']!r}: {text}", param_hint=flag) from error


def _serve(settings: "Settings", as_json: Json = False) -> None:
    from serving.server import Ready, Server  # noqa: PLC0415 - as above
    from serving.telemetry.call import TraceFilter  # noqa: PLC0415 - as above

    write_log(settings.log_format, settings.log_level, TraceFilter())

    def announce(ready: Ready) -> None:
        places = {
            "grpc": _place(settings.grpc, ready.grpc_port),
            "metrics": f"http://{settings.metrics.rpartition(':')[0]}:{ready.metrics_port}/metrics",
        }
        if settings.control:
            places["control"] = _place(settings.control, ready.control_port)
        if settings.http:
            scheme = "https" if settings.tls_cert else "http"
            places["http"] = f"{scheme}://{settings.http.rpartition(':')[0]}:{ready.http_port}"
        if as_json:
            print_json({**places, "models": ready.models})
        else:
            models = ", ".join(ready.models) or "none answers yet (`regraft models list` says why)"
            control = f", control on {places['control']}" if "control" in places else ""
            http = f", HTTP on {places['http']}" if "http" in places else ""
            terminal.line(f"gRPC on {places['grpc']}{control}{http}, metrics on {places['metrics']}, models: {models}")

    async def run() -> int:
        return await Server(settings).run(announce)

    share_heaps()
    if settings.optimise == "throughput":
        schedule_in_batches()
    cut = asyncio.run(run())
    end_process(1 if cut else 0)  # where calls were cut it was no clean stop


def _place(address: str, port: int) -> str:
    """Return the address of a listener, whose port may have been 0."""
    return address if is_socket(address) else f"{address.rpartition(':')[0]}:{port}"
