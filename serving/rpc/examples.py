"""The Examples service: list, relabel, remove, release; suggestions for labelling."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

from regraft.client.message_values import to_timestamp
from regraft.errors import InvalidRequestError, NotFoundError
from regraft.stores.examples import ExamplesStore
from regraft.stores.labels import Example
from regraft.v1 import examples_pb2 as pb
from regraft.v1 import examples_pb2_grpc as pb_grpc
from serving.inference.registry import ModelRegistry
from serving.retraining.add_examples import ExampleIntake
from serving.retraining.suggester import Suggester
from serving.rpc.context import Context
from serving.rpc.labelled.changes import LabelWrites
from serving.rpc.labelled.insight import Insights
from serving.rpc.labelled.lists import ExampleLists
from serving.rpc.labelled.messages import example_message
from serving.telemetry.call import caller, note_effect, shield

_DEFAULT_COUNT: Final = 20
_MAX_COUNT: Final = 1_000


class ExamplesService(pb_grpc.ExamplesServicer):
    """The servicer; every rule is in `regraft.stores.labels` and `serving.retraining`."""

    def __init__(
        self,
        models: ModelRegistry,
        examples: ExamplesStore,
        intake: ExampleIntake,
        lists: ExampleLists,
        writes: LabelWrites,
        insights: Insights,
        on_change: Callable[[str], object],
    ) -> None:
        """Serve ``examples``.

        ``intake`` checks the labels; ``on_change`` is told the model of a label that was changed.
        """
        self._models = models
        self._threads = models.threads
        self._examples = examples
        self._intake = intake
        self._insights = insights
        self._lists = lists
        self._writes = writes
        self._on_change = on_change
        self._suggester = Suggester(models.store, examples)

    async def ListExamples(self, request: pb.ListExamplesRequest, _context: Context) -> pb.ListExamplesResponse:
        """List the examples in force, a page at a time."""
        return await self._lists.page(request)

    async def GetThumbnails(self, request: pb.GetThumbnailsRequest, _context: Context) -> pb.GetThumbnailsResponse:
        """Show examples small."""
        return await self._lists.thumbnails(request)

    async def RelabelExamples(self, request: pb.RelabelExamplesRequest, context: Context) -> pb.RelabelExamplesResponse:
        """Give many examples a label."""
        return await shield(self._writes.relabel(request), context)

    async def RemoveExamples(self, request: pb.RemoveExamplesRequest, context: Context) -> pb.RemoveExamplesResponse:
        """Take many examples out of training."""
        return await shield(self._writes.remove(request), context)

    async def RestoreExamples(self, request: pb.RestoreExamplesRequest, context: Context) -> pb.RestoreExamplesResponse:
        """Give removed examples back their labels."""
        return await shield(self._writes.restore(request), context)

    async def RenameLabel(self, request: pb.RenameLabelRequest, context: Context) -> pb.RenameLabelResponse:
        """Rename a label, or merge it with another."""
        return await shield(self._writes.rename_label(request), context)

    async def RemoveLabel(self, request: pb.RemoveLabelRequest, context: Context) -> pb.RemoveLabelResponse:
        """Remove a label with its examples."""
        return await shield(self._writes.remove_label(request), context)

    async def GetExample(self, request: pb.GetExampleRequest, _context: Context) -> pb.GetExampleResponse:
        """Show one example and its history."""
        name, example = await self._find(request, or_removed=True)
        history = await self._threads.database.run(self._examples.labels.history, name, example.sha256)
        return pb.GetExampleResponse(
            example=await self._message(example, with_image=request.with_image),
            history=[
                pb.Labelling(**{**vars(entry), "label": entry.label or "", "at": to_timestamp(entry.at)})
                for entry in history
            ],
        )

    async def RelabelExample(self, request: pb.RelabelExampleRequest, context: Context) -> pb.RelabelExampleResponse:
        """Give an example, removed or not, another label."""
        return pb.RelabelExampleResponse(example=await shield(self._relabel(request), context))

    async def _relabel(self, request: pb.RelabelExampleRequest) -> pb.Example:
        arguments = self._writes.caller_arguments()
        await self._intake.check_allowed(self._models.held(request.name), request.label)
        name, example = await self._find(request, or_removed=True)
        relabel = partial(self._examples.labels.relabel, name, example.sha256, request.label)
        changed = await self._threads.writes.run(relabel, annotator=request.annotator, etag=request.etag, **arguments)
        self._on_change(name)
        note_effect(model=name, sha256=changed.sha256, label=changed.label)
        return await self._message(changed)

    async def RemoveExample(self, request: pb.RemoveExampleRequest, context: Context) -> pb.RemoveExampleResponse:
        """Take an example out of training."""
        return pb.RemoveExampleResponse(example=await shield(self._remove(request), context))

    async def _remove(self, request: pb.RemoveExampleRequest) -> pb.Example:
        arguments = self._writes.caller_arguments()
        name, example = await self._find(request)
        remove = partial(self._examples.labels.remove, name, example.sha256, source=request.why)
        removed = await self._threads.writes.run(remove, annotator=request.annotator, etag=request.etag, **arguments)
        note_effect(model=name, sha256=example.sha256, label="")
        return await self._message(removed)

    async def ReleaseExample(self, request: pb.ReleaseExampleRequest, context: Context) -> pb.ReleaseExampleResponse:
        """Take an example out of quarantine: its label is right."""
        return pb.ReleaseExampleResponse(example=await shield(self._release(request), context))

    async def _release(self, request: pb.ReleaseExampleRequest) -> pb.Example:
        name, example = await self._find(request)
        release = partial(self._examples.labels.release, name, example.sha256)
        noted = {"annotator": request.annotator, "caller": caller(), "etag": request.etag}
        released = await self._threads.writes.run(release, **noted)
        note_effect(model=name, sha256=released.sha256, vouched_by=released.vouched_by)
        return await self._message(released)

    async def Suggest(self, request: pb.SuggestRequest, _context: Context) -> AsyncIterator[pb.SuggestResponse]:
        """Suggest pictures to label next."""
        if request.count > _MAX_COUNT:
            raise InvalidRequestError(f"count: {request.count}; the most is {_MAX_COUNT}")
        with self._models.hold(request.name) as held:
            suggestions = await self._threads.database.run(
                self._suggester.suggest, held, request.count or _DEFAULT_COUNT
            )
        for each in suggestions:
            fields = {key: value for key, value in vars(each.suggestion).items() if key not in ("row", "reason")}
            message = pb.Suggestion(
                request_id=each.request_id,
                sha256=each.sha256,
                reason=f"REASON_{each.suggestion.reason.name}",
                **fields,
            )
            if request.with_images:
                try:
                    message.image = await self._threads.database.run(self._suggester.image, each)
                except NotFoundError:  # somebody was quicker
                    continue
            yield pb.SuggestResponse(suggestion=message)

    async def GetLearningCurve(
        self, request: pb.GetLearningCurveRequest, _context: Context
    ) -> pb.GetLearningCurveResponse:
        """Tell accuracy against the number of labels."""
        return await self._insights.learning_curve(request)

    async def Neighbours(self, request: pb.NeighboursRequest, _context: Context) -> pb.NeighboursResponse:
        """Find labelled pictures that are like one."""
        return await self._insights.neighbours(request)

    async def Map(self, request: pb.MapRequest, _context: Context) -> AsyncIterator[pb.MapResponse]:
        """Place all labelled pictures."""
        async for response in self._insights.map(request):
            yield response

    async def Explain(self, request: pb.ExplainRequest, _context: Context) -> pb.ExplainResponse:
        """Show where the network looked."""
        return await self._insights.explain(request)

    async def _find(
        self,
        request: pb.GetExampleRequest | pb.RelabelExampleRequest | pb.RemoveExampleRequest | pb.ReleaseExampleRequest,
        *,
        or_removed: bool = False,
    ) -> tuple[str, Example]:
        name = self._models.resolve(request.name)
        find = partial(self._examples.labels.find, name, request.sha256, or_removed=or_removed)
        return name, await self._threads.database.run(find)

    async def _message(self, example: Example, *, with_image: bool = False) -> pb.Example:
        message = example_message(example)
        if with_image:
            message.image = await self._threads.database.run(self._examples.read, example.sha256)
        return message
