"""Half an hour at 70 % load, with a swap a minute and a retrain every five: does anything fail, does memory grow?

``python -m benchmarks.soak STORE NAME DATA``; as in `benchmarks.steady`, nothing in ``STORE`` changes, and server and
clients share all CPUs.
"""

import argparse
import asyncio
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.steady import Lengths, Subject, Trial
from benchmarks.steady_store import label_copies, pictures
from regraft.client.message_values import word_of
from regraft.v1 import retraining_pb2

LABELS_A_RETRAIN = 10
RETRAIN_EVERY = 5
SETTLED_AFTER = 5
"""Minutes after which memory is compared with: until then, caches and malloc's arenas fill."""


async def swap_and_retrain(trial: Trial, minute: int, ends: Counter[str]) -> None:
    """Promote the other version in the middle of a minute; in every fifth one, retrain first."""
    if minute % RETRAIN_EVERY == RETRAIN_EVERY - 1:
        subject, first = trial.subject, minute * LABELS_A_RETRAIN
        await asyncio.to_thread(
            label_copies, trial.server.target, trial.store, subject.name, subject.data, LABELS_A_RETRAIN, first
        )
        job = await trial.retrain()
        ends[word_of(retraining_pb2.RetrainJob.State, job.state)] += 1
    await asyncio.sleep(20.0)
    await asyncio.to_thread(trial.client.promote, trial.versions[1 - minute % 2], name=trial.subject.name)


def main() -> None:
    """Print a line a minute as it goes, then the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("store", type=Path, help="a model store")
    parser.add_argument("name", help="a model of it")
    parser.add_argument("data", type=Path, help="labelled pictures that it was trained on")
    parser.add_argument("--minutes", type=int, default=30)
    options = parser.parse_args()
    subject = Subject(options.store, options.name, options.data, Lengths(), pictures(options.data, 64))
    ends, errors, requests, p99_ms, memory_mb = Counter[str](), Counter[str](), 0, list[float](), list[float]()
    with subject.served() as trial:
        rate = 0.7 * trial.capacity()
        for minute in range(options.minutes):
            work = swap_and_retrain(trial, minute, ends)
            result = trial.load(f"minute {minute + 1}", 60.0, work, rate=rate, warm_up_s=0, seed=minute)
            requests += result.requests
            errors.update(result.errors)
            p99_ms.append(result.latency_ms.p99 if result.latency_ms else 0.0)
            memory_mb.append(trial.server.resident_mb())
    settled_mb = memory_mb[min(SETTLED_AFTER, len(memory_mb)) - 1]
    table = Table("what", "figure", "goal", title=f"{options.minutes} minutes at {rate:.0f}/s (70 %)")
    codes = ", ".join(f"{code} {count}" for code, count in errors.most_common())
    table.add_row(f"of {requests} requests failed", codes or "none", "none")
    table.add_row("p99 of a minute, least and most", f"{min(p99_ms):.0f} and {max(p99_ms):.0f} ms")
    table.add_row("retrains", ", ".join(f"{state} {count}" for state, count in ends.items()) or "none")
    table.add_row(
        "resident after 5 minutes, at the end",
        f"{settled_mb:.0f} -> {memory_mb[-1]:.0f} MB, {memory_mb[-1] / settled_mb - 1:+.1%}",
        "<= +5 %",
    )
    Console().print(table)


if __name__ == "__main__":
    main()
