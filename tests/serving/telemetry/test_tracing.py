"""The trace context of a client (W3C): in spans, in the log, beside the buckets of the histogram."""

import logging
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.logs import TextLines
from regraft.stores.models import ModelStore
from regraft.v1 import classifier_pb2 as pb
from regraft.v1 import classifier_pb2_grpc as pb_grpc
from serving.telemetry.call import TraceFilter, trace_id_of
from tests.live_server import LiveServer
from tests.serving.telemetry.collector import Collector
from tests.tiny import picture

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01"


def classify(live: LiveServer, traceparent: str, image: bytes | None = None) -> None:
    with grpc.insecure_channel(live.target) as channel:
        request = pb.ClassifyRequest(image=image or picture("red"))
        pb_grpc.ClassifierStub(channel).Classify(request, metadata=(("traceparent", traceparent),))


@pytest.fixture
def records() -> Iterator[list[str]]:
    """What the server logs of RPCs, with what `TraceFilter` adds."""
    kept: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(self.format(record))

    keeper, log = Keeper(), logging.getLogger("regraft.rpc")
    keeper.setFormatter(TextLines())
    keeper.addFilter(TraceFilter())
    before = log.level
    log.setLevel(logging.DEBUG)
    log.addHandler(keeper)
    yield kept
    log.removeHandler(keeper)
    log.setLevel(before)


def test_a_call_is_a_span_of_its_clients_trace_with_a_span_for_each_stage(store: ModelStore) -> None:
    with Collector() as collector:
        with LiveServer(store, otlp=collector.url) as live:
            classify(live, SAMPLED)
        spans: dict[str, Any] = {span.name: span for span in collector.spans}

    call = spans.pop("regraft.v1.Classifier/Classify")
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, PARENT)
    attributes = {entry.key: entry.value.string_value or entry.value.int_value for entry in call.attributes}
    assert attributes == {
        "rpc.system": "grpc",
        "rpc.service": "regraft.v1.Classifier",
        "rpc.method": "Classify",
        "rpc.grpc.status_code": 0,
        "regraft.model": "colours",
    }
    assert spans.keys() == {"queue", "decode", "inference"}
    assert {span.parent_span_id for span in spans.values()} == {call.span_id}
    order = ("queue", "decode", "inference")
    for earlier, later in pairwise(order):
        assert spans[earlier].end_time_unix_nano <= spans[later].start_time_unix_nano + 1000, "each was rounded"


def test_a_call_that_fails_by_its_own_fault_is_no_error_of_the_server(store: ModelStore) -> None:
    with Collector() as collector:
        with LiveServer(store, otlp=collector.url) as live, pytest.raises(grpc.RpcError):
            classify(live, SAMPLED, b"no picture")
        [span] = collector.spans

    assert span.status.code == span.status.STATUS_CODE_UNSET
    assert {entry.key: entry.value.int_value for entry in span.attributes}["rpc.grpc.status_code"] == 3


def test_what_the_client_does_not_sample_is_not_sent(store: ModelStore) -> None:
    with Collector() as collector:
        with LiveServer(store, otlp=collector.url) as live:
            classify(live, f"00-{TRACE}-{PARENT}-00")
        assert collector.spans == []


def test_a_server_stops_although_nobody_takes_its_spans(store: ModelStore) -> None:
    with LiveServer(store, otlp="http://127.0.0.1:1") as live:
        classify(live, SAMPLED)
        assert live.stop().result(30) == 0


def test_the_log_names_the_clients_trace_and_only_its(shared: LiveServer, records: list[str]) -> None:
    for traceparent in (SAMPLED, "rubbish"):
        with pytest.raises(grpc.RpcError):
            classify(shared, traceparent, b"no picture")

    first, second = records
    assert first.endswith(f" trace={TRACE}")
    assert "trace=" not in second


def test_the_histogram_of_latencies_names_a_trace_for_those_who_read_openmetrics(store: ModelStore) -> None:
    with LiveServer(store) as live:
        classify(live, SAMPLED)
        request = urllib.request.Request(live.metrics_url, headers={"Accept": "application/openmetrics-text"})  # noqa: S310 - our own
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own
            lines = answer.read().decode().splitlines()

    [exemplar] = [line for line in lines if "trace_id" in line]
    assert exemplar.startswith("regraft_stage_seconds_bucket{")
    assert 'stage="total"' in exemplar
    assert f'# {{trace_id="{TRACE}"}}' in exemplar


def test_the_trace_of_a_call_is_that_of_its_traceparent() -> None:
    assert trace_id_of([("user-agent", "x"), ("traceparent", SAMPLED)]) == TRACE
    assert trace_id_of([("traceparent", f"cc-{TRACE}-{PARENT}-01-what-the-future-will-bring")]) == TRACE
    assert trace_id_of([]) == ""


@pytest.mark.parametrize(
    "traceparent",
    [
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}",
    ],
)
def test_what_the_standard_calls_invalid_is_ignored(traceparent: str) -> None:
    assert trace_id_of([("traceparent", traceparent)]) == ""


@given(st.text() | st.binary())
def test_no_traceparent_hurts(value: str | bytes) -> None:
    assert trace_id_of([("traceparent", value)]) in ("", str(value)[3:35])
