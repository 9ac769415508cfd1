"""The Models service: what is served, and which version should be."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import grpc

from regraft.errors import InvalidRequestError, NotFoundError
from regraft.examples import ExamplesStore
from regraft.labels import check_note
from regraft.v1 import models_pb2 as pb
from regraft.v1 import models_pb2_grpc as pb_grpc
from serving.access import who
from serving.baking import Baker
from serving.models import Models
from serving.observer import Observer, Shadowed
from serving.traffic import DriftState, Traffic
from serving.wire import MOST_ANSWER_BYTES, card_json

_HISTORY: Final = 50
_FLIPS: Final = 20
_LONGEST_WHY: Final = 1_000
_STATES: Final[dict[DriftState, pb.Drift.State]] = {
    "not known": pb.Drift.NOT_KNOWN,
    "too few": pb.Drift.TOO_FEW,
    "steady": pb.Drift.STEADY,
    "drifted": pb.Drift.DRIFTED,
}


class ModelsService(pb_grpc.ModelsServicer):
    """Thin: every rule is in `serving.models` and `regraft.store`."""

    def __init__(
        self,
        models: Models,
        examples: ExamplesStore,
        observer: Observer,
        baker: Baker,
        on_change: Callable[[], object],
    ) -> None:
        """Answer from ``models``, ``observer`` and ``baker``; ``on_change`` is called after a swap."""
        self._models = models
        self._threads = models.threads
        self._examples = examples
        self._observer = observer
        self._baker = baker
        self._on_change = on_change

    async def ListModels(  # noqa: N802 - gRPC's name
        self, _request: pb.ListModelsRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListModelsResponse:
        """List every model of the store."""
        names = sorted({*self._models.names(), *self._models.store.names()})
        models = [await self._describe(name) for name in names]
        if sum(model.ByteSize() for model in models) > MOST_ANSWER_BYTES:
            for model in models:
                model.ClearField("card_json")
        return pb.ListModelsResponse(models=models)

    async def GetModel(  # noqa: N802 - gRPC's name
        self, request: pb.GetModelRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.Model:
        """Describe one model."""
        return await self._describe(self._existing(request.name))

    async def Promote(  # noqa: N802 - gRPC's name
        self, request: pb.PromoteRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.Model:
        """Make a version the champion."""
        _check_by(request)
        name = self._existing(request.name)
        if request.version < 1:
            raise InvalidRequestError("version: which one? The first is 1")
        move = partial(self._models.store.promote, name, request.version, who=who(request.who), why=request.why)
        await self._models.promote(name, request.version, move)
        self._on_change()
        return await self._describe(name)

    async def Rollback(  # noqa: N802 - gRPC's name
        self, request: pb.RollbackRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.Model:
        """Go back to the champion before."""
        _check_by(request)
        name = self._existing(request.name)
        store = self._models.store
        move = partial(store.rollback, name, who=who(request.who), why=request.why)
        previous = store.previous_champion(name)
        if previous is None:
            move()  # raises, and says why
        else:
            await self._models.promote(name, previous, move)
            self._on_change()
        return await self._describe(name)

    async def Shadow(  # noqa: N802 - gRPC's name
        self, request: pb.ShadowRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.Model:
        """Let a version judge beside the champion, or none."""
        _check_by(request)
        name = self._existing(request.name)
        if request.version < 0:
            raise InvalidRequestError("version: which one? The first is 1, and 0 is none")
        if request.version:
            await self._observer.check_shadow(name, request.version)
        version = request.version or None
        store, by = self._models.store, who(request.who)
        await self._threads.moves.run(store.set_shadow, name, version, who=by, why=request.why)
        await self._observer.look()
        return await self._describe(name)

    def _existing(self, name: str) -> str:
        name = self._models.resolve(name)
        if name not in self._models.store.names():
            raise NotFoundError(
                f"there is no model {name!r}; this server has: {', '.join(self._models.store.names()) or 'none'}"
            )
        return name

    async def _describe(self, name: str) -> pb.Model:
        """Put together what memory, store and examples know; memory is read here, the disk in a thread."""
        served = self._models.get(name) if name in self._models.names() else None
        model = await self._threads.store.run(self._describe_stored, name)
        model.problem = self._models.problem(name)
        if served:
            engine = served.backbone.engine
            model.served_version = served.version
            model.labels.extend(served.card.labels)
            model.provider = engine.provider
            model.fallback_reason = engine.fallback_reason
            model.card_json = await self._threads.pictures.run(card_json, served.card)
        await self._describe_traffic(model)
        return model

    async def _describe_traffic(self, model: pb.Model) -> None:
        """Add what observer and baker know; the tests of drift are computed in a thread."""
        if shadowed := self._observer.shadow(model.name):
            model.shadow.CopyFrom(_shadow(shadowed))
        if traffic := self._observer.traffic(model.name):
            model.drift.CopyFrom(await self._threads.pictures.run(_drift, traffic))
        if baking := self._baker.baking(model.name):
            trial = baking.trial
            model.baking.version, model.baking.previous = trial.version, trial.previous
            model.baking.remaining_s = baking.remaining_s
            model.baking.images = traffic.images if traffic else 0

    def _describe_stored(self, name: str) -> pb.Model:
        store = self._models.store
        history = store.history(name)[: -_HISTORY - 1 : -1]
        return pb.Model(
            name=name,
            champion=store.champion(name) or 0,
            versions=store.versions(name),
            examples=self._examples.count(name),
            history=[
                pb.HistoryEntry(
                    event=entry.event,
                    version=entry.version,
                    previous=entry.previous or 0,
                    who=entry.who,
                    why=entry.why,
                    job=entry.job,
                    at=entry.at,
                )
                for entry in history
            ],
        )


def _check_by(request: pb.PromoteRequest | pb.RollbackRequest | pb.ShadowRequest) -> None:
    """Refuse what no history should keep of who and why."""
    check_note("who", request.who)
    check_note("why", request.why.replace("\n", " "), _LONGEST_WHY)  # a reason may have several lines


def _shadow(shadowed: Shadowed) -> pb.Shadow:
    found = shadowed.comparison
    return pb.Shadow(
        version=shadowed.version,
        problem=shadowed.problem,
        images=found.images,
        agreed=found.agreed,
        confidence_shift=found.confidence_shift / max(found.images, 1),
        flips=[
            pb.Flip(champion=champion, shadow=shadow, images=count)
            for (champion, shadow), count in found.flips.most_common(_FLIPS)
        ],
    )


def _drift(traffic: Traffic) -> pb.Drift:
    return pb.Drift(
        state=_STATES[traffic.drift],
        images=len(traffic.distance),
        unknown_share=traffic.unknown_share,
        shifts=[
            pb.Shift(of=shift.of, ks=shift.ks, p_value=shift.p_value, drifted=shift.drifted)
            for shift in traffic.largest_shifts
        ],
    )
