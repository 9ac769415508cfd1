from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.errors import PreconditionError
from regraft.model.artifact import Head
from regraft.model.confusion import Confusion
from tests.tiny import tiny_backbone, tiny_features, tiny_head

LABELS = ("red", "green", "blue")


@pytest.fixture
def head() -> Head:
    return tiny_head(LABELS, 20.0)


def confusion_of(label: list[int], answer: list[int]) -> Confusion:
    n = len(label)
    hashes = np.array([f"{number:064x}" for number in range(n)], "S64")
    confidence = np.linspace(0.5, 0.9, n, dtype=np.float32)
    return Confusion(LABELS, np.array(label, np.int64), np.array(answer, np.int64), confidence, hashes)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_every_picture_is_in_the_one_cell_of_its_label_and_answer_the_surest_first(
    pairs: list[tuple[int, int]],
) -> None:
    cells = list(confusion_of([label for label, _ in pairs], [answer for _, answer in pairs]).cells())

    assert sorted(int(name, 16) for cell in cells for name in cell.sha256) == list(range(len(pairs)))
    for cell in cells:
        numbers = [int(name, 16) for name in cell.sha256]
        assert {pairs[number] for number in numbers} == {(cell.label, cell.answer)}
        assert numbers == sorted(numbers, reverse=True), "later ones are surer here"
    counts = [len(cell.sha256) for cell in cells]
    assert counts == sorted(counts, reverse=True)


def test_a_head_answers_the_holdout_of_its_features_file(head: Head, tmp_path: Path) -> None:
    features = tiny_features(tiny_backbone(), LABELS)
    features.save(tmp_path / "features.npz")

    confusion = Confusion.read(tmp_path / "features.npz", head)

    held_out = features.holdout()
    assert [name.decode() for name in confusion.sha256] == list(held_out.sha256)
    assert confusion.label.tolist() == held_out.label_index.tolist()
    expected = head.probabilities(held_out.embedding)
    assert confusion.answer.tolist() == expected.argmax(axis=1).tolist()
    assert confusion.confidence == pytest.approx(expected.max(axis=1))
    assert confusion.right == len(held_out.sha256)


def test_without_a_holdout_there_is_nothing_to_tell(head: Head, tmp_path: Path) -> None:
    tiny_features(tiny_backbone(), LABELS).train().save(tmp_path / "features.npz")
    (tmp_path / "torn.npz").write_bytes((tmp_path / "features.npz").read_bytes()[:100])

    for name, complaint in (("features", "has no holdout"), ("nothing", "is not there"), ("torn", "cannot be read")):
        with pytest.raises(PreconditionError, match=complaint):
            Confusion.read(tmp_path / f"{name}.npz", head)
