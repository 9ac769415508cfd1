"""Catalogue of the export formats: writer and runner of each."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import onnx

from regraft.model.card import ModelCard
from training.export.formats.constant_head import of_one_picture, with_card, without_figures
from training.export.formats.mobile import custom_operators, with_decoding
from training.export.formats.openvino_ir import require_openvino, write_ir
from training.export.formats.ort_format import write_ort
from training.export.formats.runners import Runner, bytes_runner, crop_runner, openvino_runner
from training.export.formats.triton import write_repository

Format = Literal["onnx", "fp16", "int8", "ort", "mobile", "triton", "openvino"]

ONE_PICTURE_FILE: Final = "model.batch1.onnx"

_NEEDS: Final[dict[str, Callable[[], object]]] = {"mobile": custom_operators, "openvino": require_openvino}


def require_package(to: Format) -> None:
    """Raise `MissingPackageError` where a format needs a package that is not installed."""
    _NEEDS.get(to, lambda: None)()


def write(to: Format, model: onnx.ModelProto, card: ModelCard, folder: Path) -> Path:
    """Write a model into a folder, and return the file to load."""
    path = folder / {"ort": "model.ort", "triton": f"{card.name}/1/model.onnx", "openvino": "model.xml"}.get(
        to, "model.onnx"
    )
    if to == "ort":
        write_ort(model, path)
    elif to == "triton":
        write_repository(model, path, card)
    elif to == "openvino":
        write_ir(model, path, card)
    elif to == "mobile":
        onnx.save_model(with_card(with_decoding(model, card.image), without_figures(card)), path)
    else:
        onnx.save_model(model, path)
        if to == "onnx":
            onnx.save_model(of_one_picture(model), folder / ONE_PICTURE_FILE)
    return path


def open_file(to: Format, path: Path) -> Runner:
    """Open what `write` returned, on one thread of the CPU."""
    return {"mobile": bytes_runner, "openvino": openvino_runner}.get(to, crop_runner)(path)


def size_mb(path: Path) -> float:
    """Return the size of what `write` returned, with its weights."""
    weights = path.with_suffix(".bin")
    return (path.stat().st_size + (weights.stat().st_size if weights.exists() else 0)) / 1e6
