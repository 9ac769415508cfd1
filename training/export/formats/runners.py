"""How files are asked for the probabilities of a picture, on one thread of the CPU."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from regraft.image.spec import Crop
from regraft.model.artifact import IMAGE, PROBABILITIES, FloatArray
from regraft.model.session import open_session
from training.export.formats.mobile import PICTURE, custom_operators
from training.export.formats.openvino_ir import OpenVino


@dataclass(frozen=True)
class Picture:
    """A picture as files may want it: encoded, and cut."""

    data: bytes
    crop: Crop


Answer: TypeAlias = Callable[[Picture], FloatArray]
"""Asks a file for the probabilities [K] of a picture."""


def crop_answer(model: Path) -> Answer:
    """Open a file for ONNX Runtime that takes crops."""
    session = open_session(model, provider="cpu", threads=1).session
    return lambda picture: np.asarray(session.run([PROBABILITIES], {IMAGE: picture.crop[None]})[0][0], np.float32)


def bytes_answer(model: Path) -> Answer:
    """Open a file for ONNX Runtime and its extensions that takes encoded pictures."""
    session = open_session(model, provider="cpu", threads=1, operators=custom_operators()).session

    def ask(picture: Picture) -> FloatArray:
        encoded = np.frombuffer(picture.data, np.uint8)
        return np.asarray(session.run([PROBABILITIES], {PICTURE: encoded})[0][0], np.float32)

    return ask


def openvino_answer(model: Path) -> Answer:
    """Open a file for OpenVINO that takes crops."""
    opened = OpenVino(model)
    return lambda picture: opened.probabilities(picture.crop)
