import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from regraft import errors
from regraft.v1 import classifier_pb2 as pb
from regraft.v1 import classifier_pb2_grpc as pb_grpc
from regraft.v1 import retraining_pb2, retraining_pb2_grpc
from serving.rpc.interceptor import RpcInterceptor
from serving.rpc.security.guard import Guard
from serving.rpc.status import INTERNAL_TEXT
from serving.telemetry.metrics import Metrics
from tests.grpc_loop import asynchronous_with_grpc
from tests.waiting import PATIENCE_S, until

Code = grpc.StatusCode
CLASSIFY = "/regraft.v1.Classifier/Classify"
HEALTH = "/grpc.health.v1.Health/Check"
ONE_MESSAGE = [CLASSIFY, "/regraft.v1.Retraining/WatchRetrainJob", HEALTH]
"""Methods of a request that is one message, one of each kind."""
OPERATORS_OWN = "/home/operator/models"


class Servicer(pb_grpc.ClassifierServicer):
    """Fails in whatever way it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached = asyncio.Event()

    async def Classify(  # noqa: N802 - gRPC's name
        self, request: pb.ClassifyRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ClassifyResponse:
        self.reached.set()
        await self.gate.wait()
        if self.error:
            raise self.error
        return pb.ClassifyResponse(name=request.name)

    async def ClassifyStream(  # noqa: N802 - gRPC's name
        self, requests: AsyncIterator[pb.ClassifyStreamRequest], _context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.ClassifyStreamResponse]:
        async for request in requests:
            yield pb.ClassifyStreamResponse(id=request.id)
            self.reached.set()
            await self.gate.wait()
            if self.error:
                raise self.error


class CrowdedRoom:
    """A room where whoever has not much time left finds no place."""

    def check_capacity(self, seconds_left: float | None) -> None:
        if seconds_left is not None and seconds_left < 2 * PATIENCE_S:
            raise errors.OverloadedError("no place", 0.2)


class CountingGuard(Guard):
    """Lets everybody pass, and counts them."""

    def __init__(self) -> None:
        super().__init__(None)
        self.passed = 0

    def __call__(self, method: str, answer: Any, *, streams: bool) -> Any:  # noqa: ANN401 - as the guard's
        def count(requests: Any, context: Any) -> Any:  # noqa: ANN401 - likewise
            self.passed += 1
            return answer(requests, context)

        return super().__call__(method, count, streams=streams)


class Watched(retraining_pb2_grpc.RetrainingServicer):
    """A job that never comes to its end."""

    async def WatchRetrainJob(  # noqa: N802 - gRPC's name
        self, request: retraining_pb2.WatchRetrainJobRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[retraining_pb2.WatchRetrainJobResponse]:
        yield retraining_pb2.WatchRetrainJobResponse(job=retraining_pb2.RetrainJob(id=request.id))
        await asyncio.Event().wait()


@dataclass
class Stage:
    servicer: Servicer
    stub: Any
    channel: grpc.aio.Channel
    metrics: Metrics
    interceptor: RpcInterceptor
    guard: CountingGuard

    def counts(self) -> dict[tuple[str, str], float]:
        return {
            (sample.labels["method"], sample.labels["code"]): sample.value
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == "regraft_requests_total"
        }


@asynccontextmanager
async def stage(room: CrowdedRoom | None = None, read_timeout_s: float = PATIENCE_S) -> AsyncIterator[Stage]:
    metrics, guard = Metrics(), CountingGuard()
    capacities = {CLASSIFY: room} if room else None
    interceptor = RpcInterceptor(metrics, guard, capacities=capacities, read_timeout_s=read_timeout_s)
    server = grpc.aio.server(interceptors=[interceptor])
    servicer = Servicer()
    pb_grpc.add_ClassifierServicer_to_server(servicer, server)
    retraining_pb2_grpc.add_RetrainingServicer_to_server(Watched(), server)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Stage(servicer, pb_grpc.ClassifierStub(channel), channel, metrics, interceptor, guard)
    await server.stop(None)


@asynchronous_with_grpc
async def test_a_call_that_succeeds_passes_unchanged_and_is_counted() -> None:
    async with stage() as s:
        assert (await s.stub.Classify(pb.ClassifyRequest(name="n"))).name == "n"
        stream = s.stub.ClassifyStream(iter([pb.ClassifyStreamRequest(id=str(number)) for number in range(3)]))
        assert [answer.id async for answer in stream] == ["0", "1", "2"]

        assert s.counts() == {("Classify", "OK"): 1, ("ClassifyStream", "OK"): 1}


@asynchronous_with_grpc
async def test_an_error_reaches_the_client_as_its_code_and_text() -> None:
    async with stage() as s:
        s.servicer.error = errors.NotFoundError("what went wrong")
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await s.stub.Classify(pb.ClassifyRequest())

        assert (failure.value.code(), failure.value.details()) == (Code.NOT_FOUND, "what went wrong")
        assert s.counts() == {("Classify", "NOT_FOUND"): 1}


@asynchronous_with_grpc
async def test_an_error_in_the_middle_of_a_stream_comes_after_what_was_answered() -> None:
    async with stage() as s:
        s.servicer.error = errors.StorageError("the disk is full")
        stream = s.stub.ClassifyStream(iter([pb.ClassifyStreamRequest(id="a"), pb.ClassifyStreamRequest(id="b")]))
        answers = []
        with pytest.raises(grpc.aio.AioRpcError) as failure:  # noqa: PT012 - the loop is what ends with the error
            async for answer in stream:
                answers.append(answer.id)  # noqa: PERF401 - what came before the error is kept

        assert answers == ["a"]
        assert (failure.value.code(), failure.value.details()) == (Code.UNAVAILABLE, "the disk is full")
        assert s.counts() == {("ClassifyStream", "UNAVAILABLE"): 1}


@pytest.mark.parametrize("method", ["Classify", "ClassifyStream"])
@asynchronous_with_grpc
async def test_a_bug_is_internal_to_the_client_and_a_traceback_in_the_log(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage() as s:
        s.servicer.error = RuntimeError(OPERATORS_OWN)

        async def call() -> None:
            if method == "Classify":
                await s.stub.Classify(pb.ClassifyRequest())
            else:
                assert [answer.id async for answer in s.stub.ClassifyStream(iter([pb.ClassifyStreamRequest()]))]

        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call()

        assert (failure.value.code(), failure.value.details()) == (Code.INTERNAL, INTERNAL_TEXT)
        assert OPERATORS_OWN not in str(failure.value)
        (record,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
        assert record.exc_info is not None
        assert record.exc_info[1] is s.servicer.error
        assert s.counts() == {(method, "INTERNAL"): 1}


@asynchronous_with_grpc
async def test_a_call_that_memory_does_not_suffice_for_may_be_made_again_and_its_operator_reads_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with stage() as s:
        s.servicer.error = MemoryError("of 12 MB")

        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await s.stub.Classify(pb.ClassifyRequest())

        assert failure.value.code() is Code.RESOURCE_EXHAUSTED
        assert ("grpc-retry-pushback-ms", "1000") in tuple(failure.value.trailing_metadata() or ())
        assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (errors.NotFoundError("no such model"), logging.DEBUG),
        (errors.PreconditionError("no champion"), logging.DEBUG),
        (errors.OverloadedError("full"), logging.DEBUG),
        (errors.DeadlineError("too late"), logging.DEBUG),
        (errors.ForbiddenError("not you"), logging.INFO),
        (errors.UnauthenticatedError("who?"), logging.INFO),
        (errors.StorageError("the disk refuses"), logging.WARNING),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
@asynchronous_with_grpc
async def test_what_callers_can_bring_about_by_the_hundred_is_no_line_each(
    error: errors.RegraftError, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "regraft.rpc")
    async with stage() as s:
        s.servicer.error = error
        with pytest.raises(grpc.aio.AioRpcError):
            await s.stub.Classify(pb.ClassifyRequest())

        [record] = [record for record in caplog.records if record.name == "regraft.rpc"]
        assert record.levelno == level


@asynchronous_with_grpc
async def test_an_error_of_the_caller_is_not_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async with stage() as s:
        s.servicer.error = errors.InvalidImageError("no picture")
        with pytest.raises(grpc.aio.AioRpcError):
            await s.stub.Classify(pb.ClassifyRequest())

        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@asynchronous_with_grpc
async def test_whoever_finds_no_room_is_refused_before_the_message_has_come() -> None:
    async with stage(CrowdedRoom()) as s:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await s.channel.stream_unary(CLASSIFY)(timeout=PATIENCE_S)  # and nothing is written

        assert (failure.value.code(), failure.value.details()) == (Code.RESOURCE_EXHAUSTED, "no place")
        assert dict(failure.value.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "200"
        assert s.counts() == {("Classify", "RESOURCE_EXHAUSTED"): 1}
        assert s.metrics.registry.get_sample_value("regraft_refused_seconds_count") == 1


@asynchronous_with_grpc
async def test_who_has_to_wait_long_is_told_for_how_long_and_that_a_retry_policy_should_not() -> None:
    async with stage() as s:
        s.servicer.error = errors.OverloadedError("a quota", 1234.5)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await s.stub.Classify(pb.ClassifyRequest())

        told = dict(failure.value.trailing_metadata() or ())
        assert (told["grpc-retry-pushback-ms"], told["retry-after"]) == ("-1", "1235")


@asynchronous_with_grpc
async def test_whoever_finds_room_is_answered() -> None:
    async with stage(CrowdedRoom()) as s:
        assert (await s.stub.Classify(pb.ClassifyRequest(name="n"))).name == "n"
        s.servicer.error = errors.InvalidImageError("no picture")
        with pytest.raises(grpc.aio.AioRpcError, match="no picture"):
            await s.stub.Classify(pb.ClassifyRequest())

        assert s.counts() == {("Classify", "OK"): 1, ("Classify", "INVALID_ARGUMENT"): 1}


@pytest.mark.parametrize(("sent", "why"), [([], "no message"), ([b"\xff"], "no such message")])
@pytest.mark.parametrize("method", ONE_MESSAGE)
@asynchronous_with_grpc
async def test_a_message_that_is_missing_or_bad_is_the_callers_fault(method: str, sent: list[bytes], why: str) -> None:
    async with stage() as s:
        stream: Any = s.channel.stream_stream(method)(timeout=PATIENCE_S)
        for message in sent:
            await stream.write(message)
        await stream.done_writing()
        with pytest.raises(grpc.aio.AioRpcError, match=why) as failure:
            await stream.read()

        assert failure.value.code() is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("method", ONE_MESSAGE)
@asynchronous_with_grpc
async def test_a_message_that_does_not_come_is_not_waited_for_longer_than_the_limit(method: str) -> None:
    async with stage(read_timeout_s=0.05) as s:
        with pytest.raises(grpc.aio.AioRpcError, match=r"within 0\.05 s") as failure:
            await s.channel.stream_stream(method)(timeout=PATIENCE_S).read()

        assert failure.value.code() is Code.DEADLINE_EXCEEDED


@asynchronous_with_grpc
async def test_a_stream_may_pause_for_longer_than_a_message_may_take() -> None:
    async with stage(read_timeout_s=0.05) as s:
        stream = s.stub.ClassifyStream()
        await asyncio.sleep(0.1)  # twice the limit, which is what is tested
        await stream.write(pb.ClassifyStreamRequest(id="a"))

        assert (await stream.read()).id == "a"
        stream.cancel()


@asynchronous_with_grpc
async def test_a_message_that_has_not_come_yet_does_not_hold_up_the_drain() -> None:
    """Invariant 10."""
    async with stage() as s:
        calls: list[Any] = [
            s.channel.stream_stream(method)(timeout=PATIENCE_S) for method in ONE_MESSAGE if method != HEALTH
        ]
        await until(lambda: s.guard.passed == 2)

        assert await s.interceptor.drain(PATIENCE_S) == 0
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError, match="stopping") as failure:
                await call.read()
            assert failure.value.code() is Code.UNAVAILABLE


@asynchronous_with_grpc
async def test_of_one_address_no_more_than_two_messages_to_health_are_read_at_once() -> None:
    """They are open to all, and a message may be as large as two pictures."""
    async with stage() as s:
        silent: list[Any] = [s.channel.stream_stream(HEALTH)(timeout=PATIENCE_S) for _ in range(2)]
        stub = health_pb2_grpc.HealthStub(s.channel)
        with pytest.raises(grpc.aio.AioRpcError) as failure:  # noqa: PT012 - until both are there
            while True:
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=0.2)
        assert failure.value.code() is Code.DEADLINE_EXCEEDED
        silent[0].cancel()

        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        silent[1].cancel()


@asynchronous_with_grpc
async def test_a_call_that_the_client_gives_up_is_counted_as_cancelled() -> None:
    async with stage() as s:
        s.servicer.gate.clear()
        call: Any = s.stub.Classify(pb.ClassifyRequest())
        await s.servicer.reached.wait()
        call.cancel()

        await until(lambda: s.counts() == {("Classify", "CANCELLED"): 1})


@asynchronous_with_grpc
async def test_a_stream_that_the_client_gives_up_is_counted_as_cancelled() -> None:
    async with stage() as s:
        s.servicer.gate.clear()
        stream = s.stub.ClassifyStream(iter([pb.ClassifyStreamRequest(id="a")]))
        assert (await stream.read()).id == "a"
        await s.servicer.reached.wait()
        stream.cancel()

        await until(lambda: s.counts() == {("ClassifyStream", "CANCELLED"): 1})


@asynchronous_with_grpc
async def test_health_checks_pass_through_uncounted() -> None:
    async with stage() as s:
        answer = await health_pb2_grpc.HealthStub(s.channel).Check(health_pb2.HealthCheckRequest())

        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert s.counts() == {}


@asynchronous_with_grpc
async def test_a_method_that_does_not_exist_is_unimplemented() -> None:
    async with stage() as s:
        call: Any = s.channel.unary_unary("/regraft.v1.Classifier/Guess")
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call(b"")

        assert failure.value.code() is Code.UNIMPLEMENTED


@asynchronous_with_grpc
async def test_draining_an_idle_server_takes_no_time_and_refuses_what_comes() -> None:
    """Invariant 10."""
    async with stage() as s:
        assert await s.interceptor.drain(PATIENCE_S) == 0
        for call in (
            s.stub.Classify(pb.ClassifyRequest()),
            s.stub.ClassifyStream().read(),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match="stopping") as failure:
                await call
            assert failure.value.code() is Code.UNAVAILABLE
        assert not s.servicer.reached.is_set()

        health_check = health_pb2_grpc.HealthStub(s.channel).Check(health_pb2.HealthCheckRequest())
        assert (await health_check).status == health_pb2.HealthCheckResponse.SERVING, "health is not ours to refuse"
        assert s.counts() == {("Classify", "UNAVAILABLE"): 1, ("ClassifyStream", "UNAVAILABLE"): 1}


@asynchronous_with_grpc
async def test_draining_waits_for_a_call_in_flight_which_is_answered() -> None:
    """Invariant 10."""
    async with stage() as s:
        s.servicer.gate.clear()
        calling = asyncio.ensure_future(s.stub.Classify(pb.ClassifyRequest(name="n")))
        await s.servicer.reached.wait()
        draining = asyncio.create_task(s.interceptor.drain(PATIENCE_S))
        with pytest.raises(grpc.aio.AioRpcError, match="stopping"):
            await s.stub.Classify(pb.ClassifyRequest())
        assert not draining.done()
        s.servicer.gate.set()

        assert (await calling).name == "n"
        assert await draining == 0


@asynchronous_with_grpc
async def test_what_does_not_finish_in_the_grace_time_is_counted() -> None:
    """Invariant 10."""
    async with stage() as s:
        s.servicer.gate.clear()
        calling = asyncio.ensure_future(s.stub.Classify(pb.ClassifyRequest()))
        await s.servicer.reached.wait()

        assert await s.interceptor.drain(0) == 1
        assert await s.interceptor.drain(0.01) == 1
        s.servicer.gate.set()
        await calling


@asynchronous_with_grpc
async def test_a_stream_ends_after_what_it_has_taken_in_and_says_that_it_is_not_complete() -> None:
    """Invariant 10: a stream without an end would hold the server for the whole grace time."""
    async with stage() as s:
        stream = s.stub.ClassifyStream()
        await stream.write(pb.ClassifyStreamRequest(id="a"))
        assert (await stream.read()).id == "a"
        await s.servicer.reached.wait()

        assert await s.interceptor.drain(PATIENCE_S) == 0
        with pytest.raises(grpc.aio.AioRpcError, match="stopping") as failure:
            await stream.read()
        assert failure.value.code() is Code.UNAVAILABLE
        assert s.counts() == {("ClassifyStream", "UNAVAILABLE"): 1}


@asynchronous_with_grpc
async def test_a_request_that_a_stream_is_working_on_is_finished_before_the_stream_ends() -> None:
    """Invariant 10."""
    async with stage() as s:
        s.servicer.gate.clear()
        stream = s.stub.ClassifyStream()
        await stream.write(pb.ClassifyStreamRequest(id="a"))
        assert (await stream.read()).id == "a"
        await s.servicer.reached.wait()
        draining = asyncio.create_task(s.interceptor.drain(PATIENCE_S))
        with pytest.raises(grpc.aio.AioRpcError, match="stopping"):
            await s.stub.Classify(pb.ClassifyRequest())
        assert not draining.done()
        s.servicer.gate.set()

        assert await draining == 0
        with pytest.raises(grpc.aio.AioRpcError, match="stopping"):
            await stream.read()


@asynchronous_with_grpc
async def test_a_watch_ends_when_the_server_drains() -> None:
    """Invariant 10."""
    async with stage() as s:
        watch = retraining_pb2_grpc.RetrainingStub(s.channel).WatchRetrainJob(
            retraining_pb2.WatchRetrainJobRequest(id="a job")
        )
        assert (await watch.read()).job.id == "a job"

        assert await s.interceptor.drain(PATIENCE_S) == 0
        with pytest.raises(grpc.aio.AioRpcError, match="stopping") as failure:
            await watch.read()
        assert failure.value.code() is Code.UNAVAILABLE
