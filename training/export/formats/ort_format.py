"""ONNX Runtime's own format, and the operators that a model needs."""

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Final

import onnx

from regraft.errors import ArtifactError, first_line
from regraft.model.session import require_onnxruntime

OPERATORS_FILE: Final = "required_operators.config"


def write_ort(model: onnx.ModelProto, path: Path) -> None:
    """Write ``path``, a model.ort, with `OPERATORS_FILE` beside it for ``build.py --include_ops_by_config``.

    Raises:
        ArtifactError: ONNX Runtime cannot convert the model.
    """
    require_onnxruntime()
    from onnxruntime.tools import (  # noqa: PLC0415 - optional: the line above has asked for the package
        convert_onnx_models_to_ort as converter,
    )

    source = path.with_suffix(".onnx")
    onnx.save_model(model, source)
    logging.disable(logging.INFO)  # it reports to the log what it has written where
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore", ResourceWarning)  # it leaves a file open
            converter.convert_onnx_models_to_ort(
                source,
                optimization_styles=[converter.OptimizationStyle.Fixed],
                enable_type_reduction=True,  # lists the types of the operators, too
            )
    except Exception as error:
        raise ArtifactError(f"ONNX Runtime cannot write its own format: {first_line(error)}") from error
    finally:
        logging.disable(logging.NOTSET)
    source.unlink()
    (listed,) = path.parent.glob("*required_operators*.config")
    lines = listed.read_text(encoding="utf-8").splitlines(keepends=True)
    listed.unlink()
    # Comments name the file it was made from, by the path it has for now.
    (path.parent / OPERATORS_FILE).write_text("".join(line for line in lines if line[0] != "#"), encoding="utf-8")
