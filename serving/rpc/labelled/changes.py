"""Changes of many labels at once, and of labels themselves."""

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
        name = self._models.resolve(request.name)
        await self._intake.check_allowed(self._models.held(name), request.label)
        relabel = partial(self._examples.bulk.relabel, name, request.sha256, request.label)
        result = await self._threads.writes.run(relabel, annotator=request.annotator, **self.caller_arguments())
        self._note(name, result, request.label)
        return pb.RelabelExamplesResponse(**vars(result))

    async def remove(self, request: pb.RemoveExamplesRequest) -> pb.RemoveExamplesResponse:
        """Remove examples."""
        name = self._models.resolve(request.name)
        remove = partial(self._examples.bulk.remove, name, request.sha256, why=request.why)
        result = await self._threads.writes.run(remove, annotator=request.annotator, **self.caller_arguments())
        self._note(name, result, _REMOVED)
        return pb.RemoveExamplesResponse(**vars(result))

    async def restore(self, request: pb.RestoreExamplesRequest) -> pb.RestoreExamplesResponse:
        """Restore examples."""
        name = self._models.resolve(request.name)
        restore = partial(self._examples.bulk.restore, name, request.sha256)
        result = await self._threads.writes.run(restore, annotator=request.annotator, **self.caller_arguments())
        self._note(name, result)
        return pb.RestoreExamplesResponse(**vars(result))

    async def rename_label(self, request: pb.RenameLabelRequest) -> pb.RenameLabelResponse:
        """Rename a label, or merge it."""
        name = self._models.resolve(request.name)
        rename = partial(self._examples.label_changes.rename, name, request.label, request.new_label)
        said = {"annotator": request.annotator, "why": request.why, "caller": caller()}
        changed = await self._threads.writes.run(rename, merge=request.merge, known=self._known(name), **said)
        self._note_change(name, changed)
        return pb.RenameLabelResponse(change=change_message(changed.change), examples=changed.examples)

    async def remove_label(self, request: pb.RemoveLabelRequest) -> pb.RemoveLabelResponse:
        """Remove a label and its examples."""
        name = self._models.resolve(request.name)
        remove = partial(self._examples.label_changes.remove, name, request.label)
        said = {"annotator": request.annotator, "why": request.why, "caller": caller()}
        changed = await self._threads.writes.run(remove, known=self._known(name), **said)
        self._note_change(name, changed)
        return pb.RemoveLabelResponse(change=change_message(changed.change), examples=changed.examples)

    def caller_arguments(self) -> CallerArguments:
        """Return the caller, and the quota of labels."""
        return {"caller": caller(), "hourly_quota": self._intake.rules.per_hour}

    def _known(self, name: str) -> KnownLabels:
        """Return the labels that the served version knows; none where none is served."""
        with suppress(PreconditionError):
            return known_labels(self._models.get(name))
        return NO_LABELS

    def _note(self, name: str, result: BulkResult, label: str | None = None) -> None:
        self._predictor.wake(name)
        note_effect(model=name, examples=result.changed, **({} if label is None else {"label": label}))

    def _note_change(self, name: str, changed: Changed) -> None:
        self._predictor.wake(name)
        change = changed.change
        note_effect(model=name, examples=changed.examples, label=change.label, new_label=change.new_label or _REMOVED)
