"""Does the server stay as good as it is: at its start, over swaps and retrains, in the long run, under too much load?

``python -m benchmarks.steady STORE NAME DATA``, on a quiet machine; ``DATA`` is a folder of labelled pictures that the
model was trained on. Nothing in ``STORE`` changes: each scenario has a server of its own, on a copy of the model.
Server and clients share all CPUs, but for ``overload``, where each has one.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console
from rich.table import Table

from benchmarks.server_process import ServerProcess, on_cpus
from benchmarks.steady_store import copy_model, label_copies, pictures
from regraft.bench.channels import Channels, encode_request
from regraft.bench.generator import bench
from regraft.bench.result import BenchResult
from regraft.bench.settings import BenchSettings
from regraft.cli.json_output import print_json
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.client.message_values import word_of
from regraft.stores.jobs import ACTIVE
from regraft.v1 import retraining_pb2

CLIENTS = 16
NOTES = Console(stderr=True)

Work: TypeAlias = Coroutine[Any, Any, object]


@dataclass(frozen=True)
class Lengths:
    """How long, and how often."""

    idle_s: float = 20.0
    capacity_s: float = 5.0
    quiet_s: float = 30.0
    swaps: int = 100
    swapping_s: float = 60.0
    turns: int = 6
    examples: int = 2_000
    retrains: int = 3
    requests: int = 100_000
    swaps_meanwhile: int = 200
    chunk_s: float = 20.0
    overload_s: float = 30.0


SHORT = Lengths(10.0, 3.0, 8.0, 26, 16.0, 2, 300, 1, 5_000, 20, 5.0, 8.0)


@dataclass(frozen=True)
class Finding:
    """A line of the table; ``met`` is None where there is no goal."""

    what: str
    figure: str
    goal: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Subject:
    """The model, its versions to swap between, the pictures to send; and how long all of it takes."""

    store: Path
    name: str
    data: Path
    lengths: Lengths
    pictures: tuple[bytes, ...] = field(repr=False)

    @contextmanager
    def served(self, cpus: Collection[int] = ()) -> Iterator["Trial"]:
        """Serve a copy until the block ends, on all CPUs unless some are given."""
        with tempfile.TemporaryDirectory(prefix="steady-") as folder:
            versions = copy_model(self.store, self.name, Path(folder))
            cpus = cpus or os.sched_getaffinity(0)
            with ServerProcess(Path(folder), cpus, "--name", self.name) as server, Client(server.target) as client:
                yield Trial(self, Path(folder), server, client, versions)


@dataclass(frozen=True)
class Trial:
    """A server on a copy of the store, and what can be done to it."""

    subject: Subject
    store: Path
    server: ServerProcess
    client: Client
    versions: tuple[int, int]

    def load(
        self,
        title: str,
        seconds: float | None,
        work: Work | None = None,
        *,
        rate: float | None = None,
        concurrency: int = CLIENTS,
        deadline_ms: float = 30_000.0,
        warm_up_s: float = 1.0,
        seed: int = 0,
    ) -> BenchResult:
        """Send requests for some seconds, or until ``work``, which begins with the measurement, is done."""
        NOTES.print(f"{title}: {f'{rate:.0f}/s' if rate else f'{concurrency} clients'}")
        settings = BenchSettings(
            self.subject.pictures,
            Connection(self.server.target),
            self.subject.name,
            concurrency=concurrency,
            rate=rate,
            duration_s=seconds or 3600.0,
            warm_up_s=warm_up_s,
            deadline_ms=deadline_ms,
            seed=seed,
        )
        return asyncio.run(_play(settings, work, stop_with_it=seconds is None))

    def capacity(self, *concurrencies: int) -> float:
        """Return the most answers a second of closed loops."""
        seconds = self.subject.lengths.capacity_s
        return max(
            self.load("capacity", seconds, concurrency=each).goodput_per_s for each in concurrencies or (CLIENTS,)
        )

    async def swap(self, count: int, seconds: float) -> None:
        """Promote the two versions by turns, ``count`` times in about so many seconds."""
        began_s = time.perf_counter()
        for number in range(count):
            await asyncio.sleep(began_s + (number + 0.5) * seconds / count - time.perf_counter())
            await asyncio.to_thread(self.client.promote, self.versions[1 - number % 2], name=self.subject.name)

    async def retrain(self) -> retraining_pb2.RetrainJob:
        """Retrain, and return the job when it is over."""
        job = await asyncio.to_thread(self.client.retrain, name=self.subject.name)
        while word_of(retraining_pb2.RetrainJob.State, job.state) in ACTIVE:
            await asyncio.sleep(0.2)
            job = await asyncio.to_thread(self.client.get_job, job.id)
        return job


async def _play(settings: BenchSettings, work: Work | None, *, stop_with_it: bool) -> BenchResult:
    stop = asyncio.Event()
    with NOTES.status("") as status:
        load = asyncio.create_task(bench(settings, lambda stage, done, _: status.update(f"{stage} {done} s"), stop))
        if work:
            await asyncio.sleep(settings.warm_up_s)
            await work
            if stop_with_it:
                stop.set()
        return await load


def start(subject: Subject) -> list[Finding]:
    """How soon is it ready, and what does it do while nobody asks?"""
    ready_s = []
    for _ in range(4):  # the first one may have to measure its plan
        NOTES.print("start")
        with subject.served() as trial:
            ready_s.append(trial.server.ready_s)
    with subject.served() as trial:
        NOTES.print("idle")
        time.sleep(2.0)
        before_s, seconds = trial.server.cpu_s(), subject.lengths.idle_s
        time.sleep(seconds)
        share = (trial.server.cpu_s() - before_s) / seconds
    best_s = min(ready_s[1:])
    return [
        Finding("start to ready, plan known", f"{best_s:.2f} s", "<= 2 s", best_s <= 2),
        Finding("CPU while nobody asks", f"{share:.2%}", "< 1 %", share < 0.01),
    ]


def swaps(subject: Subject) -> list[Finding]:
    """Does a swap of heads delay anybody, or fail any request? Short blocks by turns, so that noise hits both."""
    lengths = subject.lengths
    seconds = lengths.swapping_s / lengths.turns
    quiet, swapped = [], []
    with subject.served() as trial:
        rate = 0.7 * trial.capacity()
        for turn in range(lengths.turns):
            quiet.append(trial.load("without swaps", seconds, rate=rate, seed=turn))
            done, due = (lengths.swaps * each // lengths.turns for each in (turn, turn + 1))
            swapping = trial.swap(due - done, seconds)
            swapped.append(trial.load("with swaps", seconds, swapping, rate=rate, seed=turn))
    answered = sorted({version for result in swapped for version in result.versions})
    what = (
        f"{lengths.swaps} swaps in {lengths.swapping_s:.0f} s at {rate:.0f}/s (70 %), answered by versions {answered}"
    )
    return [_failures(what, [*quiet, *swapped]), _tails("swaps", quiet, swapped, 1.1)]


def retrain(subject: Subject) -> list[Finding]:
    """Does a retrain delay anybody, or fail any request?"""
    lengths = subject.lengths
    quiet, busy = [], []
    with subject.served() as trial:
        rate = 0.5 * trial.capacity()
        for turn in range(lengths.retrains):
            NOTES.print("label")
            first, count = (0, lengths.examples) if not turn else (lengths.examples + 10 * turn, 10)
            label_copies(trial.server.target, trial.store, subject.name, subject.data, count, first)
            quiet.append(trial.load("without a retrain", lengths.quiet_s, rate=rate, seed=turn))
            busy.append(trial.load("with a retrain", None, trial.retrain(), rate=rate, seed=turn))
        jobs = trial.client.list_jobs(subject.name)
    states = ", ".join(word_of(retraining_pb2.RetrainJob.State, job.state) for job in jobs)
    seconds = statistics.fmean(result.seconds for result in busy)
    what = f"retrain of {lengths.examples} examples at {rate:.0f}/s (50 %), {seconds:.1f} s each: {states}"
    return [_failures(what, [*quiet, *busy]), _tails("retrain", quiet, busy, 1.5)]


def memory(subject: Subject) -> list[Finding]:
    """Does it grow?"""
    lengths = subject.lengths
    with subject.served() as trial:
        answered = failed = done = 0
        rate = trial.load("warm-up", 2.0).goodput_per_s
        trial.load("the first 1,000", max(0.1, 1_000 / rate - 2), warm_up_s=0)
        before_mb = trial.server.resident_mb()
        while answered < lengths.requests or done < lengths.swaps_meanwhile:
            due = min(1.0, (answered + rate * lengths.chunk_s) / lengths.requests)
            count = max(0, round(due * lengths.swaps_meanwhile) - done)
            swapping = trial.swap(count, lengths.chunk_s) if count else None
            title = f"{answered} of {lengths.requests} requests, {trial.server.resident_mb():.0f} MB"
            result = trial.load(title, lengths.chunk_s, swapping, warm_up_s=0)
            answered, failed, done = answered + result.answered, failed + sum(result.errors.values()), done + count
        after_mb = trial.server.resident_mb()
    growth = after_mb / before_mb - 1
    return [
        Finding("resident after 1,000 requests", f"{before_mb:.0f} MB"),
        Finding(
            f"after {answered} more and {done} swaps ({failed} failed)",
            f"{after_mb:.0f} MB, {growth:+.1%}",
            "<= +5 %",
            growth <= 0.05 and not failed,
        ),
    ]


def overload(subject: Subject) -> list[Finding]:
    """Asked for five times what it can do, does it still do what it can? Short floods, each beside what it can do."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        return [Finding("overload", "needs two CPUs")]
    lengths = subject.lengths
    seconds = lengths.overload_s / lengths.turns
    floods, peaks, refused_ms = list[BenchResult](), list[float](), list[float]()
    with on_cpus({cpus[1]}), subject.served({cpus[0]}) as trial:
        peaks.append(trial.capacity())
        for turn in range(lengths.turns):
            probe, rate = _probe(trial, seconds, refused_ms), 5 * peaks[-1]
            floods.append(trial.load("five times too much", seconds, probe, rate=rate, deadline_ms=2000.0, seed=turn))
            peaks.append(trial.capacity())
    shares = [
        2 * flood.goodput_per_s / (before + after)
        for flood, before, after in zip(floods, peaks[:-1], peaks[1:], strict=True)
    ]
    share, peak = statistics.median(shares), statistics.median(peaks)
    errors = sum((Counter(flood.errors) for flood in floods), Counter[str]())
    latencies = [flood.latency_ms for flood in floods if flood.latency_ms]
    worst = [max(each) for each in zip(*((each.p50, each.p99) for each in latencies), strict=True)]
    refused = f"{statistics.median(refused_ms):.1f} ms" if refused_ms else "none met"
    used, late_ms = (
        max(figures)
        for figures in zip(*((flood.client_cpu_share, flood.sent_late_p99_ms) for flood in floods), strict=True)
    )
    return [
        Finding("peak, one CPU", f"{peak:.1f}/s"),
        Finding(
            "goodput at five times as much, of the peak before and after",
            f"{', '.join(f'{each:.2f}' for each in shares)}; median {share:.2f}",
            ">= 0.90",
            share >= 0.9,
        ),
        Finding(
            "latency of what was answered, deadline 2 s, at worst",
            "p50 {:.0f}, p99 {:.0f} ms".format(*worst) if worst else "none",
        ),
        Finding(
            f"errors of {sum(flood.requests for flood in floods)}",
            ", ".join(f"{code} {count}" for code, count in errors.items()) or "none",
        ),
        Finding("median time of a refusal", refused),
        Finding("the generator at worst: CPU, late by (p99)", f"{used:.2f}, {late_ms:.0f} ms"),
    ]


