from pathlib import Path

import pytest

from regraft.client.client import RemoteError
from regraft.stores.models import ModelStore
from tests.live_server import LiveServer
from tests.tiny import picture, publish_tiny


def test_dashboards_made_for_triton_find_their_names_in_its_units(store: ModelStore) -> None:
    with LiveServer(store, triton_metrics=True) as live:
        for number in range(3):
            live.client.classify(picture("red", number))
        with pytest.raises(RemoteError):
            live.client.classify(b"no picture")

        def value(name: str) -> float:
            found = live.metric(f"nv_inference_{name}", model="colours", version="1")
            assert found is not None
            return found

        assert value("request_success") == value("count") == value("exec_count") == 3
        assert value("request_failure") == 1
        assert value("pending_request_count") == 0
        stages = ("queue", "compute_input", "compute_infer", "compute_output")
        inner_us = sum(value(f"{stage}_duration_us") for stage in stages)
        total_us = value("request_duration_us")
        ours_s = live.metric("regraft_stage_seconds_sum", model="colours", stage="total")
        assert ours_s is not None
        assert 0 < inner_us <= total_us + 4, "each is rounded down"
        assert total_us == pytest.approx(1e6 * ours_s, rel=0.5)


def test_after_a_swap_they_go_under_the_version_that_answers(store: ModelStore) -> None:
    publish_tiny(store, promote=False)
    with LiveServer(store, triton_metrics=True) as live:
        live.client.classify(picture("red"))
        live.client.promote(2)

        assert live.metric("nv_inference_count", version="1") is None
        assert live.metric("nv_inference_count", version="2") == 1


def test_without_the_flag_they_are_not_there(tmp_path: Path) -> None:
    with LiveServer(ModelStore(tmp_path / "empty")) as live:
        assert live.metric("nv_inference_count") is None
