"""Pictures on their way to a server, with labels or without."""

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from regraft.client.client import MOST_BYTES, Client, MessageTooLargeError, too_large
from regraft.client.message_values import word_of
from regraft.datasets.labelled_files import LabelledFiles
from regraft.datasets.manifest import BadLine, LabelledFile
from regraft.datasets.unlabelled_files import UnlabelledFile, UnlabelledFiles
from regraft.errors import InvalidRequestError
from regraft.v1 import pictures_pb2, retraining_pb2

_REJECTED: Final = "REJECTED"
_FULL: Final = "FULL"
_OF_LABELLED: Final = ("accepted", "duplicate", "relabelled", "conflicting", "rejected")
_OF_UNLABELLED: Final = ("accepted", "duplicate", "labelled", "full", "rejected")


class _File(Protocol):
    """A file that may be sent."""

    @property
    def name(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...


FileT = TypeVar("FileT", bound=_File)
AnswerT = TypeVar("AnswerT", retraining_pb2.AddExamplesResponse, pictures_pb2.AddPicturesResponse)


class Upload(ABC, Generic[FileT, AnswerT]):
    """Pictures and the server's answer to each.

    Attributes:
        files: the pictures.
        answers: to each picture that has one, by its number in ``files``.
        refusal: why the server has no room for any more; empty while it has.
    """

    _outcomes: tuple[str, ...]
    """Those that are counted, in order."""

    def __init__(self, files: Sequence[FileT], bad: Iterable[BadLine], name: str, source: str) -> None:
        """Prepare an upload.

        Args:
            files: the pictures.
            bad: what names no picture, and counts as rejected.
            name: of the model.
            source: of pictures that name none.
        """
        self.files = files
        self.answers: dict[int, AnswerT] = {}
        self._bad = tuple(bad)
        self._name = name
        self._source = source
        self._limit_bytes = MOST_BYTES
        self.refusal = ""

    def send(self, client: Client) -> Iterator[AnswerT]:
        """Send the pictures without an answer, and yield the server's answers.

        A message above the server's limit ends a stream without an answer to what came before. So the largest picture
        goes first: once its stream has told the limit, another takes the rest.
        """
        while True:
            sent: deque[int] = deque()
            try:
                for answer in self._exchange(client, self._requests(sent)):
                    self.answers[sent.popleft()] = answer
                    yield answer
            except MessageTooLargeError as error:
                if error.limit_bytes >= self._limit_bytes:
                    raise  # no news: the next stream would end likewise
                self._limit_bytes = error.limit_bytes
            else:
                return

    @property
    def unanswered(self) -> int:
        """Number of pictures without an answer, where an error ended the upload."""
        return len(self.files) - len(self.answers)

    def rejections(self) -> list[dict[str, str]]:
        """Return file, label and reason of what was not stored."""
        lines = [{"file": line.place, "label": "", "reason": line.reason} for line in self._bad]
        return lines + [
            {
                "file": _printable(self.files[number].name),
                "label": _printable(self._label(self.files[number])),
                "reason": answer.reason,
            }
            for number, answer in sorted(self.answers.items())
            if answer.reason and answer.reason != self.refusal
        ]

    def counts(self) -> dict[str, int]:
        """Count the pictures by outcome, zeros included."""
        answers = list(self.answers.values())  # gRPC's thread may still add some
        counts = Counter(word_of(type(each).Outcome, each.outcome).lower() for each in answers)
        counts[_REJECTED.lower()] += len(self._bad)
        return {outcome: counts[outcome] for outcome in self._outcomes}

    def _requests(self, sent: deque[int]) -> Iterator[Message]:
        """Yield requests, the largest picture first, and append their numbers.

        Pictures that cannot be sent are rejected here.
        """
        unanswered = [number for number in range(len(self.files)) if number not in self.answers]
        largest = max(unanswered, key=lambda number: self.files[number].size_bytes, default=None)
        for number in sorted(unanswered, key=lambda number: number != largest):
            if answer := self._foreseen():
                self.answers[number] = answer
                continue
            try:
                self._check_size(self.files[number].size_bytes)  # of what is far too large not even the bytes are read
                request = self._request(self.files[number])
                self._check_size(request.ByteSize())
            except OSError as error:
                self.answers[number] = self._rejection(f"cannot be read: {error.strerror or error}")
            except InvalidRequestError as error:
                self.answers[number] = self._rejection(str(error))
            except UnicodeError as error:  # JSON can say half a character
                self.answers[number] = self._rejection(f"cannot be sent: {error}")
            else:
                sent.append(number)
                yield request

    def _foreseen(self) -> AnswerT | None:
        """Return the answer that all further pictures get, if known."""
        return None

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._limit_bytes:
            raise InvalidRequestError(too_large(size_bytes, self._limit_bytes))

    @abstractmethod
    def _exchange(self, client: Client, requests: Iterator[Any]) -> Iterator[AnswerT]:
        """Send requests, and yield the answers."""

    @abstractmethod
    def _request(self, file: FileT) -> Message:
        """Return the request of a picture."""

    @abstractmethod
    def _rejection(self, reason: str) -> AnswerT:
        """Return the answer to a picture that cannot be sent."""

    def _label(self, _file: FileT) -> str:
        """Return the label of a picture, for people."""
        return ""


class LabelledUpload(Upload[LabelledFile, retraining_pb2.AddExamplesResponse]):
    """An upload of labelled pictures, by ``annotator`` where the list names none."""

    _outcomes = _OF_LABELLED

    def __init__(self, found: LabelledFiles, name: str, *, source: str, annotator: str) -> None:
        """Prepare an upload of what was ``found``; the others as `Upload`."""
        super().__init__(found.files, found.bad, name, source)
        self._annotator = annotator

    def _exchange(self, client: Client, requests: Iterator[Any]) -> Iterator[retraining_pb2.AddExamplesResponse]:
        return client.send_examples(requests)

    def _request(self, file: LabelledFile) -> retraining_pb2.AddExamplesRequest:
        return retraining_pb2.AddExamplesRequest(
            image=file.path.read_bytes() if file.path else b"",
            label=file.label,
            name=self._name,
            source=file.source or self._source,
            annotator=file.annotator or self._annotator,
            request_id=file.request_id,
            group=file.group,
            sha256=file.sha256,
        )

    def _rejection(self, reason: str) -> retraining_pb2.AddExamplesResponse:
        return retraining_pb2.AddExamplesResponse(outcome=f"OUTCOME_{_REJECTED}", reason=reason)

    def _label(self, file: LabelledFile) -> str:
        return file.label


class UnlabelledUpload(Upload[UnlabelledFile, pictures_pb2.AddPicturesResponse]):
    """An upload of pictures without labels.

    The first for which there is no room ends it.
    """

    _outcomes = _OF_UNLABELLED

    def __init__(self, found: UnlabelledFiles, name: str, *, source: str) -> None:
        """Prepare an upload of what was ``found``; the others as `Upload`."""
        super().__init__(found.files, found.bad, name, source)

    def _exchange(self, client: Client, requests: Iterator[Any]) -> Iterator[pictures_pb2.AddPicturesResponse]:
        for answer in client.send_pictures(requests):
            if word_of(pictures_pb2.AddPicturesResponse.Outcome, answer.outcome) == _FULL:
                self.refusal = answer.reason
            yield answer

    def _foreseen(self) -> pictures_pb2.AddPicturesResponse | None:
        if not self.refusal:
            return None
        return pictures_pb2.AddPicturesResponse(outcome=f"OUTCOME_{_FULL}", reason=self.refusal)

    def _request(self, file: UnlabelledFile) -> pictures_pb2.AddPicturesRequest:
        return pictures_pb2.AddPicturesRequest(image=file.read(), name=self._name, source=self._source)

    def _rejection(self, reason: str) -> pictures_pb2.AddPicturesResponse:
        return pictures_pb2.AddPicturesResponse(outcome=f"OUTCOME_{_REJECTED}", reason=reason)


def _printable(text: str) -> str:
    """Return a text without lone surrogates, as file names may have."""
    return text.encode(errors="replace").decode()
