import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.errors import InvalidRequestError
from serving.http.open_inference.tensors import read_infer

TENSOR: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [1]}


@pytest.mark.parametrize(
    ("told", "rest", "header", "named"),
    [
        ({}, b"", "", "inputs"),
        ({"inputs": [{"name": "image"}]}, b"", "", r"inputs\.0\.shape"),
        ({"inputs": [TENSOR | {"shape": [2**70]}]}, b"", "", "shape"),
        ({"inputs": [TENSOR | {"data": ["*"]}]}, b"", "", "base64"),
        ({"inputs": [TENSOR | {"data": [[[[[[1]]]]]]}]}, b"", "", "deeper"),
        ({"inputs": [TENSOR | {"datatype": "UINT8", "data": [-1]}]}, b"", "", "beyond"),
        ({"inputs": [TENSOR | {"datatype": "UINT8", "data": ["a"]}]}, b"", "", "beyond"),
        ({"inputs": [TENSOR | {"parameters": {"binary_data_size": 9}}]}, b"12", "all", "2 bytes are left"),
        ({"inputs": [TENSOR | {"parameters": {"binary_data_size": -1}}]}, b"12", "all", "2 bytes are left"),
        ({"inputs": [TENSOR]}, b"12", "all", "left over"),
        ({"inputs": [TENSOR]}, b"", "99999", "inference-header"),
        ({"inputs": [TENSOR]}, b"", "-1", "inference-header"),
        ({"inputs": [TENSOR], "parameters": {"timeout": 2**70}}, b"", "", "beyond"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(told: Any, rest: bytes, header: str, named: str) -> None:  # noqa: ANN401 - JSON
    head = json.dumps(told).encode()
    with pytest.raises(InvalidRequestError, match=named):
        read_infer(head + rest, str(len(head)) if header == "all" else header, "colours", "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "shape", "data", "parameters"]), inner),
    max_leaves=20,
)


@settings(max_examples=30)
@given(JSON, JSON, st.binary(max_size=8))
def test_whatever_comes_is_read_or_refused(inputs: Any, outputs: Any, rest: bytes) -> None:  # noqa: ANN401 - JSON
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    with suppress(InvalidRequestError):
        read_infer(head + rest, str(len(head)), "colours", "")
