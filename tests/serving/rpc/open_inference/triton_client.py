"""What a user of tritonclient writes: it prints JSON.

``python -m tests.serving.rpc.open_inference.triton_client TARGET PICTURE...``. A process of its own: tritonclient
brings its own definitions of the protocol, and one process can hold only one.
"""

import json
import queue
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException


def infer_input(pictures: list[bytes]) -> InferInput:
    """Return the tensor of some encoded pictures."""
    tensor = InferInput("image", [len(pictures)], "BYTES")
    tensor.set_data_from_numpy(np.array(pictures, np.object_))
    return tensor


def classify(client: InferenceServerClient, pictures: list[bytes]) -> dict[str, Any]:
    """Ask for everything there is."""
    wanted = [InferRequestedOutput(name) for name in ("probabilities", "label", "embedding", "novelty")]
    result = client.infer("colours", [infer_input(pictures)], request_id="seven", outputs=wanted)
    answer = result.get_response()
    return {
        "id": answer.id,
        "version": answer.model_version,
        "labels": [text.decode() for text in result.as_numpy("label").ravel()],
        "probabilities": result.as_numpy("probabilities").tolist(),
        "embedding": list(result.as_numpy("embedding").shape),
        "novelty": list(result.as_numpy("novelty").shape),
    }


def top_two(client: InferenceServerClient, pictures: list[bytes]) -> list[list[str]]:
    """Ask for labels in Triton's own way."""
    wanted = [InferRequestedOutput("probabilities", class_count=2)]
    result = client.infer("colours", [infer_input(pictures)], outputs=wanted)
    return [[text.decode() for text in row] for row in result.as_numpy("probabilities")]


def stream(client: InferenceServerClient, pictures: list[bytes]) -> list[str]:
    """Send each picture by itself, and rubbish between them."""
    answers: queue.Queue[tuple[Any, InferenceServerException | None]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for picture in [pictures[0], b"rubbish", *pictures[1:]]:
        client.async_stream_infer("colours", [infer_input([picture])])
    found = [answers.get(timeout=30) for _ in range(len(pictures) + 1)]
    client.stop_stream()
    return [str(error) if error else result.as_numpy("label").ravel()[0].decode() for result, error in found]


def main() -> None:
    """Do all of it."""
    pictures = [Path(name).read_bytes() for name in sys.argv[2:]]
    with InferenceServerClient(sys.argv[1]) as client:
        found = {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": [client.is_model_ready("colours"), client.is_model_ready("colours", "7")],
            "metadata": client.get_model_metadata("colours", as_json=True),
            "config": client.get_model_config("colours", as_json=True)["config"],
            "extensions": client.get_server_metadata(as_json=True)["extensions"],
            "index": client.get_model_repository_index(as_json=True)["models"],
            "answer": classify(client, pictures),
            "top_two": top_two(client, pictures),
            "stream": stream(client, pictures),
        }
        found["statistics"] = client.get_inference_statistics("colours", as_json=True)["model_stats"]
    print(json.dumps(found))  # noqa: T201 - its output


if __name__ == "__main__":
    main()
