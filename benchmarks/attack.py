"""Attacks on a real server: peak memory, seconds, and requests of others refused.

``python -m benchmarks.attack STORE NAME [ATTACK...]``, on Linux. Every attack, or several at once (``scans+webp``), has
a server of its own, with its defaults.
"""

import io
import struct
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import grpc
import numpy as np
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from benchmarks.memory import MB
from benchmarks.preprocessing import photo
from benchmarks.server_process import ServerProcess
from regraft.auth import hash_token
from regraft.client.channel import open_channel
from regraft.client.client import Client, RemoteError
from regraft.client.connection import Connection
from regraft.machine import cpu_budget
from regraft.v1 import classifier_pb2, classifier_pb2_grpc, retraining_pb2, retraining_pb2_grpc
from serving.settings import Settings
from tests.e2e.raw_http2 import RawConnection

SCANS: Final = 1_500
CLASSIFY: Final = "/regraft.v1.Classifier/Classify"
PATIENCE_S: Final = 300.0
TOKEN: Final = "shop"  # noqa: S105 - of the benchmark's own server
MEDIAN_S: Final = 0.01
P99_S: Final = 0.05
SLACK: Final = 1.1
"""Of memory, beyond what is idle and the budget of pictures."""
BUDGET_MB: Final[int] = Settings.model_fields["picture_memory_mb"].default


@dataclass(frozen=True)
class Cost:
    """Memory of the server around an attack, and its outcome in words."""

    idle_mb: float
    peak_mb: float
    after_mb: float
    said: str


def may_take_mb(idle_mb: float) -> float:
    """Return the bound on a server's memory, from its idle memory."""
    return SLACK * (idle_mb + BUDGET_MB)


class Stage:
    """A server, and the means to attack it."""

    def __init__(self, store: Path, name: str, folder: Path) -> None:
        """Start a server of a model that knows its callers.

        Args:
            store: the models.
            name: the one that is served.
            folder: where its examples and the callers are.
        """
        callers = folder / "callers"
        callers.write_text(f"shop operate sha256:{hash_token(TOKEN)}\n")
        arguments = ["--name", name, "--examples", str(folder / "examples"), "--callers", str(callers)]
        self.name = name
        self.server = ServerProcess(store, range(cpu_budget()), *arguments)
        self.place = Connection(self.server.target, token=TOKEN)

    def channel(self) -> grpc.Channel:
        """Open a connection that is shared with nobody."""
        return open_channel(self.place)

    def warm_up(self) -> None:
        """Classify some pictures first: what every server comes to hold is not the attack's."""
        with Client(self.place) as client:
            for _ in range(50):
                client.classify(photo(500, 375), name=self.name)

    def measured(self, attack: Callable[[], str]) -> Cost:
        """Measure the server's memory before an attack, at its peak and 3 s after."""
        idle_mb = self.server.resident_mb()
        self.server.forget_peak()
        said = attack()
        most_mb = self.server.peak_mb()
        time.sleep(3)
        return Cost(idle_mb, most_mb, self.server.resident_mb(), said)


def half_messages(target: str, method: str, seconds: float = 6, held_s: float = 1) -> str:
    """Send 20 messages of 60 MB on one connection, without their last bytes."""
    with closing(RawConnection(target)) as connection:
        streams = [connection.call(method) for _ in range(20)]
        taken = connection.upload(streams, 60 * MB, 60 * MB - 1, seconds=seconds)
        time.sleep(held_s)
    return f"{taken / MB:,.0f} MB were taken"


