"""What becomes of a labelled picture that somebody sends: checked, decoded, kept, and told of. Knows nothing of gRPC.

Pictures that come while others are being written are written together, in one transaction: a disk takes as long for
thirty as for one.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from regraft.embeddings import EmbeddingKey
from regraft.errors import CallerError, InvalidRequestError
from regraft.examples import AddOutcome, ExamplesStore, NewExample, image_hash
from regraft.image import Crop
from regraft.labels import check_label, check_note
from serving.classifier import Classifier
from serving.models import Models, ServedModel

LabelPolicy: TypeAlias = Literal["open", "closed"]

_MOST_TOGETHER: Final = 32


@dataclass(frozen=True)
class Rules:
    """What is taken in.

    Attributes:
        labels: ``closed`` takes only labels that the model knows.
        per_hour: how many labels a caller may set within an hour; 0: any number.
    """

    labels: LabelPolicy = "open"
    per_hour: int = 0


@dataclass(frozen=True)
class Added:
    """What became of one picture; ``reason`` says why it was not kept."""

    outcome: AddOutcome
    sha256: str = ""
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Said:
    """What a stream called a picture first; the same one, sent again, waits for its turn."""

    label: str
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class Sender:
    """One stream of pictures: who sends it, and what it said of each so far, by (model, image hash)."""

    caller: str
    said: dict[tuple[str, str], Said] = field(default_factory=dict)


@dataclass(eq=False)
class _Waiting:
    model: str
    caller: str
    new: NewExample
    outcome: "asyncio.Future[AddOutcome]"


class Intake:
    """Takes labelled pictures in. Use from one event loop."""

    def __init__(
        self,
        models: Models,
        examples: ExamplesStore,
        classifier: Classifier,
        on_kept: Callable[[ServedModel, str, Crop], object],
        rules: Rules = Rules(),
    ) -> None:
        """Make an intake.

        Args:
            models: whose examples they are.
            examples: keeps them.
            classifier: lends its decoder.
            on_kept: told the model, the hash and the crop of every picture that was kept and is not a duplicate.
            rules: what is taken.
        """
        self._models = models
        self._examples = examples
        self._classifier = classifier
        self._on_kept = on_kept
        self._rules = rules
        self._waiting: deque[_Waiting] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def add(self, model: str, new: NewExample, sender: Sender) -> Added:
        """Take in one picture; when this returns with a promise, it is on the disk.

        Args:
            model: may be empty while there is one.
            new: without ``data``, the picture of the kept request ``request_id``.
            sender: the stream that it comes by.

        Raises:
            RegraftError: what is nobody's fault who sends it, such as a full disk.
        """
        try:
            return await self._add(model, new, sender)
        except CallerError as error:
            return Added(AddOutcome.REJECTED, image_hash(new.data) if new.data else "", str(error))

    async def _add(self, model: str, new: NewExample, sender: Sender) -> Added:
        check_label(new.label)
        for name in ("source", "annotator", "request_id"):
            check_note(name, getattr(new, name))
        served = self._models.get(model)
        self.check_allowed(served, new.label)
        if not new.data:
            new = await self._with_kept_picture(served, new)
        sha256 = image_hash(new.data)
        first = sender.said.setdefault((served.name, sha256), Said(new.label))
        if first.label != new.label:
            return Added(AddOutcome.CONFLICTING, sha256, f"this stream called the same picture {first.label!r} before")
        async with first.turn:
            crop = await self._classifier.decode(new.data, served.card.image)
            outcome = await self._write(served.name, sender.caller, new)
        if outcome is AddOutcome.REJECTED:
            return Added(outcome, sha256, f"quota: {sender.caller} set {self._rules.per_hour} labels within an hour")
        if outcome is not AddOutcome.DUPLICATE:
            self._on_kept(served, sha256, crop)
        return Added(outcome, sha256)

    def check_allowed(self, served: ServedModel, label: str) -> None:
        """Refuse a label that would make a new class, where the server was told to take none.

        Raises:
            InvalidRequestError: it would.
        """
        if self._rules.labels == "closed" and label not in served.card.labels:
            known = ", ".join(served.card.labels[:20])
            raise InvalidRequestError(f"label {label!r}: this server takes no new ones (--labels closed), only {known}")

    async def _with_kept_picture(self, served: ServedModel, new: NewExample) -> NewExample:
        if not new.request_id:
            raise InvalidRequestError("image: neither a picture nor the request_id of one that was kept")
        requests = self._examples.requests
        kept = await asyncio.to_thread(requests.find, new.request_id)
        if kept.model != served.name:
            raise InvalidRequestError(f"request_id: {kept.id} was answered by {kept.model!r}, not {served.name!r}")
        data = await asyncio.to_thread(requests.image, kept)
        if kept.key == EmbeddingKey(served.card.backbone.digest, served.card.image.digest()):
            await asyncio.to_thread(self._examples.embeddings.put, kept.key, {kept.sha256: kept.embedding})
        return replace(new, data=data)

    async def _write(self, model: str, caller: str, new: NewExample) -> AddOutcome:
        waiting = _Waiting(model, caller, new, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_waiting())
        return await waiting.outcome

    async def _write_waiting(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft()]
            whose = batch[0].model, batch[0].caller
            while self._waiting and len(batch) < _MOST_TOGETHER and whose == self._next():
                batch.append(self._waiting.popleft())
            try:
                await self._write_together(batch)
            except Exception:  # noqa: BLE001 - one of them is to blame: each shall have its own answer
                for waiting in batch:
                    try:
                        await self._write_together([waiting])
                    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever waits
                        if not waiting.outcome.done():
                            waiting.outcome.set_exception(error)

    async def _write_together(self, batch: list[_Waiting]) -> None:
        model, caller = batch[0].model, batch[0].caller
        news = [waiting.new for waiting in batch]
        outcomes = await asyncio.to_thread(
            self._examples.add_all, model, news, caller=caller, hourly_quota=self._rules.per_hour
        )
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if not waiting.outcome.done():  # whoever waited for it may be gone
                waiting.outcome.set_result(outcome)

    def _next(self) -> tuple[str, str]:
        return self._waiting[0].model, self._waiting[0].caller
