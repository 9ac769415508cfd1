import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from regraft.client.client import Client, RemoteError
from regraft.errors import OperatorError
from regraft.stores.models import ModelStore
from regraft.v1 import classifier_pb2, classifier_pb2_grpc
from serving.rpc.security.roles import LEAST_ROLE, Role
from serving.server import SERVICES
from tests.e2e.raw_http2 import RawConnection
from tests.live_server import LiveServer, background_load
from tests.serving.rpc.name_server import NameServer
from tests.serving.rpc.rpcs import outcome_of, rpcs_of
from tests.tiny import picture
from tests.waiting import PATIENCE_S, wait_until


def test_control_calls_have_a_port_of_their_own_and_are_unknown_on_the_other(store: ModelStore) -> None:
    with (
        LiveServer(store, control="127.0.0.1:0") as live,
        grpc.insecure_channel(live.target) as first,
        grpc.insecure_channel(f"127.0.0.1:{live.ready.control_port}") as control,
    ):
        answered, controlled = rpcs_of(first), rpcs_of(control)
        assert answered.keys() | controlled.keys() == LEAST_ROLE.keys()
        assert set(answered) == {rpc for rpc, role in LEAST_ROLE.items() if role is Role.CLASSIFY}

        for rpc in controlled:  # each where it belongs first: nothing may remember it elsewhere
            assert outcome_of(control, rpc) is not grpc.StatusCode.UNIMPLEMENTED
            assert outcome_of(first, rpc) is grpc.StatusCode.UNIMPLEMENTED
        for rpc in answered:
            assert outcome_of(first, rpc) is not grpc.StatusCode.UNIMPLEMENTED
            assert outcome_of(control, rpc) is grpc.StatusCode.UNIMPLEMENTED
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


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder for sockets: of their names the system takes no more than 107 bytes, and pytest's folders are deep."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


def test_a_socket_of_this_machine_answers_and_is_reached(store: ModelStore, sockets: Path) -> None:
    place = f"unix:{sockets}/regraft.sock"
    with LiveServer(store, grpc=place, control=f"unix:{sockets}/control.sock"), Client(place) as client:
        assert client.classify(picture("red")).predictions[0].label == "red"
        with Client(f"unix:{sockets}/control.sock") as control:
            assert [model.name for model in control.list_models()] == ["colours"]

        with (
            pytest.raises(OperatorError, match=f"--grpc {place}: another server listens there"),
            LiveServer(store, grpc=place),
        ):
            pass
        assert client.classify(picture("red")).predictions[0].label == "red"


def test_a_socket_that_a_crash_left_behind_is_replaced(store: ModelStore, sockets: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(f"{sockets}/regraft.sock")

    with LiveServer(store, grpc=f"unix:{sockets}/regraft.sock"), Client(f"unix:{sockets}/regraft.sock") as client:
        assert client.is_serving()


def test_a_connection_that_grew_old_is_replaced_and_what_it_carries_goes_on(store: ModelStore) -> None:
    with LiveServer(store, max_connection_age=0.3) as live, own_connection(live) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        seen: list[grpc.ChannelConnectivity] = []
        channel.subscribe(seen.append)

        def is_replaced() -> bool:
            assert is_answered(channel)
            return seen.count(grpc.ChannelConnectivity.READY) >= 3

        wait_until(is_replaced)
        live.stop()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING  # over the first connection
        watch.cancel()


def test_no_call_fails_while_connections_are_replaced(store: ModelStore) -> None:
    with LiveServer(store, max_connection_age=0.1) as live:
        with background_load(live.target, clients=4) as load:
            load.wait_for(500)
        result = load.result()

    assert result.requests >= 500
    assert result.failed == 0, result.phases


def test_a_stream_on_an_old_connection_ends_after_the_grace_that_is_set(store: ModelStore) -> None:
    ages = {"max_connection_age": 0.2, "max_connection_age_grace": 0.2}
    with LiveServer(store, **ages) as live, own_connection(live) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)

        with pytest.raises(grpc.RpcError) as failure:
            list(watch)

    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


def test_who_pings_as_often_as_it_may_stays_connected_and_who_pings_more_is_sent_away(store: ModelStore) -> None:
    with LiveServer(store, min_ping_interval=0.05) as live:
        assert pings_answered(live.target, 6, every_s=0.1) == 6
    with LiveServer(store, min_ping_interval=PATIENCE_S) as live:
        assert pings_answered(live.target, 6, every_s=0.1) < 6


def test_a_server_that_is_added_gets_its_share_of_a_connected_clients_calls_within_two_connection_ages(
    store: ModelStore,
) -> None:
    """The client balances over the addresses of a name, as `regraft.client.channel` does, and asks for them anew."""
    age_s = 1.0
    with (
        NameServer("127.0.0.1") as names,
        LiveServer(store, max_connection_age=age_s) as first,
        LiveServer(store, max_connection_age=age_s, grpc=f"127.0.0.2:{first.ready.grpc_port}") as added,
        grpc.insecure_channel(
            f"dns://127.0.0.1:{names.port}/regraft.test:{first.ready.grpc_port}",
            options=[
                ("grpc.lb_policy_name", "round_robin"),
                ("grpc.dns_min_time_between_resolutions_ms", 50),  # for the short age; 30 s otherwise
            ],
        ) as channel,
    ):
        classifier = classifier_pb2_grpc.ClassifierStub(channel)
        request = classifier_pb2.ClassifyRequest(image=picture("red"))

        def answered_by_the_added(until_s: float) -> float:
            """Ask until then, and return the share of the answers that came from it."""
            before, count = asked_of(added), 0
            while time.monotonic() < until_s:
                classifier.Classify(request, timeout=PATIENCE_S)
                count += 1
            return (asked_of(added) - before) / count

        assert answered_by_the_added(time.monotonic() + 0.2) == 0
        names.addresses.append("127.0.0.2")
        added_s = time.monotonic()
        answered_by_the_added(added_s + 1.2 * age_s)  # gRPC lets ages differ by a tenth
        assert answered_by_the_added(added_s + 2 * age_s) >= 0.25


def asked_of(live: LiveServer) -> float:
    return live.metric("regraft_requests_total", method="Classify") or 0.0


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_has_both_of_its_names_and_describes_itself_and_our_services(
    version: str, shared: LiveServer
) -> None:
    service = f"grpc.reflection.{version}.ServerReflection"
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=service),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="regraft.v1.Classifier"),
    ]
    with grpc.insecure_channel(shared.target) as channel:
        ask = channel.stream_stream(
            f"/{service}/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        services, itself, ours = ask(iter(requests), timeout=PATIENCE_S)

    names = {each.name for each in services.list_services_response.service}
    assert {*SERVICES, "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"} <= names
    for answer, package in ((itself, f"grpc.reflection.{version}"), (ours, "regraft.v1")):
        [described, *_] = answer.file_descriptor_response.file_descriptor_proto
        assert descriptor_pb2.FileDescriptorProto.FromString(described).package == package


def pings_answered(target: str, count: int, *, every_s: float) -> int:
    """Send pings of HTTP/2, no more than one in so many seconds, and return how many were answered."""
    with closing(RawConnection(target)) as connection:
        for number in range(count):
            if not connection.ping():
                return number
            time.sleep(every_s)  # the pace of the pings is what is tested
        return count