def repeated_scans() -> bytes:
    """Return a progressive JPEG of 4,000 x 4,000 px with one scan repeated."""
    buffer = io.BytesIO()
    Image.new("RGB", (4_000, 4_000), "grey").save(buffer, "JPEG", progressive=True, quality=30)
    data = buffer.getvalue()
    starts = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    last = data[starts[-1] : -2]
    return data[:-2] + last * max(1, min(SCANS, 340_000 // len(last))) + b"\xff\xd9"


def webp(side: int) -> bytes:
    """Return a WebP with transparency, small as a file and large as a picture."""
    buffer = io.BytesIO()
    Image.new("RGBA", (side, side), (200, 100, 50, 128)).save(buffer, "WEBP", lossless=True, method=0)
    return buffer.getvalue()


def noise(megabytes: int) -> bytes:
    """Return a PNG of noise, about so many megabytes large."""
    side = int((megabytes * MB / 3) ** 0.5)
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def classify_all(stage: Stage, images: Iterable[bytes]) -> str:
    """Classify pictures at once; return their outcomes and seconds in words."""

    def ask(image: bytes) -> str:
        with stage.channel() as channel:
            request = classifier_pb2.ClassifyRequest(image=image, name=stage.name)
            try:
                classifier_pb2_grpc.ClassifierStub(channel).Classify(request, timeout=PATIENCE_S)
            except grpc.RpcError as error:
                return str(error.code().name)
        return "OK"

    images, began_s = list(images), time.perf_counter()
    with ThreadPoolExecutor(len(images)) as pool:
        outcomes = Counter(pool.map(ask, images))
    return f"{_said(outcomes)} in {time.perf_counter() - began_s:.2f} s"


def streams_of_large_pictures(stage: Stage) -> str:
    """Classify by four streams at once 40 pictures of 20 MB each."""
    image = noise(20)

    def ask(_number: int) -> Counter[str]:
        requests = (
            classifier_pb2.ClassifyStreamRequest(
                id=str(number), request=classifier_pb2.ClassifyRequest(image=image, name=stage.name)
            )
            for number in range(40)
        )
        with stage.channel() as channel:
            answers: Any = classifier_pb2_grpc.ClassifierStub(channel).ClassifyStream(requests, timeout=PATIENCE_S)
            return Counter("error" if answer.HasField("error") else "OK" for answer in answers)

    return _by_four_streams(ask)


def _by_four_streams(ask: Callable[[int], Counter[str]]) -> str:
    began_s = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        outcomes = sum(pool.map(ask, range(4)), Counter[str]())
    return f"{_said(outcomes)} in {time.perf_counter() - began_s:.1f} s"


def labels_of_large_pictures(stage: Stage) -> str:
    """Send by four streams at once 20 labelled pictures of 20 MB each."""
    image = noise(20)

    def ask(which: int) -> Counter[str]:
        requests = (
            retraining_pb2.AddExamplesRequest(
                image=image + struct.pack("<II", which, number), label="attack", name=stage.name
            )
            for number in range(20)
        )
        with stage.channel() as channel:
            answers: Any = retraining_pb2_grpc.RetrainingStub(channel).AddExamples(requests, timeout=PATIENCE_S)
            return Counter(answer.reason or "kept" for answer in answers)

    return _by_four_streams(ask)


def nine_streams(stage: Stage) -> str:
    """Classify single pictures beside nine streams that send all they can."""
    over = threading.Event()

    def stream(_number: int) -> int:
        def requests() -> Iterator[classifier_pb2.ClassifyStreamRequest]:
            request = classifier_pb2.ClassifyRequest(image=photo(500, 375), name=stage.name)
            while not over.is_set():
                yield classifier_pb2.ClassifyStreamRequest(id="", request=request)

        with stage.channel() as channel:
            answers: Any = classifier_pb2_grpc.ClassifierStub(channel).ClassifyStream(requests(), timeout=PATIENCE_S)
            return sum(not answer.HasField("error") for answer in answers)

    outcomes: Counter[str] = Counter()
    seconds: list[float] = []
    with ThreadPoolExecutor(9) as pool, Client(stage.place) as client:
        streams = [pool.submit(stream, number) for number in range(9)]
        time.sleep(3)
        end_s = time.monotonic() + 10
        while time.monotonic() < end_s:
            began_s = time.perf_counter()
            try:
                client.classify(photo(500, 375), name=stage.name)
                outcomes["OK"] += 1
            except RemoteError as error:
                outcomes[error.code] += 1
                time.sleep(0.07)
            seconds.append(time.perf_counter() - began_s)
        over.set()
        streamed = sum(each.result() for each in streams)
    return f"single requests: {_said(outcomes)}, median {1000 * median(seconds):.0f} ms; streams: {streamed} answers"


def full_server(stage: Stage) -> str:
    """Send more than a server can take; it times what it refuses."""
    over = threading.Event()
    image = photo(500, 375)

    def ask(_number: int) -> int:
        answered = 0
        with stage.channel() as channel:
            classify: Any = classifier_pb2_grpc.ClassifierStub(channel).Classify
            request = classifier_pb2.ClassifyRequest(image=image, name=stage.name)
            while not over.is_set():
                try:
                    classify(request, timeout=PATIENCE_S)
                    answered += 1
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        raise
                    over.wait(0.2)
        return answered

    with ThreadPoolExecutor(300) as pool:
        asked = [pool.submit(ask, number) for number in range(300)]
        time.sleep(10)
        over.set()
        answered = sum(each.result() for each in asked)
    return f"{answered} answered; refused in the server: {refusals(stage.server)}"


def refusals(server: ServerProcess) -> str:
    """Return the median and the p99 of a server's refusals in words.

    They are bounds of its own histogram, which counts from the time that a call is handed to the server's code to the
    time that its refusal is handed back.
    """
    with urllib.request.urlopen(server.metrics) as page:  # noqa: S310 - the server's own
        families = text_string_to_metric_families(page.read().decode())
    samples = [each for family in families if family.name == "regraft_refused_seconds" for each in family.samples]
    below = {float(each.labels["le"]): each.value for each in samples if each.name.endswith("_bucket")}
    count = max(below.values())
    bounds = [min(bound for bound, many in below.items() if many >= share * count) for share in (0.5, 0.99)]
    met = "" if bounds[0] <= MEDIAN_S and bounds[1] <= P99_S else " (NOT MET)"
    return f"{count:.0f}, median within {1000 * bounds[0]:g} ms, p99 within {1000 * bounds[1]:g} ms{met}"


def at_once(stage: Stage, attacks: Sequence[str]) -> str:
    """Let attacks run beside each other."""
    with ThreadPoolExecutor(len(attacks)) as pool:
        return "; ".join(pool.map(lambda attack: ATTACKS[attack](stage), attacks))


def _said(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what[:60]}" for what, count in counts.most_common())


ATTACKS: Final[dict[str, Callable[[Stage], str]]] = {
    "half": lambda stage: half_messages(stage.server.target, CLASSIFY),
    "half-control": lambda stage: half_messages(stage.server.target, "/regraft.v1.Models/Promote"),
    "half-health": lambda stage: half_messages(stage.server.target, "/grpc.health.v1.Health/Check"),
    "scans": lambda stage: classify_all(stage, [repeated_scans()]),
    "webp": lambda stage: classify_all(stage, [webp(8_000)] * 5),
    "webp-legal": lambda stage: classify_all(stage, [webp(4_500)] * 5),
    "streams": streams_of_large_pictures,
    "labels": labels_of_large_pictures,
    "nine-streams": nine_streams,
    "full": full_server,
}
ON_MEMORY: Final = "half+half-control+half-health+scans+webp+webp-legal+streams+labels"


def main() -> None:
    """Run every attack, or those named, and print a table.

    The exit code is 1 where one took more memory than there may be.
    """
    store, name, *wanted = sys.argv[1:]
    table = Table("attack", "MB idle", "MB at the peak", "may be", "MB 3 s after", "what became of it")
    is_more = False
    for attack in wanted or [*ATTACKS, ON_MEMORY]:
        with tempfile.TemporaryDirectory() as folder:
            stage = Stage(Path(store), name, Path(folder))
            with stage.server:
                stage.warm_up()
                cost = stage.measured(partial(at_once, stage, attack.split("+")))
        most_mb = may_take_mb(cost.idle_mb)
        is_more |= cost.peak_mb > most_mb
        figures = [f"{figure:.0f}" for figure in (cost.idle_mb, cost.peak_mb, most_mb, cost.after_mb)]
        table.add_row(attack, *figures, cost.said)
        Console(stderr=True).print(attack, cost)
    Console(width=160).print(table)
    sys.exit(int(is_more))


if __name__ == "__main__":
    main()
