"""A real server looks at the answers that it gave."""

import gc
import shutil
import weakref
from collections.abc import Callable

import pytest

from regraft.client.client import Client
from regraft.stores.models import ModelStore
from regraft.v1 import models_pb2 as pb
from tests.live_server import LiveServer
from tests.serving.refusals import fails_with
from tests.tiny import COLOURS, picture, publish_tiny
from tests.waiting import wait_until

FOUR = tuple(COLOURS)


def ask(client: Client, labels: tuple[str, ...], count: int, first: int = 0) -> None:
    pictures = ((str(number), picture(labels[number % len(labels)], first + number)) for number in range(count))
    assert all(answer.HasField("response") for answer in client.classify_stream(pictures))


def seen(client: Client, condition: Callable[[pb.Model], object]) -> pb.Model:
    wait_until(lambda: condition(client.get_model()))
    return client.get_model()


def test_pictures_like_those_of_the_card_are_steady_and_others_are_drift(live: LiveServer) -> None:
    ask(live.client, ("red", "green", "blue"), 120)
    steady = seen(live.client, lambda model: model.drift.images == 120).drift
    assert steady.state == pb.Drift.STATE_STEADY
    assert live.metric("regraft_drifted", model="colours") == 0

    ask(live.client, ("grey",), 120)
    drift = seen(live.client, lambda model: model.drift.images == 240).drift

    assert drift.state == pb.Drift.STATE_DRIFTED
    assert drift.unknown_share == pytest.approx(0.5, abs=0.05)
    assert [shift.of for shift in drift.shifts][:2] == ["distance", "confidence"]
    assert live.metric("regraft_drifted", model="colours") == 1
    assert live.metric("regraft_drift_ks", model="colours", of="distance") == pytest.approx(drift.shifts[0].ks)
    assert live.metric("regraft_unknown_share", model="colours") == drift.unknown_share
    assert live.metric("regraft_drift_window_pictures", model="colours") == 240


def test_the_window_is_bounded_and_begins_anew_with_a_new_champion(store: ModelStore) -> None:
    publish_tiny(store, FOUR, promote=False)
    with LiveServer(store, drift_window=100) as live:
        ask(live.client, FOUR, 150)
        seen(live.client, lambda model: model.drift.images == 100)

        live.client.promote(2)
        ask(live.client, FOUR, 20)
        model = seen(live.client, lambda model: model.drift.images == 20)

        assert model.drift.state == pb.Drift.STATE_TOO_FEW
        assert live.metric("regraft_drifted", model="colours") is None


def test_what_is_remembered_of_a_version_does_not_keep_its_session(live: LiveServer, store: ModelStore) -> None:
    publish_tiny(store, scale=2.0, promote=False)
    ask(live.client, ("red", "green", "blue"), 120)
    seen(live.client, lambda model: model.drift.images == 120)
    session = weakref.ref(live.server.models.get("colours").backbone.engine)

    live.client.promote(2)

    wait_until(lambda: gc.collect() >= 0 and session() is None)


def test_a_model_that_is_deleted_leaves_memory_the_list_and_the_metrics(live: LiveServer, store: ModelStore) -> None:
    publish_tiny(store, FOUR, promote=False)
    live.client.shadow(2)
    ask(live.client, ("red", "green", "blue"), 120)
    seen(live.client, lambda model: model.drift.images == model.shadow.images == 120)
    engine = weakref.ref(live.server.models.get("colours").backbone.engine)
    assert live.metric("regraft_drift_window_pictures", model="colours") == 120

    shutil.rmtree(store.root / "colours")
    wait_until(lambda: not live.client.list_models())

    wait_until(lambda: gc.collect() >= 0 and engine() is None)  # its window of answers and its shadow held it too
    for name in ("stage_seconds_count", "drift_window_pictures", "shadow_version", "served_version"):
        wait_until(lambda name=name: live.metric(f"regraft_{name}", model="colours") is None)  # type: ignore[misc]  # mypy cannot infer defaults
    assert fails_with(lambda: live.client.classify(picture("red"), name="colours")).code == "NOT_FOUND"

    publish_tiny(store, FOUR)
    wait_until(lambda: live.server.models.names() == ["colours"])
    assert live.client.classify(picture("grey")).predictions[0].label == "grey"


