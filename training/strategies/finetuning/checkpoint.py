"""Checkpoint of a fine-tuning run. Imports torch."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regraft.errors import InvalidRequestError, first_line
from regraft.files import storage_errors, write_durably


@dataclass(frozen=True)
class Checkpoint:
    """A run between two steps.

    Attributes:
        settings: what the run was asked to do; a run asked for anything else must not go on from here.
        state: what the run needs to go on; tensors and plain values.
    """

    settings: Mapping[str, str]
    state: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write the file at ``path``, or leave the one before whole.

        Raises:
            StorageError: the disk refused.
        """
        file = io.BytesIO()
        torch.save({"settings": dict(self.settings), "state": self.state}, file)
        hint = f"; the one before is still at {path}" if path.exists() else ""
        with storage_errors(f"the checkpoint cannot be written{hint}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, file.getvalue())


def load_checkpoint(path: Path, settings: Mapping[str, str]) -> Checkpoint:
    """Read a checkpoint of a run with the same settings.

    Raises:
        InvalidRequestError: there is none, it is damaged, or it belongs to a run with other settings; the text says
            which ones differ.
    """
    try:
        # Only tensors and plain values: a checkpoint from elsewhere must not run code.
        content = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint = Checkpoint(content["settings"], content["state"])
    except FileNotFoundError as error:
        raise InvalidRequestError(f"--resume: there is no checkpoint at {path}") from error
    except Exception as error:
        raise InvalidRequestError(f"--resume: {path} is damaged ({first_line(error)}): start without it") from error
    names = sorted(settings.keys() | checkpoint.settings.keys())
    different = [name for name in names if settings.get(name) != checkpoint.settings.get(name)]
    if different:
        lines = [f"{name} was {checkpoint.settings.get(name)}, now {settings.get(name)}" for name in different]
        raise InvalidRequestError(f"--resume: {path} is of a run with other settings: {'; '.join(lines)}")
    return checkpoint