async def _probe(trial: Trial, seconds: float, refused_ms: list[float]) -> None:
    """Time refusals, which the load generator does not, one request after the other."""
    request = encode_request(trial.subject.pictures[0], trial.subject.name)
    async with Channels(Connection(trial.server.target), 1) as channels:
        ends_s = time.perf_counter() + seconds
        while (began_s := time.perf_counter()) < ends_s:
            if (await channels.classify(0, request, 2.0)).code == "RESOURCE_EXHAUSTED":
                refused_ms.append(1000 * (time.perf_counter() - began_s))
            await asyncio.sleep(0.05)


def _failures(what: str, results: list[BenchResult]) -> Finding:
    failed = sum(sum(result.errors.values()) for result in results)
    total = sum(result.requests for result in results)
    return Finding(what, f"{failed} of {total} failed", "0", not failed)


def _tails(what: str, quiet: list[BenchResult], busy: list[BenchResult], most: float) -> Finding:
    """Compare the worst hundredth of neighbouring blocks; the median of the ratios, since some block is always odd."""
    before, after = ([result.latency_ms.p99 if result.latency_ms else 0.0 for result in each] for each in (quiet, busy))
    ratio = statistics.median(slow / max(fast, 1e-9) for fast, slow in zip(before, after, strict=True))
    each = [", ".join(f"{value:.0f}" for value in values) for values in (before, after)]
    return Finding(
        f"p99 without and with {what}", f"{each[0]} -> {each[1]} ms, x {ratio:.2f}", f"x {most}", ratio <= most
    )


