"""The command ``regraft demo``."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from regraft.cli.json_output import print_json
from regraft.cli.options import Json
from regraft.cli.terminal import line, out, table
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.client.message_values import word_of
from regraft.errors import InvalidRequestError, RegraftError
from regraft.label_rules import image_hash
from regraft.safe_path import module_command
from regraft.v1 import retraining_pb2

if TYPE_CHECKING:  # numpy and Pillow
    from regraft.bench.steady_load import LoadResult
    from regraft.cli.demo.pictures import Story

_NAME: Final = "demo"
_CLIENTS: Final = 2
_SHOWN_METRICS: Final = (
    "regraft_requests_total{",
    "regraft_served_version{",
    "regraft_provider{",
    "regraft_swaps_total{",
    "regraft_examples_total{",
    "regraft_retrain_jobs_total{",
    "regraft_stage_seconds_count{",
)


def demo(
    data: Annotated[Path | None, typer.Argument(help="Your own folder of labelled photos instead of digits.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the demo works; emptied first.")] = Path("demo-run"),
    as_json: Json = False,
) -> None:
    """Play the whole story: train, serve, label, retrain, swap under load."""
    summary = _play(folder, data)
    if as_json:
        print_json(summary)


def _play(folder: Path, data: Path | None) -> dict[str, Any]:
    """Play the story with real commands, server and client.

    Args:
        folder: where it works; emptied first.
        data: labelled pictures; scikit-learn's digits if None.

    Returns:
        Every figure that was shown.

    Raises:
        RegraftError: a step failed; the text says which.
    """
    from regraft.bench.settings import BenchSettings  # noqa: PLC0415 - NumPy takes a moment, which other commands spare
    from regraft.bench.steady_load import Load  # noqa: PLC0415 - likewise
    from regraft.cli.demo.pictures import digits, photographs  # noqa: PLC0415 - likewise, Pillow

    story = photographs(data) if data else digits()
    _empty(folder)
    _heading("1", f"Train: {story.plot}")
    _write_folders(folder / "photos", story.first)
    _run("train", str(folder / "photos"), "--name", _NAME, "--store", str(folder / "store"))
    with _server(folder / "store") as places, Client(places["grpc"]) as client:
        _heading("2", "Serve, and ask")
        line(f"gRPC on {places['grpc']}, metrics on {places['metrics']}")
        _show_unknown_class(client, story)
        before = _accuracy(client, story)
        _heading("3", f"Label {len(story.later)} more pictures over gRPC, retrain, and swap under load")
        exam = tuple(image for image, _ in story.exam_old + story.exam_new)
        with Load(BenchSettings(exam, Connection(places["grpc"]), concurrency=_CLIENTS)) as load:
            outcomes = _label(client, story.later)
            load.mark("retrain")
            job = _retrain(client)
            load.mark("swapped")
            load.wait_for(200)
        after = _accuracy(client, story)
        _heading("4", "What happened")
        load_result = load.result()
        _show(job, before, after, load_result)
        metrics = _metrics(places["metrics"])
        backbones = [each.name for each in client.list_backbones()]
    line(f"Further models can begin without torch, with {', '.join(backbones)}")
    line(f"\nEverything is in {folder}: look at {folder}/store/{_NAME}/*/report.html")
    return {
        "labelled": outcomes,
        "job": word_of(retraining_pb2.RetrainJob.State, job.state),
        "message": job.message,
        "version": job.version,
        "accuracy_before": before,
        "accuracy_after": after,
        "load": load_result.to_dict(),
        "backbones": backbones,
        "metrics": metrics,
    }


def _empty(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / ".regraft-demo").exists():
        raise InvalidRequestError(f"--folder {folder}: is not empty and not from a demo; name another")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / ".regraft-demo").touch()


def _write_folders(root: Path, pictures: Sequence[tuple[bytes, str]]) -> None:
    for image, label in pictures:
        (root / label).mkdir(parents=True, exist_ok=True)
        (root / label / image_hash(image)[:16]).write_bytes(image)


def _run(*arguments: str) -> None:
    line((f"$ regraft {' '.join(arguments)}", "dim"))
    out.file.flush()
    if subprocess.run([*module_command("regraft.cli"), *arguments], check=False).returncode:
        raise RegraftError(f"`regraft {arguments[0]}` failed")


@contextmanager
def _server(store: Path) -> Iterator[dict[str, Any]]:
    """Run ``regraft serve`` on free ports until the block ends."""
    arguments = ["serve", "--store", str(store), "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--json"]
    line((f"$ regraft {' '.join(arguments)}", "dim"))
    with (
        (store.parent / "server.log").open("w") as log,
        subprocess.Popen([*module_command("regraft.cli"), *arguments], stdout=subprocess.PIPE, stderr=log) as server,
    ):
        try:
            announced = server.stdout.readline() if server.stdout else b""
            if not announced:
                raise RegraftError(f"the server did not start; its log is {store.parent / 'server.log'}")
            yield json.loads(announced)
        finally:
            server.terminate()
            if server.wait(timeout=60):
                line((f"the server ended with code {server.returncode}", "red"))


def _show_unknown_class(client: Client, story: "Story") -> None:
    """Show the first version's answer to an unknown class."""
    for image, label in story.exam_new[:1]:
        answer = client.classify(image, top_k=1)
        best = answer.predictions[0]
        mark = "and flags it as unlike its training images" if answer.novelty.is_novel else "and suspects nothing"
        line(
            "a picture of ", (label, "bold"), " is read as ", (best.label, "bold"), f" ({best.probability:.2f}), {mark}"
        )


