"""What the server answers is what ONNX Runtime computes on the very same file."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regraft.client.client import Client
from regraft.image.decode import decode_crop
from regraft.model import artifact
from regraft.model.artifact import FloatArray, Head
from regraft.model.session import open_session
from regraft.stores.models import MODEL_FILE, ModelStore
from tests.e2e.conftest import ServerProcess
from tests.tiny import COLOURS, picture, publish_tiny
from training.settings import TrainSettings
from training.train import train

CONCURRENCY = 32
PICTURES = 200


def assert_served_as_in_the_file(store: ModelStore, name: str, pictures: list[bytes]) -> None:
    path = store.folder(name, store.champion(name) or 0) / MODEL_FILE
    card = artifact.read(path).card
    session = open_session(path, provider="cpu", threads=1).session
    with ServerProcess(store.root) as server, server.client() as client, ThreadPoolExecutor(CONCURRENCY) as pool:
        answers = list(pool.map(lambda data: client.classify(data, top_k=len(card.labels)), pictures))

    for data, answer in zip(pictures, answers, strict=True):
        [expected] = session.run(["probabilities"], {"image": decode_crop(data, card.image)[None]})[0]
        served = {entry.label: entry.probability for entry in answer.predictions}
        assert [served[label] for label in card.labels] == pytest.approx(expected.tolist(), abs=1e-5)


def test_200_pictures_at_concurrency_32_get_the_answers_of_the_file(store: ModelStore) -> None:
    pictures = [picture(label, number) for number in range(PICTURES // len(COLOURS)) for label in COLOURS]

    assert_served_as_in_the_file(store, "colours", pictures)


def test_20_swaps_while_8_clients_stream_fail_nobody_and_every_answer_is_its_versions_own(store: ModelStore) -> None:
    """Invariant 9, over processes."""
    second = publish_tiny(store, sharpness=3.0, promote=False)
    heads = {v: artifact.read(store.folder("colours", v) / MODEL_FILE) for v in (1, second)}
    pictures = [(f"{label}/{number}", picture(label, number)) for label in COLOURS for number in range(10)]
    session = open_session(store.folder("colours", 1) / MODEL_FILE, provider="cpu", threads=1).session
    embeddings = {
        key: session.run(["embedding"], {"image": decode_crop(data, heads[1].card.image)[None]})[0]
        for key, data in pictures
    }

    with ServerProcess(store.root) as server, server.client() as operator, ThreadPoolExecutor(8) as pool:
        streams = [pool.submit(_stream, server.places["grpc"], pictures * 25) for _ in range(8)]
        for swap in range(20):
            operator.promote(second if swap % 2 == 0 else 1, who="test")
        answers = [answer for stream in streams for answer in stream.result()]

    assert len(answers) == 8 * 25 * len(pictures)
    assert {version for _, version, _ in answers} == {1, second}
    for key, version, served in answers:
        expected = _probabilities(heads[version].head, embeddings[key], heads[version].card.labels)
        assert served == pytest.approx(expected, abs=1e-5)


def _stream(target: str, pictures: list[tuple[str, bytes]]) -> list[tuple[str, int, dict[str, float]]]:
    with Client(target) as client:
        return [
            (answer.id, answer.response.version, {p.label: p.probability for p in answer.response.predictions})
            for answer in client.classify_stream(pictures)
            if answer.HasField("response")
        ]


def _probabilities(head: Head, embedding: FloatArray, labels: tuple[str, ...]) -> dict[str, float]:
    return dict(zip(labels, head.probabilities(embedding)[0].tolist(), strict=True))


def test_200_photographs_get_the_answers_of_the_file(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_cache: Path
) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(shared_cache))
    train(TrainSettings(photographs / "hymenoptera", store=tmp_path / "store"))
    files = sorted((photographs / "flower_photos" / "val").rglob("*.jpg"))[:PICTURES]

    assert_served_as_in_the_file(ModelStore(tmp_path / "store"), "hymenoptera", [file.read_bytes() for file in files])
