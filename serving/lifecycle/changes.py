"""Changes of which models there are: created, deleted, restored, removed for good."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from regraft.errors import InvalidRequestError, RegraftError
from regraft.label_rules import LabelPolicy
from regraft.stores.backbones import ADVICE, BackboneStore, StoredBackbone
from regraft.stores.examples import ExamplesStore
from regraft.stores.lifecycle.folders import DeletedModel
from regraft.stores.lifecycle.history import Beginning, HistoryEntry
from serving.backbones.listing import may_use
from serving.inference.registry import ModelRegistry
from serving.lifecycle.first_versions import FirstVersions
from serving.lifecycle.trash import empty_trash
from serving.telemetry.metrics import MetricFamily, Metrics

log = logging.getLogger("regraft.models")


class ModelChanges:
    """A changer of the models of a server.

    Use it from one event loop. What another server on the store does is followed as its versions are, by
    `ModelRegistry.refresh`.
    """

    def __init__(
        self,
        models: ModelRegistry,
        examples: ExamplesStore,
        cancel_job: Callable[[str], Awaitable[object]],
        metrics: Metrics,
        *,
        policy: LabelPolicy = "open",
        trash_days: float = 30.0,
    ) -> None:
        """Change ``models``, with their ``examples``, and jobs by ``cancel_job``.

        The trash keeps a model for ``trash_days``. A model's set of labels is open or closed by ``policy``, where
        nobody says; ``closed`` is for all of them. ``first_versions`` knows what those without a version lack.
        """
        self._models = models
        self._threads = models.threads
        self._examples = examples
        self._cancel_job = cancel_job
        self._in_trash = 0
        metrics.watch(self._families)
        self._policy = policy
        self.trash_days = trash_days
        self.first_versions = FirstVersions(examples, models.threads)

    async def create(
        self,
        name: str,
        backbone: str,
        labels: Sequence[str] = (),
        policy: LabelPolicy | None = None,
        *,
        who: str,
        why: str,
        request_id: str = "",
    ) -> HistoryEntry:
        """Begin a model; it takes examples when this returns.

        Args:
            name: of the model.
            backbone: of a stored one, its name or the beginning of its digest; may be empty while there is one.
            labels: the classes that it begins with.
            policy: whether others make new classes; the server's own setting if None.
            who: for the history; so is ``why``.
            why: see there.
            request_id: a second call with the same one changes nothing, and returns what the first one did.

        Raises:
            ExistsError: a model has the name, or one in the trash.
            NotFoundError: there is no such backbone; the text says how to get one.
            InvalidRequestError: a name or a label that can be none, or a set that this server would not let grow.
        """
        if self._policy == "closed" and policy == "open":
            raise InvalidRequestError("label_set: this server takes no labels beyond those named (--labels closed)")
        stored = await self._threads.store.run(self._find_backbone, backbone)
        beginning = Beginning(stored.digest, stored.name, tuple(labels), policy or self._policy)
        return await self._models.create(name, beginning, who=who, why=why, request_id=request_id)

    async def delete(self, name: str, *, who: str, why: str, etag: str = "", request_id: str = "") -> DeletedModel:
        """Delete a model, and cancel its jobs; arguments and errors as `ModelFolders.delete`."""
        entry = await self._models.delete(name, who=who, why=why, etag=etag, request_id=request_id)
        try:
            await self._cancel_jobs(name)
        except RegraftError as error:  # it took effect, and no status may say otherwise
            log.warning("jobs of %s, which was deleted, are cancelled later: %s", name, error)
        return DeletedModel(name, entry)

    async def restore(self, name: str, *, who: str, why: str, request_id: str = "") -> HistoryEntry:
        """Bring a model back; arguments and errors as `ModelFolders.restore`."""
        return await self._models.restore(name, who=who, why=why, request_id=request_id)

    async def tidy_up(self) -> None:
        """End what a crash left half deleted, and empty the trash.

        Models leave it when their time there is over.
        """
        deleted = await self._threads.store.run(self._models.store.folders.deleted)
        for model in deleted:
            await self._cancel_jobs(model.name)
        empty = partial(empty_trash, self._models.store, self._examples, self.trash_days, datetime.now(UTC))
        removed = await self._threads.writes.run(empty)
        self._in_trash = len({model.name for model in deleted}.difference(removed))

    async def _cancel_jobs(self, name: str) -> None:
        for job in await self._threads.database.run(self._examples.jobs.unfinished, name):
            log.warning("retrain job %s of %s is cancelled: the model was deleted", job.id, name)
            await self._cancel_job(job.id)

    def _families(self) -> list[MetricFamily]:
        trash: dict[tuple[str, ...], float] = {(): self._in_trash}
        return [MetricFamily("regraft_models_deleted", "Deleted models that the trash still has.", (), trash)]

    def _find_backbone(self, wanted: str) -> StoredBackbone:
        backbones = BackboneStore(self._models.store.root)
        if wanted:
            return backbones.find(wanted, may_use)
        there = [*filter(may_use, backbones.list())]
        if len(there) != 1:
            names = ", ".join(dict.fromkeys(each.name for each in there)) or f"none; {ADVICE}"
            raise InvalidRequestError(f"backbone: which one? This store has {names}")
        return there[0]
