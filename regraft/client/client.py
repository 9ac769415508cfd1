"""The client of Regraft's services."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast
from uuid import uuid4

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from regraft.auth import is_loopback
from regraft.client.channel import open_channel
from regraft.client.connection import DEFAULT_TARGET, Connection
from regraft.client.proxies import proxy_of
from regraft.errors import InvalidRequestError, RegraftError
from regraft.v1 import (
    classifier_pb2,
    classifier_pb2_grpc,
    examples_pb2,
    examples_pb2_grpc,
    exports_pb2,
    exports_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    pictures_pb2,
    pictures_pb2_grpc,
    reports_pb2,
    reports_pb2_grpc,
    retraining_pb2,
    retraining_pb2_grpc,
)

_NO_SERVER: Final = re.compile(
    "failed to connect|backends failing|proxy|connection (refused|reset)|socket closed|DNS|timed? ?out", re.IGNORECASE
)
"""Texts of gRPC's core where no server is; one that answers UNAVAILABLE has texts of its own."""
_TOO_LATE: Final = "Deadline Exceeded"
"""The text of gRPC's core where nothing came in time; a server that gave up has texts of its own."""
_TOO_LARGE: Final = re.compile(r"(?:SERVER: Received|CLIENT: Sent) message larger than max \((\d+) vs\. (\d+)\)")
"""gRPC's text where one side allows no message so large: its bytes, and the limit."""

_LOOK_S: Final = 150.0
"""What a server takes at most for a preview, and something for others' before it."""

MOST_BYTES: Final = 2**31 - 1
"""The most bytes of a message of Protocol Buffers, whatever a server takes."""

_T = TypeVar("_T")


def nobody_answers(target: str, text: str = "") -> str:
    """Return the text where no server could be reached, with advice."""
    return f"no server answers at {target}{f' ({text})' if text else ''}: {_question(text, target)}"


def _question(text: str, target: str) -> str:
    """Return the advice by gRPC's own text."""
    if proxy := not is_loopback(target) and proxy_of(target):
        return (
            f"does the proxy on the way ({proxy}) let it through? If it should not be asked, name the host in no_proxy"
        )
    if "handshake" in text.lower():
        return "does it speak TLS, with a certificate that goes back to --tls-ca, and take yours?"
    if "socket closed" in text.lower():
        return "does it speak TLS (--tls-ca)?"
    return "is `regraft serve` running there?"


class RemoteError(RegraftError):
    """A server's error.

    Attributes:
        code: gRPC's name, such as INVALID_ARGUMENT.
        reason: the word for programs, such as INVALID_IMAGE; empty where no server of Regraft answered.
    """

    def __init__(self, code: str, text: str, reason: str = "") -> None:
        """Keep code and reason beside the text."""
        super().__init__(text)
        self.code = code
        self.reason = reason


class MessageTooLargeError(RemoteError):
    """A picture too large to send, above ``limit_bytes``; its stream ends."""

    def __init__(self, code: str, size_bytes: int, limit_bytes: int) -> None:
        """Say what to do about it."""
        super().__init__(code, too_large(size_bytes, limit_bytes))
        self.limit_bytes = limit_bytes


def too_large(size_bytes: int, limit_bytes: int) -> str:
    """Return the text about a picture too large to send."""
    sizes = f"{size_bytes:,} bytes; the limit of a message is {limit_bytes:,}"
    return f"the picture is too large to send: {sizes}: scale it down"


class _UntilError(Iterator[_T]):
    """An iterator that ends at another's error, and keeps it.

    gRPC would only say that there was one. What came before it is still sent, and answered.
    """

    def __init__(self, items: Iterable[_T]) -> None:
        self._items = iter(items)
        self.error: Exception | None = None

    def __next__(self) -> _T:
        try:
            return next(self._items)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise StopIteration from error


