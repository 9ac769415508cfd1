"""Lists of labelled pictures, a page at a time, and their thumbnails."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from regraft.client.message_values import time_text
from regraft.errors import InvalidRequestError, NotFoundError, OverloadedError
from regraft.label_rules import check_hash, nfc
from regraft.stores.examples import ExamplesStore
from regraft.stores.labelling.listing import OF_PREDICTIONS, Filter, Listed, Order, Place
from regraft.v1 import examples_pb2 as pb
from serving.inference.registry import ModelRegistry
from serving.retraining.predictor import PresentHead, present_head
from serving.retraining.thumbnails import LARGEST_PX, MOST, SMALLEST_PX, Thumbnails
from serving.rpc.labelled.messages import SPLITS, listed_message
from serving.rpc.pages import MAX_ANSWER_BYTES, as_many_as_fit, page_size, page_start, page_token
from serving.rpc.status import picture_error
from serving.telemetry.call import caller

_MOST_EXAMPLES: Final = 1_000
"""In one answer."""
_SIDE_PX: Final = 128
_ORDERS: Final = {
    pb.ListExamplesRequest.ORDER_UNSPECIFIED: Order.HASH,
    pb.ListExamplesRequest.ORDER_NEWEST: Order.NEWEST,
    pb.ListExamplesRequest.ORDER_LIKELY_WRONG: Order.LIKELY_WRONG,
    pb.ListExamplesRequest.ORDER_LEAST_SURE: Order.LEAST_SURE,
    pb.ListExamplesRequest.ORDER_MOST_NOVEL: Order.MOST_NOVEL,
}
_SIDES: Final = {number: side for side, number in SPLITS.items()}
_OUTCOMES: Final = {pb.ListExamplesRequest.OUTCOME_RIGHT: True, pb.ListExamplesRequest.OUTCOME_WRONG: False}


class ExampleLists:
    """Answers of ListExamples and GetThumbnails."""

    def __init__(self, models: ModelRegistry, examples: ExamplesStore, thumbnails: Thumbnails) -> None:
        """List ``examples`` with the answers of the ``models``."""
        self._models = models
        self._threads = models.threads
        self._examples = examples
        self._thumbnails = thumbnails

    async def page(self, request: pb.ListExamplesRequest) -> pb.ListExamplesResponse:
        """Return a page of the examples in force."""
        most, start = page_size(request, _MOST_EXAMPLES), page_start(request, parts=3)
        wanted, order = _filter(request), _order(request)
        name, version, head = self._models.resolve(request.name), 0, None
        if request.with_predictions or wanted.needs_predictions or order in OF_PREDICTIONS:
            with self._models.acquire(name) as served:
                version = served.version
                head = await self._threads.database.run(present_head, self._examples, served)
        key = head.key if head else ""
        after = _place(start, order, key) if start else None
        page = partial(self._examples.listing.page, name, wanted, order, head=key, after=after)
        found = await self._threads.database.run(page, most=most + 1)
        messages = await as_many_as_fit(self._messages(found[:most], with_images=request.with_images))
        answer = pb.ListExamplesResponse(examples=messages, version=version)
        if messages and len(messages) < len(found):
            value, sha256 = found[len(messages) - 1].place
            answer.next_page_token = page_token(request, _text(value), sha256, key)
        if head:
            answer.predictions_pending = await self._pending(name, head)
        return answer

    async def _pending(self, name: str, head: PresentHead) -> int:
        return await self._threads.database.run(self._examples.predictions.pending, name, head.key)

    async def _messages(self, found: Sequence[Listed], *, with_images: bool) -> AsyncGenerator[pb.Example, None]:
        for listed in found:
            message = listed_message(listed)
            if with_images:
                message.image = await self._threads.database.run(self._examples.read, listed.example.sha256)
            yield message

    async def thumbnails(self, request: pb.GetThumbnailsRequest) -> pb.GetThumbnailsResponse:
        """Return thumbnails in the hashes' order, as many as fit."""
        side_px = request.side_px or _SIDE_PX
        if not SMALLEST_PX <= side_px <= LARGEST_PX:
            raise InvalidRequestError(f"side_px: {side_px}; it is {SMALLEST_PX} to {LARGEST_PX}, or 0 for {_SIDE_PX}")
        if not 1 <= len(request.sha256) <= MOST:
            raise InvalidRequestError(f"sha256: {len(request.sha256)} hashes; a request names 1 to {MOST}")
        for sha256 in request.sha256:
            check_hash(sha256)
        name = self._models.resolve(request.name)
        known = await self._threads.database.run(self._known, name, request.sha256)
        found = await self._thumbnails.get([each for each in request.sha256 if each in known], side_px, caller())
        answer, left_bytes = pb.GetThumbnailsResponse(), MAX_ANSWER_BYTES
        for sha256 in request.sha256:
            outcome = found.get(sha256, NotFoundError(f"model {name!r} has no picture {sha256!r}"))
            if isinstance(outcome, bytes):
                left_bytes -= len(outcome)
                if left_bytes < 0:
                    outcome = OverloadedError("the answer is full: ask for this one in another request", 0.0)
            if isinstance(outcome, bytes):
                answer.thumbnails.add(sha256=sha256, image=outcome)
            else:
                answer.thumbnails.add(sha256=sha256, error=picture_error(outcome))
        return answer

    def _known(self, name: str, hashes: Sequence[str]) -> set[str]:
        """Return those hashes that are pictures of a model, labelled or not."""
        return self._examples.labels.known(name, hashes) | self._examples.pool.known(name, hashes)


def _filter(request: pb.ListExamplesRequest) -> Filter:
    return Filter(
        label=nfc(request.label),
        side=_SIDES.get(request.split),
        source=request.source,
        annotator=request.annotator,
        is_right=_OUTCOMES.get(request.outcome),
        suspected=request.suspected,
        quarantined=request.quarantined,
        since=_since(request),
    )


def _since(request: pb.ListExamplesRequest) -> str:
    try:
        return time_text(request.since)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError(f"since: {error}") from error


def _order(request: pb.ListExamplesRequest) -> Order:
    """Return the order asked for.

    Raises:
        InvalidRequestError: it, or another choice, is of a newer contract.
    """
    for field, known in (("order", _ORDERS), ("split", {0, *_SIDES}), ("outcome", {0, *_OUTCOMES})):
        if (number := getattr(request, field)) not in known:
            raise InvalidRequestError(f"{field}: this server knows no value {number}")
    return _ORDERS[request.order]


def _place(start: Sequence[str], order: Order, head: str) -> Place:
    """Return the place that a token tells.

    Raises:
        InvalidRequestError: it is of another head.
    """
    value, sha256, of_head = start
    if of_head != head:
        raise InvalidRequestError(
            "page_token: another version is served, or a label was renamed, since the page that it came with: begin "
            "anew with an empty token"
        )
    if order not in OF_PREDICTIONS:
        return value, sha256
    with suppress(ValueError):
        return float(value), sha256
    raise InvalidRequestError("page_token: it is not of this server: begin anew with an empty token")


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else repr(value)
