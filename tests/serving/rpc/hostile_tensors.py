"""Requests of the Open Inference Protocol with anything in any field, for Hypothesis."""

from hypothesis import strategies as st

from regraft.oip import inference_pb2 as oip
from serving.rpc.open_inference.tensors import MAX_PICTURES, join
from tests.tiny import picture

InputTensor = oip.ModelInferRequest.InferInputTensor
OutputTensor = oip.ModelInferRequest.InferRequestedOutputTensor

FIT = InputTensor(name="image", datatype="BYTES", shape=[1])
INT64 = st.integers(-(2**63), 2**63 - 1)
NAMES = st.sampled_from(["image", "", "mask", "IMAGE", "image\0"]) | st.text(max_size=5)
TYPES = st.sampled_from(["BYTES", "UINT8", "FP32", "", "bytes"])
SIZES = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 8, MAX_PICTURES, 2**31, 2**32 + 1, 2**62, 2**63 - 1])
PICTURES = st.sampled_from([picture("red"), b"", b"\xff\xff\xff\xff"]) | st.binary(max_size=9)
LENGTHS = st.sampled_from([b"\0\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\xff\xff\xff\x7f"])
RAW = (
    st.lists(PICTURES, max_size=3).map(join)
    | st.lists(LENGTHS | PICTURES, max_size=3).map(b"".join)
    | st.integers(0, 400).map(bytes)
)
CONTENTS = st.builds(
    oip.InferTensorContents,
    bool_contents=st.lists(st.booleans(), max_size=2),
    int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=2),
    int64_contents=st.lists(INT64, max_size=2),
    uint_contents=st.lists(st.integers(0, 300) | st.integers(0, 2**32 - 1), max_size=12),
    fp32_contents=st.lists(st.floats(width=32), max_size=2),
    bytes_contents=st.lists(PICTURES, max_size=3),
)
PARAMETERS = st.dictionaries(
    st.sampled_from(["timeout", "classification", "triton_enable_empty_final_response", "other"]),
    st.builds(oip.InferParameter, int64_param=INT64)
    | st.builds(oip.InferParameter, string_param=st.text(max_size=3))
    | st.builds(oip.InferParameter, bool_param=st.booleans())
    | st.builds(oip.InferParameter, double_param=st.floats())
    | st.just(oip.InferParameter()),
    max_size=2,
)
INPUTS = st.builds(
    InputTensor,
    name=NAMES | st.just("image"),
    datatype=TYPES,
    shape=st.lists(SIZES, max_size=5) | st.sampled_from([[1], [1, 1], [2], [1, 8, 8, 3], [1, 1, 1, 3]]),
    contents=st.none() | CONTENTS,
    parameters=PARAMETERS,
)
OUTPUTS = st.builds(
    OutputTensor,
    name=st.sampled_from(["probabilities", "label", "novelty", "embedding", "", "mask"]),
    parameters=PARAMETERS,
)
REQUESTS = st.builds(
    oip.ModelInferRequest,
    model_name=st.sampled_from(["", "colours", "shapes", "../colours", "colours\0"]),
    model_version=st.sampled_from(["", "1", "0", "01", "-1", "٣", "1.0", "9" * 30, "9" * 5_000]),
    id=st.text(max_size=3),
    parameters=PARAMETERS,
    inputs=st.lists(INPUTS, max_size=2) | st.builds(lambda only: [only], INPUTS) | st.just([FIT]),
    outputs=st.lists(OUTPUTS, max_size=3),
    raw_input_contents=st.lists(RAW, max_size=2) | st.just([join([picture("red")])]),
)
