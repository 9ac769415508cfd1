"""Changes of many labels at once, and of labels themselves."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypedDict

from regraft.errors import PreconditionError
from regraft.stores.examples import ExamplesStore
from regraft.stores.labelling.bulk import BulkResult
from regraft.stores.labelling.label_changes import Changed
from regraft.stores.labelling.present_names import NO_LABELS, KnownLabels
from regraft.v1 import examples_pb2 as pb
from serving.inference.registry import ModelRegistry
from serving.retraining.add_examples import ExampleIntake
from serving.retraining.predictor import ExamplePredictor, known_labels
from serving.rpc.labelled.messages import change_message
from serving.telemetry.call import caller, note_effect

_REMOVED: Final = ""
"""The label of a removed example, in the audit."""


class CallerArguments(TypedDict):
    """Arguments of a change about its caller."""

    caller: str
    hourly_quota: int


class LabelWrites:
    """Answers of the RPCs that change many examples; each is one transaction."""

    def __init__(
        self, models: ModelRegistry, examples: ExamplesStore, intake: ExampleIntake, predictor: ExamplePredictor
    ) -> None:
        """Change ``examples``; ``intake`` checks the labels, ``predictor`` answers anew what was changed."""
        self._models = models
        self._threads = models.threads
        self._examples = examples
        self._intake = intake
        self._predictor = predictor

    async def relabel(self, request: pb.RelabelExamplesRequest) -> pb.RelabelExamplesResponse:
        """Relabel examples."""
        await self._intake.check_allowed(self._models.held(request.name), request.label)
        relabel = partial(self._examples.bulk.relabel, label=request.label)
        return pb.RelabelExamplesResponse(**vars(await self._change(request, relabel, label=request.label)))

    async def remove(self, request: pb.RemoveExamplesRequest) -> pb.RemoveExamplesResponse:
        """Remove examples."""
        remove = partial(self._examples.bulk.remove, why=request.why)
        return pb.RemoveExamplesResponse(**vars(await self._change(request, remove, label=_REMOVED)))

    async def restore(self, request: pb.RestoreExamplesRequest) -> pb.RestoreExamplesResponse:
        """Restore examples."""
        return pb.RestoreExamplesResponse(**vars(await self._change(request, self._examples.bulk.restore)))

    async def rename_label(self, request: pb.RenameLabelRequest) -> pb.RenameLabelResponse:
        """Rename a label, or merge it."""
        rename = partial(self._examples.label_changes.rename, new_label=request.new_label, merge=request.merge)
        changed = await self._change_label(request, rename)
        return pb.RenameLabelResponse(change=change_message(changed.change), examples=changed.examples)

    async def remove_label(self, request: pb.RemoveLabelRequest) -> pb.RemoveLabelResponse:
        """Remove a label and its examples."""
        changed = await self._change_label(request, self._examples.label_changes.remove)
        return pb.RemoveLabelResponse(change=change_message(changed.change), examples=changed.examples)

    def caller_arguments(self) -> CallerArguments:
        """Return the caller, and the quota of labels."""
        return {"caller": caller(), "hourly_quota": self._intake.rules.per_hour}

    async def _change(
        self,
        request: pb.RelabelExamplesRequest | pb.RemoveExamplesRequest | pb.RestoreExamplesRequest,
        change: Callable[..., BulkResult],
        **noted: str,
    ) -> BulkResult:
        """Make a change of many examples, and note it.

        What else is ``noted`` goes with it.
        """
        name, by = self._models.resolve(request.name), self.caller_arguments()
        result = await self._threads.writes.run(change, name, request.sha256, annotator=request.annotator, **by)
        self._predictor.wake(name)
        note_effect(model=name, examples=result.changed, **noted)
        return result

    async def _change_label(
        self, request: pb.RenameLabelRequest | pb.RemoveLabelRequest, change: Callable[..., Changed]
    ) -> Changed:
        """Make a change of a label itself, and note it."""
        name = self._models.resolve(request.name)
        said = {"annotator": request.annotator, "why": request.why, "caller": caller()}
        changed = await self._threads.writes.run(change, name, request.label, known=self._known(name), **said)
        self._predictor.wake(name)
        made = changed.change
        note_effect(model=name, examples=changed.examples, label=made.label, new_label=made.new_label or _REMOVED)
        return changed

    def _known(self, name: str) -> KnownLabels:
        """Return the labels that the served version, if any, knows."""
        with suppress(PreconditionError):
            return known_labels(self._models.get(name))
        return NO_LABELS