class Client:
    """Blocking calls to one server.

    Thread-safe; close it, or use it in a ``with`` statement. Every call raises `RemoteError` where the server answers
    with an error.
    """

    def __init__(self, server: Connection | str = DEFAULT_TARGET, timeout_s: float = 30.0) -> None:
        """Prepare a client, which connects on first use.

        Args:
            server: host:port where neither TLS nor a token is needed.
            timeout_s: in seconds.
        """
        connection = Connection(server) if isinstance(server, str) else server
        self.target = connection.target
        self._timeout_s = timeout_s
        self._look_s = max(timeout_s, _LOOK_S)
        self._channel = open_channel(connection)
        self._classifier = classifier_pb2_grpc.ClassifierStub(self._channel)
        self._examples = examples_pb2_grpc.ExamplesStub(self._channel)
        self._pictures = pictures_pb2_grpc.PicturesStub(self._channel)
        self._retraining = retraining_pb2_grpc.RetrainingStub(self._channel)
        self._models = models_pb2_grpc.ModelsStub(self._channel)
        self._exports = exports_pb2_grpc.ExportsStub(self._channel)
        self._reports = reports_pb2_grpc.ReportsStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def is_serving(self, service: str = "") -> bool:
        """Return the server's health (grpc.health.v1), or that of one of its services."""
        request = health_pb2.HealthCheckRequest(service=service)
        return bool(self._ask(self._health.Check, request).status == health_pb2.HealthCheckResponse.SERVING)

    def classify(self, image: bytes, *, name: str = "", top_k: int = 0) -> classifier_pb2.ClassifyResponse:
        """Classify one encoded picture."""
        request = classifier_pb2.ClassifyRequest(image=image, name=name, top_k=top_k)
        response: classifier_pb2.ClassifyResponse = self._ask(self._classifier.Classify, request)
        return response

    def classify_stream(
        self, images: Iterable[tuple[str, bytes]], *, name: str = "", top_k: int = 0, any_order: bool = False
    ) -> Iterator[classifier_pb2.ClassifyStreamResponse]:
        """Classify (id, picture) pairs; each answer may be an error.

        They come in order, or with ``any_order`` as they are ready.
        """
        requests = (
            classifier_pb2.ClassifyStreamRequest(
                id=key,
                request=classifier_pb2.ClassifyRequest(image=image, name=name, top_k=top_k),
                any_order=any_order,
            )
            for key, image in images
        )
        yield from self._exchange(self._classifier.ClassifyStream, requests)

    def classify_batch(
        self, images: Iterable[bytes], *, name: str = "", top_k: int = 0
    ) -> list[classifier_pb2.ClassifyOutcome]:
        """Classify up to 256 encoded pictures in one message.

        Each answer may be an error.
        """
        requests = [classifier_pb2.ClassifyRequest(image=image, name=name, top_k=top_k) for image in images]
        batch = classifier_pb2.BatchClassifyRequest(requests=requests)
        response: classifier_pb2.BatchClassifyResponse = self._ask(self._classifier.BatchClassify, batch)
        return list(response.outcomes)

    def add_examples(
        self, examples: Iterable[tuple[bytes, str]], *, name: str = "", source: str = "", group: str = ""
    ) -> Iterator[retraining_pb2.AddExamplesResponse]:
        """Label (picture, label) pairs; see `send_examples`."""
        requests = (
            retraining_pb2.AddExamplesRequest(image=image, label=label, name=name, source=source, group=group)
            for image, label in examples
        )
        return self.send_examples(requests)

    def send_examples(
        self, requests: Iterable[retraining_pb2.AddExamplesRequest]
    ) -> Iterator[retraining_pb2.AddExamplesResponse]:
        """Label pictures; answers but REJECTED and CONFLICTING are promises.

        Raises:
            MessageTooLargeError: one is far beyond what the server takes; it and what came after it is not answered.
            Exception: what ``requests`` raised, after all that came before it was answered.
        """
        yield from self._exchange(self._retraining.AddExamples, requests)

    def add_examples_batch(
        self, requests: Iterable[retraining_pb2.AddExamplesRequest]
    ) -> list[retraining_pb2.AddExamplesResponse]:
        """Label up to 256 pictures in one message; see `send_examples`."""
        batch = retraining_pb2.BatchAddExamplesRequest(requests=requests)
        response: retraining_pb2.BatchAddExamplesResponse = self._ask(self._retraining.BatchAddExamples, batch)
        return list(response.responses)

    def add_pictures(
        self, images: Iterable[bytes], *, name: str = "", source: str = ""
    ) -> Iterator[pictures_pb2.AddPicturesResponse]:
        """Send pictures without labels; see `send_pictures`."""
        return self.send_pictures(
            pictures_pb2.AddPicturesRequest(image=image, name=name, source=source) for image in images
        )

    def send_pictures(
        self, requests: Iterable[pictures_pb2.AddPicturesRequest]
    ) -> Iterator[pictures_pb2.AddPicturesResponse]:
        """Send pictures without labels; ACCEPTED and DUPLICATE are promises.

        Errors as `send_examples`.
        """
        yield from self._exchange(self._pictures.AddPictures, requests)

    def add_pictures_batch(
        self, requests: Iterable[pictures_pb2.AddPicturesRequest]
    ) -> list[pictures_pb2.AddPicturesResponse]:
        """Send up to 256 pictures without labels in one message; see `send_pictures`."""
        batch = pictures_pb2.BatchAddPicturesRequest(requests=requests)
        response: pictures_pb2.BatchAddPicturesResponse = self._ask(self._pictures.BatchAddPictures, batch)
        return list(response.responses)

    def list_pictures(
        self, *, name: str = "", with_images: bool = False, page_size: int = 0, page_token: str = ""
    ) -> Iterator[pictures_pb2.ListPicturesResponse]:
        """Yield pages of the pictures without labels, newest first.

        Each page tells how many there are.
        """
        request = pictures_pb2.ListPicturesRequest(
            name=name, with_images=with_images, page_size=page_size, page_token=page_token
        )
        yield from self._pages(self._pictures.ListPictures, request)

    def remove_pictures(self, hashes: Iterable[str], *, name: str = "") -> list[str]:
        """Remove pictures without labels for good.

        Return the hashes of those that were there.
        """
        request = pictures_pb2.RemovePicturesRequest(name=name, sha256=hashes)
        return list(self._ask(self._pictures.RemovePictures, request).sha256)

    def list_examples(self, **conditions: Any) -> Iterator[examples_pb2.Example]:  # noqa: ANN401 - any field
        """Yield the examples in force that meet all conditions.

        ``conditions`` are fields of ListExamplesRequest: name, label, with_images, order and so on.
        """
        for page in self.example_pages(**conditions):
            yield from page.examples

    def example_pages(self, **conditions: Any) -> Iterator[examples_pb2.ListExamplesResponse]:  # noqa: ANN401 - as above
        """Yield pages of examples, as `list_examples`.

        Each says how many predictions are still to be made.
        """
        yield from self._pages(self._examples.ListExamples, examples_pb2.ListExamplesRequest(**conditions))

    def thumbnails(
        self, hashes: Iterable[str], *, name: str = "", side_px: int = 0
    ) -> dict[str, bytes | classifier_pb2.PictureError]:
        """Return small JPEGs of up to 256 examples by hash.

        Those that have none are there with what is wrong.
        """
        request = examples_pb2.GetThumbnailsRequest(name=name, sha256=hashes, side_px=side_px)
        found = self._ask(self._examples.GetThumbnails, request).thumbnails
        return {each.sha256: each.error if each.HasField("error") else each.image for each in found}

    def relabel_examples(
        self, hashes: Iterable[str], label: str, *, name: str = "", annotator: str = ""
    ) -> examples_pb2.RelabelExamplesResponse:
        """Give up to 10,000 examples a label, all or none."""
        request = examples_pb2.RelabelExamplesRequest(name=name, sha256=hashes, label=label, annotator=annotator)
        result: examples_pb2.RelabelExamplesResponse = self._ask(self._examples.RelabelExamples, request)
        return result

    def remove_examples(
        self, hashes: Iterable[str], *, name: str = "", why: str = "", annotator: str = ""
    ) -> examples_pb2.RemoveExamplesResponse:
        """Take up to 10,000 examples out of training, all or none."""
        request = examples_pb2.RemoveExamplesRequest(name=name, sha256=hashes, why=why, annotator=annotator)
        result: examples_pb2.RemoveExamplesResponse = self._ask(self._examples.RemoveExamples, request)
        return result

    def restore_examples(
        self, hashes: Iterable[str], *, name: str = "", annotator: str = ""
    ) -> examples_pb2.RestoreExamplesResponse:
        """Give up to 10,000 removed examples back their labels, all or none."""
        request = examples_pb2.RestoreExamplesRequest(name=name, sha256=hashes, annotator=annotator)
        result: examples_pb2.RestoreExamplesResponse = self._ask(self._examples.RestoreExamples, request)
        return result

    def rename_label(
        self, label: str, new_label: str, *, merge: bool = False, name: str = "", annotator: str = "", why: str = ""
    ) -> examples_pb2.RenameLabelResponse:
        """Rename a label, or merge it with one that is there."""
        request = examples_pb2.RenameLabelRequest(
            name=name, label=label, new_label=new_label, merge=merge, annotator=annotator, why=why
        )
        result: examples_pb2.RenameLabelResponse = self._ask(self._examples.RenameLabel, request)
        return result

    def remove_label(
        self, label: str, *, name: str = "", annotator: str = "", why: str = ""
    ) -> examples_pb2.RemoveLabelResponse:
        """Remove a label, and its pictures from training."""
        request = examples_pb2.RemoveLabelRequest(name=name, label=label, annotator=annotator, why=why)
        result: examples_pb2.RemoveLabelResponse = self._ask(self._examples.RemoveLabel, request)
        return result

    def get_example(self, sha256: str, *, name: str = "", with_image: bool = False) -> examples_pb2.GetExampleResponse:
        """Return an example and its history, by its hash's beginning."""
        request = examples_pb2.GetExampleRequest(name=name, sha256=sha256, with_image=with_image)
        response: examples_pb2.GetExampleResponse = self._ask(self._examples.GetExample, request)
        return response

    def relabel_example(
        self, sha256: str, label: str, *, name: str = "", annotator: str = "", etag: str = ""
    ) -> examples_pb2.Example:
        """Give an example another label, and return it.

        With the ``etag`` of the example that you go by, only while it is as you saw it.
        """
        request = examples_pb2.RelabelExampleRequest(
            name=name, sha256=sha256, label=label, annotator=annotator, etag=etag
        )
        changed: examples_pb2.Example = self._ask(self._examples.RelabelExample, request).example
        return changed

    def remove_example(
        self, sha256: str, *, name: str = "", why: str = "", annotator: str = "", etag: str = ""
    ) -> examples_pb2.Example:
        """Take an example out of training, and return it as it was.

        ``etag`` as in `relabel_example`.
        """
        request = examples_pb2.RemoveExampleRequest(name=name, sha256=sha256, why=why, annotator=annotator, etag=etag)
        removed: examples_pb2.Example = self._ask(self._examples.RemoveExample, request).example
        return removed

    def release_example(
        self, sha256: str, *, name: str = "", annotator: str = "", etag: str = ""
    ) -> examples_pb2.Example:
        """Release an example from quarantine, and return it.

        ``etag`` as in `relabel_example`.
        """
        request = examples_pb2.ReleaseExampleRequest(name=name, sha256=sha256, annotator=annotator, etag=etag)
        released: examples_pb2.Example = self._ask(self._examples.ReleaseExample, request).example
        return released

    def suggest(
        self, count: int = 0, *, name: str = "", with_images: bool = False
    ) -> Iterator[examples_pb2.Suggestion]:
        """Yield pictures to label next, the most useful first."""
        request = examples_pb2.SuggestRequest(name=name, count=count, with_images=with_images)
        with self._errors():
            for answer in self._examples.Suggest(request):
                yield answer.suggestion

    def learning_curve(self, *, name: str = "") -> examples_pb2.LearningCurve:
        """Return accuracy against the number of labels; it takes seconds."""
        request = examples_pb2.GetLearningCurveRequest(name=name)
        curve: examples_pb2.LearningCurve = self._ask(self._examples.GetLearningCurve, request, self._look_s).curve
        return curve

    def neighbours(
        self, *, image: bytes = b"", sha256: str = "", name: str = "", count: int = 0
    ) -> examples_pb2.NeighboursResponse:
        """Return the labelled pictures most like one, given bytes or hash."""
        request = examples_pb2.NeighboursRequest(name=name, image=image, sha256=sha256, count=count)
        found: examples_pb2.NeighboursResponse = self._ask(self._examples.Neighbours, request)
        return found

    def map(self, *, name: str = "") -> Iterator[examples_pb2.MapResponse]:
        """Yield where all labelled pictures lie; the first message has the labels."""
        with self._errors():
            yield from self._examples.Map(examples_pb2.MapRequest(name=name))

    def explain(
        self, *, image: bytes = b"", sha256: str = "", label: str = "", name: str = ""
    ) -> examples_pb2.ExplainResponse:
        """Explain the answer to a picture, given its bytes or hash.

        The explanation is where the network looked.
        """
        request = examples_pb2.ExplainRequest(name=name, image=image, sha256=sha256, label=label)
        explained: examples_pb2.ExplainResponse = self._ask(self._examples.Explain, request, self._look_s)
        return explained

    def preview(self, *, name: str = "") -> retraining_pb2.Preview:
        """Return the head that a retrain would make now; it takes seconds."""
        request = retraining_pb2.PreviewRequest(name=name)
        seen: retraining_pb2.Preview = self._ask(self._retraining.Preview, request, self._look_s).preview
        return seen

    def retrain(
        self,
        *,
        name: str = "",
        gate: str = "",
        idempotency_key: str = "",
        requested_by: str = "",
        **limits: float | None,
    ) -> retraining_pb2.RetrainJob:
        """Start a retrain job.

        Args:
            name: the model.
            gate: ``auto``, ``manual`` or ``off``; the server's own setting if empty.
            idempotency_key: a second call with the same one is answered with the first one's job; a new one if empty.
            requested_by: for the history.
            limits: of the gate in percentage points, by the names of `regraft.gate_limits.GateLimits`; the defaults
                where None.

        Raises:
            InvalidRequestError: a limit is no share of 100.
        """
        request = retraining_pb2.RetrainRequest(
            name=name,
            gate=_gate_mode(gate),
            idempotency_key=idempotency_key or str(uuid4()),
            requested_by=requested_by,
            limits=_gate_limits(limits),
        )
        job: retraining_pb2.RetrainJob = self._ask(self._retraining.Retrain, request).job
        return job

    def train(
        self,
        *,
        name: str = "",
        backbone: str = "",
        strategy: str = "",
        precision: str = "",
        epochs: int | None = None,
        gate: str = "",
        idempotency_key: str = "",
        requested_by: str = "",
        **limits: float | None,
    ) -> retraining_pb2.RetrainJob:
        """Start a job that trains backbone and head on all pictures.

        Args:
            name: the model.
            backbone: the champion's if empty.
            strategy: ``probe`` (if empty), ``finetune``, ``scratch`` or ``auto``.
            precision: ``fp32``, ``int8`` or ``auto``; the champion's if empty.
            epochs: at most, of any strategy but ``probe``; by a rule of the data if None.
            gate: as in `retrain`, likewise the next three.
            idempotency_key: likewise.
            requested_by: likewise.
            limits: likewise.

        Raises:
            InvalidRequestError: a limit is no share of 100.
        """
        request = retraining_pb2.TrainRequest(
            name=name,
            backbone=backbone,
            strategy=strategy,
            precision=precision,
            epochs=epochs,
            gate=_gate_mode(gate),
            idempotency_key=idempotency_key or str(uuid4()),
            requested_by=requested_by,
            limits=_gate_limits(limits),
        )
        job: retraining_pb2.RetrainJob = self._ask(self._retraining.Train, request).job
        return job

    def watch_job(self, job_id: str) -> Iterator[retraining_pb2.RetrainJob]:
        """Yield a job whenever it changes, to its final state.

        Each has all points of its curve so far.
        """
        points: list[retraining_pb2.LearningPoint] = []
        with self._errors():
            for answer in self._retraining.WatchRetrainJob(retraining_pb2.WatchRetrainJobRequest(id=job_id)):
                for point in answer.points:
                    points = [*(earlier for earlier in points if earlier.epoch < point.epoch), point]
                answer.job.points.extend(points)
                yield answer.job

    def get_job(self, job_id: str) -> retraining_pb2.RetrainJob:
        """Return a job as it stands."""
        request = retraining_pb2.GetRetrainJobRequest(id=job_id)
        job: retraining_pb2.RetrainJob = self._ask(self._retraining.GetRetrainJob, request).job
        return job

    def list_jobs(self, name: str = "") -> list[retraining_pb2.RetrainJob]:
        """Return the jobs, newest first."""
        request = retraining_pb2.ListRetrainJobsRequest(name=name)
        return [job for page in self._pages(self._retraining.ListRetrainJobs, request) for job in page.jobs]

    def cancel_job(self, job_id: str) -> retraining_pb2.RetrainJob:
        """Request the end of a job."""
        request = retraining_pb2.CancelRetrainJobRequest(id=job_id)
        job: retraining_pb2.RetrainJob = self._ask(self._retraining.CancelRetrainJob, request).job
        return job

    def list_models(self, *, show_deleted: bool = False) -> list[models_pb2.Model]:
        """Return every model of the store, those in the trash if asked."""
        pages = self._pages(self._models.ListModels, models_pb2.ListModelsRequest(show_deleted=show_deleted))
        return [model for page in pages for model in page.models]

    def list_backbones(self, *, show_addable: bool = False) -> list[models_pb2.Backbone]:
        """Return the backbones that a model can begin with.

        With ``show_addable`` also those that torch could add there.
        """
        request = models_pb2.ListBackbonesRequest(show_addable=show_addable)
        return [backbone for page in self._pages(self._models.ListBackbones, request) for backbone in page.backbones]

    def get_model(self, name: str = "") -> models_pb2.Model:
        """Return one model."""
        model: models_pb2.Model = self._ask(self._models.GetModel, models_pb2.GetModelRequest(name=name)).model
        return model

    def promote(
        self,
        version: int,
        *,
        name: str = "",
        who: str = "",
        why: str = "",
        expected: int | None = None,
        request_id: str = "",
    ) -> models_pb2.PromoteResponse:
        """Promote a version to champion; it serves when this returns.

        Args:
            version: which.
            name: the model.
            who: for the history.
            why: for the history.
            expected: the champion that you go by, 0 for none; where it is another by now, nothing changes.
            request_id: a second call with the same one is answered with what the first one did; a new one if empty.
        """
        request = models_pb2.PromoteRequest(
            name=name,
            version=version,
            who=who,
            why=why,
            expected_champion=expected,
            request_id=request_id or str(uuid4()),
        )
        response: models_pb2.PromoteResponse = self._ask(self._models.Promote, request)
        return response

    def rollback(
        self, *, name: str = "", who: str = "", why: str = "", expected: int | None = None, request_id: str = ""
    ) -> models_pb2.RollbackResponse:
        """Roll back to the champion before; arguments as `promote`."""
        request = models_pb2.RollbackRequest(
            name=name, who=who, why=why, expected_champion=expected, request_id=request_id or str(uuid4())
        )
        response: models_pb2.RollbackResponse = self._ask(self._models.Rollback, request)
        return response

    def create_model(
        self,
        name: str,
        backbone: str = "",
        labels: Iterable[str] = (),
        *,
        label_set: str = "",
        who: str = "",
        why: str = "",
        request_id: str = "",
    ) -> models_pb2.CreateModelResponse:
        """Begin a model without a version; it takes examples when this returns.

        Args:
            name: of the model.
            backbone: of the store, its name or the beginning of its digest; may be empty while there is one.
            labels: the classes that it begins with.
            label_set: ``open`` or ``closed``; the server's own setting if empty.
            who: for the history.
            why: for the history.
            request_id: as in `promote`.
        """
        request = models_pb2.CreateModelRequest(
            name=name,
            backbone=backbone,
            labels=labels,
            label_set=f"LABEL_SET_{label_set.upper()}" if label_set else None,
            who=who,
            why=why,
            request_id=request_id or str(uuid4()),
        )
        response: models_pb2.CreateModelResponse = self._ask(self._models.CreateModel, request)
        return response

    def delete_model(
        self, name: str, *, who: str = "", why: str = "", etag: str = "", request_id: str = ""
    ) -> models_pb2.DeleteModelResponse:
        """Put a model into the trash; the rest as `create_model`.

        With the ``etag`` of the model that you go by, only while it is as you saw it.
        """
        request = models_pb2.DeleteModelRequest(
            name=name, who=who, why=why, etag=etag, request_id=request_id or str(uuid4())
        )
        response: models_pb2.DeleteModelResponse = self._ask(self._models.DeleteModel, request)
        return response

    def restore_model(
        self, name: str, *, who: str = "", why: str = "", request_id: str = ""
    ) -> models_pb2.RestoreModelResponse:
        """Bring a model back from the trash; arguments as `create_model`."""
        request = models_pb2.RestoreModelRequest(name=name, who=who, why=why, request_id=request_id or str(uuid4()))
        response: models_pb2.RestoreModelResponse = self._ask(self._models.RestoreModel, request)
        return response

    def shadow(
        self, version: int, *, name: str = "", who: str = "", why: str = "", etag: str = ""
    ) -> models_pb2.ShadowResponse:
        """Shadow the champion with a version; 0 ends that.

        With the ``etag`` of the model that you go by, only while it is as you saw it.
        """
        request = models_pb2.ShadowRequest(name=name, version=version, who=who, why=why, etag=etag)
        response: models_pb2.ShadowResponse = self._ask(self._models.Shadow, request)
        return response

    def get_report(self, version: int = 0, *, name: str = "", as_json: bool = False) -> bytes:
        """Return the report of a version (0: the champion), HTML or JSON."""
        form = reports_pb2.REPORT_FORMAT_JSON if as_json else reports_pb2.REPORT_FORMAT_HTML
        request = reports_pb2.GetReportRequest(name=name, version=version, format=form)
        with self._errors():
            return b"".join(part.data for part in self._reports.GetReport(request, timeout=self._timeout_s))

    def export(
        self, version: int = 0, *, name: str = "", to: str = "onnx", cpu: str = "", max_drop: float | None = None
    ) -> Iterator[exports_pb2.ExportResponse]:
        """Yield an export's progress, its result, then its zip's bytes.

        Args:
            version: which; 0 is the champion.
            name: the model.
            to: onnx, fp16, int8, ort, mobile, triton or openvino.
            cpu: what int8 is for: x86-vnni, x86 or arm; the server's if empty.
            max_drop: percentage points of accuracy that may be lost; 1.3 if None.

        Raises:
            InvalidRequestError: there is no such format, or the limit is no share of 100.
        """
        from regraft.gate_limits import to_shares  # noqa: PLC0415 - pydantic takes a moment, which other calls spare

        forms = {each.removeprefix("EXPORT_FORMAT_").lower(): each for each in exports_pb2.ExportFormat.keys()[1:]}
        if to not in forms:
            raise InvalidRequestError(f"--to {to}: need one of {', '.join(forms)}")
        limit = to_shares({"max_drop": max_drop})
        request = exports_pb2.ExportRequest(name=name, version=version, format=forms[to], cpu=cpu, **limit)
        with self._errors():
            yield from self._exports.Export(request)

    def get_confusion(
        self,
        version: int = 0,
        *,
        name: str = "",
        mistakes: bool = False,
        label: str = "",
        answer: str = "",
        pictures: int = 0,
    ) -> reports_pb2.GetConfusionResponse:
        """Return the confusion of a version on its holdout, all pages joined.

        Args:
            version: which; 0 is the champion.
            name: the model.
            mistakes: only the cells whose answer is not the label.
            label: only the cells of this one.
            answer: only the cells where this was answered.
            pictures: that are named of a cell, at most; 20 if 0.
        """
        request = reports_pb2.GetConfusionRequest(
            name=name, version=version, mistakes=mistakes, label=label, answer=answer, pictures=pictures
        )
        first, *others = self._pages(self._reports.GetConfusion, request)
        confusion: reports_pb2.GetConfusionResponse = first
        for page in others:
            confusion.cells.extend(page.cells)
        confusion.ClearField("next_page_token")
        return confusion

    def _ask(self, rpc: Any, request: Any, timeout_s: float | None = None) -> Any:  # noqa: ANN401 - stubs are untyped
        """Return the answer to one request, in the client's time or another."""
        with self._errors():
            return rpc(request, timeout=timeout_s or self._timeout_s)

    def _pages(self, rpc: Any, request: Any) -> Iterator[Any]:  # noqa: ANN401 - likewise
        """Yield the pages of a list, to the last one."""
        while True:
            page = self._ask(rpc, request)
            yield page
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def _exchange(self, rpc: Any, requests: Iterable[Any]) -> Iterator[Any]:  # noqa: ANN401 - likewise
        """Yield the answers to a stream, then raise its error."""
        sent = _UntilError(requests)
        with self._errors():
            call = rpc(sent)
            try:
                yield from call
            finally:
                call.cancel()  # of a stream that was read to its end nothing is left to cancel
        if sent.error:
            raise sent.error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            code, text = error.code(), error.details() or ""
            if code is grpc.StatusCode.UNAVAILABLE and _NO_SERVER.search(text):
                text = nobody_answers(self.target, text)
            elif text == _TOO_LATE and not is_loopback(self.target) and (proxy := proxy_of(self.target)):
                text += f": is it the proxy on the way ({proxy})? If none should be asked, name the host in no_proxy"
            if code is grpc.StatusCode.RESOURCE_EXHAUSTED and (sizes := _TOO_LARGE.search(text)):
                raise MessageTooLargeError(code.name, int(sizes[1]), int(sizes[2])) from error
            raise RemoteError(code.name, text, _reason_of(error)) from error


def _reason_of(error: grpc.RpcError) -> str:
    """Return the reason in an error's details (google.rpc.ErrorInfo), or an empty text."""
    from google.rpc.error_details_pb2 import ErrorInfo  # noqa: PLC0415 - only what failed needs it
    from grpc_status import rpc_status  # noqa: PLC0415 - likewise

    try:
        status = rpc_status.from_call(cast("grpc.Call", error))  # an RpcError of a call is that call
    except ValueError:  # who stands between changed code or text
        return ""
    info = ErrorInfo()
    return next((info.reason for detail in (status.details if status else ()) if detail.Unpack(info)), "")


def _gate_mode(gate: str) -> str | None:
    return f"GATE_MODE_{gate.upper()}" if gate else None


def _gate_limits(limits: Mapping[str, float | None]) -> retraining_pb2.GateLimits:
    """Return limits in percentage points as a message."""
    from regraft.gate_limits import to_shares  # noqa: PLC0415 - pydantic takes a moment, which other calls spare

    return retraining_pb2.GateLimits(**to_shares(limits))