def test_a_card_without_a_reference_is_said_to_know_no_drift(empty_store: ModelStore) -> None:
    publish_tiny(empty_store, referenced=False)
    with LiveServer(empty_store) as live:
        ask(live.client, ("red", "grey"), 120)
        drift = seen(live.client, lambda model: model.drift.images == 120).drift

        assert (drift.state, len(drift.shifts)) == (pb.Drift.STATE_NOT_KNOWN, 0)
        assert live.metric("regraft_drift_ks", model="colours", of="distance") is None
        assert live.metric("regraft_unknown_share", model="colours") == drift.unknown_share > 0


def test_a_shadow_judges_what_the_champion_answers_and_answers_nobody(live: LiveServer, store: ModelStore) -> None:
    publish_tiny(store, FOUR, promote=False)

    model = live.client.shadow(2, who="ada", why="does it know grey?").model
    assert (model.shadow.version, model.shadow.images, model.champion) == (2, 0, 1)
    entry = model.history[0]
    assert (entry.event, entry.version, entry.who, entry.why) == ("shadow", 2, "ada", "does it know grey?")

    ask(live.client, FOUR, 80)
    shadow = seen(live.client, lambda model: model.shadow.images == 80).shadow

    assert shadow.agreed == 60
    assert sum(flip.images for flip in shadow.flips) == 20
    assert {flip.shadow for flip in shadow.flips} == {"grey"}
    assert live.metric("regraft_shadow_version", model="colours") == 2
    assert live.metric("regraft_shadow_pictures_total", model="colours") == 80
    assert live.metric("regraft_shadow_agreed_total", model="colours") == 60
    assert live.metric("regraft_shadow_flips_total", model="colours") == 20
    assert live.metric("regraft_shadow_confidence_shift", model="colours") == pytest.approx(shadow.confidence_shift)
    assert live.client.classify(picture("grey")).version == 1


def test_a_shadow_is_ended_or_ends_as_champion(live: LiveServer, store: ModelStore) -> None:
    publish_tiny(store, FOUR, promote=False)
    assert live.client.shadow(2).model.HasField("shadow")
    assert not live.client.shadow(0).model.HasField("shadow")
    assert live.metric("regraft_shadow_version", model="colours") == 0

    live.client.shadow(2)
    live.client.promote(2)
    seen(live.client, lambda model: not model.HasField("shadow"))


def test_every_server_of_a_store_follows_and_a_restart_keeps_the_shadow(store: ModelStore) -> None:
    publish_tiny(store, FOUR, promote=False)
    with LiveServer(store) as first, LiveServer(store) as second:
        first.client.shadow(2)
        seen(second.client, lambda model: model.shadow.version == 2)
    with LiveServer(store) as again:
        ask(again.client, FOUR, 8)
        assert seen(again.client, lambda model: model.shadow.images == 8).shadow.version == 2


def test_what_cannot_shadow_is_refused_and_nothing_is_written(live: LiveServer, store: ModelStore) -> None:
    publish_tiny(store, scale=2.0, promote=False)
    before = store.history("colours")

    other = fails_with(lambda: live.client.shadow(2))
    assert (other.code, "another backbone" in str(other)) == ("FAILED_PRECONDITION", True)
    assert fails_with(lambda: live.client.shadow(1)).code == "FAILED_PRECONDITION"
    assert fails_with(lambda: live.client.shadow(0)).code == "FAILED_PRECONDITION"
    assert fails_with(lambda: live.client.shadow(7)).code == "NOT_FOUND"
    assert fails_with(lambda: live.client.shadow(-1)).code == "INVALID_ARGUMENT"
    assert store.history("colours") == before


def test_a_shadow_that_cannot_judge_any_more_is_named_and_nobody_waits_for_it(
    live: LiveServer, store: ModelStore
) -> None:
    publish_tiny(store, FOUR, promote=False)
    live.client.shadow(2)
    publish_tiny(store, scale=2.0, promote=False)

    live.client.promote(3)
    model = seen(live.client, lambda model: model.shadow.problem)

    assert "another backbone" in model.shadow.problem
    assert live.client.classify(picture("red")).version == 3
