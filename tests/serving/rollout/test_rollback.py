"""Champions on trial, on real servers under load."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from regraft.bench.settings import BenchSettings
from regraft.bench.steady_load import Load
from regraft.client.connection import Connection
from regraft.stores.lifecycle.history import HistoryEntry
from regraft.stores.models import ModelStore
from serving.rollout.trial import AUTHOR
from tests.grpc_loop import grpc_loop
from tests.live_server import LiveServer
from tests.tiny import picture, publish_tiny
from tests.waiting import wait_until

LABELS = ("red", "green", "blue")
UNSURE = 0.1
"""Sharpness of a head that finds the right colours and believes in none of them."""

PACE_S = 0.002
"""Between the pictures of a load: enough of them, and some CPU left for the rest of the suite."""

PICTURES = tuple(picture(LABELS[number % 3], number) for number in range(60))


@contextmanager
def under_load(server: LiveServer) -> Iterator[Load]:
    """Load a server, and begin once it knows how the present champion does."""
    settings = BenchSettings(PICTURES, Connection(server.target), concurrency=1, pause_s=PACE_S)
    with Load(settings, grpc_loop().begin) as load:
        wait_until(lambda: server.client.get_model().drift.images >= 150)
        yield load


def last_move(store: ModelStore) -> HistoryEntry:
    return store.history("colours")[-1]


def test_a_bad_head_promoted_under_load_is_rolled_back_and_nobody_notices(live: LiveServer, store: ModelStore) -> None:
    bad = publish_tiny(store, LABELS, sharpness=UNSURE, promote=False)
    with under_load(live) as load:
        live.client.promote(bad)
        wait_until(lambda: store.champion("colours") == 1)
        wait_until(lambda: live.client.get_model().served_version == 1)

    move = last_move(store)
    assert (move.event, move.version, move.previous, move.who) == ("rollback", 1, bad, AUTHOR)
    assert move.why.startswith("baking: confidence 1.000 -> 0.3")
    assert (set(load.result().versions), load.result().failed) == ({1, bad}, 0)
    assert live.metric("regraft_baking_rollbacks_total", model="colours") == 1


def test_a_good_head_stays_and_passes(store: ModelStore) -> None:
    good = publish_tiny(store, LABELS, sharpness=18.0, promote=False)
    with LiveServer(store, bake=6) as live, under_load(live) as load:
        baking = live.client.promote(good).model
        assert (baking.champion, last_move(store).event) == (good, "promote")
        wait_until(lambda: live.metric("regraft_baking_version", model="colours") == good)
        wait_until(lambda: not live.client.get_model().HasField("baking"))
        assert live.metric("regraft_baking_version", model="colours") == 0
        assert store.champion("colours") == good
    assert load.result().failed == 0


def test_who_promotes_a_head_again_that_the_server_went_back_from_is_heard(store: ModelStore) -> None:
    bad = publish_tiny(store, LABELS, sharpness=UNSURE, promote=False)
    with LiveServer(store, bake=60) as live, under_load(live):
        live.client.promote(bad)
        wait_until(lambda: last_move(store).event == "rollback")
        wait_until(lambda: live.client.get_model().served_version == 1)

        model = live.client.promote(bad, who="ada", why="I know that it is unsure").model

        assert not model.HasField("baking")
        wait_until(lambda: live.client.get_model().drift.images >= 300)
        assert (store.champion("colours"), last_move(store).who) == (bad, "ada")


def test_of_two_servers_of_a_store_one_goes_back_and_the_other_follows(store: ModelStore) -> None:
    bad = publish_tiny(store, LABELS, sharpness=UNSURE, promote=False)
    with LiveServer(store) as first, LiveServer(store) as second, under_load(first), under_load(second):
        store.move("colours", bad, who="cron", why="a retrain")
        wait_until(lambda: last_move(store).event == "rollback")
        wait_until(lambda: {each.client.get_model().served_version for each in (first, second)} == {1})

    assert [entry.who for entry in store.history("colours") if entry.event == "rollback"] == [AUTHOR]


def test_without_a_trial_nothing_is_rolled_back(store: ModelStore) -> None:
    bad = publish_tiny(store, LABELS, sharpness=UNSURE, promote=False)
    with LiveServer(store, bake=0) as live, under_load(live):
        live.client.promote(bad)
        wait_until(lambda: live.client.get_model().drift.images >= 300)
        assert not live.client.get_model().HasField("baking")

    assert store.champion("colours") == bad


def test_where_the_version_before_is_gone_the_new_one_keeps_serving(
    store: ModelStore, caplog: pytest.LogCaptureFixture
) -> None:
    bad = publish_tiny(store, LABELS, sharpness=UNSURE, promote=False)
    with LiveServer(store) as live, under_load(live) as load:
        shutil.rmtree(store.folder("colours", 1))
        live.client.promote(bad)
        wait_until(lambda: "does not go back" in caplog.text)
        seen = live.client.get_model().drift.images
        wait_until(lambda: live.client.get_model().drift.images >= seen + 50)

    assert (store.champion("colours"), load.result().failed) == (bad, 0)
    assert caplog.text.count("does not go back") == 1
