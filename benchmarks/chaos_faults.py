"""The failures and the attackers of `benchmarks.chaos`; root, PostgreSQL and strace are needed."""

import itertools
import json
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import copytree
from typing import Final, TypeAlias

import grpc
from sqlalchemy import create_engine, text

from benchmarks.attack import CLASSIFY, half_messages, repeated_scans, webp
from benchmarks.chaos_callers import NAME, Worker
from benchmarks.memory import MB
from regraft.client.channel import open_channel
from regraft.client.connection import Connection
from regraft.files import locked, utc_now
from regraft.stores.lifecycle.history import HistoryEntry
from regraft.stores.models import ModelStore
from regraft.v1 import classifier_pb2, classifier_pb2_grpc, models_pb2
from tests.postgresql import PostgreSQL
from tests.tiny import publish_tiny

LISTING_S: Final = 2.0
ATTACKERS: Final = 10
LATE_BY_S: Final = 3.0
PATIENCE_S: Final = 20.0
ROOM: Final = 200 * MB
"""Address space that a server with little memory may still take: less than one picture of the attackers."""

Fault: TypeAlias = Callable[[], AbstractContextManager[None]]
"""Begins a failure, which ends with the block."""


class SlowStore:
    """A model store whose listing takes 2 s whenever that is wished.

    The server's store is a link, to a folder or to the same folder mounted a second time. It runs under strace, which
    holds listings of the second one up: seccomp's filter lets all other system calls pass at full speed.
    """

    def __init__(self, folder: Path) -> None:
        """Make an empty store in a folder; close it when done."""
        self._fast, self._slow, self.link = folder / "fast", folder / "slow", folder / "store"
        self._fast.mkdir()
        self._slow.mkdir()
        subprocess.run(["/bin/mount", "--bind", str(self._fast), str(self._slow)], check=True)
        self.link.symlink_to(self._fast)

    def strace(self, *models: str) -> list[str]:
        """Return the command that a server of this store runs under."""
        delay = f"inject=getdents64:delay_enter={round(LISTING_S / 2 * 1e6)}"  # a listing has two of these calls
        paths = [part for each in (self._slow, *(self._slow / model for model in models)) for part in ("-P", str(each))]
        command = ["strace", "-D", "-qq", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=getdents64"]
        return [*command, "-e", delay, *paths]

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Let its listing take 2 s."""
        self._lead_to(self._slow)
        try:
            yield
        finally:
            self._lead_to(self._fast)

    def close(self) -> None:
        """Unmount it."""
        subprocess.run(["/bin/umount", "--lazy", str(self._slow)], check=True)

    def _lead_to(self, folder: Path) -> None:
        fresh = self.link.with_name("next")
        fresh.symlink_to(folder)
        fresh.replace(self.link)


@dataclass
class Faults:
    """The failures of a server and its neighbours.

    Attributes:
        pid: of the server.
        store: its models.
        cluster: its database.
        database: the URL of that.
        movers: those who move champions, the first one being asked which version answers.
        followed_s: how long the server took to serve versions that came late.
    """

    pid: int
    store: SlowStore
    cluster: PostgreSQL
    database: str
    movers: Sequence[Worker] = ()
    followed_s: list[float] = field(default_factory=list)

    def all(self) -> dict[str, Callable[[float], None]]:
        """Return every failure by its name; each lasts the seconds given."""
        lasting_ones = {**self.of_neighbours(), "little memory": self.little_memory}
        return {
            **{name: lasting(fault) for name, fault in lasting_ones.items()},
            "version comes late": self.version_comes_late,
        }

    def of_neighbours(self) -> dict[str, Fault]:
        """Return the failures that a server need not run for."""
        return {
            "database stopped": self.database_stopped,
            "database hangs": self.cluster.stopped,
            "listing the store takes 2 s": self.store.slow,
            "store's lock held": self.store_locked,
            "database's tables locked": self.tables_locked,
        }

    @contextmanager
    def database_stopped(self) -> Iterator[None]:
        """End PostgreSQL at once, and start it again."""
        self.cluster.stop()
        try:
            yield
        finally:
            self.cluster.start()

    @contextmanager
    def store_locked(self) -> Iterator[None]:
        """Hold the lock that those who move a champion or publish take."""
        with locked(self.store.link / NAME / ".lock"):
            yield

    @contextmanager
    def tables_locked(self) -> Iterator[None]:
        """Hold every table of examples and jobs, as a migration or a dump would."""
        engine = create_engine(self.database)
        try:
            with engine.begin() as connection:
                connection.execute(text("LOCK TABLE examples, label_history, retrain_jobs IN ACCESS EXCLUSIVE MODE"))
                yield
        finally:
            engine.dispose()

    @contextmanager
    def little_memory(self) -> Iterator[None]:
        """Leave the server's address space little room to grow."""
        _, most = resource.prlimit(self.pid, resource.RLIMIT_AS)
        resource.prlimit(self.pid, resource.RLIMIT_AS, (_address_space(self.pid) + ROOM, most))
        try:
            yield
        finally:
            resource.prlimit(self.pid, resource.RLIMIT_AS, (most, most))

    def version_comes_late(self, seconds: float) -> None:
        """Promote a version whose folder comes after its line in the history.

        So it happens in copies of a store. Nobody else moves the champion meanwhile.
        """
        models = ModelStore(self.store.link)
        with ExitStack() as turns:
            for mover in self.movers:
                turns.enter_context(mover.turn)
            aside = models.root.parent / f"aside-{time.monotonic_ns()}"
            publish_tiny(ModelStore(aside), sharpness=5 + time.monotonic() % 20)
            with locked(models.root / NAME / ".lock"):
                champion = models.champion(NAME)
                version = 1 + max(entry.version for entry in models.history(NAME))
                now = utc_now()
                with (models.root / NAME / "history.jsonl").open("a") as history:
                    for event in ("publish", "promote"):
                        entry = HistoryEntry(event, version, champion, "replicator", "late", "", now)
                        history.write(json.dumps(asdict(entry)) + "\n")
            time.sleep(LATE_BY_S)
            copytree(aside / NAME / "1", models.root / NAME / ".arriving")
            (models.root / NAME / ".arriving").rename(models.root / NAME / str(version))
            self.followed_s.append(self._follows(version))
            time.sleep(max(0.0, seconds - LATE_BY_S - self.followed_s[-1]))

    def _follows(self, version: int) -> float:
        """Return the seconds until a version answers; infinity where they are too many."""
        began_s = time.monotonic()
        while time.monotonic() < began_s + PATIENCE_S:
            with suppress(grpc.RpcError):
                model = self.movers[0].models.GetModel(models_pb2.GetModelRequest(name=NAME), timeout=PATIENCE_S).model
                if model.served_version == version:
                    return time.monotonic() - began_s
            time.sleep(0.2)
        return float("inf")


def lasting(fault: Fault) -> Callable[[float], None]:
    """Return a failure that lasts as long as it is told to."""

    def play(seconds: float) -> None:
        with fault():
            time.sleep(seconds)

    return play


def _address_space(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[0]) * resource.getpagesize()


@contextmanager
def attackers(target: str, tokens: Sequence[str]) -> Iterator[None]:
    """Attack a server from another process until the block ends."""
    command = [sys.executable, "-m", "benchmarks.chaos_faults", target, *tokens]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


def _attack(number: int, target: str, token: str, pictures: dict[str, bytes]) -> None:
    """Do all sorts of harm by turns, for ever."""
    with open_channel(Connection(target, token=token)) as channel:
        classify = classifier_pb2_grpc.ClassifierStub(channel).Classify

        def ask(image: bytes, name: str = NAME) -> None:
            with suppress(grpc.RpcError):
                classify(classifier_pb2.ClassifyRequest(image=image, name=name), timeout=10.0)

        harm: list[Callable[[], object]] = [
            lambda: half_messages(target, CLASSIFY, seconds=2, held_s=0),
            lambda: ask(pictures["scans"]),
            lambda: ask(pictures["huge"]),
            lambda: ask(pictures["legal"]),
            lambda: ask(pictures["scans"], f"nobody-{time.monotonic_ns()}"),
        ]
        for turn in itertools.count(number):
            with suppress(OSError):  # the server is being stopped, or has hung up
                harm[turn % len(harm)]()
            time.sleep(0.2)


def main() -> None:
    """Attack a server by ten clients at once."""
    target, *tokens = sys.argv[1:]
    pictures = {"scans": repeated_scans(), "huge": webp(8_000), "legal": webp(4_500)}
    for number in range(ATTACKERS):
        token = tokens[number % len(tokens)]
        threading.Thread(target=_attack, args=(number, target, token, pictures), daemon=True).start()
    signal.pause()


if __name__ == "__main__":
    main()
