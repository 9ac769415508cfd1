"""Statistics of each model: one count, whoever shows it."""

from collections.abc import Sequence

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Histogram

from regraft.client.client import RemoteError
from regraft.oip import inference_pb2 as pb
from regraft.oip import inference_pb2_grpc as pb_grpc
from regraft.stores.models import ModelStore
from serving.telemetry.metrics import Metrics
from serving.telemetry.statistics import OTHER, Distribution, Statistics
from tests.live_server import LiveServer
from tests.tiny import picture

BOUNDS = (0.1, 0.5, 1.0)
SECONDS = {"decode": 0.002, "queue": 0.0, "inference": 0.009, "total": 0.012}


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]) | st.floats(0, 2)))
def test_values_fall_into_the_buckets_of_prometheus_own_histogram(values: Sequence[float]) -> None:
    ours, theirs = Distribution(BOUNDS), Histogram("h", "H.", buckets=BOUNDS, registry=None)
    for value in values:
        ours.add(value)
        theirs.observe(value)

    (family,) = theirs.collect()
    up_to = [sample.value for sample in family.samples if sample.name == "h_bucket"]
    assert [sum(ours.counts[: end + 1]) for end in range(len(BOUNDS) + 1)] == up_to
    assert ours.count == len(values)
    assert ours.sum == pytest.approx(sum(values))


def test_a_picture_that_shared_a_run_counts_for_its_share_of_it() -> None:
    found = Statistics()
    for _ in range(4):
        found.answered(SECONDS, "red", 0.9, is_novel=False, batch=4)

    assert (found.pictures, found.runs) == (4, 1)


def test_labels_after_so_many_others_are_counted_together() -> None:
    found = Statistics(most_labels=2)
    for label in ("red", "green", "blue", "grey", "red"):
        found.answered(SECONDS, label, 0.9, is_novel=False)

    assert found.labels == {"red": 2, "green": 1, OTHER: 2}


def test_prometheus_the_inference_protocol_and_triton_s_names_say_the_same(store: ModelStore) -> None:
    with LiveServer(store, triton_metrics=True) as live, grpc.insecure_channel(live.target) as channel:
        for number in range(3):
            live.client.classify(picture("red", number))
        with pytest.raises(RemoteError):
            live.client.classify(b"no picture")
        (oip,) = pb_grpc.GRPCInferenceServiceStub(channel).ModelStatistics(pb.ModelStatisticsRequest()).model_stats

        stages = {"queue": oip.inference_stats.queue, "decode": oip.inference_stats.compute_input}
        stages["inference"] = oip.inference_stats.compute_infer
        triton = {"queue": "queue", "decode": "compute_input", "inference": "compute_infer"}
        for stage, duration in stages.items():
            ours_s = live.metric("regraft_stage_seconds_sum", model="colours", stage=stage)
            assert ours_s is not None
            assert duration.ns == round(1e9 * ours_s)
            assert live.metric(f"nv_inference_{triton[stage]}_duration_us", model="colours") == duration.ns // 1000
            assert duration.count == live.metric("regraft_stage_seconds_count", model="colours", stage=stage) == 3
        assert oip.inference_count == live.metric("nv_inference_count") == live.metric("regraft_pictures_total") == 3
        assert oip.inference_stats.success.count == live.metric("nv_inference_request_success") == 3
        assert oip.inference_stats.fail.count == live.metric("nv_inference_request_failure") == 1


def test_a_scrape_shows_what_was_counted_since_the_one_before() -> None:
    metrics = Metrics()
    statistics, value = metrics.of("m"), metrics.registry.get_sample_value
    assert value("regraft_novel_total", {"model": "m"}) == 0, "its first time is an increase"

    statistics.answered(SECONDS, "red", 0.97, is_novel=True)

    assert value("regraft_novel_total", {"model": "m"}) == 1
    assert value("regraft_stage_seconds_sum", {"model": "m", "stage": "total"}) == pytest.approx(0.012)
