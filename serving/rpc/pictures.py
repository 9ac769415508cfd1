"""The Pictures service: pictures without labels."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Final

from regraft.client.message_values import to_timestamp
from regraft.errors import InvalidRequestError, NotFoundError
from regraft.stores.examples import ExamplesStore
from regraft.stores.unlabelled.pool import NewPicture, PooledPicture
from regraft.v1 import pictures_pb2 as pb
from regraft.v1 import pictures_pb2_grpc as pb_grpc
from serving.inference.registry import ModelRegistry
from serving.retraining.add_examples import ExampleIntake, Sender, sending
from serving.rpc.context import Context
from serving.rpc.pages import as_many_as_fit, numbered_start, page_size, page_token
from serving.rpc.parsing import check_batch
from serving.rpc.streams import answer_all, answers
from serving.telemetry.call import forget_request, note_effect, note_first, shield
from serving.telemetry.metrics import Metrics

_MAX_PICTURES: Final = 1_000
"""In one answer."""
_MAX_REMOVED: Final = 10_000


class PicturesService(pb_grpc.PicturesServicer):
    """The servicer; every rule is in `regraft.stores.unlabelled.pool` and `serving.retraining`."""

    def __init__(self, models: ModelRegistry, examples: ExamplesStore, intake: ExampleIntake, metrics: Metrics) -> None:
        """Serve the pool of ``examples``.

        ``intake`` takes the pictures in, ``metrics`` counts them.
        """
        self._models = models
        self._threads = models.threads
        self._examples = examples
        self._pool = examples.pool
        self._intake = intake
        self._metrics = metrics

    async def AddPictures(
        self, requests: AsyncIterator[pb.AddPicturesRequest], _context: Context
    ) -> AsyncIterator[pb.AddPicturesResponse]:
        """Store pictures without labels; an answered one is on the disk."""
        async with sending() as sender, aclosing(answers(requests, partial(self._add, sender=sender))) as responses:
            async for response in responses:
                yield response

    async def BatchAddPictures(
        self, request: pb.BatchAddPicturesRequest, _context: Context
    ) -> pb.BatchAddPicturesResponse:
        """Store the pictures of one message, each as a stream's."""
        check_batch(request.requests)
        forget_request()
        async with sending() as sender:
            responses = await answer_all(request.requests, partial(self._add, sender=sender))
        return pb.BatchAddPicturesResponse(responses=responses)

    async def ListPictures(self, request: pb.ListPicturesRequest, _context: Context) -> pb.ListPicturesResponse:
        """List the pictures without labels, newest first, a page at a time."""
        most, [before] = page_size(request, _MAX_PICTURES), numbered_start(request, parts=1) or [0]
        name = self._models.held(request.name).name
        listing = partial(self._pool.page, name, before=before, most=most + 1)
        found = await self._threads.database.run(listing)
        usage, bounds = await self._threads.database.run(self._pool.usage, name), self._intake.rules.pool
        messages = (await self._message(each, with_image=request.with_images) for each in found[:most])
        page = pb.ListPicturesResponse(
            pictures=await as_many_as_fit(messages),
            total_pictures=usage.pictures,
            total_bytes=usage.size_bytes,
            most_pictures=bounds.pictures,
            most_bytes=bounds.size_bytes,
        )
        if page.pictures and len(page.pictures) < len(found):
            page.next_page_token = page_token(request, str(found[len(page.pictures) - 1].number))
        return page

    async def RemovePictures(self, request: pb.RemovePicturesRequest, context: Context) -> pb.RemovePicturesResponse:
        """Remove pictures without labels."""
        return pb.RemovePicturesResponse(sha256=await shield(self._remove(request), context))

    async def _remove(self, request: pb.RemovePicturesRequest) -> list[str]:
        if not 1 <= len(request.sha256) <= _MAX_REMOVED:
            raise InvalidRequestError(f"sha256: {len(request.sha256)} hashes; one request has 1 to {_MAX_REMOVED:,}")
        name = self._models.held(request.name).name
        removed = await self._threads.writes.run(self._pool.remove, name, list(request.sha256))
        note_effect(model=name, removed=len(removed))
        return sorted(removed)

    async def _add(
        self, request: pb.AddPicturesRequest, on_admitted: Callable[[], None], *, sender: Sender
    ) -> pb.AddPicturesResponse:
        note_first(request)
        name, new = request.name, NewPicture(request.image, request.source)
        del request  # a second copy of the picture, which is not counted while it waits for room
        added = await self._intake.add_picture(name, new, sender, on_admitted)
        self._metrics.unlabelled.labels(added.outcome.value).inc()
        return pb.AddPicturesResponse(outcome=f"OUTCOME_{added.outcome.name}", reason=added.reason, sha256=added.sha256)

    async def _message(self, picture: PooledPicture, *, with_image: bool) -> pb.Picture:
        message = pb.Picture(
            sha256=picture.sha256,
            size_bytes=picture.size_bytes,
            source=picture.source,
            added_at=to_timestamp(picture.added_at),
        )
        if with_image:
            with suppress(NotFoundError):  # gone meanwhile
                message.image = await self._threads.database.run(self._pool.read, picture.sha256)
        return message