SCENARIOS = {each.__name__: each for each in (start, swaps, retrain, memory, overload)}


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steady", description=__doc__)
    parser.add_argument("store", type=Path, help="a model store")
    parser.add_argument("name", help="a model of it")
    parser.add_argument("data", type=Path, help="labelled pictures that it was trained on")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="may be repeated")
    parser.add_argument("--short", action="store_true", help="a trial, whose figures say little")
    parser.add_argument("--json", action="store_true", help="for machines")
    options = parser.parse_args()
    for variable in ("REGRAFT_EXAMPLES", "REGRAFT_DATABASE"):  # nobody's own examples are meant
        os.environ.pop(variable, None)
    lengths = SHORT if options.short else Lengths()
    subject = Subject(options.store, options.name, options.data, lengths, pictures(options.data, 64))
    found = {name: SCENARIOS[name](subject) for name in options.only or SCENARIOS}
    if options.json:
        print_json({name: [asdict(finding) for finding in findings] for name, findings in found.items()})
        return
    table = Table("what", "figure", "goal", "met", title=f"{options.name}{', a trial' if options.short else ''}")
    for name, findings in found.items():
        table.add_section()
        for finding in findings:
            met = {True: "yes", False: "[red]no[/]", None: ""}[finding.met]
            table.add_row(f"{name}: {finding.what}", finding.figure, finding.goal, met)
    Console().print(table)


if __name__ == "__main__":
    main()
