"""OpenVINO's own format, ``model.xml`` and ``model.bin``."""

import sys
from pathlib import Path
from typing import Any

import onnx

from regraft.errors import ArtifactError, MissingPackageError, first_line
from regraft.model.card import ModelCard
from training.export.formats.constant_head import LABELS_KEY, without_labels


def require_openvino() -> Any:  # noqa: ANN401 - its types come and go with it
    """Import OpenVINO without its telemetry.

    Raises:
        MissingPackageError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    try:
        import openvino  # noqa: PLC0415 - optional: the caller must hear what to install
    except ImportError as error:
        raise MissingPackageError(
            "--to openvino needs openvino, which is not installed: pip install 'regraft[openvino]'"
        ) from error
    return openvino


def write_ir(model: onnx.ModelProto, path: Path, card: ModelCard) -> None:
    """Write a model.xml and its model.bin, labels and card in ``rt_info``.

    Raises:
        ArtifactError: OpenVINO cannot convert the model.
    """
    openvino = require_openvino()
    source = path.with_suffix(".onnx")
    onnx.save_model(without_labels(model), source)
    try:
        converted = openvino.Core().read_model(source)
    except Exception as error:
        raise ArtifactError(f"OpenVINO cannot convert the model: {first_line(error)}") from error
    finally:
        source.unlink()
    converted.set_rt_info(card.to_json(), ["regraft", "card"])
    converted.set_rt_info("\n".join(card.labels), LABELS_KEY.split("."))
    openvino.save_model(converted, path, compress_to_fp16=False)
