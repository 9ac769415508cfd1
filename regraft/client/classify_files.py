"""Classification of files by a server, whatever their size."""

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from regraft.client.client import MOST_BYTES, Client, MessageTooLargeError, too_large
from regraft.v1 import classifier_pb2

_AROUND_BYTES: Final = 256
"""The most bytes of a message around its picture, its id and the model's name."""
_INVALID_ARGUMENT: Final = 3
"""INVALID_ARGUMENT of google.rpc.Code."""


def classify_files(
    client: Client, files: Sequence[tuple[str, Path]], *, name: str = "", top_k: int = 0
) -> Iterator[classifier_pb2.ClassifyStreamResponse]:
    """Yield the answer to each (id, file), in order.

    Pictures are read as the server takes them; one that cannot be read or sent is answered by the reason. A message
    that is larger than the server's limit ends a stream, with what was on its way. Another takes up what has no answer
    yet, and leaves out what is over the limit that the first has told.
    """
    limit_bytes, answered = MOST_BYTES, 0
    while answered < len(files):
        taken: deque[tuple[str, str]] = deque()  # by the stream: ids, and why a picture was not sent
        sendable = _sendable(files[answered:], taken, limit_bytes - len(name.encode()) - _AROUND_BYTES)
        try:
            for answer in client.classify_stream(sendable, name=name, top_k=top_k):
                while taken[0][1]:
                    answered += 1
                    yield _failed(*taken.popleft())
                taken.popleft()
                answered += 1
                yield answer
        except MessageTooLargeError as error:
            if error.limit_bytes >= limit_bytes:
                raise  # no news: the next stream would end likewise
            limit_bytes = error.limit_bytes
        else:
            yield from (_failed(*each) for each in taken)
            return


def _sendable(
    files: Sequence[tuple[str, Path]], taken: "deque[tuple[str, str]]", limit_bytes: int
) -> Iterator[tuple[str, bytes]]:
    """Yield (id, picture) of sendable files, and record all."""
    for key, file in files:
        try:
            size_bytes = file.stat().st_size + len(key.encode())
            complaint = too_large(size_bytes, limit_bytes) if size_bytes > limit_bytes else ""
            data = b"" if complaint else file.read_bytes()  # of what is far too large not even the bytes are read
        except OSError as error:
            complaint, data = f"cannot be read: {error.strerror or error}", b""
        taken.append((key, complaint))
        if not complaint:
            yield key, data


def _failed(key: str, complaint: str) -> classifier_pb2.ClassifyStreamResponse:
    error = classifier_pb2.PictureError(code=_INVALID_ARGUMENT, message=complaint, reason="INVALID_IMAGE")
    return classifier_pb2.ClassifyStreamResponse(id=key, error=error)
