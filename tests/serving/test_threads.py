import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest

from regraft.cancellation import check_wanted
from regraft.client.client import Client, RemoteError
from regraft.errors import DeadlineError, DrainingError, OverloadedError
from regraft.files import locked
from regraft.stores.models import ModelStore
from serving.threads import Pool, Threads
from tests.live_server import LiveServer
from tests.tiny import picture, publish_tiny
from tests.waiting import PATIENCE_S, asynchronous, until

whose: ContextVar[str] = ContextVar("whose")


class Hanging:
    """Calls that hang until the gate opens.

    ``begun`` counts them, and ``ended`` holds what became of each.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = 0
        self.ended: list[str] = []

    def __call__(self) -> str:
        self.begun += 1
        assert self.gate.wait(PATIENCE_S)
        try:
            check_wanted()
        except DeadlineError as error:
            self.ended.append(str(error))
            raise
        self.ended.append("done")
        return "done"


@asynccontextmanager
async def hung(pool: Pool) -> AsyncIterator[Hanging]:
    """Let every thread of a pool hang until the block ends."""
    hanging = Hanging()
    running = [asyncio.create_task(pool.run(hanging)) for _ in range(pool.threads)]
    await until(lambda: hanging.begun == pool.threads)
    try:
        yield hanging
    finally:
        hanging.gate.set()
        await asyncio.gather(*running, return_exceptions=True)


@asynchronous
async def test_a_function_is_called_in_a_thread_of_the_pools_name_and_in_the_callers_context() -> None:
    pool = Pool("archive", 1)
    whose.set("mine")

    assert await pool.run(lambda: (threading.current_thread().name, whose.get())) == ("archive", "mine")
    assert await pool.run(int, "11", base=2) == 3
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 / 0)
    pool.close()


@asynchronous
async def test_there_are_no_more_threads_than_are_needed_nor_than_are_allowed() -> None:
    def names() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "counted"]

    pool = Pool("counted", 2)
    assert names() == []
    for _ in range(3):
        await pool.run(int)
    assert len(names()) == 1
    async with hung(pool):
        waiting = asyncio.create_task(pool.run(int))
        await asyncio.sleep(0)
        assert len(names()) == 2
    assert await waiting == 0
    pool.close()
    await until(lambda: not names())


@asynchronous
async def test_what_hangs_in_one_pool_holds_up_no_other() -> None:
    threads = Threads()
    async with hung(threads.database), hung(threads.writes), hung(threads.moves), hung(threads.pictures):
        assert await threads.store.run(int) == 0
    threads.close()


@asynchronous
async def test_work_whose_caller_gave_up_while_it_waited_for_a_thread_never_begins() -> None:
    pool, begun = Pool("store", 1, most_waiting=1), threading.Event()
    async with hung(pool):
        for _ in range(3):  # nor does it keep its place in the queue
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pool.run(begun.set), 0.001)
        behind = asyncio.create_task(pool.run(int))
        await asyncio.sleep(0)
    assert await behind == 0
    assert not begun.is_set()
    pool.close()


@asynchronous
async def test_work_that_has_begun_finds_out_that_its_caller_gave_up() -> None:
    pool, hanging = Pool("store", 1), Hanging()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pool.run(hanging), 0.01)
    hanging.gate.set()
    await until(lambda: hanging.ended)
    assert "nobody waits" in hanging.ended[0]
    pool.close()


@asynchronous
async def test_a_full_queue_refuses_at_once() -> None:
    pool = Pool("store", 1, most_waiting=1)
    async with hung(pool):
        waiting = asyncio.create_task(pool.run(int))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="threads for the store are all taken"):
            await pool.run(int)
    assert await waiting == 0
    pool.close()


@asynchronous
async def test_once_closed_it_refuses_what_waits_and_what_comes_while_what_has_begun_goes_on() -> None:
    pool, hanging = Pool("store", 1), Hanging()
    running = asyncio.create_task(pool.run(hanging))
    await until(lambda: hanging.begun)
    waiting = asyncio.create_task(pool.run(int))
    await asyncio.sleep(0)
    pool.close()
    for refused in (waiting, pool.run(int)):
        with pytest.raises(DrainingError):
            await refused
    hanging.gate.set()
    assert await running == "done"


@asynchronous
async def test_nothing_of_a_call_is_kept_once_it_has_ended() -> None:
    class Picture:
        pass

    pool, picture = Pool("pictures", 1), Picture()
    seen = weakref.ref(picture)
    gc.disable()  # it must not take a collection of cycles either
    try:
        await pool.run(lambda _picture: None, picture)
        del picture
        await until(lambda: seen() is None)
    finally:
        gc.enable()
    pool.close()


STUCK = """
import asyncio, time
from serving.threads import Threads

async def main():
    threads = Threads()
    stuck = asyncio.create_task(threads.database.run(time.sleep, 3600))
    await asyncio.sleep(0.1)
    threads.close()
    print("stopped", flush=True)

asyncio.run(main())
"""


def test_the_process_ends_though_a_thread_is_stuck() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=PATIENCE_S, check=True)

    assert (done.stdout, done.stderr) == ("stopped\n", "")


def test_a_lock_that_is_held_holds_up_promotions_and_nobody_else(store: ModelStore) -> None:
    publish_tiny(store, sharpness=5.0, promote=False)
    with LiveServer(store) as live, ThreadPoolExecutor(24) as threads:
        with locked(store.root / "colours" / ".lock"), Client(live.target, timeout_s=0.2) as hasty:
            late = [threads.submit(move, 2, who="late") for move in (hasty.promote, hasty.shadow) for _ in range(8)]
            moves = [threads.submit(live.client.promote, 2, who="ada") for _ in range(8)]
            (label,) = live.client.add_examples([(picture("red"), "red")])
            live.client.relabel_example(label.sha256, "green")
            live.client.list_jobs()
            live.client.get_model("colours")
            live.client.list_models()
            assert live.client.classify(picture("red")).version == 1
            assert not all(move.done() for move in moves), "one after the other they wait for a lock for much longer"
            ends = [move.exception() for move in late]
        assert {end.code for end in ends if isinstance(end, RemoteError)} == {"DEADLINE_EXCEEDED"}
        errors = [error for move in moves if isinstance(error := move.exception(), RemoteError)]
        assert {error.code for error in errors} <= {"UNAVAILABLE"}, (
            "of the lock, if all this took longer than its limit"
        )
        assert live.client.promote(2, who="ada").model.champion == 2

    assert {entry.who for entry in store.history("colours")} == {"test", "ada"}
