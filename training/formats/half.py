"""A backbone in half precision: half the size, and faster on GPUs and NPUs that calculate so."""

import onnx

from regraft.errors import ArtifactError, first_line
from regraft.runtime import require_onnxruntime


def half(backbone: onnx.ModelProto) -> onnx.ModelProto:
    """Return the backbone calculating in float16, of the same contract: its embedding is float32.

    Raises:
        ArtifactError: it cannot be converted.
    """
    require_onnxruntime()
    from onnxruntime.transformers import float16  # noqa: PLC0415 - optional: the line above has asked for the package

    try:
        converted: onnx.ModelProto = float16.convert_float_to_float16(backbone, keep_io_types=True)
        onnx.checker.check_model(converted)
    except Exception as error:
        raise ArtifactError(f"this backbone cannot be converted to fp16: {first_line(error)}") from error
    return converted
