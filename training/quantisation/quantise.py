"""Static int8 quantisation of backbones by ONNX Runtime. No torch.

Weights become int8, one scale for each output channel, activations uint8 (int8 for ARM) with one scale for each tensor;
the normalisation, the final pooling and whatever else costs next to nothing stay in float. What rounding the weights
adds to a channel's mean is then taken out of its bias (after Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", 2019; the means are measured), which takes a third off EfficientNet-Lite0's error.
"""

import platform
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Final, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from regraft.errors import ArtifactError, first_line
from regraft.image.spec import Crop
from regraft.model.artifact import IMAGE, check_backbone
from regraft.model.session import require_onnxruntime
from training.quantisation.activations import CLIPPING, Activations, Array, convolutions, ranges, watch

Cpu = Literal["x86-vnni", "x86", "arm"]
"""What int8 is for. ``x86-vnni``: activations uint8, weights int8 (U8S8). ``x86``, without VNNI: the same with weights
of 7 bits, since its 16-bit sums would saturate. ``arm``: int8 by int8 (S8S8)."""

CALIBRATION_CROPS: Final = 128
"""More of them changed neither accuracy nor ranges on photographs."""
_QUANTISED: Final = ("Conv", "Gemm", "MatMul", "Add", "Clip", "Relu")
"""What gains from it. Without Clip and Relu ahead of them, convolutions would be given ranges that these cut off."""
LAYERS: Final = frozenset({"Conv", "Gemm", "MatMul"})
_NORMALISING: Final = frozenset({"Add", "Sub", "Mul", "Div"})
_VNNI: Final = frozenset({"avx512_vnni", "avx_vnni"})


def quantise(backbone: bytes, crops: Sequence[Crop], *, cpu: Cpu, in_float: Collection[str] = ()) -> bytes:
    """Quantise a backbone; the same bytes and crops give the same bytes.

    Args:
        backbone: a serialised graph, see `regraft.model.artifact.check_backbone`.
        crops: uint8 [P, P, 3] each; pictures like those it is for, never of the holdout.
        cpu: what it is for.
        in_float: names of layers that are left as they are, and given what was not rounded.

    Returns:
        A backbone of the same contract.

    Raises:
        ArtifactError: there is nothing in it to quantise, or ONNX Runtime cannot; the text says what to do.
    """
    if not crops:
        raise ArtifactError("int8 needs training images to calibrate with, and there are none")
    require_onnxruntime()
    model = onnx.load_model_from_string(backbone)
    if not LAYERS.intersection(node.op_type for node in model.graph.node):
        raise ArtifactError("int8 brings nothing here: the backbone has neither convolutions nor matrix products")
    _widen_normalisation(model)
    try:
        seen = watch(model, crops)
        float_nodes = _with_clipping(model, in_float)
        quantised = _quantised(model, crops[0], ranges(model, seen), cpu, float_nodes)
        if float_nodes:
            _give_unrounded(quantised, float_nodes)
        _correct_biases(model, quantised, seen)
        _strip(quantised)
        check_backbone(quantised)
        onnx.checker.check_model(quantised)
    except Exception as error:
        raise ArtifactError(
            f"this backbone cannot be quantised, keep it in fp32 or take another: {first_line(error)}"
        ) from error
    return quantised.SerializeToString(deterministic=True)


def this_cpu(cpuinfo: Path = Path("/proc/cpuinfo"), machine: str = platform.machine()) -> Cpu:
    """Return the kind of this machine's CPU."""
    if machine.lower() in {"aarch64", "arm64"}:
        return "arm"
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:  # not Linux
        return "x86"
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return "x86-vnni" if flags & _VNNI else "x86"


class _Reader:
    """One crop for ONNX Runtime, which calibrates although it knows the ranges."""

    def __init__(self, crop: Crop) -> None:
        self._feeds = [{IMAGE: crop[None]}]

    def get_next(self) -> dict[str, Crop] | None:
        return self._feeds.pop() if self._feeds else None


