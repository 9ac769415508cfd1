"""Registry of models in memory: begin, load, swap, retire, all on the event loop.

Only file work goes to threads. A request holds one version to its end. A version whose successor went live is retired
when its last request is over, and a backbone is closed when no version uses it any more.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeAlias

from regraft.errors import (
    ArtifactError,
    DeadlineError,
    DrainingError,
    InvalidRequestError,
    NotFoundError,
    NoVersionError,
    OverloadedError,
    PreconditionError,
    RegraftError,
    StorageError,
)
from regraft.image.limits import DEFAULT_LIMITS, ImageLimits
from regraft.label_rules import nfc
from regraft.machine import cpu_budget, trim_heap
from regraft.model import artifact
from regraft.model.artifact import Head, blank_head, graft_blank
from regraft.model.card import ModelCard
from regraft.stores.backbones import BackboneStore, StoredBackbone
from regraft.stores.lifecycle.history import Beginning, HistoryEntry
from regraft.stores.models import MODEL_FILE, ModelStore
from serving.inference.backbones_in_memory import BackbonesInMemory
from serving.inference.cpus import CpuPool
from serving.inference.engine import Engine
from serving.inference.models_in_memory import BegunModel, HeldModel, ServedModel
from serving.inference.store_watcher import StoreWatcher
from serving.supervisor import Backoff, do_all
from serving.telemetry.call import current, may_name
from serving.telemetry.metrics import Metrics
from serving.threads import Threads

log = logging.getLogger("regraft.models")

_PAUSES: Final = Backoff(0.5, 300.0)
"""A late folder is soon tried again; a broken one costs a session and its warm-up every five minutes."""
_MAX_FALLBACKS: Final = 3
"""Former champions that are tried: each that cannot be loaded takes its time."""

EngineOpener: TypeAlias = Callable[[Path | bytes, ModelCard | StoredBackbone], Engine]
WITHOUT_VERSION: Final = "labelled pictures of two classes, and a retrain"
"""What a model needs for its first version, where nobody has counted."""


@dataclass(frozen=True)
class _Problem:
    """A reason why a model does not answer with its champion.

    Attributes:
        version: the champion that could not be loaded, or None where it is not known.
        text: for people.
        failures: in a row.
        retry_s: time of the next attempt, by the event loop's clock.
    """

    version: int | None
    text: str
    failures: int = 0
    retry_s: float = 0.0

    def is_due(self) -> bool:
        return _now_s() >= self.retry_s


def _now_s() -> float:
    return asyncio.get_running_loop().time()


class ModelRegistry:
    """The models that are served.

    Every change is load, try, swap: a version that fails leaves everything as it was.
    """

    def __init__(
        self,
        store: ModelStore,
        open_engine: EngineOpener,
        *,
        max_queue: int,
        metrics: Metrics,
        threads: Threads,
        limits: ImageLimits = DEFAULT_LIMITS,
        only: Sequence[str] = (),
        cpus: int = 0,
        pauses: Backoff = _PAUSES,
    ) -> None:
        """Serve ``only`` some models of ``store``, or all of them.

        Nothing is loaded before the first `refresh`.

        All backbones share ``cpus``, those that this process may use if 0. A champion that could not be loaded is tried
        again at the first `refresh` after the next of ``pauses``.
        """
        self.store = store
        self._backbone_store = BackboneStore(store.root)
        self._open_engine = open_engine
        self.limits = limits
        self.threads = threads
        self._only = frozenset(map(nfc, only))
        self.stored = StoreWatcher(store, threads, self._only)
        self._pauses = pauses
        self._metrics = metrics
        self.cpus = CpuPool(cpus or cpu_budget())
        self.backbones = BackbonesInMemory(
            threads, self.cpus, max_queue=max_queue, limits=limits, on_batch=metrics.batch_size.observe
        )
        self._served: dict[str, ServedModel] = {}
        self._begun: dict[str, BegunModel] = {}
        self._followed: set[str] = set()
        self._removed: set[str] = set()  # at the last refresh
        self._problems: dict[str, _Problem] = {}
        self._changing = asyncio.Lock()
        metrics.watch_queue(lambda: self.backbones.depth)

    def names(self) -> list[str]:
        """Return the names of the models that answer."""
        return sorted(self._served)

    def names_held(self) -> list[str]:
        """Return the names of the models that take examples."""
        return sorted({*self._served, *self._begun})

    def resolve(self, name: str) -> str:
        """Return ``name``, or the only model's where it is empty.

        Models that the caller may not name do not count.

        Raises:
            InvalidRequestError: it is empty and there are several models.
            PreconditionError: it is empty and there are none.
        """
        if name:
            return nfc(name)
        names = sorted(filter(may_name, {*self._served, *self.stored.names()}))
        if len(names) > 1:
            raise InvalidRequestError(f"name: which model? This server has {', '.join(names)}")
        if not names:
            raise PreconditionError(
                f"there is no model in {self.store.root} yet: train one with `regraft train`, or begin one with "
                "`regraft models create`"
            )
        return names[0]

    def refusal(self, seconds_left: float | None) -> OverloadedError | None:
        """Return the error by which every backbone would refuse a request now, or None."""
        return self.backbones.refusal(seconds_left)

    @contextmanager
    def acquire(self, name: str = "") -> Iterator[ServedModel]:
        """Hold the version that answers for a model, for one request.

        Raises:
            NotFoundError: there is no such model.
            NoVersionError: it was created, and has no version yet.
            PreconditionError: it has no version that could be loaded.
        """
        served = self.get(name)
        served.users += 1
        try:
            yield served
        finally:
            self._release(served)

    def get(self, name: str) -> ServedModel:
        """Return the version that answers now, without holding it; errors as `acquire`."""
        name = self.resolve(name)
        served = self._served.get(name)
        if served is not None:
            if call := current():
                call.model = name
            return served
        if name not in self.stored.names() and self.stored.has_looked:
            there_are = ", ".join(filter(may_name, self.names())) or "none"
            raise NotFoundError(f"there is no model {name!r}; this server has: {there_are}")
        is_coming = not self.stored.has_looked or self.stored.get(name).champion is not None
        state = "is being loaded: try again" if is_coming else "has no champion: promote a version"
        problem = self.problem(name)
        if not problem and not is_coming and self.stored.get(name).beginning:
            raise NoVersionError(name, WITHOUT_VERSION)
        raise PreconditionError(problem or f"model {name!r} {state}")

    @contextmanager
    def hold(self, name: str = "") -> Iterator[HeldModel]:
        """Hold a model that takes examples; errors as `acquire`.

        It may answer, or have no version yet.
        """
        held = self.held(name)
        held.users += 1
        try:
            yield held
        finally:
            self._release(held)

    def held(self, name: str) -> HeldModel:
        """Return a model that takes examples, without holding it; errors as `acquire`."""
        begun = self._begun.get(self.resolve(name))
        return begun or self.get(name)

    def problem(self, name: str) -> str:
        """Return why a model's champion does not answer, or an empty text."""
        problem = self._problems.get(name)
        return problem.text if problem else ""

    async def refresh(self) -> None:
        """Bring each served model in line with the store.

        A champion that cannot be loaded is tried again after longer and longer pauses. Where nothing answers yet, one
        of the champions before it does meanwhile. A model whose folder was deleted answers no more, and takes all that
        is known of it along.

        Raises:
            StorageError: the store is empty altogether, and was not before; everything stays as it was.
            OSError: the store cannot be listed; likewise.
        """
        async with self._changing:
            await do_all([self.stored.look, self._drop_deleted, self._follow_all])

    async def _drop_deleted(self) -> None:
        removed = {*self._served, *self._begun, *self._followed}.difference(self.stored.names())
        self._followed = {*self.stored.names()}
        for name in removed | self._removed:  # once more a look later, for what requests in flight have counted since
            self._metrics.forget(name)
        self._removed = removed
        for name in removed:
            log.warning("model %s: it was deleted, or its folder is gone from the store: it answers no more", name)
            self._problems.pop(name, None)
            for held in (self._served.pop(name, None), self._begun.pop(name, None)):
                if held:
                    self._release(held)
        if removed:
            await self.threads.store.run(trim_heap)

    async def _follow_all(self) -> None:
        await do_all(partial(self._follow, name) for name in self.stored.names())

    async def move(
        self, name: str, to: int | None, *, who: str, why: str, expected: int | None = None, request_id: str = ""
    ) -> HistoryEntry:
        """Load a version, make it the champion, and let it answer.

        Once the line of history is written nothing is raised any more: it took effect, here and on other servers.

        Args:
            name: the model.
            to: the version, or None for the champion before this one.
            who: as `ModelStore.move`; so are the rest, the return value and what is raised there.
            why: as `who`.
            expected: as `who`. A rollback that states none expects the champion of the moment when it was asked for, so
                that two at once do not go back two.
            request_id: as `who`.

        Raises:
            NotFoundError: no such version.
            PreconditionError: it cannot be loaded, or the alias cannot be moved; everything is as it was.
        """
        event: Literal["promote", "rollback"] = "promote" if to else "rollback"
        if expected is None and to is None:
            expected = await self.threads.store.run(self.store.champion, name)
        async with self._changing:
            entry = await self.threads.store.run(self.store.moved_by, name, request_id, event, to or 0)
            if entry:
                with _logged(name, entry):
                    await self.stored.look()
                    await self._follow(name)
                return entry
            self._check_served_here(name)
            version = await self.threads.store.run(self.store.next_rollback, name) if to is None else to
            try:
                loaded = await self._load(name, version)
            except (DeadlineError, DrainingError, NotFoundError, OverloadedError, StorageError):
                raise  # there is no such version, or it says nothing of the version
            except RegraftError as error:
                raise PreconditionError(f"version {version} of {name!r} cannot be loaded: {error}") from error
            move = partial(self.store.move, who=who, why=why, event=event, expected=expected, request_id=request_id)
            try:
                entry = await self.threads.moves.run(move, name, version)
            except BaseException:
                self._release(loaded)
                raise
            with _logged(name, entry):
                self._swap(loaded)
        return entry

    async def create(
        self, name: str, beginning: Beginning, *, who: str, why: str, request_id: str = ""
    ) -> HistoryEntry:
        """Begin a model, and take its examples from now on.

        Arguments and errors are those of `ModelFolders.create`.
        """
        create = partial(self.store.folders.create, who=who, why=why, request_id=request_id)
        return await self._change_folders(name, partial(create, name, beginning))

    async def delete(self, name: str, *, who: str, why: str, etag: str = "", request_id: str = "") -> HistoryEntry:
        """Delete a model; what it is answering is answered.

        Arguments and errors are those of `ModelFolders.delete`.
        """
        delete = partial(self.store.folders.delete, who=who, why=why, etag=etag, request_id=request_id)
        return await self._change_folders(name, partial(delete, name))

    async def restore(self, name: str, *, who: str, why: str, request_id: str = "") -> HistoryEntry:
        """Bring a model back, and let it answer.

        Arguments and errors are those of `ModelFolders.restore`.
        """
        restore = partial(self.store.folders.restore, who=who, why=why, request_id=request_id)
        return await self._change_folders(name, partial(restore, name))

    async def _change_folders(self, name: str, change: Callable[[], HistoryEntry]) -> HistoryEntry:
        """Change which models there are, and follow that.

        Once it took effect nothing is raised.
        """
        self._check_served_here(name)
        async with self._changing:
            entry = await self.threads.moves.run(change)
            try:
                await do_all([self.stored.look, self._drop_deleted, partial(self._follow_if_there, nfc(name))])
            except Exception:
                log.exception("model %s: %s took effect, but what follows from it failed", name, entry.event)
        return entry

    def _check_served_here(self, name: str) -> None:
        if self._only and nfc(name) not in self._only:
            raise PreconditionError(f"this server was told to serve others than {name!r}: ask one that serves it")

    async def _follow_if_there(self, name: str) -> None:
        if name in self.stored.names():
            await self._follow(name)

    def close(self) -> None:
        """Refuse what waits in the lanes."""
        self.backbones.close()

    async def _follow(self, name: str) -> None:
        """Bring one model in line with the last look at the store."""
        stored, served, problem = self.stored.get(name), self._served.get(name), self._problems.get(name)
        if stored.problem:
            self._problems[name] = _Problem(None, stored.problem)
            return
        champion = stored.champion
        self._metrics.of(name)  # begins its counters
        if champion or stored.has_versions:  # of a model that was just created none is missing
            self._metrics.champion_version.labels(name).set(champion or 0)
        self._metrics.served_version.labels(name).set(served.version if served else 0)
        if champion is None and stored.beginning and name not in self._begun and not served:
            if problem is None or problem.is_due():
                await self._begin(name, stored.beginning)
        elif champion is None or (served and served.version == champion):
            self._problems.pop(name, None)
        elif problem is None or problem.version != champion or problem.is_due():
            await self._try_champion(name, champion)

    async def _try_champion(self, name: str, version: int) -> None:
        """Load a champion and let it answer.

        Where it cannot be loaded and nothing answers yet, a champion before it does.
        """
        problem = self._problems.get(name)
        failures = problem.failures + 1 if problem and problem.version == version else 1
        try:
            self._swap(await self._load(name, version))
        except Exception as error:
            pause_s = self._pauses.after(failures)
            self._metrics.load_failures.labels(name).inc()
            if name not in self._served:
                await self._serve_predecessor(name)
            serving = self._served[name].version if name in self._served else 0
            still = f"version {serving} serves meanwhile" if serving else "nothing serves for it"
            self._problems[name] = _Problem(version, f"{error}; {still}", failures, _now_s() + pause_s)
            log.error(
                "model %s: champion %d cannot be loaded, %s; tried again in %g s: %s",
                name,
                version,
                still,
                pause_s,
                error,
            )
            if not isinstance(error, (RegraftError, OSError)):
                raise

    async def _begin(self, name: str, beginning: Beginning) -> None:
        """Open the backbone of a model without a version, for its examples."""
        problem = self._problems.pop(name, None)
        try:
            stored = await self.threads.store.run(self._backbone_store.find, beginning.backbone)
            head = blank_head(stored.embedding_size)
            backbone = await self.backbones.use(stored, head, partial(self._open_stored, stored))
        except Exception as error:
            failures = problem.failures + 1 if problem else 1
            text = f"its backbone {beginning.backbone_name!r} cannot be loaded: {error}"
            self._problems[name] = _Problem(None, text, failures, _now_s() + self._pauses.after(failures))
            log.error("model %s: %s", name, text)
            if not isinstance(error, (RegraftError, OSError)):
                raise
            return
        self._begun[name] = BegunModel(name, stored, head, backbone, users=1)
        log.info("model %s: it has no version yet, and takes examples for %s", name, stored.name)

    def _open_stored(self, stored: StoredBackbone) -> Engine:
        graph = graft_blank(self._backbone_store.read(stored))
        return self._open_engine(graph.SerializeToString(), stored)

    async def _serve_predecessor(self, name: str) -> None:
        """Let the latest former champion answer that can be loaded."""
        for version in self.stored.get(name).champions[-2 : -2 - _MAX_FALLBACKS : -1]:
            try:
                self._swap(await self._load(name, version))
            except (RegraftError, OSError) as error:
                log.warning("model %s: version %d, champion before, cannot be loaded either: %s", name, version, error)
            else:
                return

    async def _load(self, name: str, version: int) -> ServedModel:
        """Load and try a version; the caller swaps it in or releases it."""
        folder = await self.threads.store.run(self.store.folder, name, version)
        path = folder / MODEL_FILE
        card, head = await self.threads.store.run(_read, path)
        if card.name != name:
            raise ArtifactError(f"{path}: its card says that it is model {card.name!r}")
        is_shared = self.backbones.get(card.backbone.digest) is not None
        backbone = await self.backbones.use(card, head, partial(self._open_engine, path, card))
        log.info(
            "model %s: version %d loaded on %s, %s%s",
            name,
            version,
            backbone.engine.provider,
            "into the session that is there" if is_shared else f"new session, {backbone.engine.plan}",
            f" ({backbone.engine.fallback_reason})" if backbone.engine.fallback_reason else "",
        )
        return ServedModel(name, version, card, head, backbone, users=1)

    def _swap(self, new: ServedModel) -> None:
        """Let ``new`` answer, by one assignment: no request sees a state in between."""
        old = self._served.get(new.name)
        self._served[new.name] = new
        self._problems.pop(new.name, None)
        self._metrics.served_version.labels(new.name).set(new.version)
        engine = new.backbone.engine
        self._metrics.show_provider(new.name, engine.provider, is_fallback=bool(engine.fallback_reason))
        begun = self._begun.pop(new.name, None)
        before = old or begun
        kind = "head" if before and before.backbone is new.backbone else "session"
        self._metrics.swaps.labels(new.name, kind).inc()
        log.info("model %s: version %d answers (before: %s)", new.name, new.version, old.version if old else "none")
        for held in (old, begun):
            if held:
                self._release(held)

    def _release(self, held: HeldModel) -> None:
        """Give up one use of a model; the last one gives up its backbone."""
        held.users -= 1
        if held.users:
            return
        if isinstance(held, ServedModel):
            log.info("model %s: version %d retired", held.name, held.version)
        self.backbones.give_up(held.backbone, held.card.backbone.digest)


@contextmanager
def _logged(name: str, entry: HistoryEntry) -> Iterator[None]:
    """Log what fails after the champion moved, instead of raising it."""
    try:
        yield
    except Exception:
        log.exception("model %s: version %d is the champion, but what follows from it failed", name, entry.version)


def _read(path: Path) -> tuple[ModelCard, Head]:
    """Read a file's card and head, and let go of its backbone."""
    loaded = artifact.read(path)
    card, head = loaded.card, loaded.head
    del loaded
    trim_heap()
    return card, head
