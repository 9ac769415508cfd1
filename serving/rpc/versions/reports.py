"""The Reports service: a version's report, and its confusion matrix."""

from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Final

from regraft.errors import InvalidRequestError, NotFoundError, PreconditionError
from regraft.files import storage_errors
from regraft.label_rules import nfc
from regraft.model import artifact
from regraft.model.confusion import Cell, Confusion
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, REPORT_FILE, REPORT_JSON_FILE
from regraft.v1 import reports_pb2 as pb
from regraft.v1 import reports_pb2_grpc as pb_grpc
from serving.inference.registry import ModelRegistry
from serving.rpc.context import Context
from serving.rpc.pages import as_many_as_fit, numbered_start, page_size, page_token
from serving.rpc.parsing import check_choice

_FILES: Final = {
    pb.REPORT_FORMAT_UNSPECIFIED: REPORT_FILE,
    pb.REPORT_FORMAT_HTML: REPORT_FILE,
    pb.REPORT_FORMAT_JSON: REPORT_JSON_FILE,
}
_PART_BYTES: Final = 2**20
_MAX_CELLS: Final = 1_000
"""In one answer."""
_PICTURES: Final = 20
_MAX_PICTURES: Final = 1_000


class ReportsService(pb_grpc.ReportsServicer):
    """The servicer; what it tells is in `regraft.stores.models` and `regraft.model.confusion`."""

    def __init__(self, models: ModelRegistry) -> None:
        """Tell of the versions in the store of ``models``."""
        self._models = models
        self._threads = models.threads

    async def GetReport(self, request: pb.GetReportRequest, _context: Context) -> AsyncIterator[pb.GetReportResponse]:
        """Send the report of a version, in parts."""
        check_choice("format", request.format, pb.ReportFormat)
        _, version, folder = await find_version(self._models, request.name, request.version)
        file, sent, size_bytes = folder / _FILES[request.format], 0, 1
        while sent < size_bytes:
            data, size_bytes = await self._threads.store.run(_part, file, sent)
            yield pb.GetReportResponse(data=data, version=version, size_bytes=size_bytes)
            sent += len(data) or size_bytes

    async def GetConfusion(self, request: pb.GetConfusionRequest, _context: Context) -> pb.GetConfusionResponse:
        """Tell a page of the cells of a confusion matrix."""
        if not 0 <= request.pictures <= _MAX_PICTURES:
            raise InvalidRequestError(f"pictures: {request.pictures}; it is 1 to {_MAX_PICTURES}, or 0 for {_PICTURES}")
        most, start = page_size(request, _MAX_CELLS), numbered_start(request, parts=2)
        asked, begin = start or (request.version, 0)
        _, version, folder = await find_version(self._models, request.name, asked)
        confusion = await self._threads.store.run(_confusion, folder)
        cells = await self._threads.store.run(_cells, confusion, request)
        messages = _messages(confusion, cells[begin : begin + most], request.pictures or _PICTURES)
        page = pb.GetConfusionResponse(
            version=version,
            labels=confusion.labels,
            images=len(confusion.label),
            right=confusion.right,
            cells=await as_many_as_fit(messages),
        )
        if page.cells and begin + len(page.cells) < len(cells):
            page.next_page_token = page_token(request, str(version), str(begin + len(page.cells)))
        return page


async def find_version(models: ModelRegistry, name: str, version: int) -> tuple[str, int, Path]:
    """Return a model's full name, its version, and that one's folder.

    Version 0 stands for the champion.

    Raises:
        InvalidRequestError: the version is negative, or the name is not given and there are several models.
        PreconditionError: there is no champion.
        NotFoundError: there is no such version.
    """
    if version < 0:
        raise InvalidRequestError("version: which one? The first is 1, and 0 is the champion")
    name, store, threads = models.resolve(name), models.store, models.threads
    champion = None if version else await threads.store.run(store.champion, name)
    if not (found := version or champion):
        raise PreconditionError(f"version: model {name!r} has no champion: name a version")
    return name, found, await threads.store.run(store.folder, name, found)


def _part(file: Path, begin: int) -> tuple[bytes, int]:
    """Return a file's next bytes, and its size.

    Raises:
        NotFoundError: there is no such file.
    """
    if not file.is_file():
        raise NotFoundError(f"version {file.parent.name} has no {file.name}: it was published without one")
    with storage_errors(f"cannot read {file.name}"), file.open("rb") as whole:
        whole.seek(begin)
        return whole.read(_PART_BYTES), file.stat().st_size


def _confusion(folder: Path) -> Confusion:
    features = folder / FEATURES_FILE
    return _read(folder, features.stat().st_mtime_ns if features.is_file() else 0)


@lru_cache(maxsize=8)  # a page of cells is asked for after another; the time tells apart what was deleted and made anew
def _read(folder: Path, _modified_ns: int) -> Confusion:
    return Confusion.read(folder / FEATURES_FILE, artifact.read(folder / MODEL_FILE).head)


def _cells(confusion: Confusion, request: pb.GetConfusionRequest) -> list[Cell]:
    """Return the cells that a request asks for."""
    of_label, of_answer = (
        _index(confusion, field, getattr(request, field)) if getattr(request, field) else None
        for field in ("label", "answer")
    )
    return [
        cell
        for cell in confusion.cells()
        if of_label in (None, cell.label)
        and of_answer in (None, cell.answer)
        and (cell.is_mistake or not request.mistakes)
    ]


def _index(confusion: Confusion, field: str, label: str) -> int:
    names = [nfc(each) for each in confusion.labels]
    if nfc(label) not in names:
        raise InvalidRequestError(f"{field}: the version does not know {label!r}; it has {', '.join(names[:20])}")
    return names.index(nfc(label))


def _messages(confusion: Confusion, cells: list[Cell], pictures: int) -> Iterator[pb.ConfusionCell]:
    for cell in cells:
        yield pb.ConfusionCell(
            label=confusion.labels[cell.label],
            answer=confusion.labels[cell.answer],
            images=len(cell.sha256),
            sha256=islice(cell.sha256, pictures),
        )