def _accuracy(client: Client, story: "Story") -> dict[str, float | None]:
    return {"old_classes": _exam(client, story.exam_old), "new_classes": _exam(client, story.exam_new)}


def _exam(client: Client, exam: Sequence[tuple[bytes, str]]) -> float | None:
    if not exam:
        return None
    answers = client.classify_stream(((label, image) for image, label in exam), top_k=1)
    return sum(answer.response.predictions[0].label == answer.id for answer in answers) / len(exam)


def _label(client: Client, pictures: Sequence[tuple[bytes, str]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for answer in client.add_examples(pictures, source="demo"):
        outcome = word_of(retraining_pb2.AddExamplesResponse.Outcome, answer.outcome).lower()
        counts[outcome] = counts.get(outcome, 0) + 1
    line(f"AddExamples: {counts}")
    return counts


def _retrain(client: Client) -> retraining_pb2.RetrainJob:
    job = client.retrain(requested_by="demo")
    phase = ""
    for job in client.watch_job(job.id):  # noqa: B020 - the last state is what counts
        if job.phase != phase:
            phase = job.phase
            line(f"retrain job {job.id}: {phase}")
    colour = "green" if job.state == retraining_pb2.RetrainJob.STATE_SUCCEEDED else "yellow"
    line((word_of(retraining_pb2.RetrainJob.State, job.state), colour), f": {job.message}")
    return job


def _show(
    job: retraining_pb2.RetrainJob, before: dict[str, float | None], after: dict[str, float | None], load: "LoadResult"
) -> None:
    accuracy = table("on pictures that nothing was trained on", numbers=("before", "after"))
    for key, name in (
        ("old_classes", "accuracy, classes known from the start"),
        ("new_classes", "accuracy, new classes"),
    ):
        if before[key] is not None:
            accuracy.add_row(name, f"{before[key]:.3f}", f"{after[key]:.3f}")
    out.print(accuracy)
    phases = table("load from real clients", "versions", numbers=("requests", "failed", "p50 ms", "p99 ms"))
    for name, phase in load.phases.items():
        versions = ", ".join(f"v{version}: {count}" for version, count in phase.versions.items())
        latencies = (f"{phase.latency_ms.p50:.1f}", f"{phase.latency_ms.p99:.1f}") if phase.latency_ms else ("", "")
        phases.add_row(name, versions, str(phase.requests), str(phase.requests - phase.answered), *latencies)
    out.print(phases)
    verb = "went live" if job.state == retraining_pb2.RetrainJob.STATE_SUCCEEDED else "was not put into service"
    line(
        f"Version {job.version or '-'} {verb}; of {load.requests} requests meanwhile ",
        (f"{load.failed} failed", "bold"),
    )


def _metrics(url: str) -> list[str]:
    import urllib.request  # noqa: PLC0415 - it takes a moment, which other commands spare

    text = urllib.request.urlopen(url, timeout=10).read().decode()  # noqa: S310 - our own server's address
    lines = [entry for entry in text.splitlines() if entry.startswith(_SHOWN_METRICS)]
    line((f"$ curl {url}", "dim"))
    for entry in lines:
        line(f"  {entry}")
    return lines


def _heading(number: str, text: str) -> None:
    line((f"\n{number}. {text}", "bold cyan"))
