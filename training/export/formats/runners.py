"""Runners of exported files, on one thread of the CPU."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from regraft.image.spec import Crop
from regraft.model.artifact import IMAGE, PROBABILITIES, FloatArray
from regraft.model.session import open_session
from training.export.formats.mobile import PICTURE, custom_operators
from training.export.formats.openvino_ir import require_openvino


@dataclass(frozen=True)
class Picture:
    """A picture, encoded and cropped."""

    data: bytes
    crop: Crop


Runner: TypeAlias = Callable[[Picture], FloatArray]
"""Computes the probabilities [K] of a picture."""


def crop_runner(model: Path) -> Runner:
    """Open a file for ONNX Runtime that takes crops."""
    session = open_session(model, provider="cpu", threads=1).session
    return lambda picture: np.asarray(session.run([PROBABILITIES], {IMAGE: picture.crop[None]})[0][0], np.float32)


def bytes_runner(model: Path) -> Runner:
    """Open a file for ONNX Runtime that takes encoded pictures."""
    session = open_session(model, provider="cpu", threads=1, operators=custom_operators()).session

    def run(picture: Picture) -> FloatArray:
        encoded = np.frombuffer(picture.data, np.uint8)
        return np.asarray(session.run([PROBABILITIES], {PICTURE: encoded})[0][0], np.float32)

    return run


def openvino_runner(model: Path) -> Runner:
    """Open a file for OpenVINO that takes crops."""
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = require_openvino().Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda picture: np.array(request.infer({IMAGE: picture.crop[None]})[PROBABILITIES][0], np.float32)
