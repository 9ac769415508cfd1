"""Failures and attacks on a server under load, with a check of every answer.

``python -m benchmarks.chaos``, as root, on Linux with PostgreSQL and strace. The load is half of what it can bear.
Callers note what they were told; at the end that is compared with the history, the database and the audit. Then servers
are ended by SIGTERM at random instants. Exit 1 where a line is broken.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.attack import BUDGET_MB, may_take_mb
from benchmarks.chaos_callers import (
    CHANCE,
    COLOURS,
    NAME,
    OK,
    Labeller,
    Notes,
    Operator,
    Reader,
    Retrainer,
    Told,
    WellBehaved,
    label_of,
    labelled,
)
from benchmarks.chaos_check import (
    FOLLOWS_WITHIN_S,
    Line,
    check_answers,
    check_audit,
    check_classified,
    check_jobs,
    check_labels,
    check_moves,
    check_reads,
    check_versions,
    right_answers,
)
from benchmarks.chaos_faults import ATTACKERS, Fault, Faults, SlowStore, attackers
from benchmarks.server_process import ServerProcess, serve_command
from regraft.auth import hash_token
from regraft.cli.json_output import print_json
from regraft.label_rules import image_hash
from regraft.stores.database.engine import open_database
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.jobs import RetrainJobs
from regraft.stores.models import ModelStore
from serving.settings import Settings
from tests.postgresql import PostgreSQL
from tests.tiny import picture, publish_tiny

ROUND_S: Final = 300.0
"""Every failure once, of 30 s each, with some calm after it."""
FAULT_SHARE: Final = 0.7
CALLERS: Final = tuple(f"shop-{number}" for number in range(4))
HOSTILE: Final = tuple(f"mallory-{number}" for number in range(ATTACKERS))
CLIENTS_A_CALLER: Final = 4
CAPACITY_S: Final = 5.0
ANY_RATE: Final = 1e6
SHARE_OF_CAPACITY: Final = 0.5
GRACE_S: Final = 5.0
EXIT_SLACK_S: Final = 2.0
"""What a busy machine takes to end the interpreter."""
RUNS_A_MINUTE: Final = 2
LATEST_TERM_S: Final = 6.0
READY_WITHIN_S: Final = 20.0
WIDTH: Final = 180
SHOWN: Final = 3
LONGEST: Final = 160


@dataclass
class World:
    """A store, a database, the flags of its servers, and everything that is noted."""

    store: SlowStore
    cluster: PostgreSQL
    database: str
    folder: Path
    notes: Notes = field(default_factory=Notes)
    failures: list[tuple[str, float]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    @property
    def log(self) -> Path:
        """The file of the servers' log."""
        return self.folder / "server.log"

    def arguments(self) -> list[str]:
        """Return the servers' flags."""
        callers = self.folder / "callers"
        roles = {"ada": "operate", "lena": "label", **dict.fromkeys((*CALLERS, *HOSTILE), "classify")}
        callers.write_text("".join(f"{name} {role} sha256:{hash_token(name)}\n" for name, role in roles.items()))
        stores = ["--name", NAME, "--database", self.database, "--examples", str(self.folder / EXAMPLES_FOLDER)]
        return [*stores, "--callers", str(callers), "--bake", "0", "--log-format", "json", "--log-level", "info"]


