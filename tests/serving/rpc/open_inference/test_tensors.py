import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import InvalidRequestError
from regraft.oip import inference_pb2 as pb
from serving.rpc.open_inference.tensors import MAX_PICTURES, add_floats, add_texts, join, pictures_of, split


def request(
    datatype: str, shape: list[int], raw: bytes | None = None, contents: pb.InferTensorContents | None = None
) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype=datatype, shape=shape, contents=contents)
    return pb.ModelInferRequest(inputs=[tensor], raw_input_contents=[] if raw is None else [raw])


@given(st.lists(st.binary(max_size=40), max_size=9))
def test_elements_survive_their_framing(items: list[bytes]) -> None:
    assert split(join(items)) == items


@given(st.binary(max_size=60))
def test_any_bytes_are_elements_or_are_refused(raw: bytes) -> None:
    try:
        items = split(raw)
    except InvalidRequestError:
        return
    assert join(items) == raw


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_encoded_pictures_arrive_raw_or_typed_with_one_axis_or_two(items: list[bytes], raw: bool, wide: bool) -> None:
    shape = [len(items), 1] if wide else [len(items)]
    typed = None if raw else pb.InferTensorContents(bytes_contents=items)

    assert pictures_of(request("BYTES", shape, join(items) if raw else None, typed)) == items


@pytest.mark.parametrize("is_raw", [True, False])
def test_crops_arrive_raw_or_typed(is_raw: bool) -> None:
    crops = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    typed = None if is_raw else pb.InferTensorContents(uint_contents=crops.ravel().tolist())

    found = pictures_of(request("UINT8", [2, 4, 5, 3], crops.tobytes() if is_raw else None, typed))

    assert np.array_equal(np.stack([np.asarray(crop) for crop in found]), crops)


TYPED = pb.InferTensorContents(bytes_contents=[b"x"])
TWO = pb.ModelInferRequest(inputs=[pb.ModelInferRequest.InferInputTensor(name=name) for name in ("image", "mask")])
# Columns: the request, and what the complaint says.
BAD = {
    "no input": (pb.ModelInferRequest(), "inputs: none; there must be just one, 'image'"),
    "another input too": (TWO, "inputs: 'image', 'mask'"),
    "raw and typed": (request("BYTES", [1], join([b"x"]), TYPED), "typed contents as well"),
    "an unknown type": (request("FP32", [1], b"1234"), "datatype 'FP32'; it takes BYTES"),
    "no shape": (request("BYTES", [], b""), r"shape \[\]; a request holds 1 to"),
    "no pictures": (request("BYTES", [0], b""), "a request holds 1 to"),
    "a size below 0": (request("BYTES", [-1], b""), "a request holds 1 to"),
    "too many": (request("BYTES", [MAX_PICTURES + 1], b""), "a request holds 1 to"),
    "three axes of bytes": (request("BYTES", [1, 1, 1], join([b"x"])), r"BYTES take \[N\] or \[N, 1\]"),
    "fewer elements": (request("BYTES", [2], join([b"x"])), r"shape \[2\] and 1 elements"),
    "a length beyond the end": (request("BYTES", [1], b"\xff\0\0\0abc"), "element 0 says that it has 255 bytes; 3 are"),
    "half a length": (request("BYTES", [1], b"\1\0"), "2 bytes are left over"),
    "planes first": (request("UINT8", [1, 3, 2, 2], bytes(12)), r"UINT8 take \[N, H, W, 3\]"),
    "fewer values": (request("UINT8", [1, 2, 2, 3], bytes(11)), "and 11 values"),
    "a value of 256": (request("UINT8", [1, 1, 1, 3], None, pb.InferTensorContents(uint_contents=[1, 2, 256])), "256"),
    "nothing at all": (request("UINT8", [1, 1, 1, 3]), "and 0 values"),
}


@pytest.mark.parametrize("which", BAD)
def test_a_tensor_that_does_not_fit_together_is_refused(which: str) -> None:
    bad, complaint = BAD[which]

    with pytest.raises(InvalidRequestError, match=complaint):
        pictures_of(bad)


def test_two_raw_contents_for_one_input_are_refused() -> None:
    bad = request("BYTES", [1], join([b"x"]))
    bad.raw_input_contents.append(b"")

    with pytest.raises(InvalidRequestError, match="2 for one input"):
        pictures_of(bad)


def test_outputs_are_raw_and_in_order() -> None:
    response = pb.ModelInferResponse()
    add_floats(response, "numbers", [[1.0, 2.0], [3.0, 4.0]])
    add_texts(response, "words", [2, 1], ["Blüte", ""])

    assert [(o.name, o.datatype, list(o.shape)) for o in response.outputs] == [
        ("numbers", "FP32", [2, 2]),
        ("words", "BYTES", [2, 1]),
    ]
    numbers, words = response.raw_output_contents
    assert np.frombuffer(numbers, np.float32).tolist() == [1, 2, 3, 4]
    assert [word.decode() for word in split(words)] == ["Blüte", ""]
