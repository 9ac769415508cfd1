import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from regraft.stores.lifecycle.history import HistoryEntry
from regraft.stores.models import ModelStore
from serving.inference.registry import ModelRegistry
from serving.inference.store_watcher import StoredModel, StoreWatcher
from serving.rollout.observer import Observer
from serving.rollout.rollback import AutomaticRollback
from serving.telemetry.metrics import Metrics
from serving.threads import Threads
from tests.serving.fakes import Engines
from tests.tiny import publish_tiny
from tests.waiting import asynchronous


class CountingStore(ModelStore):
    """A real store that counts its reads, and whose disk may be away."""

    reads = 0
    is_away = False

    def names(self) -> list[str]:
        self.reads += 1
        if self.is_away:
            raise OSError("the disk is away")
        return super().names()

    def history(self, name: str) -> list[HistoryEntry]:
        self.reads += 1
        return super().history(name)

    def champion(self, name: str) -> int | None:
        self.reads += 1
        return super().champion(name)

    def shadow(self, name: str) -> int | None:
        self.reads += 1
        return super().shadow(name)


@asynccontextmanager
async def watching(store: ModelStore, *only: str) -> AsyncIterator[StoreWatcher]:
    threads = Threads()
    yield StoreWatcher(store, threads, frozenset(only))
    threads.close()


@asynchronous
async def test_a_look_knows_champions_and_shadow_of_every_model(store: ModelStore) -> None:
    publish_tiny(store, sharpness=5.0)
    publish_tiny(store, promote=False)
    store.set_shadow("colours", 3, who="test", why="")
    publish_tiny(store, name="animals", promote=False)
    async with watching(store) as watcher:
        assert (watcher.names(), watcher.has_looked) == ([], False)
        await watcher.look()

        assert (watcher.names(), watcher.has_looked) == (["animals", "colours"], True)
        found = watcher.get("colours")
        assert (found.champion, found.champions, found.shadow) == (2, [1, 2], 3)
        assert list(found.history) == store.history("colours")
        assert (watcher.get("animals").champion, watcher.get("nobody")) == (None, StoredModel())


@asynchronous
async def test_what_did_not_change_is_not_found_out_anew(store: ModelStore) -> None:
    publish_tiny(store, name="animals")
    async with watching(store) as watcher:
        await watcher.look()
        before = {name: watcher.get(name) for name in watcher.names()}
        publish_tiny(store, sharpness=5.0)
        await watcher.look()

        assert watcher.get("animals") is before["animals"]
        assert watcher.get("colours").champion == 2


@asynchronous
async def test_only_the_models_that_it_was_told_of_are_watched(store: ModelStore) -> None:
    publish_tiny(store, name="animals")
    async with watching(store, "animals") as watcher:
        await watcher.look()

        assert watcher.names() == ["animals"]


@asynchronous
async def test_a_history_that_cannot_be_read_this_time_is_known_as_it_was(store: ModelStore) -> None:
    publish_tiny(store, promote=False)
    store.set_shadow("colours", 2, who="test", why="")
    history = store.root / "colours" / "history.jsonl"
    async with watching(store) as watcher:
        await watcher.look()
        away = history.rename(history.with_name("away"))
        history.mkdir()
        await watcher.look()
        found = watcher.get("colours")
        assert (found.champion, found.shadow) == (1, 2)
        assert "its history cannot be read" in found.problem

        history.rmdir()
        away.rename(history)
        await watcher.look()
        assert watcher.get("colours").problem == ""


@asynchronous
async def test_a_store_that_cannot_be_listed_leaves_what_is_known(store: ModelStore) -> None:
    counting = CountingStore(store.root)
    async with watching(counting) as watcher:
        await watcher.look()
        counting.is_away = True
        with pytest.raises(OSError, match="away"):
            await watcher.look()

        assert watcher.get("colours").champion == 1


@asynchronous
async def test_a_look_is_the_only_thing_that_reads_the_store_for_models_observer_and_baking(store: ModelStore) -> None:
    counting, metrics, threads = CountingStore(store.root), Metrics(), Threads()
    models = ModelRegistry(counting, Engines(), max_queue=8, metrics=metrics, threads=threads)
    observer = Observer(models, metrics, window=100, window_s=60.0)
    rollback = AutomaticRollback(models, observer, metrics, models.refresh, bake_s=3600.0)
    await models.refresh()
    publish_tiny(store, sharpness=5.0)
    store.set_shadow("colours", 1, who="test", why="")
    await models.refresh()
    reads = counting.reads
    async with asyncio.TaskGroup() as tasks:
        for look in (observer.look, rollback.look, observer.look, rollback.look):
            tasks.create_task(look())

    assert counting.reads == reads
    status, running = observer.shadow("colours"), rollback.trial("colours")
    assert status is not None
    assert running is not None
    assert (status.version, running.trial.version) == (1, 2)
    await models.refresh()
    assert counting.reads == reads + 2, "the names, and the one history"
    models.close()
    threads.close()
