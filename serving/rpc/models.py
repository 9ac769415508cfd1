"""The Models service: models, their versions, and backbones."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from regraft.client.message_values import to_timestamp
from regraft.errors import DeadlineError, InvalidRequestError, NotFoundError, OperatorError, RegraftError
from regraft.label_rules import LabelPolicy, check_note, nfc
from regraft.model_names import model_name
from regraft.stores.backbones import ADVICE
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import MAX_KEY_LENGTH
from regraft.stores.lifecycle.folders import DeletedModel
from regraft.stores.lifecycle.history import HistoryEntry
from regraft.v1 import models_pb2 as pb
from regraft.v1 import models_pb2_grpc as pb_grpc
from serving.backbones.listing import BackboneList, place
from serving.inference.registry import ModelRegistry
from serving.lifecycle.changes import ModelChanges
from serving.rollout.observer import Observer, ShadowStatus
from serving.rollout.recent_answers import DriftState, RecentAnswers
from serving.rollout.rollback import AutomaticRollback
from serving.rpc.context import Context
from serving.rpc.pages import MAX_ANSWER_BYTES, as_many_as_fit, page_size, page_start, page_token
from serving.rpc.parsing import check_choice
from serving.telemetry.call import actor, may_name, note_effect, shield

log = logging.getLogger("regraft.models")

_HISTORY: Final = 50
_MAX_MODELS: Final = 500
"""In one answer."""
_MAX_BACKBONES: Final = 500
"""Likewise."""
_COUNT_S: Final = 1.0
"""The longest count of examples: GetModel does not wait for the database."""
_FLIPS: Final = 20
_MAX_WHY: Final = 1_000
_POLICIES: Final[dict[int, LabelPolicy | None]] = {
    pb.LABEL_SET_UNSPECIFIED: None,
    pb.LABEL_SET_OPEN: "open",
    pb.LABEL_SET_CLOSED: "closed",
}
_STATES: Final[dict[DriftState, pb.Drift.State]] = {
    "not known": pb.Drift.STATE_NOT_KNOWN,
    "too few": pb.Drift.STATE_TOO_FEW,
    "steady": pb.Drift.STATE_STEADY,
    "drifted": pb.Drift.STATE_DRIFTED,
}


class ModelsService(pb_grpc.ModelsServicer):
    """The servicer; every rule is in `serving.inference.registry` and `regraft.stores.models`."""

    def __init__(
        self,
        models: ModelRegistry,
        examples: ExamplesStore,
        observer: Observer,
        rollback: AutomaticRollback,
        backbones: BackboneList,
        on_change: Callable[[], object],
        changes: ModelChanges,
    ) -> None:
        """Serve ``models``.

        ``changes`` creates, deletes and restores them; ``on_change`` is called after a swap.
        """
        self._models = models
        self._threads = models.threads
        self._examples = examples
        self._observer = observer
        self._rollback = rollback
        self._backbones = backbones
        self._on_change = on_change
        self._changes = changes

    async def ListModels(self, request: pb.ListModelsRequest, _context: Context) -> pb.ListModelsResponse:
        """List the models of the store, a page at a time."""
        most, [after] = page_size(request, _MAX_MODELS), page_start(request, parts=1) or [""]
        names = {*self._models.names(), *await self._threads.store.run(self._models.store.names)}
        folders = self._models.store.folders
        deleted = await self._threads.store.run(folders.deleted) if request.show_deleted else []
        trash = {model.name: model for model in deleted if model.name not in names}
        wanted = sorted(name for name in {*names, *trash} if name > after and may_name(name))
        models = await as_many_as_fit(self._describe_each(wanted[:most], trash))
        page = pb.ListModelsResponse(models=models)
        if models and len(models) < len(wanted):
            page.next_page_token = page_token(request, models[-1].name)
        return page

    async def GetModel(self, request: pb.GetModelRequest, _context: Context) -> pb.GetModelResponse:
        """Describe one model."""
        name = await self._existing(request.name)
        return pb.GetModelResponse(model=await self._describe_one(name))

    async def Promote(self, request: pb.PromoteRequest, context: Context) -> pb.PromoteResponse:
        """Make a version the champion."""
        _check_move(request)
        if request.version < 1:
            raise InvalidRequestError("version: which one? The first is 1")
        model, effect = await self._move(request, request.version, context)
        return pb.PromoteResponse(model=model, effect=effect)

    async def Rollback(self, request: pb.RollbackRequest, context: Context) -> pb.RollbackResponse:
        """Go back to the champion before."""
        _check_move(request)
        model, effect = await self._move(request, None, context)
        return pb.RollbackResponse(model=model, effect=effect)

    async def Shadow(self, request: pb.ShadowRequest, context: Context) -> pb.ShadowResponse:
        """Set the version that shadows the champion, or none."""
        _check_by(request)
        name = await self._existing(request.name)
        if request.version < 0:
            raise InvalidRequestError("version: which one? The first is 1, and 0 is none")
        if request.version:
            await self._observer.check_shadow(name, request.version)
        set_shadow = partial(self._models.store.set_shadow, name, request.version or None)
        writing = self._threads.moves.run(set_shadow, who=actor(request.who), why=request.why, etag=request.etag)
        model, effect = await shield(self._change(name, writing, self._shadowed), context)
        return pb.ShadowResponse(model=model, effect=effect)

    async def CreateModel(self, request: pb.CreateModelRequest, context: Context) -> pb.CreateModelResponse:
        """Begin a model without a version."""
        _check_change(request)
        check_choice("label_set", request.label_set, pb.LabelSet)
        creating = self._changes.create(
            request.name,
            request.backbone,
            request.labels,
            _POLICIES[request.label_set],
            who=actor(request.who),
            why=request.why,
            request_id=request.request_id,
        )
        model, effect = await shield(self._change(nfc(request.name), creating, self._changed), context)
        return pb.CreateModelResponse(model=model, effect=effect)

    async def DeleteModel(self, request: pb.DeleteModelRequest, context: Context) -> pb.DeleteModelResponse:
        """Put a model into the trash."""
        _check_change(request)
        return await shield(self._delete(request), context)

    async def _delete(self, request: pb.DeleteModelRequest) -> pb.DeleteModelResponse:
        by = {"who": actor(request.who), "why": request.why, "request_id": request.request_id}
        deleted = await self._changes.delete(nfc(request.name), etag=request.etag, **by)
        kept_until = deleted.kept_until(self._changes.trash_days)
        note_effect(event="delete", kept_until=kept_until.isoformat(timespec="seconds"))
        response = pb.DeleteModelResponse(effect=_entry(deleted.deleted))
        response.kept_until.FromDatetime(kept_until)
        return response

    async def RestoreModel(self, request: pb.RestoreModelRequest, context: Context) -> pb.RestoreModelResponse:
        """Bring a model back from the trash."""
        _check_change(request)
        by = {"who": actor(request.who), "why": request.why, "request_id": request.request_id}
        restoring = self._changes.restore(nfc(request.name), **by)
        model, effect = await shield(self._change(nfc(request.name), restoring, self._changed), context)
        return pb.RestoreModelResponse(model=model, effect=effect)

    async def ListBackbones(self, request: pb.ListBackbonesRequest, _context: Context) -> pb.ListBackbonesResponse:
        """List a page of the backbones that models can begin with."""
        most, after = page_size(request, _MAX_BACKBONES), page_start(request, parts=3) or []
        listed = await self._backbones.list(show_addable=request.show_addable)
        wanted = [each for each in listed if place(each) > after]
        page = pb.ListBackbonesResponse(backbones=await as_many_as_fit(wanted[:most]))
        if not any(each.is_here for each in listed):
            page.advice = ADVICE
        if page.backbones and len(page.backbones) < len(wanted):
            page.next_page_token = page_token(request, *place(page.backbones[-1]))
        return page

    async def _move(
        self,
        request: pb.PromoteRequest | pb.RollbackRequest,
        to: int | None,
        context: Context,
    ) -> tuple[pb.Model, pb.HistoryEntry]:
        name = await self._existing(request.name)
        moving = self._models.move(
            name,
            to,
            who=actor(request.who),
            why=request.why,
            expected=request.expected_champion if request.HasField("expected_champion") else None,
            request_id=request.request_id,
        )
        return await shield(self._change(name, moving, self._changed), context)

    async def _changed(self) -> None:
        self._on_change()

    async def _shadowed(self) -> None:
        await self._models.refresh()
        await self._observer.look()

    async def _change(
        self, name: str, change: Awaitable[HistoryEntry], follow_up: Callable[[], Awaitable[None]]
    ) -> tuple[pb.Model, pb.HistoryEntry]:
        """Await a change, and describe the model after it, and what it did.

        An error after the change is logged only: the change took effect, and no status may say otherwise.
        """
        effect = await change
        note_effect(event=effect.event, version=effect.version, previous=effect.previous or 0)
        model = pb.Model(name=name)
        try:
            await follow_up()
            model = _without_large_card(await self._describe_one(name))
        except DeadlineError:
            log.info("model %s: %s of version %d took effect as its caller left", name, effect.event, effect.version)
        except Exception:
            log.exception("model %s: %s of version %d took effect", name, effect.event, effect.version)
        return model, _entry(effect)

    async def _existing(self, name: str) -> str:
        name = self._models.resolve(name)
        names = await self._threads.store.run(self._models.store.names)
        if name not in names:
            some = ", ".join(filter(may_name, names)) or "none"
            raise NotFoundError(f"there is no model {name!r}; this server has: {some}")
        return name

    async def _count(self, names: Sequence[str]) -> dict[str, int]:
        """Count the examples of models; empty where the database is slow."""
        try:
            async with asyncio.timeout(_COUNT_S):
                return await self._threads.database.run(
                    lambda: {name: self._examples.labels.count(name) for name in names}
                )
        except (RegraftError, TimeoutError) as error:
            log.warning("the examples of %s cannot be counted: %s", ", ".join(names), error or f"{_COUNT_S} s")
            return {}

    async def _describe_one(self, name: str) -> pb.Model:
        counts = await self._count([name])
        return await self._describe(name, counts.get(name))

    async def _describe_each(
        self, names: Sequence[str], trash: Mapping[str, DeletedModel]
    ) -> AsyncGenerator[pb.Model, None]:
        counts = await self._count([name for name in names if name not in trash])
        for name in names:
            if name in trash:
                yield self._describe_deleted(trash[name])
                continue
            yield _without_large_card(await self._describe(name, counts.get(name)))

    async def _describe(self, name: str, examples: int | None) -> pb.Model:
        """Describe a model from memory and, in a thread, from the store."""
        served = self._models.get(name) if name in self._models.names() else None
        model = await self._threads.store.run(self._describe_stored, name)
        if examples is not None:
            model.examples = examples
        model.problem = self._models.problem(name)
        if served:
            engine = served.backbone.engine
            model.served_version = served.version
            model.labels.extend(served.card.labels)
            model.backbone = served.card.backbone.name
            model.provider = engine.provider
            model.fallback_reason = engine.fallback_reason
            model.card_json = await self._threads.pictures.run(lambda: served.card_json)
        await self._describe_beginning(model)
        await self._describe_answers(model)
        return model

    def _describe_deleted(self, deleted: DeletedModel) -> pb.Model:
        model = pb.Model(name=deleted.name, history=[_entry(deleted.deleted)])
        model.kept_until.FromDatetime(deleted.kept_until(self._changes.trash_days))
        return model

    async def _describe_beginning(self, model: pb.Model) -> None:
        """Say what a model was created with, and what it lacks."""
        beginning = self._models.stored.get(model.name).beginning
        if beginning is None:
            return
        model.label_set = pb.LABEL_SET_CLOSED if beginning.policy == "closed" else pb.LABEL_SET_OPEN
        model.backbone = model.backbone or beginning.backbone_name
        if not model.champion:
            model.labels.extend(beginning.labels)
            model.missing = await self._changes.first_versions.missing(model.name)

    async def _describe_answers(self, model: pb.Model) -> None:
        """Add shadow, drift and trial; drift is computed in a thread."""
        if status := self._observer.shadow(model.name):
            model.shadow.CopyFrom(_shadow(status))
        if recent := self._observer.recent_answers(model.name):
            model.drift.CopyFrom(await self._threads.pictures.run(_drift, recent))
        if running := self._rollback.trial(model.name):
            model.baking.version, model.baking.previous = running.trial.version, running.trial.previous
            model.baking.remaining_s = running.remaining_s
            model.baking.images = recent.images if recent else 0

    def _describe_stored(self, name: str) -> pb.Model:
        store = self._models.store
        model = pb.Model(name=name, versions=store.versions(name))
        with suppress(OperatorError):  # the model's problem says so
            model.history.extend(map(_entry, store.history(name)[: -_HISTORY - 1 : -1]))
            model.champion = store.champion(name) or 0
            model.etag = store.etag(name)
        return model


def _without_large_card(model: pb.Model) -> pb.Model:
    """Leave the card out of an answer beyond what every client takes."""
    if model.ByteSize() > MAX_ANSWER_BYTES:
        model.ClearField("card_json")
    return model


def _entry(entry: HistoryEntry) -> pb.HistoryEntry:
    return pb.HistoryEntry(
        event=entry.event,
        version=entry.version,
        previous=entry.previous or 0,
        who=entry.who,
        why=entry.why,
        job="" if entry.request_id else entry.job,
        at=to_timestamp(entry.at),
        request_id=entry.request_id,
    )


def _check_move(request: pb.PromoteRequest | pb.RollbackRequest) -> None:
    _check_by(request)
    check_note("request_id", request.request_id, MAX_KEY_LENGTH)
    if request.expected_champion < 0:
        raise InvalidRequestError("expected_champion: which version? The first is 1, and 0 is none")


def _check_change(request: pb.CreateModelRequest | pb.DeleteModelRequest | pb.RestoreModelRequest) -> None:
    model_name(request.name)  # refused here, and not taken for the only model
    _check_by(request)
    check_note("request_id", request.request_id, MAX_KEY_LENGTH)


def _check_by(
    request: pb.PromoteRequest
    | pb.RollbackRequest
    | pb.ShadowRequest
    | pb.CreateModelRequest
    | pb.DeleteModelRequest
    | pb.RestoreModelRequest,
) -> None:
    """Refuse an author or a reason that no history should hold."""
    check_note("who", request.who)
    check_note("why", request.why.replace("\n", " "), _MAX_WHY)  # a reason may have several lines


def _shadow(status: ShadowStatus) -> pb.Shadow:
    comparison = status.comparison
    return pb.Shadow(
        version=status.version,
        problem=status.problem,
        images=comparison.images,
        agreed=comparison.agreed,
        confidence_shift=comparison.confidence_shift / max(comparison.images, 1),
        flips=[
            pb.Flip(champion=champion, shadow=shadow, images=count)
            for (champion, shadow), count in comparison.flips.most_common(_FLIPS)
        ],
    )


def _drift(recent: RecentAnswers) -> pb.Drift:
    return pb.Drift(
        state=_STATES[recent.drift],
        images=len(recent.distance),
        unknown_share=recent.unknown_share,
        shifts=[
            pb.Shift(of=shift.of, ks=shift.ks, p_value=shift.p_value, drifted=shift.drifted)
            for shift in recent.largest_shifts
        ],
    )
