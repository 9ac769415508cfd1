"""The commands ``regraft retrain``, ``regraft models train`` and ``regraft jobs``."""

from collections.abc import Callable, Sequence
from typing import Annotated, TypeAlias

import typer

from regraft.cli import terminal, verdict
from regraft.cli.json_output import message_to_dict, print_json
from regraft.cli.options import Json, Name, asks_a_server
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.client.message_values import time_text, word_of
from regraft.machine import user_name
from regraft.stores.models import GateMode
from regraft.v1 import retraining_pb2

_Wait: TypeAlias = Annotated[
    bool, typer.Option("--wait", help="Wait for the end; exit 0 if it succeeded or nothing was new, else 1.")
]
_Gate: TypeAlias = Annotated[
    GateMode | None,
    typer.Option(help="auto: what is blessed goes live. manual: it waits for promote. off: it goes live anyhow."),
]
_Key: TypeAlias = Annotated[str, typer.Option(help="Asked again with the same key, it is the same job.")]


def retrain() -> Callable[..., None]:
    """Retrain a model's head on everything that was labelled.

    The gate decides whether it goes live.
    """
    from regraft.cli.settings_flags import takes_limits  # noqa: PLC0415 - pydantic takes a moment

    return takes_limits(asks_a_server(_retrain))


def _retrain(
    server: Connection,
    limits: dict[str, float],
    name: Name = "",
    wait: _Wait = False,
    gate: _Gate = None,
    key: _Key = "",
    as_json: Json = False,
) -> None:
    with Client(server) as client:
        job = client.retrain(name=name, gate=gate or "", idempotency_key=key, requested_by=user_name(), **limits)
        _follow(client, job, wait=wait, as_json=as_json)


def train() -> Callable[..., None]:
    """Train a model anew on its server, backbone and head, on all its pictures.

    Those that it was trained on, where they were kept, and all that was labelled since; the gate decides whether it
    goes live. With --wait the learning curve is told while it grows.
    """
    from regraft.cli.settings_flags import takes_limits  # noqa: PLC0415 - as above

    return takes_limits(asks_a_server(_train))


def _train(
    server: Connection,
    limits: dict[str, float],
    name: Name = "",
    backbone: Annotated[str, typer.Option(help="See `regraft backbones`; the champion's if not given.")] = "",
    strategy: Annotated[
        str, typer.Option(help="probe, finetune, scratch or auto, as in `regraft train`; probe if not given.")
    ] = "",
    precision: Annotated[str, typer.Option(help="fp32, int8 or auto; the champion's if not given.")] = "",
    epochs: Annotated[int | None, typer.Option(min=1, help="At most; by a rule of the data if not given.")] = None,
    wait: _Wait = False,
    gate: _Gate = None,
    key: _Key = "",
    as_json: Json = False,
) -> None:
    with Client(server) as client:
        job = client.train(
            name=name,
            backbone=backbone,
            strategy=strategy,
            precision=precision,
            epochs=epochs,
            gate=gate or "",
            idempotency_key=key,
            requested_by=user_name(),
            **limits,
        )
        _follow(client, job, wait=wait, as_json=as_json)


def _follow(client: Client, job: retraining_pb2.RetrainJob, *, wait: bool, as_json: bool) -> None:
    """Show a job that was started, waiting for its end if asked."""
    if wait:
        job = _end_of(client, job.id)
    if as_json:
        print_json(message_to_dict(job))
    elif wait:
        show_job(job)
    else:
        terminal.line(f"job {job.id} started; follow it with `regraft jobs` or `regraft jobs {job.id}`")
    if wait and not _is_well(job):
        raise typer.Exit(1)


def _end_of(client: Client, job_id: str) -> retraining_pb2.RetrainJob:
    """Follow a job to its end, telling its progress and curve."""
    job, told = retraining_pb2.RetrainJob(id=job_id), -1
    with terminal.progress_bars() as progress:
        for job in client.watch_job(job_id):
            progress(word_of(retraining_pb2.RetrainJob.Kind, job.kind).lower(), int(100 * job.fraction), 100)
            for point in job.points:
                if point.epoch > told:
                    terminal.remark(_told(point))
                    told = point.epoch
    return job


def _told(point: retraining_pb2.LearningPoint) -> str:
    """Return a line on a point of the learning curve."""
    loss = f": loss {point.loss:.3f}" if point.HasField("loss") else ""
    aside = f"; on images set aside: loss {point.tune_loss:.3f}, accuracy {point.accuracy:.3f}"
    return f"epoch {point.epoch:>3} of {point.epochs}{loss}{aside if point.HasField('accuracy') else ''}"


def _is_well(job: retraining_pb2.RetrainJob) -> bool:
    """Tell whether a new head serves or waits, or nothing was new."""
    nothing_new = job.state == retraining_pb2.RetrainJob.STATE_REFUSED and not job.version
    return job.state == retraining_pb2.RetrainJob.STATE_SUCCEEDED or nothing_new


@asks_a_server
def jobs(
    server: Connection,
    job_id: Annotated[str, typer.Argument(help="Show this job alone, with the gate's numbers.")] = "",
    name: Name = "",
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the job.")] = False,
    as_json: Json = False,
) -> None:
    """List the retrain jobs, show one, or cancel it."""
    if cancel and not job_id:
        raise typer.BadParameter("which job? Give its id", param_hint="--cancel")
    with Client(server) as client:
        if job_id:
            job = client.cancel_job(job_id) if cancel else client.get_job(job_id)
            if as_json:
                print_json(message_to_dict(job))
            else:
                show_job(job)
            return
        entries = client.list_jobs(name)
    if as_json:
        print_json([message_to_dict(job) for job in entries])
    else:
        _show_jobs(entries)


def _show_jobs(entries: Sequence[retraining_pb2.RetrainJob]) -> None:
    """Show retrain jobs."""
    if not entries:
        terminal.line("no retrain jobs yet: start one with `regraft retrain`")
        return
    rows = terminal.table("id", "model", "state", "created", "message", numbers=("done", "version"))
    for job in entries:
        state = word_of(retraining_pb2.RetrainJob.State, job.state)
        created, version = time_text(job.created_at)[:19], str(job.version or "")
        rows.add_row(job.id, job.name, state, created, job.message, f"{job.fraction:.0%}", version)
    rows.columns[0].no_wrap = rows.columns[3].no_wrap = True
    terminal.out.print(rows)


def show_job(job: retraining_pb2.RetrainJob) -> None:
    """Show how a job ended, with the gate's numbers."""
    state = word_of(retraining_pb2.RetrainJob.State, job.state)
    colour = "green" if state == "SUCCEEDED" else "yellow" if state == "REFUSED" else "red"
    terminal.line((state, colour), f": {job.message}")
    if job.HasField("verdict"):
        verdict.show_verdict(job.verdict)
        verdict.show_suspects(job.verdict, job.name)
