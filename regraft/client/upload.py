"""Labelled pictures on their way to a server."""

from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

from regraft.client.client import MOST_BYTES, Client, MessageTooLargeError, too_large
from regraft.client.message_values import word_of
from regraft.datasets.labelled_files import LabelledFiles
from regraft.datasets.manifest import LabelledFile
from regraft.errors import InvalidRequestError
from regraft.v1 import retraining_pb2 as pb

_OUTCOMES: Final = ("accepted", "duplicate", "relabelled", "conflicting", "rejected")


class Upload:
    """Labelled pictures and the server's answer to each.

    Attributes:
        files: the pictures.
        answers: to each picture that has one, by its number in ``files``.
    """

    def __init__(self, found: LabelledFiles, name: str, *, source: str, annotator: str) -> None:
        """Prepare an upload.

        Args:
            found: the pictures, and lines of a list that name none, which count as rejected.
            name: of the model.
            source: of pictures that name none.
            annotator: likewise.
        """
        self.files = found.files
        self.answers: dict[int, pb.AddExamplesResponse] = {}
        self._bad_lines = found.bad
        self._name = name
        self._source = source
        self._annotator = annotator
        self._limit_bytes = MOST_BYTES

    def send(self, client: Client) -> Iterator[pb.AddExamplesResponse]:
        """Send the pictures without an answer, and yield the server's answers.

        A message above the server's limit ends a stream without an answer to what came before. So the largest picture
        goes first: once its stream has told the limit, another takes the rest.
        """
        while True:
            sent: deque[int] = deque()
            try:
                for answer in client.send_examples(self._requests(sent)):
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
        lines = [{"file": line.place, "label": "", "reason": line.reason} for line in self._bad_lines]
        return lines + [
            {
                "file": _printable(self.files[number].name),
                "label": _printable(self.files[number].label),
                "reason": answer.reason,
            }
            for number, answer in sorted(self.answers.items())
            if answer.reason
        ]

    def counts(self) -> dict[str, int]:
        """Count the pictures by outcome, zeros included."""
        answers = list(self.answers.values())  # gRPC's thread may still add some
        counts = Counter(word_of(pb.AddExamplesResponse.Outcome, each.outcome).lower() for each in answers)
        counts["rejected"] += len(self._bad_lines)
        return {outcome: counts[outcome] for outcome in _OUTCOMES}

    def _requests(self, sent: deque[int]) -> Iterator[pb.AddExamplesRequest]:
        """Yield requests, the largest picture first, and append their numbers.

        Pictures that cannot be sent are rejected here.
        """
        unanswered = [number for number in range(len(self.files)) if number not in self.answers]
        largest = max(unanswered, key=lambda number: self.files[number].size_bytes, default=None)
        for number in sorted(unanswered, key=lambda number: number != largest):
            try:
                request = self._request(self.files[number])
            except OSError as error:
                self._reject(number, f"cannot be read: {error.strerror or error}")
            except InvalidRequestError as error:
                self._reject(number, str(error))
            except UnicodeError as error:  # JSON can say half a character
                self._reject(number, f"cannot be sent: {error}")
            else:
                sent.append(number)
                yield request

    def _request(self, file: LabelledFile) -> pb.AddExamplesRequest:
        self._check_size(file.size_bytes)  # of what is far too large not even the bytes are read
        request = pb.AddExamplesRequest(
            image=file.path.read_bytes() if file.path else b"",
            label=file.label,
            name=self._name,
            source=file.source or self._source,
            annotator=file.annotator or self._annotator,
            request_id=file.request_id,
            group=file.group,
        )
        self._check_size(request.ByteSize())
        return request

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._limit_bytes:
            raise InvalidRequestError(too_large(size_bytes, self._limit_bytes))

    def _reject(self, number: int, reason: str) -> None:
        self.answers[number] = pb.AddExamplesResponse(outcome=pb.AddExamplesResponse.OUTCOME_REJECTED, reason=reason)


def _printable(text: str) -> str:
    """Return a text without lone surrogates, as file names may have."""
    return text.encode(errors="replace").decode()
