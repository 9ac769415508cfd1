"""Roles, the least one of each RPC, and the file of callers.

Each line of the file is a caller: its name, its role, and how it is known::

    # name       role      known by
    shop         classify  sha256:9b74c9897bac770ffc029102a200c5de57c01d96e3a1ff7ee7e07d8d7c6a2f1e
    annotators   label     certificate:annotators.example.com
    ada          operate   sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
    tenant       operate   sha256:486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5a6c65260e9cb8a7  models=flowers*,cats

A line with ``models`` knows no others: `*`, `?` and `[...]` are as in file names, several are parted by commas.
`regraft token` makes a token and its line. A certificate is known by a name that it is made out to: a DNS name or URI,
or the common name where it has neither.
"""

import hmac
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from regraft.auth import ROLES, hash_token
from regraft.errors import OperatorError
from regraft.files import file_stamp
from regraft.label_rules import nfc

log = logging.getLogger("regraft.access")


class Role(IntEnum):
    """A role, with the rights of those before it; the names are `regraft.auth.ROLES`."""

    CLASSIFY = 1
    LABEL = 2
    OPERATE = 3


_HASH_BYTES: Final = 32
_INFERENCE: Final = "/inference.GRPCInferenceService/"
_CLASSIFIER: Final = "/regraft.v1.Classifier/"
_RETRAINING: Final = "/regraft.v1.Retraining/"
_EXAMPLES: Final = "/regraft.v1.Examples/"
_PICTURES: Final = "/regraft.v1.Pictures/"
_MODELS: Final = "/regraft.v1.Models/"
_REPORTS: Final = "/regraft.v1.Reports/"

LEAST_ROLE: Final[dict[str, Role]] = {
    _CLASSIFIER + "Classify": Role.CLASSIFY,
    _CLASSIFIER + "ClassifyStream": Role.CLASSIFY,
    _CLASSIFIER + "BatchClassify": Role.CLASSIFY,
    _INFERENCE + "ServerLive": Role.CLASSIFY,
    _INFERENCE + "ServerReady": Role.CLASSIFY,
    _INFERENCE + "ModelReady": Role.CLASSIFY,
    _INFERENCE + "ServerMetadata": Role.CLASSIFY,
    _INFERENCE + "ModelMetadata": Role.CLASSIFY,
    _INFERENCE + "ModelInfer": Role.CLASSIFY,
    _INFERENCE + "ModelStreamInfer": Role.CLASSIFY,
    _INFERENCE + "ModelConfig": Role.CLASSIFY,
    _INFERENCE + "ModelStatistics": Role.CLASSIFY,
    _INFERENCE + "RepositoryIndex": Role.CLASSIFY,
    _RETRAINING + "AddExamples": Role.LABEL,
    _RETRAINING + "BatchAddExamples": Role.LABEL,
    _RETRAINING + "GetRetrainJob": Role.LABEL,
    _RETRAINING + "WatchRetrainJob": Role.LABEL,
    _RETRAINING + "ListRetrainJobs": Role.LABEL,
    _RETRAINING + "Preview": Role.LABEL,
    _RETRAINING + "Retrain": Role.OPERATE,
    _RETRAINING + "Train": Role.OPERATE,
    _RETRAINING + "CancelRetrainJob": Role.OPERATE,
    _EXAMPLES + "ListExamples": Role.LABEL,
    _EXAMPLES + "GetExample": Role.LABEL,
    _EXAMPLES + "RelabelExample": Role.LABEL,
    _EXAMPLES + "RemoveExample": Role.LABEL,
    _EXAMPLES + "ReleaseExample": Role.OPERATE,
    _EXAMPLES + "RelabelExamples": Role.LABEL,
    _EXAMPLES + "RemoveExamples": Role.LABEL,
    _EXAMPLES + "RestoreExamples": Role.LABEL,
    _EXAMPLES + "RenameLabel": Role.OPERATE,
    _EXAMPLES + "RemoveLabel": Role.OPERATE,
    _EXAMPLES + "GetThumbnails": Role.LABEL,
    _EXAMPLES + "Suggest": Role.LABEL,
    _EXAMPLES + "GetLearningCurve": Role.LABEL,
    _EXAMPLES + "Neighbours": Role.LABEL,
    _EXAMPLES + "Map": Role.LABEL,
    _EXAMPLES + "Explain": Role.LABEL,
    _PICTURES + "AddPictures": Role.LABEL,
    _PICTURES + "BatchAddPictures": Role.LABEL,
    _PICTURES + "ListPictures": Role.LABEL,
    _PICTURES + "RemovePictures": Role.LABEL,
    _MODELS + "ListModels": Role.LABEL,
    _MODELS + "GetModel": Role.LABEL,
    _MODELS + "ListBackbones": Role.LABEL,
    _MODELS + "Promote": Role.OPERATE,
    _MODELS + "Rollback": Role.OPERATE,
    _MODELS + "Shadow": Role.OPERATE,
    _MODELS + "CreateModel": Role.OPERATE,
    _MODELS + "DeleteModel": Role.OPERATE,
    _MODELS + "RestoreModel": Role.OPERATE,
    "/regraft.v1.Exports/Export": Role.OPERATE,
    _REPORTS + "GetReport": Role.LABEL,
    _REPORTS + "GetConfusion": Role.LABEL,
}
"""Every RPC of ours, by its full name. Those above `Role.CLASSIFY` are control RPCs: each call leaves an audit line."""


