from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from regraft.client import Client, RemoteError
from regraft.errors import OperatorError
from regraft.store import ModelStore
from serving.access import LEAST_ROLE, Role
from tests.serving.live import LiveServer
from tests.serving.rpcs import outcome_of, rpcs_of
from tests.serving.waiting import PATIENCE_S, wait_until
from tests.tiny import picture


def test_control_calls_have_a_port_of_their_own_and_are_unknown_on_the_other(store: ModelStore) -> None:
    with (
        LiveServer(store, control="127.0.0.1:0") as live,
        grpc.insecure_channel(live.target) as first,
        grpc.insecure_channel(f"127.0.0.1:{live.ready.control_port}") as control,
    ):
        answered, controlled = rpcs_of(first), rpcs_of(control)
        assert answered.keys() | controlled.keys() == LEAST_ROLE.keys()
        assert set(answered) == {rpc for rpc, role in LEAST_ROLE.items() if role is Role.CLASSIFY}

        for rpc, method in controlled.items():  # each where it belongs first: nothing may remember it elsewhere
            assert outcome_of(control, rpc, method) is not grpc.StatusCode.UNIMPLEMENTED
            assert outcome_of(first, rpc, method) is grpc.StatusCode.UNIMPLEMENTED
        for rpc, method in answered.items():
            assert outcome_of(first, rpc, method) is not grpc.StatusCode.UNIMPLEMENTED
            assert outcome_of(control, rpc, method) is grpc.StatusCode.UNIMPLEMENTED
        for channel in (first, control):
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_stop_lets_both_ports_finish(store: ModelStore) -> None:
    """Invariant 10."""
    with (
        LiveServer(store, control="127.0.0.1:0", grace_s=PATIENCE_S) as live,
        ThreadPoolExecutor(1) as pool,
        Client(f"127.0.0.1:{live.ready.control_port}") as control,
    ):
        with live.busy_lanes() as lanes_go_on:
            in_flight = pool.submit(live.client.classify, picture("red"))
            wait_until(lambda: live.metric("regraft_in_flight") == 1)
            stopped = live.stop()
            with pytest.raises(RemoteError, match="stopping"):
                wait_until(lambda: not control.list_models())
            lanes_go_on.set()

        assert in_flight.result(PATIENCE_S).predictions[0].label == "red"
        assert stopped.result(PATIENCE_S) == 0


def test_a_control_port_that_is_taken_is_the_operators_to_change(store: ModelStore) -> None:
    with (
        LiveServer(store) as other,
        pytest.raises(OperatorError, match="--control"),
        LiveServer(store, control=other.target),
    ):
        pass


def test_a_picture_up_to_twice_too_large_is_answered_by_itself_and_does_not_end_its_stream(store: ModelStore) -> None:
    with LiveServer(store, max_image_bytes=100_000) as live:
        large, small = live.client.add_examples([(bytes(199_000), "red"), (picture("red"), "red")])

    assert large.reason == "the image has 199,000 bytes; the limit is 100,000"
    assert not small.reason


def is_answered(channel: grpc.Channel) -> bool:
    try:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return False
        raise
    return True


def own_connection(live: LiveServer) -> grpc.Channel:
    """Return a channel that shares its connection with no other."""
    return grpc.insecure_channel(live.target, options=[("grpc.use_local_subchannel_pool", 1)])


def test_one_connection_more_than_the_limit_is_closed_and_those_there_live_on(store: ModelStore) -> None:
    with LiveServer(store, max_connections=3) as live, ExitStack() as stack:
        channels = [stack.enter_context(own_connection(live)) for _ in range(5)]
        assert [is_answered(channel) for channel in channels] == [True, True, True, False, False]
        assert [is_answered(channel) for channel in channels[:3]] == [True, True, True]

        channels[0].close()
        wait_until(lambda: is_answered(stack.enter_context(own_connection(live))))


def test_one_connection_has_no_more_calls_in_flight_than_the_limit(store: ModelStore) -> None:
    """gRPC's own client waits with most calls beyond it; one that it sends too early is refused, and not lost."""

    def ask() -> str:
        try:
            return live.client.classify(picture("red")).predictions[0].label
        except RemoteError as error:
            return error.code

    with LiveServer(store, max_streams=2) as live, ThreadPoolExecutor(6) as pool, own_connection(live) as other:
        with live.busy_lanes():
            asked = [pool.submit(ask) for _ in range(6)]
            wait_until(lambda: live.metric("regraft_in_flight") == 2)
            assert is_answered(other)
            assert live.metric("regraft_in_flight") == 2

        outcomes = [answer.result(PATIENCE_S) for answer in asked]
        assert set(outcomes) <= {"red", "UNAVAILABLE"}
        assert outcomes.count("red") >= 2
