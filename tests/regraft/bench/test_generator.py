import asyncio
import itertools
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, get_args

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.bench.channels import OK, STAGES, Answer
from regraft.bench.generator import bench
from regraft.bench.result import BenchResult, Latency, Tally
from regraft.bench.settings import Arrivals, BenchSettings, due_times
from regraft.client.client import RemoteError
from regraft.client.connection import Connection
from regraft.errors import InvalidRequestError
from regraft.v1 import classifier_pb2 as pb
from tests.grpc_loop import asynchronous_with_grpc, grpc_loop
from tests.live_server import LiveServer
from tests.tiny import picture

FOREVER_S = 600.0
SETTINGS = BenchSettings((b"first", b"second"), duration_s=0.2, warm_up_s=0.0)
Context = grpc.aio.ServicerContext[pb.ClassifyRequest, pb.ClassifyResponse]
Behaviour = Callable[[int, pb.ClassifyRequest, Context], Awaitable[pb.ClassifyResponse]]


@asynccontextmanager
async def server_that(behaves: Behaviour) -> AsyncIterator[str]:
    """Yield the address of a server that is told the number of each request, from 0."""
    numbers = itertools.count()

    async def handle(request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
        return await behaves(next(numbers), request, context)

    method = grpc.unary_unary_rpc_method_handler(
        handle, pb.ClassifyRequest.FromString, pb.ClassifyResponse.SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("regraft.v1.Classifier", {"Classify": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def answers(_number: int, _request: pb.ClassifyRequest, _context: Context) -> pb.ClassifyResponse:
    return pb.ClassifyResponse(version=3, timings=pb.Timings(decode_ms=1, queue_ms=2, inference_ms=3, total_ms=6))


async def is_full(_number: int, _request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "every permit is taken")
    raise AssertionError("abort raises")


async def is_full_every_second_time(number: int, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
    return await (is_full if number % 2 else answers)(number, request, context)


class Stalled:
    """A server that answers nothing until so many requests are on their way."""

    def __init__(self, until: float) -> None:
        self.gate = asyncio.Event()
        self.waiting = self.most_waiting = 0
        self._until = until

    async def __call__(self, number: int, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        if self.waiting >= self._until:
            self.gate.set()
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        return await answers(number, request, context)


@pytest.mark.parametrize("rate", [None, 200.0])
def test_a_real_server_is_measured_from_both_sides(shared: LiveServer, rate: float | None) -> None:
    settings = replace(SETTINGS, images=(picture("red"), picture("blue")), server=Connection(shared.target), rate=rate)

    result = grpc_loop().run(bench(settings))

    assert result.requests == result.answered > 0
    assert not result.errors
    assert result.versions == {1: result.answered}
    assert result.latency_ms is not None
    assert 0 < result.stages_ms["total"] < result.latency_ms.mean
    assert 0 <= result.goodput_per_s <= result.answered / result.seconds
    assert result.client_cpu_share > 0
    assert not result.interrupted


def test_the_model_can_be_named(shared: LiveServer) -> None:
    settings = replace(SETTINGS, images=(picture("red"),), server=Connection(shared.target), name="no-such-model")

    result = grpc_loop().run(bench(settings))

    assert list(result.errors) == ["NOT_FOUND"]
    assert "no-such-model" in result.error_texts["NOT_FOUND"]


@asynchronous_with_grpc
async def test_the_pictures_are_sent_in_turn() -> None:
    seen = []

    async def looks(number: int, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
        seen.append(request.image)
        return await answers(number, request, context)

    async with server_that(looks) as target:
        await bench(replace(SETTINGS, server=Connection(target), concurrency=1))

    assert seen[:4] == [b"first", b"second", b"first", b"second"]


@asynchronous_with_grpc
async def test_a_closed_loop_has_one_request_of_each_client_on_its_way() -> None:
    stalled = Stalled(until=6)

    async with server_that(stalled) as target:
        await bench(
            replace(SETTINGS, server=Connection(target), concurrency=6, duration_s=FOREVER_S), stop=stalled.gate
        )

    assert stalled.most_waiting == 6


@asynchronous_with_grpc
async def test_an_open_loop_asks_on_while_the_server_stalls_and_every_request_that_waited_counts_its_wait() -> None:
    # 50 requests, 10 ms apart, and the server answers none before the last, which is due after 490 ms, has come.
    settings = replace(SETTINGS, rate=100.0, arrivals="even", duration_s=0.5)

    async with server_that(Stalled(until=50)) as target:
        result = await bench(replace(settings, server=Connection(target)))

    assert result.requests == result.answered == 50
    assert result.latency_ms is not None
    assert result.latency_ms.max >= 489
    assert result.latency_ms.p50 >= 239
    assert result.latency_ms.mean >= 244


@asynchronous_with_grpc
async def test_refusals_are_counted_by_code_and_lower_the_goodput() -> None:
    async with server_that(is_full_every_second_time) as target:
        result = await bench(replace(SETTINGS, server=Connection(target), concurrency=1))

    assert result.errors == {"RESOURCE_EXHAUSTED": result.requests // 2}
    assert result.error_texts == {"RESOURCE_EXHAUSTED": "every permit is taken"}
    assert result.answered == math.ceil(result.requests / 2)
    assert result.versions == {3: result.answered}
    assert result.stages_ms == {"decode": 1, "queue": 2, "inference": 3, "total": 6}
    assert result.goodput_per_s <= result.answered / result.seconds


@asynchronous_with_grpc
async def test_where_nothing_is_answered_there_is_no_latency() -> None:
    async with server_that(is_full) as target:
        result = await bench(replace(SETTINGS, server=Connection(target)))

    assert result.requests == result.errors["RESOURCE_EXHAUSTED"] > 0
    assert (result.answered, result.latency_ms, result.stages_ms, result.goodput_per_s) == (0, None, {}, 0)


@asynchronous_with_grpc
async def test_a_request_that_is_not_answered_in_time_is_an_error() -> None:
    async with server_that(Stalled(until=math.inf)) as target:
        result = await bench(replace(SETTINGS, server=Connection(target), deadline_ms=50.0))

    assert result.errors == {"DEADLINE_EXCEEDED": result.requests}


@asynchronous_with_grpc
async def test_the_warm_up_does_not_count() -> None:
    versions: list[int] = []

    async def counts(number: int, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
        versions.append(number)
        return await answers(number, request, context)

    async with server_that(counts) as target:
        result = await bench(replace(SETTINGS, server=Connection(target), rate=200.0, arrivals="even", warm_up_s=0.2))

    assert len(versions) == 80
    assert result.requests in {39, 40, 41}  # one may fall on the border, as numbers are rounded


@pytest.mark.parametrize("rate", [None, 1000.0])
@pytest.mark.parametrize("warm_up_s", [0.0, FOREVER_S])
def test_a_run_that_is_stopped_gives_up_what_is_on_its_way_and_says_so(rate: float | None, warm_up_s: float) -> None:
    settings = replace(SETTINGS, concurrency=3, rate=rate, warm_up_s=warm_up_s, duration_s=FOREVER_S)

    async def run() -> BenchResult:
        stop = asyncio.Event()
        stalled = Stalled(until=math.inf)

        async def counts(number: int, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
            if number == 2:
                stop.set()
            return await stalled(number, request, context)

        async with server_that(counts) as target:
            return await bench(replace(settings, server=Connection(target)), stop=stop)

    result = grpc_loop().run(run())

    assert result.interrupted
    assert result.answered == 0
    if warm_up_s:
        assert (result.requests, result.seconds, result.goodput_per_s) == (0, 0, 0)
    else:
        assert result.requests == result.abandoned >= 3
        assert 0 < result.seconds < FOREVER_S


@asynchronous_with_grpc
async def test_where_nobody_is_there_it_ends_at_once() -> None:
    async with server_that(answers) as target:
        pass

    with pytest.raises(RemoteError, match=f"no server answers at {target}") as failure:
        await bench(replace(SETTINGS, server=Connection(target), duration_s=FOREVER_S))
    assert failure.value.code == "UNAVAILABLE"


@asynchronous_with_grpc
async def test_progress_counts_the_seconds_of_the_warm_up_and_of_the_measurement() -> None:
    told: list[tuple[str, int, int]] = []

    async with server_that(answers) as target:
        await bench(replace(SETTINGS, server=Connection(target), warm_up_s=0.1), lambda *step: told.append(step))

    assert list(dict.fromkeys(stage for stage, _, _ in told)) == ["warm-up", "measure"]
    assert ("warm-up", 1, 1) in told
    assert told[-1] == ("measure", 1, 1)
    assert told == sorted(told, key=lambda step: (step[0] != "warm-up", step[1]))


@asynchronous_with_grpc
async def test_an_error_of_progress_ends_the_run() -> None:
    def fails(_stage: str, _done: int, _total: int) -> None:
        raise OSError("the terminal is gone")

    async with server_that(answers) as target:
        with pytest.raises(ExceptionGroup) as failure:
            await bench(replace(SETTINGS, server=Connection(target), duration_s=FOREVER_S), fails)
    assert failure.group_contains(OSError, match="the terminal is gone")


OUTCOMES = st.tuples(
    st.floats(0, 3), st.floats(0, 1), st.none() | st.sampled_from([OK, OK, "UNAVAILABLE", "DEADLINE_EXCEEDED"])
)


@given(st.lists(OUTCOMES))
def test_counts_add_up_and_percentiles_are_ordered_whatever_comes(
    outcomes: list[tuple[float, float, str | None]],
) -> None:
    tally = Tally(1.0, 2.0)
    for number, (due_s, latency_s, code) in enumerate(outcomes):
        tally.sent(due_s, due_s)
        if code is not None:
            stages = (1.0,) * len(STAGES) if code == OK else ()
            tally.answered(due_s, due_s + latency_s, Answer(code, code, number % 2, stages))
    result = tally.result({}, ended_s=9.0, client_cpu_share=0.0, interrupted=False)

    counted = [(latency_s, code) for due_s, latency_s, code in outcomes if 1 <= due_s < 2]
    assert result.requests == len(counted)
    assert result.requests == result.answered + sum(result.errors.values()) + result.abandoned
    assert result.abandoned == sum(code is None for _, code in counted)
    assert result.answered == sum(result.versions.values())
    assert list(result.errors.values()) == sorted(result.errors.values(), reverse=True)
    assert result.goodput_per_s == sum(code == OK and 1 <= due_s + latency_s < 2 for due_s, latency_s, code in outcomes)
    assert result.stages_ms == (dict.fromkeys(STAGES, 1.0) if result.answered else {})
    assert (result.latency_ms is None) == (not result.answered)
    assert json.loads(json.dumps(result.to_dict()))["requests"] == result.requests


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_are_ordered_and_are_latencies_that_were_seen(latencies_ms: list[float]) -> None:
    latency = Latency.of(latencies_ms)

    ordered = [latency.p50, latency.p95, latency.p99, latency.p99_9, latency.max]
    assert ordered == sorted(ordered)
    assert set(ordered) <= set(latencies_ms)
    assert latency.max == max(latencies_ms)
    assert min(latencies_ms) <= latency.mean * (1 + 1e-9)
    assert latency.mean <= latency.max * (1 + 1e-9)


def test_percentiles_of_a_thousand_latencies_are_those_of_the_textbook() -> None:
    assert Latency.of([float(ms) for ms in range(1000, 0, -1)]) == Latency(500.5, 500, 950, 990, 999, 1000)


def test_latency_counts_from_the_time_a_request_was_due_though_it_was_sent_late() -> None:
    tally = Tally(0.0, 10.0)
    tally.sent(due_s=1.0, sent_s=1.4)
    tally.answered(1.0, 1.5, Answer(OK, "", 1, (0.0,) * len(STAGES)))

    result = tally.result({}, ended_s=10.0, client_cpu_share=0.0, interrupted=False)

    assert result.latency_ms is not None
    assert result.latency_ms.max == pytest.approx(500)
    assert result.sent_late_p99_ms == pytest.approx(400)
    assert "400 ms after it was due" in result.warnings[0]


@pytest.mark.parametrize(("share", "warned"), [(0.9, False), (0.91, True)])
def test_a_client_that_needs_a_whole_core_warns_that_it_is_the_limit(share: float, warned: bool) -> None:
    result = Tally(0.0, 1.0).result({}, ended_s=1.0, client_cpu_share=share, interrupted=False)

    assert bool(result.warnings) == warned
    assert result.to_dict()["warnings"] == list(result.warnings)


SPANS = st.tuples(st.floats(0, 5), st.floats(0.1, 5))


@given(st.sampled_from(get_args(Arrivals)), st.floats(0.1, 200), SPANS, st.integers(0, 2**32))
def test_requests_fall_due_in_order_within_the_run_and_as_the_seed_says(
    arrivals: Arrivals, rate: float, spans: tuple[float, float], seed: int
) -> None:
    settings = BenchSettings((b"",), rate=rate, arrivals=arrivals, warm_up_s=spans[0], duration_s=spans[1], seed=seed)

    due = list(due_times(settings))

    assert due == sorted(due)
    assert all(0 <= due_s < sum(spans) for due_s in due)
    assert due == list(due_times(settings))
    if arrivals == "even":
        assert len(due) == pytest.approx(rate * sum(spans), abs=1)


def test_poisson_arrivals_come_at_the_rate_with_gaps_as_wide_spread_as_they_are_long() -> None:
    due = list(due_times(BenchSettings((b"",), rate=100.0, warm_up_s=0.0, duration_s=100.0)))

    gaps = [after - before for before, after in itertools.pairwise(due)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert len(due) == pytest.approx(10_000, abs=500)  # five standard deviations of the law
    assert deviation == pytest.approx(mean, rel=0.1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": ()}, "no pictures"),
        ({"concurrency": 0}, "--concurrency 0"),
        ({"rate": 0.0}, "--rate 0.0"),
        ({"rate": math.nan}, "--rate nan"),
        ({"duration_s": 0.0}, "--duration 0.0"),
        ({"duration_s": math.inf}, "--duration inf"),
        ({"warm_up_s": -1.0}, "--warm-up -1.0"),
        ({"deadline_ms": -5.0}, "--deadline-ms -5.0"),
        ({"arrivals": "odd"}, "--arrivals odd"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        replace(SETTINGS, **change)


def test_settings_become_json_without_the_pictures() -> None:
    assert json.loads(json.dumps(SETTINGS.to_dict()))["images"] == 2