def _quantised(
    model: onnx.ModelProto, crop: Crop, spans: Mapping[str, tuple[float, float]], cpu: Cpu, in_float: Collection[str]
) -> onnx.ModelProto:
    from onnxruntime import quantization  # noqa: PLC0415 - optional: `quantise` has asked for the package

    overrides = {name: [{"rmin": np.float32(low), "rmax": np.float32(high)}] for name, (low, high) in spans.items()}
    # Its pre-processing folds batch norms and constants, which our export has done; unmarked, it would log a complaint.
    helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "float.onnx", Path(scratch) / "int8.onnx"
        onnx.save_model(model, source)
        quantization.quantize_static(
            source,
            target,
            _Reader(crop),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTISED),
            per_channel=True,
            reduce_range=cpu == "x86",
            activation_type=quantization.QuantType.QInt8 if cpu == "arm" else quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=list(in_float),
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={"TensorQuantOverrides": overrides},
        )
        return onnx.load_model(target)


def _with_clipping(model: onnx.ModelProto, layers: Collection[str]) -> set[str]:
    """Add the clipping ahead of layers, or rounding would do it."""
    producers = {output: node for node in model.graph.node for output in node.output}
    given = (producers.get(node.input[0]) for node in model.graph.node if node.name in layers)
    return {*layers, *(node.name for node in given if node is not None and node.op_type in CLIPPING)}


def _give_unrounded(quantised: onnx.ModelProto, names: Collection[str]) -> None:
    """Feed float layers what was not rounded."""
    graph = quantised.graph
    producers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        for place, name in enumerate(node.input if node.name in names else ()):
            back = producers.get(name)
            there = producers.get(back.input[0]) if back and back.op_type == "DequantizeLinear" else None
            if there and there.op_type == "QuantizeLinear":
                node.input[place] = there.input[0]
    needed = {output.name for output in graph.output}
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
    nodes = [node for node in graph.node if needed.intersection(node.output)]
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)


def _correct_biases(model: onnx.ModelProto, quantised: onnx.ModelProto, seen: Activations) -> None:
    """Correct biases for the shift of means that rounded weights cause."""
    exact = {tensor.name: tensor for tensor in model.graph.initializer}
    tensors = {tensor.name: tensor for tensor in quantised.graph.initializer}
    originals = {node.name: node for node in convolutions(model)}
    dequantised = {node.output[0]: node for node in quantised.graph.node if node.op_type == "DequantizeLinear"}
    uses = Counter(name for node in quantised.graph.node for name in node.input)

    def numbers(node: onnx.NodeProto, place: int) -> Array:
        return np.asarray(numpy_helper.to_array(tensors[node.input[place]]), np.float64)

    for node in quantised.graph.node:
        if node.name not in originals or len(node.input) < 3 or node.input[2] not in dequantised:
            continue
        original = originals[node.name]
        weight, bias = (dequantised[name] for name in node.input[1:3])
        if uses[bias.input[0]] > 1 or uses[bias.output[0]] > 1:  # others have their own mean
            continue
        rounded = numbers(weight, 0) * numbers(weight, 1).reshape(-1, 1, 1, 1)
        added = (rounded - numpy_helper.to_array(exact[original.input[1]])).sum(axis=(2, 3))  # [out, in of a group]
        means = seen.means[original.input[0]].reshape(-1, added.shape[1])  # [groups, in of a group]
        of_group = np.repeat(means, len(added) // len(means), axis=0)  # [out, in of a group]
        corrected = numbers(bias, 0) - (added * of_group).sum(axis=1) / numbers(bias, 1)
        tensors[bias.input[0]].CopyFrom(numpy_helper.from_array(np.rint(corrected).astype(np.int32), bias.input[0]))


def _widen_normalisation(model: onnx.ModelProto) -> None:
    """Repeat constants [1, 3, 1, 1] along a row of the picture.

    ONNX Runtime moves the transposition behind the normalisation of an int8 network; what is then broadcast along an
    axis of 3 takes a fifth of the whole pass, and along rows next to nothing.
    """
    side = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    ahead = takewhile(lambda node: node.op_type not in LAYERS, model.graph.node)
    names = {name for node in ahead if node.op_type in _NORMALISING for name in node.input}
    for tensor in model.graph.initializer:
        if tensor.name in names and list(tensor.dims) == [1, 3, 1, 1]:
            wide = np.tile(numpy_helper.to_array(tensor), (1, 1, 1, side))
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the tools left behind and no runtime reads."""
    del model.metadata_props[:]
    del model.graph.value_info[:]
    used = {node.domain for node in model.graph.node}
    opsets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    model.producer_name = model.producer_version = ""
