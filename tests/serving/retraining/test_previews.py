"""Looks at next heads by child processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from regraft.errors import OverloadedError, PreconditionError, SupersededError, TrainingError
from regraft.stores.models import ModelStore
from serving.retraining.previews import LIMIT_S, Look, Previews
from serving.threads import Threads
from tests.live_server import stalled_retrain
from tests.waiting import asynchronous, until


@asynccontextmanager
async def runner(store: ModelStore, *arguments: str, limit_s: float = LIMIT_S) -> AsyncIterator[Previews]:
    threads = Threads()
    previews = Previews(["--store", str(store.root), *arguments], threads, limit_s=limit_s)
    try:
        yield previews
    finally:
        await previews.close()
        threads.close()


def processes(store: ModelStore) -> list[int]:
    """Return the ids of the processes that preview a model."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
            if b"training.preview" in words and str(store.root).encode() in words:
                found.append(int(entry.name))
    return found


@asynchronous
async def test_what_is_missing_is_told_as_the_process_says_it(store: ModelStore) -> None:
    async with runner(store) as previews:
        with pytest.raises(PreconditionError, match="no champion"):
            await previews.look("shapes", Look.PREVIEW)

        assert processes(store) == []


@asynchronous
async def test_a_newer_look_at_a_model_takes_the_place_of_the_earlier_one(store: ModelStore) -> None:
    async with runner(store) as previews:
        with stalled_retrain(store):
            earlier = asyncio.create_task(previews.look("colours", Look.CURVE))
            await until(lambda: processes(store))
            (stalled,) = processes(store)

            newer = asyncio.create_task(previews.look("colours", Look.CURVE))
            with pytest.raises(SupersededError, match="a newer look at colours"):
                await earlier
            await until(lambda: processes(store) and stalled not in processes(store))

            newer.cancel()
            await asyncio.wait([newer])
        assert processes(store) == []


@asynchronous
async def test_the_process_of_a_caller_that_leaves_is_ended(store: ModelStore) -> None:
    async with runner(store) as previews:
        with stalled_retrain(store):
            look = asyncio.create_task(previews.look("colours", Look.PREVIEW))
            await until(lambda: processes(store))

            look.cancel()
            await asyncio.wait([look])

            await until(lambda: not processes(store))
            assert look.cancelled()


@asynchronous
async def test_a_look_that_takes_longer_than_it_may_is_ended(store: ModelStore) -> None:
    async with runner(store, limit_s=0.5) as previews:
        with stalled_retrain(store), pytest.raises(TrainingError, match="longer than its limit"):
            await previews.look("colours", Look.CURVE)

        assert processes(store) == []


@asynchronous
async def test_a_process_that_dies_without_a_word_is_an_error_of_the_operator(store: ModelStore) -> None:
    async with runner(store, "--no-such-flag") as previews:
        with pytest.raises(TrainingError, match="exit code 2"):
            await previews.look("colours", Look.CURVE)


@asynchronous
async def test_too_many_looks_at_once_are_refused_and_hurt_nobody(store: ModelStore) -> None:
    async with runner(store) as previews:
        with stalled_retrain(store):
            first = asyncio.create_task(previews.look("colours", Look.CURVE))
            await until(lambda: processes(store))
            waiting = [asyncio.create_task(previews.look(f"shapes {number}", Look.CURVE)) for number in range(9)]

            with pytest.raises(OverloadedError, match="threads for the looks"):
                await waiting[-1]
            assert not any(task.done() for task in (first, *waiting[:-1]))

            for task in (first, *waiting):
                task.cancel()
            await asyncio.wait([first, *waiting])