@contextmanager
def world() -> Iterator[World]:
    """Make a model with three versions and an empty database, in a folder."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        cluster = stack.enter_context(PostgreSQL.shared(folder))
        store = stack.enter_context(closing(SlowStore(folder)))
        models = ModelStore(store.link)
        for sharpness in (20.0, 12.0, 30.0):
            publish_tiny(models, sharpness=sharpness, promote=sharpness == 20.0)
        yield World(store, cluster, cluster.new_database(), folder)


async def live_through(scene: World, images: Sequence[bytes], minutes: float, say: Progress) -> str:
    """Run callers while everything fails in turn; return the load in words.

    They classify, move the champion, label and retrain.
    """
    notes, under = scene.notes, scene.store.strace(NAME)
    cpus = os.sched_getaffinity(0)
    with ServerProcess(scene.store.link, cpus, *scene.arguments(), under=under, log=scene.log) as server:
        rate = SHARE_OF_CAPACITY * await _capacity(server.target, images)
        idle_mb = server.resident_mb()
        server.forget_peak()
        movers = [Operator(server.target, "ada", notes, 1.0), Retrainer(server.target, "ada", notes, 10.0)]
        others = [Labeller(server.target, "lena", notes, 0.5), Reader(server.target, "ada", notes, 1.0)]
        faults = Faults(server.pid, scene.store, scene.cluster, scene.database, movers)
        stop = asyncio.Event()
        with attackers(server.target, HOSTILE):
            callers = WellBehaved(server.target, CALLERS, images, notes)
            load = asyncio.create_task(callers.load(CLIENTS_A_CALLER, rate, stop))
            probing = asyncio.create_task(_probe(server.metrics, notes, stop))
            for worker in (*movers, *others):
                worker.start()
            await asyncio.to_thread(_play, scene, faults, minutes, say)
            ended = [await asyncio.to_thread(worker.stop) for worker in (*movers, *others)]
            stop.set()
            await asyncio.gather(load, probing)
            peak_mb = server.peak_mb()
            scene.lines.append(await asyncio.to_thread(_ends, server))
        most_mb = may_take_mb(idle_mb)
        scene.lines += [
            Line("callers whose calls ended", f"{sum(ended)} of {len(ended)}", () if all(ended) else ("some hang",)),
            _late_versions(faults.followed_s),
            Line(
                "memory at the peak",
                f"{peak_mb:.0f} MB; idle {idle_mb:.0f} + {BUDGET_MB} + 10 % are {most_mb:.0f}",
                () if peak_mb <= most_mb else ("more",),
            ),
        ]
    return f"{minutes:g} minutes at {rate:.0f}/s (50 %), {ATTACKERS} attackers"


def _late_versions(followed_s: Sequence[float]) -> Line:
    never = tuple("never" for each in followed_s if each > FOLLOWS_WITHIN_S)
    return Line(
        "late versions served, after their folder came", ", ".join(f"{each:.1f} s" for each in followed_s), never
    )


def _ends(server: ServerProcess) -> Line:
    grace_s, began_s = Settings.model_fields["grace_s"].default, time.monotonic()
    code = server.stop(2 * grace_s + EXIT_SLACK_S)
    took_s = time.monotonic() - began_s
    is_good = code == 0 and took_s <= grace_s + EXIT_SLACK_S
    return Line("SIGTERM, under attack", f"exit code {code} after {took_s:.1f} s", () if is_good else ("too late",))


async def _capacity(target: str, images: Sequence[bytes]) -> float:
    """Return the pictures a second of the same callers without pauses."""
    notes, stop = Notes(), asyncio.Event()
    asyncio.get_running_loop().call_later(CAPACITY_S, stop.set)
    await WellBehaved(target, CALLERS, images, notes).load(CLIENTS_A_CALLER, ANY_RATE, stop)
    return sum(answer.code == OK for answer in notes.answers) / CAPACITY_S


async def _probe(metrics: str, notes: Notes, stop: asyncio.Event) -> None:
    """Ask every second whether the server is alive, as Kubernetes would."""
    url = metrics.removesuffix("/metrics") + "/healthz"

    def is_alive() -> bool:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - the server's own
            return bool(answer.status == 200)
        return False

    while not stop.is_set():
        began_at = time.time()
        code = OK if await asyncio.to_thread(is_alive) else "not alive"
        notes.reads.append(Told("liveness", "", began_at, time.time(), code))
        await asyncio.sleep(1.0)


def _play(scene: World, faults: Faults, minutes: float, say: Progress) -> None:
    """Play all failures in turn, each with some calm after it."""
    rounds = max(1, round(60 * minutes / ROUND_S))
    every = [each for _ in range(rounds) for each in faults.all().items()]
    slot_s = 60 * minutes / len(every)
    task = say.add_task("", total=len(every))
    for name, fault in every:
        say.update(task, description=name)
        fault(FAULT_SHARE * slot_s)
        scene.failures.append((name, time.time()))
        time.sleep((1 - FAULT_SHARE) * slot_s)
        say.advance(task)


def compare(scene: World, images: Sequence[bytes]) -> None:
    """Compare what callers were told with what is."""
    models, notes = ModelStore(scene.store.link), scene.notes
    history = models.history(NAME)
    examples = ExamplesStore(scene.folder / EXAMPLES_FOLDER, scene.database)
    numbers = {note.key for note in notes.told if note.kind == "label"}
    hashes = {key: image_hash(labelled(int(key))) for key in numbers}
    kept = {key: [line.label or "" for line in examples.labels.history(NAME, sha256)] for key, sha256 in hashes.items()}
    examples.close()
    engine = open_database(scene.database)
    jobs = {job.idempotency_key or job.id: job for job in RetrainJobs(engine).list(NAME)}
    engine.dispose()
    scene.lines = [
        check_answers(notes.answers, right_answers(models, NAME, images)),
        *check_classified(notes.answers),
        check_versions(notes.answers, notes.told, history),
        *check_moves(notes.told, history),
        check_labels(notes.told, kept, {key: label_of(int(key)) for key in numbers}),
        check_jobs(notes.told, jobs, history),
        check_audit(scene.log, notes.told, history, jobs),
        *check_reads(notes.reads),
        *_recoveries(scene),
        *scene.lines,
    ]


def _recoveries(scene: World) -> Iterator[Line]:
    """Yield the longest recovery of labels and of moves after a failure."""
    for what, kinds in (("labels", {"label"}), ("moves", {"promote", "rollback"})):
        waited: dict[str, float] = {}
        for name, ended_at in scene.failures:
            times = [note.ended_at for note in scene.notes.told if note.kind in kinds and note.code == OK]
            after = min((at for at in times if at >= ended_at), default=float("inf")) - ended_at
            waited[name] = max(after, waited.get(name, 0.0))
        worst = max(waited, key=waited.__getitem__)
        broken = tuple(f"{name}: {after:.0f} s" for name, after in waited.items() if after > FOLLOWS_WITHIN_S)
        yield Line(f"{what} are taken again after a failure", f"within {waited[worst]:.1f} s ({worst})", broken)


async def end_at_random(scene: World, images: Sequence[bytes], runs: int, say: Progress) -> Line:
    """End servers by SIGTERM at random instants, each beside a failure."""
    task, took_s, broken = say.add_task("SIGTERM", total=runs), list[float](), list[str]()
    faults = Faults(0, scene.store, scene.cluster, scene.database)
    kinds: list[tuple[str, Fault]] = [("nothing", nullcontext), *faults.of_neighbours().items()]
    for number in range(runs):
        name, fault = kinds[number % len(kinds)]
        after_s, ready = CHANCE.uniform(0.0, LATEST_TERM_S), bool(number // len(kinds) % 2)
        say.update(task, description=f"SIGTERM beside: {name}")
        with fault():
            code, seconds = await _run_and_end(scene, images, after_s, ready=ready)
        took_s.append(seconds)
        if code not in (0, -15) or seconds > GRACE_S + EXIT_SLACK_S:
            since = "it was ready" if ready else "its start"
            broken.append(f"{name}: SIGTERM {after_s:.1f} s after {since}, exit code {code} {seconds:.1f} s later")
        say.advance(task)
    figure = (
        f"{runs - len(broken)} of {runs} within {GRACE_S:g} s + {EXIT_SLACK_S:g}; at the longest {max(took_s):.1f} s"
    )
    return Line("SIGTERM at a random instant", figure, tuple(broken))


async def _run_and_end(
    scene: World, images: Sequence[bytes], after_s: float, *, ready: bool
) -> tuple[int | None, float]:
    """Send SIGTERM to a server under load; return its exit code and seconds.

    Args:
        scene: what it serves.
        images: what it is sent.
        after_s: when, from its start.
        ready: from when it is ready, if it ever is, instead.

    Returns:
        Its exit code, None where it had to be killed, and how long it took to end.
    """
    command = [*scene.store.strace(NAME), *serve_command(scene.store.link, *scene.arguments())]
    environment = {**os.environ, "REGRAFT_GRACE_S": f"{GRACE_S:g}"}
    with scene.log.open("ab") as log:
        server = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=log, env=environment)
    assert server.stdout is not None
    line = asyncio.create_task(server.stdout.readline())
    load = asyncio.create_task(_load_when_ready(line, images))
    if ready:
        await asyncio.wait({line}, timeout=READY_WITHIN_S)
    await asyncio.sleep(after_s)
    began_s = time.monotonic()
    with suppress(ProcessLookupError):
        server.terminate()
    try:
        code: int | None = await asyncio.wait_for(server.wait(), 60.0)
    except TimeoutError:
        server.kill()
        code = None
    took_s = time.monotonic() - began_s
    load.cancel()
    await asyncio.gather(load, return_exceptions=True)
    return code, took_s


async def _load_when_ready(line: asyncio.Task[bytes], images: Sequence[bytes]) -> None:
    if places := await line:
        callers = WellBehaved(json.loads(places)["grpc"], CALLERS, images, Notes())
        await callers.load(CLIENTS_A_CALLER, 100.0, asyncio.Event())


async def rehearse(minutes: float) -> tuple[str, list[Line]]:
    """Play the whole; return its title and the lines of the table."""
    images = [picture(label, number, 64) for label in COLOURS[:3] for number in range(1_000, 1_020)]
    with world() as scene, Progress(console=Console(stderr=True)) as say:
        title = await live_through(scene, images, minutes, say)
        await asyncio.to_thread(compare, scene, images)
        scene.lines.append(await end_at_random(scene, images, max(12, round(RUNS_A_MINUTE * minutes)), say))
    return title, scene.lines


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="beside some more for SIGTERM; 1 is a short form")
    parser.add_argument("--json", action="store_true", help="for machines")
    options = parser.parse_args()
    for variable in [each for each in os.environ if each.startswith("REGRAFT_") and each != "REGRAFT_CACHE"]:
        del os.environ[variable]
    title, lines = asyncio.run(rehearse(options.minutes))
    if options.json:
        print_json({"title": title, "lines": [{**asdict(line), "ok": line.ok} for line in lines]})
    else:
        table = Table("what", "figure", "", "the first that broke it", title=title)
        for line in lines:
            first = "\n".join(each[:LONGEST] for each in line.broken[:SHOWN])
            table.add_row(line.what, line.figure, "ok" if line.ok else "[red]broken[/]", first)
        Console(width=WIDTH).print(table)
    sys.exit(0 if all(line.ok for line in lines) else 1)


if __name__ == "__main__":
    main()
