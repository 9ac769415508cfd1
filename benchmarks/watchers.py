"""A server's CPU seconds a second for watchers of a retrain job.

    python -m benchmarks.watchers STORE NAME [--watchers 200] [--seconds 10]

The job is one of another process, as far as the server can tell: this one holds its lock and changes its row once a
second.
"""

import argparse
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from benchmarks.server_process import ServerProcess
from regraft.client.client import Client, RemoteError
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.jobs import JobState
from regraft.stores.recovery import job_lock

_OF_ONE_CLIENT = 50


@contextmanager
def _watched(target: str, job_id: str, watchers: int) -> Iterator[None]:
    """Watch a job by so many, until the block has ended it."""

    def watch(client: Client) -> None:
        try:
            for _ in client.watch_job(job_id):
                pass
        except RemoteError as error:
            sys.stderr.write(f"{error}\n")

    with ExitStack() as clients:
        threads = []
        for _ in range(0, watchers, _OF_ONE_CLIENT):
            client = clients.enter_context(Client(target))
            threads += [threading.Thread(target=watch, args=(client,)) for _ in range(_OF_ONE_CLIENT)]
        threads = threads[:watchers]
        for thread in threads:
            thread.start()
        yield
        for thread in threads:
            thread.join()


def _measure(server: ServerProcess, examples: ExamplesStore, name: str, watchers: int, seconds: int) -> float:
    """Return the CPU seconds that the server takes a second."""
    job = examples.jobs.create(name, {}, "benchmark")
    examples.jobs.claim(job.id)
    with job_lock(examples, name), _watched(server.target, job.id, watchers):
        time.sleep(2)
        before_s, began_s = server.cpu_s(), time.monotonic()
        for second in range(seconds):
            examples.jobs.report(job.id, "embed", second / seconds, f"{second} of {seconds}")
            time.sleep(1)
        used = (server.cpu_s() - before_s) / (time.monotonic() - began_s)
        examples.jobs.finish(job.id, JobState.REFUSED, "over")
    return used


def main() -> None:
    """Measure one watcher and many, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("name")
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=10)
    arguments = parser.parse_args()
    os.environ["REGRAFT_MAX_STREAMS"] = str(2 * arguments.watchers)  # gRPC's clients may share one connection
    with (
        ServerProcess(arguments.store, os.sched_getaffinity(0)) as server,
        closing(ExamplesStore(arguments.store / EXAMPLES_FOLDER)) as examples,
    ):
        for watchers in (0, 1, arguments.watchers):
            used = _measure(server, examples, arguments.name, watchers, arguments.seconds)
            sys.stdout.write(f"{watchers} watchers: {used:.3f} CPU seconds a second\n")


if __name__ == "__main__":
    main()
