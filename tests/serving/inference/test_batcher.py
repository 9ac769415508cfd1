import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import DeadlineError, DrainingError, OverloadedError
from serving.inference.batcher import Batcher, LaneResult
from tests.serving.fakes import Panic
from tests.waiting import PATIENCE_S, asynchronous, until


class SteppedRun:
    """Each batch waits in its lane until the test lets it go; "poison", "panic" and "short" make a batch fail."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.running = 0
        self.most_running = 0
        self._steps = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __call__(self, batch: Sequence[str]) -> list[str]:
        with self._lock:
            self.batches.append(list(batch))
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        assert self._steps.acquire(timeout=PATIENCE_S)
        with self._lock:
            self.running -= 1
        if any("poison" in payload for payload in batch):
            raise RuntimeError("poisoned")
        if any("panic" in payload for payload in batch):
            raise Panic
        answers = [answer_to(payload) for payload in batch]
        if any("short" in payload for payload in batch):
            return answers[:-1]
        return answers + ["one too many"] * sum("long" in payload for payload in batch)

    def let_go(self, batches: int = 1) -> None:
        self._steps.release(batches)


def answer_to(payload: str) -> str:
    return f"answer to {payload}"


@dataclass
class Bench:
    """A batcher on a stepped run."""

    batcher: Batcher[str, str]
    run: SteppedRun
    sizes: list[int] = field(default_factory=list)

    async def begin(
        self, payload: str, deadline_s: float | None = None, *, background: bool = False
    ) -> "asyncio.Task[LaneResult[str]]":
        """Submit, and let the submission happen."""
        task = asyncio.create_task(self.batcher.submit(payload, deadline_s, background=background))
        await asyncio.sleep(0)
        return task

    def begin_in_the_background(self, payloads: str) -> "list[asyncio.Task[LaneResult[str]]]":
        """Submit one payload a letter as background work."""
        return [asyncio.create_task(self.batcher.submit(payload, background=True)) for payload in payloads]

    async def in_a_background_turn(self, payloads: str) -> "list[asyncio.Task[LaneResult[str]]]":
        """Submit them, and wait until the second turn, of several batches where there are nine, runs its first."""
        tasks = self.begin_in_the_background(payloads)
        await self.running(1)
        self.run.let_go()
        await self.running(2)
        return tasks

    async def running(self, batches: int) -> None:
        """Wait until this many batches in all have reached a lane."""
        await until(lambda: len(self.run.batches) == batches)


@asynccontextmanager
async def bench(
    lanes: int = 1, max_batch: int = 4, max_queue: int = 100, turn: int = 1, turn_s: float = PATIENCE_S
) -> AsyncIterator[Bench]:
    run = SteppedRun()
    sizes: list[int] = []
    batcher = Batcher[str, str](
        run, lanes=lanes, max_batch=max_batch, max_queue=max_queue, turn=turn, turn_s=turn_s, on_batch=sizes.append
    )
    try:
        yield Bench(batcher, run, sizes)
    finally:
        run.let_go(1000)
        batcher.close()


@asynchronous
async def test_a_lone_request_is_dispatched_at_once_however_large_a_batch_may_be() -> None:
    async with bench(max_batch=64) as b:
        request = await b.begin("a")

        assert b.batcher.depth == 0  # in the very turn of the event loop in which it came
        b.run.let_go()
        assert (await request).result == answer_to("a")
        assert b.sizes == [1]


@asynchronous
async def test_batches_form_only_while_the_lanes_are_busy() -> None:
    async with bench(max_batch=4) as b:
        requests = [await b.begin(name) for name in "abcdef"]
        assert b.batcher.depth == 5
        b.run.let_go(3)

        assert [(await request).result for request in requests] == [answer_to(name) for name in "abcdef"]
        assert b.run.batches == [["a"], ["b", "c", "d", "e"], ["f"]]
        assert b.sizes == [1, 4, 1]


@asynchronous
async def test_as_many_batches_run_at_once_as_there_are_lanes() -> None:
    async with bench(lanes=3) as b:
        requests = [await b.begin(name) for name in "abcde"]
        await b.running(3)

        assert b.batcher.depth == 2
        assert sorted(b.run.batches) == [["a"], ["b"], ["c"]]
        b.run.let_go(5)
        await asyncio.gather(*requests)
        assert b.run.most_running == 3


@asynchronous
async def test_while_many_wait_a_lane_makes_several_runs_and_hands_them_in_together() -> None:
    async with bench(max_batch=1, turn=3) as b:
        requests = [await b.begin(name) for name in "abcdefg"]
        b.run.let_go(3)
        await b.running(4)

        assert [request.done() for request in requests[:4]] == [True, False, False, False]
        assert b.batcher.depth == 3, "it takes no more than half of what waits"
        b.run.let_go(4)
        assert [(await request).result for request in requests] == [answer_to(name) for name in "abcdefg"]
        assert b.sizes == [1] * 7


@asynchronous
async def test_a_turn_of_runs_that_are_long_ends_after_the_first_and_the_others_keep_their_places() -> None:
    async with bench(max_batch=1, turn=3, turn_s=0.0) as b:
        requests = [await b.begin(name) for name in "abcdefg"]
        b.run.let_go(2)
        await b.running(3)

        assert [request.done() for request in requests[:3]] == [True, True, False]
        b.run.let_go(5)
        assert [(await request).result for request in requests] == [answer_to(name) for name in "abcdefg"]
        assert b.run.batches == [[name] for name in "abcdefg"]


@asynchronous
async def test_where_few_wait_each_is_answered_as_soon_as_it_is_done() -> None:
    async with bench(max_batch=1, turn=3) as b:
        requests = [await b.begin(name) for name in "abcd"]
        b.run.let_go(2)
        await b.running(3)

        assert requests[1].done()
        b.run.let_go(2)
        await asyncio.gather(*requests)


@asynchronous
async def test_who_gives_up_or_is_late_within_a_turn_costs_no_run() -> None:
    async with bench(max_batch=1, turn=3) as b:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + 0.1
        requests = [await b.begin(name, deadline_s if name == "d" else None) for name in "abcdefg"]
        b.run.let_go()
        await b.running(2)
        requests[2].cancel()
        await until(lambda: loop.time() > deadline_s)
        b.run.let_go(4)

        with pytest.raises(DeadlineError):
            await requests[3]
        await asyncio.gather(*requests[4:])
        assert b.run.batches == [["a"], ["b"], ["e"], ["f"], ["g"]]


@asynchronous
async def test_an_answer_says_how_long_it_waited_for_a_lane() -> None:
    async with bench() as b:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        first = await b.begin("first")
        await b.running(1)
        ran_s = loop.time()
        second = await b.begin("second")
        await until(lambda: loop.time() > ran_s + 0.05)
        b.run.let_go(2)

        assert (await first).queue_s <= ran_s - begun_s
        assert (await second).queue_s >= 0.05


@asynchronous
async def test_a_cancelled_request_leaves_the_queue_and_its_mates_do_not_notice() -> None:
    """Invariant 4."""
    async with bench() as b:
        first = await b.begin("first")
        waiting = [await b.begin(name) for name in "abc"]
        waiting[1].cancel()
        b.run.let_go(2)

        assert (await first).result == answer_to("first")
        assert (await waiting[0]).result == answer_to("a")
        assert (await waiting[2]).result == answer_to("c")
        with pytest.raises(asyncio.CancelledError):
            await waiting[1]
        assert b.run.batches == [["first"], ["a", "c"]]


@asynchronous
async def test_a_request_cancelled_while_its_batch_runs_changes_nothing_for_the_others() -> None:
    """Invariant 4."""
    async with bench() as b:
        first = await b.begin("first")
        mates = [await b.begin(name) for name in "abc"]
        b.run.let_go()
        await b.running(2)
        mates[0].cancel()
        b.run.let_go()

        assert (await first).result == answer_to("first")
        assert [(await mate).result for mate in mates[1:]] == [answer_to("b"), answer_to("c")]


@asynchronous
async def test_a_request_whose_deadline_passes_in_the_queue_is_never_run() -> None:
    """Invariant 4."""
    async with bench() as b:
        loop = asyncio.get_running_loop()
        first = await b.begin("first")
        deadline_s = loop.time() + 0.01
        late = await b.begin("late", deadline_s)
        in_time = await b.begin("in time", loop.time() + PATIENCE_S)
        await until(lambda: loop.time() > deadline_s)
        b.run.let_go(2)

        with pytest.raises(DeadlineError, match="deadline"):
            await late
        assert (await first).result == answer_to("first")
        assert (await in_time).result == answer_to("in time")
        assert b.run.batches == [["first"], ["in time"]]


@asynchronous
async def test_a_deadline_that_has_passed_is_answered_even_while_a_lane_is_free() -> None:
    async with bench() as b:
        with pytest.raises(DeadlineError):
            await b.batcher.submit("late", asyncio.get_running_loop().time() - 1)

        assert b.run.batches == []
        assert b.batcher.depth == 0


@asynchronous
async def test_expired_and_cancelled_requests_take_no_room_in_a_batch() -> None:
    """Invariant 4."""
    async with bench(max_batch=2) as b:
        past_s = asyncio.get_running_loop().time() - 1
        first = await b.begin("first")
        expired = [await b.begin("expired", past_s) for _ in range(3)]
        cancelled = [await b.begin("cancelled") for _ in range(3)]
        good = [await b.begin(name) for name in "ab"]
        for request in cancelled:
            request.cancel()
        b.run.let_go(2)

        assert [(await request).result for request in (first, *good)] == [answer_to(n) for n in ("first", "a", "b")]
        assert b.run.batches == [["first"], ["a", "b"]]
        outcomes = await asyncio.gather(*expired, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {DeadlineError}


@pytest.mark.parametrize(("failure", "told"), [("poison", "poisoned"), ("panic", "Panic")])
@asynchronous
async def test_a_run_that_raises_fails_its_own_batch_only_and_the_lane_goes_on(failure: str, told: str) -> None:
    """Invariant 4."""
    async with bench(max_batch=2) as b:
        first = await b.begin("first")
        bad = [await b.begin(failure), await b.begin("mate")]
        good = [await b.begin("c"), await b.begin("d")]
        b.run.let_go(3)

        assert (await first).result == answer_to("first")
        for request in bad:
            with pytest.raises(RuntimeError, match=told):
                await request
        assert [(await request).result for request in good] == [answer_to("c"), answer_to("d")]


@pytest.mark.parametrize("wrong", ["short", "long"])
@asynchronous
async def test_a_run_that_returns_the_wrong_number_of_results_is_an_error_to_all_of_its_batch(wrong: str) -> None:
    """Invariant 4: a shifted answer would be a wrong one."""
    async with bench(max_batch=3) as b:
        first = await b.begin("first")
        bad = [await b.begin("a"), await b.begin(wrong), await b.begin("b")]
        after = await b.begin("after")
        b.run.let_go(3)

        assert (await first).result == answer_to("first")
        for request in bad:
            with pytest.raises(RuntimeError, match="a batch of 3 gave"):
                await request
        assert (await after).result == answer_to("after")


@asynchronous
async def test_a_full_queue_refuses_at_once_and_takes_more_when_there_is_room_again() -> None:
    """Invariant 5."""
    async with bench(max_queue=2) as b:
        running = await b.begin("running")
        waiting = [await b.begin("a"), await b.begin("b")]
        refused = await b.begin("c")

        assert refused.done()
        with pytest.raises(OverloadedError, match="try again"):
            refused.result()
        b.run.let_go(2)
        await asyncio.gather(running, *waiting)
        b.run.let_go()
        assert (await b.batcher.submit("d")).result == answer_to("d")


@asynchronous
async def test_requests_that_nobody_waits_for_do_not_make_the_queue_full() -> None:
    """Invariant 4: cancelling the caller removes its entry."""
    async with bench(max_queue=2) as b:
        running = await b.begin("running")
        for request in [await b.begin("a"), await b.begin("b")]:
            request.cancel()
        await asyncio.sleep(0)

        wanted = await b.begin("wanted")
        b.run.let_go(2)
        await running
        assert (await wanted).result == answer_to("wanted")


@asynchronous
async def test_closing_refuses_what_waits_and_what_comes_but_what_runs_still_answers() -> None:
    """Invariant 10."""
    async with bench() as b:
        running = await b.begin("running")
        waiting = [await b.begin("a"), await b.begin("b")]
        waiting[0].cancel()
        b.batcher.close()

        with pytest.raises(DrainingError, match="stopping"):
            await waiting[1]
        with pytest.raises(DrainingError, match="stopping"):
            await b.batcher.submit("new")
        b.run.let_go()
        assert (await running).result == answer_to("running")
        b.batcher.close()  # a second time does no harm


class Fate(StrEnum):
    """What becomes of a request in the law below; the name is part of the payload."""

    GOOD = "good"
    POISON = "poison"
    SHORT = "short"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Submit:
    fate: Fate
    background: bool


@dataclass(frozen=True)
class Cancel:
    which: int


@dataclass(frozen=True)
class LetGo:
    pass


@dataclass(frozen=True)
class Turn:
    pass


FATES = st.sampled_from([Fate.GOOD, Fate.GOOD, Fate.GOOD, Fate.POISON, Fate.SHORT, Fate.EXPIRED])
STEPS = st.one_of(
    st.builds(Submit, FATES, st.booleans()),
    st.builds(Submit, FATES, st.booleans()),
    st.builds(Cancel, st.integers(0, 30)),
    st.just(LetGo()),
    st.just(Turn()),
)


@given(
    steps=st.lists(STEPS, max_size=60),
    lanes=st.integers(1, 3),
    max_batch=st.integers(1, 5),
    max_queue=st.integers(1, 12),
    turn=st.sampled_from([(1, 0.0), (2, PATIENCE_S), (3, PATIENCE_S), (3, 0.0)]),
)
def test_every_request_gets_its_own_answer_whatever_becomes_of_the_others(
    steps: list[Submit | Cancel | LetGo | Turn], lanes: int, max_batch: int, max_queue: int, turn: tuple[int, float]
) -> None:
    """Invariants 4 and 5, over random arrivals, cancellations, failures and sizes."""
    play = Play()
    asyncio.run(play.run(steps, lanes, max_batch, max_queue, *turn))

    batch_of = {payload: batch for batch in play.batches for payload in batch}
    assert len(batch_of) == sum(map(len, play.batches)), "somebody was run twice"
    assert all(1 <= len(batch) <= max_batch for batch in play.batches)
    for kind in ("request", "background"):
        order = [int(payload.split()[0]) for batch in play.batches for payload in batch if kind in payload]
        assert lanes > 1 or order == sorted(order), "somebody was overtaken by one of the same kind"
    assert all(len({"background" in payload for payload in batch}) == 1 for batch in play.batches)
    for payload, outcome in play.outcomes.items():
        if payload in play.cancelled:
            assert isinstance(outcome, asyncio.CancelledError)
        elif payload not in batch_of:
            assert isinstance(outcome, OverloadedError | DeadlineError)
            assert payload in play.came_to_a_full_queue or Fate.EXPIRED in payload
        else:
            assert described(outcome) == expected_in(batch_of[payload], payload)


def described(outcome: object) -> str:
    if isinstance(outcome, LaneResult):
        return str(outcome.result)
    return f"{type(outcome).__name__}: {outcome}"


def expected_in(batch: list[str], payload: str) -> str:
    if any(Fate.POISON in mate for mate in batch):
        return "RuntimeError: poisoned"
    if any(Fate.SHORT in mate for mate in batch):
        return f"RuntimeError: a batch of {len(batch)} gave {len(batch) - 1} results"
    assert Fate.EXPIRED not in payload
    return answer_to(payload)


class Play:
    """Plays the steps, and keeps what came of them."""

    def __init__(self) -> None:
        self.requests: dict[str, asyncio.Task[LaneResult[str]]] = {}
        self.cancelled: set[str] = set()
        self.came_to_a_full_queue: set[str] = set()
        self.outcomes: dict[str, LaneResult[str] | BaseException] = {}
        self.batches: list[list[str]] = []

    async def run(
        self,
        steps: list[Submit | Cancel | LetGo | Turn],
        lanes: int,
        max_batch: int,
        max_queue: int,
        turn: int,
        turn_s: float,
    ) -> None:
        async with bench(lanes, max_batch, max_queue, turn, turn_s) as b, asyncio.timeout(PATIENCE_S):
            for step in steps:
                if isinstance(step, Submit):
                    await self._submit(b, step, max_queue)
                elif isinstance(step, Cancel):
                    self._cancel(step.which)
                elif isinstance(step, LetGo):
                    b.run.let_go()
                else:
                    await asyncio.sleep(0)
            b.run.let_go(len(self.requests) + 1)
            outcomes = await asyncio.gather(*self.requests.values(), return_exceptions=True)
            # Nobody waits for a batch of cancelled requests alone, which may not have reached its lane yet.
            await until(lambda: sorted(map(len, b.run.batches)) == sorted(b.sizes))
            assert b.run.most_running <= lanes
        self.outcomes = dict(zip(self.requests, outcomes, strict=True))
        self.batches = b.run.batches

    async def _submit(self, b: Bench, step: Submit, max_queue: int) -> None:
        payload = f"{len(self.requests)} {'background' if step.background else 'request'} {step.fate}"
        if b.batcher.depth >= max_queue and not step.background:
            self.came_to_a_full_queue.add(payload)
        deadline_s = asyncio.get_running_loop().time() - 1 if step.fate is Fate.EXPIRED else None
        self.requests[payload] = await b.begin(payload, deadline_s, background=step.background)
        assert b.batcher.depth <= max_queue

    def _cancel(self, which: int) -> None:
        for payload in list(self.requests)[which : which + 1]:
            if self.requests[payload].cancel():
                self.cancelled.add(payload)


@asynchronous
async def test_who_would_wait_longer_than_its_deadline_is_refused_at_once() -> None:
    """Invariant 5: rather than to be told so when it is too late, after a run that nobody waits for."""
    async with bench(max_batch=1) as b:
        loop = asyncio.get_running_loop()
        learnt = await b.begin("what a run takes")
        await b.running(1)
        start_s = loop.time()
        await until(lambda: loop.time() > start_s + 0.05)
        b.run.let_go()
        await learnt
        first = await b.begin("runs")
        second = await b.begin("waits")

        with pytest.raises(OverloadedError, match="deadline"):
            await b.batcher.submit("would be too late", loop.time() + 0.04)
        third = await b.begin("has time", loop.time() + 60)
        b.run.let_go(3)
        assert [(await task).result for task in (first, second, third)] == [
            answer_to(name) for name in ("runs", "waits", "has time")
        ]


@asynchronous
async def test_whose_deadline_has_passed_already_is_told_just_that() -> None:
    async with bench(max_batch=1) as b:
        first = await b.begin("runs")
        second = await b.begin("waits")
        late = asyncio.create_task(b.batcher.submit("late", asyncio.get_running_loop().time() - 1))
        b.run.let_go(2)

        with pytest.raises(DeadlineError):
            await late
        await asyncio.gather(first, second)


@asynchronous
async def test_other_work_takes_the_lane_that_ends_first_and_is_refused_when_the_batcher_is_closed() -> None:
    async with bench(lanes=1) as b:
        first = await b.begin("first")
        await b.running(1)
        runs_meanwhile = asyncio.create_task(b.batcher.run_in_lane(lambda: (b.run.running, len(b.run.batches))))
        second = await b.begin("second")

        b.run.let_go(2)

        assert await runs_meanwhile == (0, 1)
        assert [(await task).result for task in (first, second)] == ["answer to first", "answer to second"]
        b.batcher.close()
        with pytest.raises(DrainingError):
            await b.batcher.run_in_lane(lambda: None)


@asynchronous
async def test_other_work_that_nobody_waits_for_any_more_keeps_its_lane_to_the_end() -> None:
    gate, began = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        gate.wait(PATIENCE_S)

    async with bench(lanes=1) as b:
        given_up = asyncio.create_task(b.batcher.run_in_lane(work))
        await until(began.is_set)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        request = asyncio.create_task(b.batcher.submit("waits"))
        await until(lambda: b.batcher.depth == 1)
        b.run.let_go(1)
        gate.set()

        assert (await request).result == "answer to waits"


@asynchronous
async def test_work_of_every_lane_is_done_once_in_each_of_the_threads_that_answer_later() -> None:
    threads: list[int] = []

    def run(payloads: Sequence[str]) -> list[str]:
        together.wait(PATIENCE_S)
        threads.append(threading.get_ident())
        return list(payloads)

    batcher = Batcher[str, str](run, lanes=3, max_batch=1, max_queue=8)
    together = threading.Barrier(3)
    warmed: list[int] = []
    await batcher.run_in_all_lanes(lambda: warmed.append(threading.get_ident()))
    await asyncio.gather(*(batcher.submit(str(number)) for number in range(3)))

    assert len(set(warmed)) == len(warmed) == 3
    assert sorted(threads) == sorted(warmed)
    batcher.close()
    with pytest.raises(DrainingError):
        await batcher.run_in_all_lanes(lambda: None)


@asynchronous
async def test_work_of_every_lane_ends_in_all_before_its_error_is_raised() -> None:
    ended, numbers = list[int](), iter(range(3))

    def work() -> None:
        number = next(numbers)
        if number == 0:
            raise ArithmeticError("the first")
        ended.append(number)

    batcher = Batcher[str, str](list, lanes=3, max_batch=1, max_queue=8)
    with pytest.raises(ArithmeticError, match="the first"):
        await batcher.run_in_all_lanes(work)

    assert sorted(ended) == [1, 2]
    assert (await batcher.submit("goes on")).result == "goes on"
    batcher.close()


@asynchronous
async def test_background_work_lets_requests_go_first_and_leaves_them_a_lane() -> None:
    ends_request, ends_rest, order = threading.Event(), threading.Event(), list[str]()

    def run(payloads: Sequence[str]) -> list[str]:
        order.extend(payloads)
        assert (ends_request if payloads[0] == "request 1" else ends_rest).wait(PATIENCE_S)
        return list(payloads)

    batcher = Batcher[str, str](run, lanes=2, max_batch=1, max_queue=8)
    first = asyncio.create_task(batcher.submit("request 1"))
    await until(lambda: order)
    background = [asyncio.create_task(batcher.submit(f"background {n}", background=True)) for n in range(3)]
    await until(lambda: len(order) == 2)
    second = asyncio.create_task(batcher.submit("request 2"))
    await until(lambda: batcher.depth == 1)
    ends_request.set()
    await until(lambda: len(order) == 3)
    ends_rest.set()
    await asyncio.gather(first, second, *background)
    batcher.close()

    assert order[:2] == ["request 1", "background 0"]
    assert order[2] == "request 2"


@asynchronous
async def test_background_work_takes_all_lanes_where_nobody_asks() -> None:
    gate, order = threading.Event(), list[str]()

    def run(payloads: Sequence[str]) -> list[str]:
        order.extend(payloads)
        assert gate.wait(PATIENCE_S)
        return list(payloads)

    batcher = Batcher[str, str](run, lanes=2, max_batch=1, max_queue=8)
    background = [asyncio.create_task(batcher.submit(f"background {n}", background=True)) for n in range(3)]
    await until(lambda: len(order) == 2)
    gate.set()
    await asyncio.gather(*background)
    batcher.close()


@asynchronous
async def test_background_work_runs_several_batches_in_a_turn() -> None:
    async with bench(max_batch=1) as b:
        background = b.begin_in_the_background("abcdefghi")
        await b.running(1)
        b.run.let_go(4)
        await b.running(5)

        assert [task.done() for task in background[:5]] == [True, False, False, False, False]
        b.run.let_go(5)
        assert [(await task).result for task in background] == [answer_to(name) for name in "abcdefghi"]


@asynchronous
async def test_a_request_waits_for_one_batch_of_background_work_and_what_it_put_off_keeps_its_place() -> None:
    async with bench(max_batch=1) as b:
        background = await b.in_a_background_turn("abcdefghi")
        request = await b.begin("request")
        b.run.let_go(9)

        assert (await request).result == answer_to("request")
        await asyncio.gather(*background)
        assert b.run.batches == [[name] for name in ("a", "b", "request", *"cdefghi")]


@asynchronous
async def test_other_work_waits_for_one_batch_of_background_work() -> None:
    async with bench(max_batch=1) as b:
        background = await b.in_a_background_turn("abcdefghi")
        other = asyncio.create_task(b.batcher.run_in_lane(lambda: len(b.run.batches)))
        await asyncio.sleep(0)
        b.run.let_go(8)

        assert await other == 2
        await asyncio.gather(*background)


@asynchronous
async def test_closing_ends_a_turn_of_background_work_after_the_batch_that_runs() -> None:
    async with bench(max_batch=1) as b:
        background = await b.in_a_background_turn("abcdefghi")
        b.batcher.close()
        b.run.let_go()

        answers = await asyncio.gather(*background, return_exceptions=True)
        assert [type(answer) for answer in answers] == [LaneResult, LaneResult, *[DrainingError] * 7]


@asynchronous
async def test_background_work_is_refused_when_the_batcher_closes_but_by_no_full_queue() -> None:
    async with bench(max_batch=1, max_queue=1) as b:
        running, *waiting = b.begin_in_the_background("abc")
        await b.running(1)
        b.batcher.close()
        b.run.let_go()

        assert (await running).result == answer_to("a")
        for refused in waiting:
            with pytest.raises(DrainingError):
                await refused