@dataclass(frozen=True)
class Caller:
    """A known caller."""

    name: str
    role: Role
    models: tuple[str, ...] | None = None
    """Patterns of the models that it may name; None: any."""


class Callers:
    """The callers of a file, which is read again when it changes."""

    def __init__(self, path: Path) -> None:
        """Read ``path``.

        Raises:
            OperatorError: it cannot be read; the text names the line.
        """
        self._path = path
        self._stamp = file_stamp(path)
        self._by_hash, self._by_certificate = _read(path)

    def with_token(self, token: str) -> Caller | None:
        """Return the caller with a token, in the same time for a bad one."""
        token_hash = hash_token(token)
        match = None
        for caller_hash, caller in self._by_hash.items():
            if hmac.compare_digest(caller_hash, token_hash):
                match = caller
        return match

    def with_certificate(self, names: Iterable[str]) -> Caller | None:
        """Return the caller with a certificate, by its names, which TLS has verified."""
        return next((self._by_certificate[name] for name in names if name in self._by_certificate), None)

    def refresh(self) -> None:
        """Read the file again if it has changed.

        One that cannot be read changes nothing, and is logged once.
        """
        if file_stamp(self._path) != self._stamp:
            self.reload()

    def reload(self) -> None:
        """Read the file again, and log the outcome."""
        self._stamp = file_stamp(self._path)
        try:
            self._by_hash, self._by_certificate = _read(self._path)
        except OperatorError as error:
            log.error("%s; those known before still are", error)
        else:
            log.info("%s: %d callers", self._path, len(self._by_hash) + len(self._by_certificate))


def _read(path: Path) -> tuple[dict[str, Caller], dict[str, Caller]]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"--callers {path}: {getattr(error, 'strerror', None) or 'is not text'}") from error
    callers: dict[str, dict[str, Caller]] = {"sha256": {}, "certificate": {}}
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            name, role, how, *limits = words
            kind, _, value = how.partition(":")
            if kind == "sha256" and len(bytes.fromhex(value)) != _HASH_BYTES:
                raise ValueError
            caller = Caller(name, Role[role.upper()], _patterns(limits))
            callers[kind][value.lower() if kind == "sha256" else value] = caller
        except (ValueError, KeyError) as error:
            raise OperatorError(
                f"--callers {path}, line {number}: need a name, a role ({', '.join(ROLES)}), "
                "sha256:HEX or certificate:NAME, and perhaps models=PATTERN,..."
            ) from error
    return callers["sha256"], callers["certificate"]


def _patterns(words: Sequence[str]) -> tuple[str, ...] | None:
    """Return the patterns of ``models=...``, None where a line has none."""
    if not words:
        return None
    [limit] = words
    key, _, patterns = limit.partition("=")
    if key != "models" or not all(found := tuple(nfc(pattern) for pattern in patterns.split(","))):
        raise ValueError(limit)
    return found
