"""The commands that load models as a server does: ``regraft serve`` and ``regraft plan``."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from regraft.auth import is_socket
from regraft.cli import terminal
from regraft.cli.json_output import print_json
from regraft.cli.options import Json
from regraft.logs import write_log
from regraft.machine import schedule_in_batches, share_heaps
from regraft.process_exit import end_process

CudaTf32 = Annotated[
    bool, typer.Option("--cuda-tf32", help="CUDA may multiply in TF32: faster since Ampere, and less exact.")
]

Cpus = Annotated[int | None, typer.Option(min=1, help="CPUs that all lanes share; all that are ours if not given.")]

CudaDevice = Annotated[int | None, typer.Option(help="Number of the GPU; 0 if not given.", min=0)]


def serve(
    store: Annotated[Path | None, typer.Option(help="The model store; models if not given.")] = None,
    grpc: Annotated[
        str | None, typer.Option(help="HOST:PORT, or unix:PATH, for gRPC; 127.0.0.1:50051 if not given.")
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="HOST:PORT for labels, retraining and models; the same as --grpc if not given.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="HOST:PORT for Prometheus; 127.0.0.1:8002 if not given.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM certificate of the server and the chain above.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM, its private key.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="PEM certificates that every client's must go back to (mTLS).")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Plaintext may leave this machine.")] = False,
    provider: Annotated[str | None, typer.Option(help="auto, cuda or cpu; auto if not given.")] = None,
    cuda_tf32: CudaTf32 = False,
    cuda_device: CudaDevice = None,
    optimise: Annotated[
        str | None, typer.Option(help="throughput, or latency of a single request; throughput if not given.")
    ] = None,
    cpus: Cpus = None,
    plan: Annotated[
        str | None, typer.Option(help="LANESxTHREADSxBATCH, as `regraft plan` prints it; measured if not given.")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="A model to serve, may be repeated; all of the store if not given.")
    ] = None,
    callers: Annotated[
        Path | None, typer.Option(help="The file that says who may call; everybody may if not given.")
    ] = None,
    triton_metrics: Annotated[
        bool, typer.Option("--triton-metrics", help="Show the metrics under Triton's names too.")
    ] = False,
    otlp: Annotated[
        str | None, typer.Option(help="URL of an OpenTelemetry collector, as http://127.0.0.1:4317; none if not given.")
    ] = None,
    share_port: Annotated[
        bool, typer.Option("--share-port", help="Other servers may answer on the same port.")
    ] = False,
    examples: Annotated[
        str | None, typer.Option(help="Labelled pictures: a folder, or a URL; .examples in the store if not given.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Their database, postgresql+psycopg://...; SQLite if not given.")
    ] = None,
    keep_requests: Annotated[
        float | None, typer.Option(help="The share of served pictures, 0 to 1, kept for `regraft suggest`.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="open: labels may make new classes. closed: they may not. open if not given.")
    ] = None,
    labels_per_hour: Annotated[
        int | None, typer.Option(help="Labels that one caller may set within an hour; any number if not given.")
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option(help="auto: a blessed head goes live. manual: it waits for promote. off. auto if not given."),
    ] = None,
    retrain_every: Annotated[
        str | None, typer.Option(help="Retrain by the clock: 90s, 30m, 6h, 2d; never if not given.")
    ] = None,
    min_new: Annotated[
        int | None, typer.Option(help="Only where so many labels came since the last time; 1 if not given.")
    ] = None,
    bake: Annotated[
        str | None, typer.Option(help="How long a new champion is on trial: 90s, 5m, 0 for never; 5m if not given.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="text, or json: an object a line, for machines; text if not given.")
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(help="debug (callers' faults too), info, warning or error; info if not given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve the champions of a model store over gRPC. Every setting can also come from REGRAFT_<NAME>.

    Stops on SIGTERM or SIGINT; exit code 1 if calls had to be cut after the grace time.
    """
    from serving.server import Ready, Server  # noqa: PLC0415 - it takes a moment, which other commands spare
    from serving.settings import Settings  # noqa: PLC0415 - likewise
    from serving.telemetry.call import TraceFilter  # noqa: PLC0415 - as the next

    given = {
        "store": store,
        "grpc": grpc,
        "control": control,
        "metrics": metrics,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "tls_client_ca": tls_client_ca,
        "insecure": insecure or None,
        "provider": provider,
        "cuda_tf32": cuda_tf32 or None,
        "cuda_device": cuda_device,
        "optimise": optimise,
        "cpus": cpus,
        "plan": plan,
        "names": tuple(name) if name else None,
        "callers": callers,
        "triton_metrics": triton_metrics or None,
        "otlp": otlp,
        "share_port": share_port or None,
        "examples": examples,
        "database": database,
        "keep_requests": keep_requests,
        "labels": labels,
        "labels_per_hour": labels_per_hour,
        "gate": gate,
        "retrain_every": retrain_every,
        "min_new": min_new,
        "bake": bake,
        "log_format": log_format,
        "log_level": log_level,
    }
    try:
        settings = Settings(**{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]  # validated there
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:  # of several settings together; the text names them
            raise typer.BadParameter(said) from error
        flag = "--" + str(first["loc"][0]).replace("_", "-")
        raise typer.BadParameter(f"{first['input']!r}: {said}", param_hint=flag) from error
    write_log(settings.log_format, settings.log_level, TraceFilter())

    def announce(ready: Ready) -> None:
        places = {
            "grpc": _place(settings.grpc, ready.grpc_port),
            "metrics": f"http://{settings.metrics.rpartition(':')[0]}:{ready.metrics_port}/metrics",
        }
        if settings.control:
            places["control"] = _place(settings.control, ready.control_port)
        if as_json:
            print_json({**places, "models": ready.models})
        else:
            models = ", ".join(ready.models) or "none answers yet (`regraft models list` says why)"
            control = f", control on {places['control']}" if "control" in places else ""
            terminal.line(f"gRPC on {places['grpc']}{control}, metrics on {places['metrics']}, models: {models}")

    async def run() -> int:
        return await Server(settings).run(announce)

    share_heaps()
    if settings.optimise == "throughput":
        schedule_in_batches()
    cut = asyncio.run(run())
    end_process(1 if cut else 0)  # where calls were cut it was no clean stop


def _place(address: str, port: int) -> str:
    """Return where a listener is reached, whose port may have been 0."""
    return address if is_socket(address) else f"{address.rpartition(':')[0]}:{port}"
