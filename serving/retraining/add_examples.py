"""Intake of pictures, labelled or not: check, decode, store, report.

Pictures that come while others are being taken in are decoded and written together, in one transaction: a disk takes as
long for thirty as for one.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from regraft.cancellation import set_wanted
from regraft.errors import CallerError, InvalidRequestError
from regraft.image.spec import Crop
from regraft.label_rules import LabelPolicy, check_label, check_note, nfc
from regraft.stores.database.label_quota import quota_used_up
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import Bounds
from regraft.stores.labelling.present_names import called_now
from regraft.stores.labels import AddOutcome, NewExample
from regraft.stores.unlabelled.pool import NewPicture, PoolOutcome, pool_used_up
from serving.inference.models_in_memory import HeldModel, ServedModel
from serving.inference.picture_memory import PictureMemory
from serving.inference.registry import ModelRegistry
from serving.inference.shares import Shares
from serving.retraining.decoders import Decoders, Encoded
from serving.telemetry.call import caller, note_effect

_MAX_BATCH: Final = 32

New: TypeAlias = NewExample | NewPicture
Outcome: TypeAlias = AddOutcome | PoolOutcome


@dataclass(frozen=True)
class IntakeRules:
    """Rules of the intake.

    Attributes:
        labels: ``closed`` takes only labels that the model knows.
        per_hour: labels that a caller may set within an hour; 0: any number.
        pool: of the pictures without labels that a model may have.
    """

    labels: LabelPolicy = "open"
    per_hour: int = 0
    pool: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True)
class IntakeResult:
    """The outcome of one picture.

    Attributes:
        outcome: kept, or not.
        sha256: of the picture, where there is one.
        reason: why it was not kept.
        retry_after_s: after so many seconds it would be; 0 where that is not known.
    """

    outcome: Outcome
    sha256: str = ""
    reason: str = ""
    retry_after_s: float = 0.0


@dataclass(frozen=True, eq=False)
class FirstLabel:
    """The first label of a picture in a stream; its copies wait in turn."""

    label: str
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class Sender:
    """One stream of pictures.

    Attributes:
        caller: its client.
        labels: so far, by (model, image hash).
        outcomes: pictures by outcome, also those whose caller left meanwhile.
        writing: the writes in progress.
    """

    caller: str
    labels: dict[tuple[str, str], FirstLabel] = field(default_factory=dict)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    writing: "set[asyncio.Future[None]]" = field(default_factory=set)

    async def settled(self) -> None:
        """Wait for the writes in progress, so that `outcomes` is complete."""
        while self.writing:
            await asyncio.wait(self.writing)


@asynccontextmanager
async def sending() -> AsyncIterator[Sender]:
    """Begin an upload of the current caller.

    At its end the outcomes are noted for the audit.
    """
    sender = Sender(caller())
    try:
        yield sender
    finally:
        await sender.settled()
        note_effect(**{outcome.value: count for outcome, count in sender.outcomes.items()})


@dataclass(frozen=True)
class _Stored:
    outcome: Outcome
    crop: Crop


@dataclass(frozen=True, eq=False)
class _Waiting:
    served: HeldModel
    sender: Sender
    new: New
    pixels: int
    stored: "asyncio.Future[_Stored]"

    @property
    def is_wanted(self) -> bool:
        """False once nobody waits for it. Safe in any thread."""
        return not self.stored.done()

    @property
    def encoded(self) -> Encoded:
        return Encoded(self.new.data, self.served.card.image, lambda: self.is_wanted, self.pixels)

    def end(self, outcome: _Stored | Exception) -> None:
        if not self.is_wanted:
            return
        if isinstance(outcome, Exception):
            self.stored.set_exception(outcome)
        else:
            self.stored.set_result(outcome)


class ExampleIntake:
    """The intake of pictures, labelled or not; use from one event loop."""

    def __init__(
        self,
        models: ModelRegistry,
        examples: ExamplesStore,
        decoders: Decoders,
        on_stored: Callable[[HeldModel, str, Crop], object],
        rules: IntakeRules = IntakeRules(),
        memory: Shares | None = None,
    ) -> None:
        """Make an intake.

        Args:
            models: whose examples they are.
            examples: stores them.
            decoders: of the pictures.
            on_stored: called with the model, the hash and the crop of every picture that is stored and no duplicate.
            rules: of the intake.
            memory: the bytes that pictures may take, encoded and decoded; half a gigabyte of its own if not given.
        """
        self._models = models
        self._threads = models.threads
        self._examples = examples
        self._decoders = decoders
        self._on_stored = on_stored
        self.rules = rules
        self._memory = PictureMemory(memory, models.limits, models.threads.pictures)
        self._waiting: defaultdict[tuple[str, str, type], list[_Waiting]] = defaultdict(list)  # by model, caller, kind
        self._working: asyncio.Task[None] | None = None

    async def add(
        self, model: str, new: NewExample, sender: Sender, on_admitted: Callable[[], object] = lambda: None
    ) -> IntakeResult:
        """Take in one picture; it is on the disk when this returns.

        Args:
            model: may be empty while there is one.
            new: without ``data``, the picture of the pool or the kept request that it names.
            sender: the stream that it comes by.
            on_admitted: called when there is memory for the picture.

        Raises:
            RegraftError: an error that is not the sender's, such as a full disk.
        """
        try:
            return await self._add(model, new, sender, on_admitted)
        except CallerError as error:
            sender.outcomes[AddOutcome.REJECTED] += 1
            return IntakeResult(AddOutcome.REJECTED, new.sha256 if new.data else "", str(error))

    async def add_picture(
        self, model: str, new: NewPicture, sender: Sender, on_admitted: Callable[[], object] = lambda: None
    ) -> IntakeResult:
        """Take in one picture without a label; as `add`."""
        try:
            new.check()
            served = self._models.held(model)
            stored = await self._take_in(served, sender, new, on_admitted)
        except CallerError as error:
            sender.outcomes[PoolOutcome.REJECTED] += 1
            return IntakeResult(PoolOutcome.REJECTED, new.sha256 if new.data else "", str(error))
        if stored.outcome is PoolOutcome.FULL:
            usage = await self._threads.database.run(self._examples.pool.usage, served.name)
            return IntakeResult(stored.outcome, new.sha256, pool_used_up(served.name, usage, self.rules.pool))
        if stored.outcome is PoolOutcome.ACCEPTED:
            self._on_stored(served, new.sha256, stored.crop)
        return IntakeResult(stored.outcome, new.sha256)

    async def _add(
        self, model: str, new: NewExample, sender: Sender, on_admitted: Callable[[], object]
    ) -> IntakeResult:
        check_label(new.label)
        for name in ("source", "annotator", "request_id", "group"):
            check_note(name, getattr(new, name))
        served = self._models.held(model)
        await self.check_allowed(served, new.label)
        new = await self._with_picture(served, new)
        first = sender.labels.setdefault((served.name, new.sha256), FirstLabel(new.label))
        if first.label != new.label:
            sender.outcomes[AddOutcome.CONFLICTING] += 1
            why = f"this stream called the same picture {first.label!r} before"
            return IntakeResult(AddOutcome.CONFLICTING, new.sha256, why)
        async with first.turn:
            stored = await self._take_in(served, sender, new, on_admitted)
        if stored.outcome is AddOutcome.REJECTED:
            quota = sender.caller, self.rules.per_hour
            wait_s = await self._threads.database.run(self._examples.labels.next_label_fits_s, *quota)
            return IntakeResult(stored.outcome, new.sha256, quota_used_up(*quota, wait_s), wait_s)
        if stored.outcome is not AddOutcome.DUPLICATE:
            self._on_stored(served, new.sha256, stored.crop)
        return IntakeResult(stored.outcome, new.sha256)

    async def check_allowed(self, served: HeldModel, label: str) -> None:
        """Refuse a label of a new class, where server or model take none.

        What was renamed is known by its new name alone.

        Raises:
            InvalidRequestError: it would be.
        """
        beginning = self._models.stored.get(served.name).beginning
        if "closed" not in (self.rules.labels, beginning.policy if beginning else "open"):
            return
        as_of = served.card.labels_as_of if isinstance(served, ServedModel) else ""
        changes = await self._threads.database.run(self._examples.label_changes.since, served.name)
        later = [change for change in changes if change.at > as_of]
        now = [called_now(each, later) for each in served.labels]
        now += [called_now(each, changes) for each in (beginning.labels if beginning else ())]
        known = list(dict.fromkeys(each for each in now if each is not None))
        if nfc(label) not in known:
            whose = "this server takes no new ones (--labels closed)"
            if self.rules.labels == "open":
                whose = f"model {served.name!r} was created with a closed set"
            some = ", ".join(known[:20]) or "none"
            raise InvalidRequestError(f"label {label!r}: {whose}, only {some}")

    async def _with_picture(self, served: HeldModel, new: NewExample) -> NewExample:
        """Return an example with its picture, which may be here already."""
        if new.data:
            if new.stated_sha256 not in ("", new.sha256):
                raise InvalidRequestError(
                    f"sha256: {new.stated_sha256!r} is not that of the picture; leave one of them out"
                )
            return new
        return await (self._with_pooled(served, new) if new.stated_sha256 else self._with_kept(served, new))

    async def _with_pooled(self, served: HeldModel, new: NewExample) -> NewExample:
        pool = self._examples.pool
        picture = await self._threads.database.run(pool.find, served.name, new.stated_sha256)
        data = await self._threads.database.run(pool.read, picture.sha256)
        return replace(new, data=data, source=new.source or picture.source)

    async def _with_kept(self, served: HeldModel, new: NewExample) -> NewExample:
        if not new.request_id:
            raise InvalidRequestError(
                "image: neither a picture, nor the sha256 of one without a label, nor the request_id of a kept one"
            )
        requests = self._examples.requests
        request = await self._threads.database.run(requests.find, new.request_id)
        if request.model != served.name:
            wrong = f"request_id: {request.id} was answered by {request.model!r}, not {served.name!r}"
            raise InvalidRequestError(wrong)
        data = await self._threads.database.run(requests.image, request)
        if request.key == served.key:
            vectors = {request.sha256: request.embedding}
            await self._threads.writes.run(self._examples.embeddings.put, request.key, vectors)
        return replace(new, data=data)

    async def _take_in(self, served: HeldModel, sender: Sender, new: New, on_admitted: Callable[[], object]) -> _Stored:
        """Store a picture once there is memory for it."""
        cost = await self._memory.cost(new.data, served.card.image)
        with await self._memory.take([cost], sender.caller, patient=True):
            on_admitted()
            return await self._store(served, sender, new, cost.pixels)

    async def _store(self, served: HeldModel, sender: Sender, new: New, pixels: int) -> _Stored:
        key = served.name, sender.caller, type(new)
        waiting = _Waiting(served, sender, new, pixels, asyncio.get_running_loop().create_future())
        self._waiting[key].append(waiting)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._store_waiting())
        try:
            return await waiting.stored
        except asyncio.CancelledError:
            with suppress(ValueError):  # it may be in a batch already
                self._waiting.get(key, []).remove(waiting)
            raise

    async def _store_waiting(self) -> None:
        while self._waiting:
            batch = self._next_batch()
            try:
                await self._write_all(await self._decode(batch))
            except Exception as error:  # noqa: BLE001 - nobody else would tell those who wait
                for waiting in batch:
                    waiting.end(error)

    def _next_batch(self) -> list[_Waiting]:
        key = next(iter(self._waiting))
        waiting = self._waiting.pop(key)
        if rest := waiting[_MAX_BATCH:]:
            self._waiting[key] = rest  # behind those of the others
        return waiting[:_MAX_BATCH]

    async def _decode(self, batch: Sequence[_Waiting]) -> list[tuple[_Waiting, Crop]]:
        """Decode a batch, and answer the pictures that cannot be."""
        crops = await self._decoders.decode([waiting.encoded for waiting in batch])
        decoded: list[tuple[_Waiting, Crop]] = []
        for waiting, crop in zip(batch, crops, strict=True):
            if isinstance(crop, Exception):
                waiting.end(crop)
            else:
                decoded.append((waiting, crop))
        return decoded

    async def _write_all(self, batch: Sequence[tuple[_Waiting, Crop]]) -> None:
        try:
            await self._write(batch)
        except Exception:  # noqa: BLE001 - one of them is to blame: each shall have its own answer
            for waiting, crop in batch:
                try:
                    await self._write([(waiting, crop)])
                except Exception as error:  # noqa: BLE001 - any error belongs to its caller
                    waiting.end(error)

    async def _write(self, batch: Sequence[tuple[_Waiting, Crop]]) -> None:
        wanted = [(waiting, crop) for waiting, crop in batch if waiting.is_wanted]
        if not wanted:
            return
        news = [waiting.new for waiting, _ in wanted]
        first, _ = wanted[0]  # all of a batch are of one model, one caller and one kind

        def store() -> Sequence[Outcome]:
            set_wanted(lambda: any(waiting.is_wanted for waiting, _ in wanted))
            return self._keep(first.served.name, news, first.sender.caller)

        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        senders = [waiting.sender for waiting, _ in wanted]
        for sender in senders:
            sender.writing.add(written)
        try:
            outcomes = await self._threads.writes.run(store)
            for sender, outcome in zip(senders, outcomes, strict=True):
                sender.outcomes[outcome] += 1
        finally:
            for sender in senders:
                sender.writing.discard(written)
            written.set_result(None)
        for (waiting, crop), outcome in zip(wanted, outcomes, strict=True):
            waiting.end(_Stored(outcome, crop))

    def _keep(self, model: str, batch: Sequence[New], caller: str) -> Sequence[Outcome]:
        if labelled := [new for new in batch if isinstance(new, NewExample)]:
            return self._examples.add_all(model, labelled, caller=caller, hourly_quota=self.rules.per_hour)
        return self._examples.pool.add(
            model, [new for new in batch if isinstance(new, NewPicture)], self.rules.pool, caller
        )
