import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regraft.errors import ArtifactError, DatasetError, InvalidRequestError
from regraft.image.decode import decode_crop
from regraft.image.spec import Crop
from regraft.label_rules import check_label, image_hash
from regraft.machine import cpu_budget
from regraft.model.artifact import EMBEDDING, IMAGE, FloatArray
from regraft.model.card import EmbeddingKey
from regraft.model.session import OpenSession
from regraft.stores.database.engine import open_database, sqlite_url
from regraft.stores.embeddings import EmbeddingCache
from tests.tiny import EMBEDDING_SIZE, SPEC, picture, tiny_backbone
from tests.training.conftest import COLOUR_KEY, embed, huge_png
from tests.waiting import PATIENCE_S
from training.data.groups import group_named, group_of_one
from training.head.features import Embedder, Features, assemble, load_features


class CountingSession:
    """Stands in for a session: its embedding is each crop's mean level, and it keeps the batch sizes it was given."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, names: Sequence[str], feed: dict[str, npt.NDArray[np.uint8]]) -> list[Any]:
        assert list(names) == [EMBEDDING]
        self.batches.append(len(feed[IMAGE]))
        return [feed[IMAGE].mean(axis=(1, 2, 3), dtype=np.float64)[:, None]]


class StopHereError(Exception):
    """Raised by a progress callback to interrupt the work."""


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[EmbeddingCache]:
    engine = open_database(sqlite_url(tmp_path / "embeddings.sqlite"))
    yield EmbeddingCache(engine)
    engine.dispose()


def counting(
    provider: Literal["cpu", "cuda"] = "cpu", key: EmbeddingKey = COLOUR_KEY
) -> tuple[Embedder, CountingSession]:
    session = CountingSession()
    return Embedder(OpenSession(session, provider), SPEC, key), session


def keep(folder: Path, pictures: Sequence[bytes]) -> dict[str, Path]:
    """Write pictures into a folder and return them by hash."""
    files = {image_hash(data): folder / f"{number}.img" for number, data in enumerate(pictures)}
    for data in pictures:
        files[image_hash(data)].write_bytes(data)
    return files


def level(data: bytes) -> float:
    return float(decode_crop(data, SPEC).mean())


REDS = [picture("red", number) for number in range(8)]


def test_an_embedding_is_what_the_backbone_makes_of_the_crop_of_the_file(tmp_path: Path, cache: EmbeddingCache) -> None:
    embedder = Embedder.open(tiny_backbone().SerializeToString(), SPEC, COLOUR_KEY)

    embeddings, failures = embedder.embed(keep(tmp_path, REDS), cache)

    assert failures == {}
    assert embeddings.keys() == {image_hash(data) for data in REDS}
    for data in REDS:
        vector = embeddings[image_hash(data)]
        assert vector.shape == (EMBEDDING_SIZE,)
        assert vector.dtype == np.float32
        np.testing.assert_allclose(vector, embed(data), atol=1e-6)


def test_a_second_run_takes_everything_from_the_cache_without_files_or_a_forward_pass(
    tmp_path: Path, cache: EmbeddingCache
) -> None:
    embedder, session = counting()
    files = keep(tmp_path, REDS)
    first, _ = embedder.embed(files, cache)
    for path in files.values():
        path.unlink()

    second, failures = embedder.embed(files, cache)

    assert len(session.batches) == len(REDS)
    assert failures == {}
    assert {name: float(vector[0]) for name, vector in second.items()} == {
        name: float(vector[0]) for name, vector in first.items()
    }


def test_only_what_the_cache_lacks_is_computed(tmp_path: Path, cache: EmbeddingCache) -> None:
    embedder, session = counting()
    files = keep(tmp_path, REDS)
    embedder.embed({name: files[name] for name in list(files)[:6]}, cache)

    embeddings, _ = embedder.embed(files, cache)

    assert session.batches == [1] * len(REDS)
    assert embeddings.keys() == files.keys()


@pytest.mark.parametrize("other", [EmbeddingKey("f" * 64, COLOUR_KEY.image_spec), EmbeddingKey("0" * 64, "1" * 64)])
def test_embeddings_of_another_backbone_or_image_rule_are_not_taken(
    tmp_path: Path, cache: EmbeddingCache, other: EmbeddingKey
) -> None:
    files = keep(tmp_path, REDS)
    counting()[0].embed(files, cache)
    embedder, session = counting(key=other)

    embedder.embed(files, cache)

    assert len(session.batches) == len(REDS)


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


JPEG = encoded(Image.effect_noise((64, 64), 60).convert("RGB"), "JPEG")

# Columns: the bytes of the file, and what the reason must say.
UNUSABLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "text": (lambda: b"this is no picture", "not a picture in a format that is read here"),
    "truncated": (lambda: JPEG[: len(JPEG) // 2], "cannot be decoded"),
    "empty": (lambda: b"", "empty (0 bytes)"),
    "huge": (huge_png, "50000 x 50000 px; the limit is"),
}


@pytest.mark.parametrize(("data", "reason"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_file_that_is_no_usable_picture_fails_alone_and_with_the_reason(
    tmp_path: Path, cache: EmbeddingCache, data: Callable[[], bytes], reason: str
) -> None:
    embedder, session = counting()
    bad = data()

    embeddings, failures = embedder.embed(keep(tmp_path, [*REDS[:4], bad, *REDS[4:]]), cache)

    assert list(failures) == [image_hash(bad)]
    assert reason in failures[image_hash(bad)]
    assert embeddings.keys() == {image_hash(data) for data in REDS}
    assert sum(session.batches) == len(REDS)


def test_a_file_that_vanished_fails_alone_and_names_the_file(tmp_path: Path, cache: EmbeddingCache) -> None:
    files = keep(tmp_path, REDS)
    gone = image_hash(REDS[2])
    files[gone].unlink()

    embeddings, failures = counting()[0].embed(files, cache)

    assert len(embeddings) == len(REDS) - 1
    assert str(files[gone]) in failures[gone]


def test_a_failure_is_not_remembered_once_the_file_is_good_again(tmp_path: Path, cache: EmbeddingCache) -> None:
    files = keep(tmp_path, REDS)
    files[image_hash(REDS[0])].write_bytes(b"damaged")
    embedder, _ = counting()
    assert list(embedder.embed(files, cache)[1]) == [image_hash(REDS[0])]
    files[image_hash(REDS[0])].write_bytes(REDS[0])

    embeddings, failures = embedder.embed(files, cache)

    assert failures == {}
    assert float(embeddings[image_hash(REDS[0])][0]) == pytest.approx(level(REDS[0]), rel=1e-6)


def test_nothing_to_embed_gives_nothing(cache: EmbeddingCache) -> None:
    assert counting()[0].embed({}, cache) == ({}, {})


def test_the_order_of_the_files_does_not_change_a_single_bit(tmp_path: Path, cache: EmbeddingCache) -> None:
    other = open_database(sqlite_url(tmp_path / "other.sqlite"))
    files = keep(tmp_path, [picture(label, number) for label in ("red", "grey") for number in range(10)])
    embedder = Embedder.open(tiny_backbone().SerializeToString(), SPEC, COLOUR_KEY)

    forwards, _ = embedder.embed(files, cache)
    backwards, _ = embedder.embed(dict(reversed(files.items())), EmbeddingCache(other))

    other.dispose()
    assert {name: vector.tobytes() for name, vector in forwards.items()} == {
        name: vector.tobytes() for name, vector in backwards.items()
    }


def test_a_cpu_runs_every_picture_alone(tmp_path: Path, cache: EmbeddingCache) -> None:
    embedder, session = counting("cpu")

    embedder.embed(keep(tmp_path, REDS), cache)

    assert session.batches == [1] * len(REDS)


def test_a_gpu_runs_batches_and_each_picture_gets_its_own_embedding(tmp_path: Path, cache: EmbeddingCache) -> None:
    pictures = [picture("grey", number) for number in range(68)]
    bad = [b"bad one", b"bad two"]
    embedder, session = counting("cuda")

    embeddings, failures = embedder.embed(keep(tmp_path, [*pictures[:10], *bad, *pictures[10:]]), cache)

    assert session.batches == [32, 32, 4]  # a bad file takes no place in a batch
    assert failures.keys() == {image_hash(data) for data in bad}
    assert embeddings.keys() == {image_hash(data) for data in pictures}
    for data in pictures:
        assert float(embeddings[image_hash(data)][0]) == pytest.approx(level(data), rel=1e-6)


class BusySession(CountingSession):
    """Ends its first run only once the pictures of the next batch are being decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.next_is_decoded = threading.Event()

    def run(self, names: Sequence[str], feed: dict[str, npt.NDArray[np.uint8]]) -> list[Any]:
        assert self.next_is_decoded.wait(PATIENCE_S)
        return super().run(names, feed)


def test_while_a_gpu_runs_all_cpus_decode_the_next_batch(tmp_path: Path, cache: EmbeddingCache) -> None:
    pictures = [picture("grey", number) for number in range(64)]
    session, all_cpus = BusySession(), threading.Barrier(cpu_budget())
    numbers = {image_hash(data): number for number, data in enumerate(pictures)}

    def cut(data: bytes, sha256: str) -> Crop:
        if numbers[sha256] >= 64 - cpu_budget():  # the last pictures: each waits until all CPUs have one
            all_cpus.wait(PATIENCE_S)
            session.next_is_decoded.set()
        return decode_crop(data, SPEC)

    embedder = Embedder(OpenSession(session, "cuda"), SPEC, COLOUR_KEY, cut)
    embeddings, failures = embedder.embed(keep(tmp_path, pictures), cache)

    assert (session.batches, len(embeddings), failures) == ([32, 32], 64, {})


def test_an_embedder_keeps_what_it_made_under_its_arithmetic() -> None:
    embedder = Embedder.open(tiny_backbone().SerializeToString(), SPEC, COLOUR_KEY)

    assert embedder.key == COLOUR_KEY.computed_in(embedder.opened.arithmetic)


def test_int8_embeds_on_a_cpu_wherever_it_is() -> None:
    opened = Embedder.open(tiny_backbone().SerializeToString(), SPEC, COLOUR_KEY, "int8").opened

    assert (opened.provider, opened.fallback_reason) == ("cpu", "")


def test_embeddings_lie_in_one_block_of_memory(tmp_path: Path, cache: EmbeddingCache) -> None:
    embedder = Embedder.open(tiny_backbone().SerializeToString(), SPEC, COLOUR_KEY)
    files = keep(tmp_path, REDS)
    embedder.embed({name: files[name] for name in list(files)[:3]}, cache)

    embeddings, _ = embedder.embed(files, cache)

    assert len({id(vector.base) for vector in embeddings.values()}) == 1


def test_a_batch_of_nothing_but_bad_files_is_not_run(tmp_path: Path, cache: EmbeddingCache) -> None:
    embedder, session = counting("cuda")

    embeddings, failures = embedder.embed(keep(tmp_path, [b"one", b"two"]), cache)

    assert (session.batches, embeddings, len(failures)) == ([], {}, 2)


def test_embeddings_that_were_rounded_are_exact_again_out_of_the_cache_or_by_the_picture(
    tmp_path: Path, cache: EmbeddingCache
) -> None:
    files = keep(tmp_path, [picture("red", number) for number in range(3)])
    vanished = next(iter(files))
    embedder, session = counting()
    embeddings, _ = embedder.embed(files, cache)
    features = assemble(("red",), [(name, "red", False) for name in files], embeddings)
    exact = features.embedding.copy()

    features.embedding[:] = np.round(exact)
    embedder.embed_again(features, files, cache)
    assert features.embedding.tobytes() == exact.tobytes()
    assert len(session.batches) == 3, "nothing ran again"

    files[vanished].unlink()
    engine = open_database(sqlite_url(tmp_path / "emptied.sqlite"))
    with pytest.raises(DatasetError, match=f"{files[vanished].name}.*{vanished}"):
        embedder.embed_again(features, files, EmbeddingCache(engine))
    engine.dispose()


def test_an_interrupted_run_loses_little(tmp_path: Path, cache: EmbeddingCache) -> None:
    pictures = [picture("blue", number, side_px=8) for number in range(560)]
    files = keep(tmp_path, pictures)
    embedder, _ = counting()

    def stop(_stage: str, done: int, _total: int) -> None:
        if done == 550:
            raise StopHereError

    with pytest.raises(StopHereError):
        embedder.embed(files, cache, stop)

    assert len(cache.get(COLOUR_KEY, files)) >= 512


def test_progress_counts_the_pictures_that_the_cache_lacks(tmp_path: Path, cache: EmbeddingCache) -> None:
    files = keep(tmp_path, [*REDS, b"bad"])
    embedder, _ = counting()
    embedder.embed({image_hash(REDS[0]): files[image_hash(REDS[0])]}, cache)
    told: list[tuple[str, int, int]] = []

    embedder.embed(files, cache, lambda stage, done, total: told.append((stage, done, total)))

    assert told == [("embed", done, 8) for done in range(9)]


def vectors(names: Sequence[str], size: int = 3) -> dict[str, FloatArray]:
    return {
        name: np.asarray(np.random.default_rng(int(name[:8], 16)).normal(size=size), np.float32)  # any function of it
        for name in names
    }


ROWS = [(image_hash(str(number).encode()), "ab"[number % 2], number % 5 == 0) for number in range(12)]


@settings(max_examples=30)
@given(st.permutations(ROWS), st.permutations(ROWS))
def test_features_are_the_same_in_any_order_of_arrival(
    rows: list[tuple[str, str, bool]], embedded: list[tuple[str, str, bool]]
) -> None:
    features = assemble(("b", "a"), rows, vectors([name for name, _, _ in embedded]))

    known = {name: (label, held) for name, label, held in ROWS}
    expected = vectors(sorted(known))
    assert features.sha256 == tuple(sorted(known))
    assert [features.labels[index] for index in features.label_index] == [known[name][0] for name in features.sha256]
    assert list(features.is_holdout) == [known[name][1] for name in features.sha256]
    assert features.embedding.tobytes() == np.array([expected[name] for name in features.sha256]).tobytes()


def test_images_without_an_embedding_are_dropped() -> None:
    names = [name for name, _, _ in ROWS]

    features = assemble(("a", "b"), ROWS, vectors(names[:7]))

    assert features.sha256 == tuple(sorted(names[:7]))
    assert len(features.embedding) == len(features.label_index) == len(features.is_holdout) == 7


def test_no_embedding_at_all_gives_features_without_rows() -> None:
    features = assemble(("a", "b"), ROWS, {})

    assert (features.sha256, features.embedding.shape, features.labels) == ((), (0, 0), ("a", "b"))


def test_train_and_holdout_part_the_rows() -> None:
    features = assemble(("a", "b"), ROWS, vectors([name for name, _, _ in ROWS]))

    train, holdout = features.train(), features.holdout()

    assert set(train.sha256) == {name for name, _, held in ROWS if not held}
    assert set(holdout.sha256) == {name for name, _, held in ROWS if held}
    assert not train.is_holdout.any()
    assert holdout.is_holdout.all()
    for part in (train, holdout):
        expected = vectors(part.sha256)
        for row, name in enumerate(part.sha256):
            np.testing.assert_array_equal(part.embedding[row], expected[name])


def test_groups_and_weights_follow_their_rows_and_a_picture_is_a_group_that_counts_once() -> None:
    names = [name for name, _, _ in ROWS]
    patient = group_named("patient 7")

    features = assemble(
        ("a", "b"),
        ROWS,
        vectors(names),
        groups=dict.fromkeys(names[:3], patient),
        weights={names[0]: 0.5},
        sources={names[1]: "ward 3"},
    )

    for part in (features, features.train(), features.holdout()):
        for sha256, group, weight in zip(part.sha256, part.group, part.weight, strict=True):
            assert group == (patient if sha256 in names[:3] else group_of_one(sha256))
            assert weight == (0.5 if sha256 == names[0] else 1)
        assert part.sources() == ({names[1]: "ward 3"} if names[1] in part.sha256 else {})


def digest_of(rows: Sequence[tuple[str, str, bool]], size: int = 3) -> str:
    return assemble(("a", "b", "c"), rows, vectors([name for name, _, _ in rows], size)).digest()


def test_the_digest_names_the_training_images_and_their_labels_and_nothing_else() -> None:
    train = [row for row in ROWS if not row[2]]
    holdout = [row for row in ROWS if row[2]]
    relabelled = [(train[0][0], "c", False), *train[1:]]
    extra = (image_hash(b"extra"), "a", False)

    digests = {
        digest_of(ROWS),
        digest_of([*relabelled, *holdout]),
        digest_of([*train[1:], *holdout]),
        digest_of([*ROWS, extra]),
        digest_of([*train, *((name, label, False) for name, label, _ in holdout)]),
    }

    assert len(digests) == 5
    assert digest_of(train) == digest_of(ROWS)
    assert digest_of([*train, *((name, "c", held) for name, _, held in holdout)]) == digest_of(ROWS)
    assert digest_of(ROWS, size=5) == digest_of(ROWS)


def is_label(text: str) -> bool:
    try:
        check_label(text)
    except InvalidRequestError:
        return False
    return True


LABELS = st.text(min_size=1, max_size=20).filter(is_label)


@settings(max_examples=60)
@given(labels=st.lists(LABELS, min_size=2, max_size=5, unique=True), rows=st.integers(0, 6))
def test_saved_features_come_back_the_same_whatever_the_labels(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str], rows: int
) -> None:
    names = [image_hash(str(number).encode()) for number in range(rows)]
    known = [(name, labels[number % len(labels)], number % 3 == 0) for number, name in enumerate(names)]
    features = assemble(
        tuple(labels),
        known,
        vectors(names),
        groups={name: group_named("patient 7") for name in names[:2]},
        weights=dict.fromkeys(names[:3], 0.25),
        sources=dict.fromkeys(names[1:4], "ward 3"),
    )
    path = tmp_path_factory.mktemp("features") / "features.npz"

    features.save(path)

    same(load_features(path), features)


def same(one: Features, other: Features) -> None:
    assert (one.labels, one.sha256, one.source) == (other.labels, other.sha256, other.source)
    for name in ("embedding", "label_index", "is_holdout", "group", "weight"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        assert mine.tobytes() == theirs.tobytes()


def test_features_of_an_earlier_regraft_are_groups_of_one_that_count_once(tmp_path: Path) -> None:
    path, features = saved(tmp_path)
    with np.load(path) as file:
        np.savez(path, **{name: file[name] for name in file.files if name not in ("group", "weight", "source")})

    same(load_features(path), features)


def saved(folder: Path) -> tuple[Path, Features]:
    features = assemble(("猫", "Hund"), [(n, "猫", h) for n, _, h in ROWS], vectors([name for name, _, _ in ROWS]))
    path = folder / "features.npz"
    features.save(path)
    return path, features


def test_features_that_are_not_there_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"features\.npz: cannot read the features"):
        load_features(tmp_path / "features.npz")


def npz_without(name: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with np.load(path) as file:
            np.savez(path, **{key: file[key] for key in file.files if key != name})

    return damage


def with_pickles(path: Path) -> None:
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files} | {"labels": np.array(["a", {"b": 1}], dtype=object)}
    np.savez(path, **arrays)


def as_one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def as_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"these are no features"),
    "another zip": lambda path: path.write_bytes(b"PK\x03\x04 and then nothing that a zip has"),
    "one array": as_one_array,
    "a folder": as_a_folder,
    "pickles": with_pickles,
    "no labels": npz_without("labels"),
    "no embedding": npz_without("embedding"),
    "no hashes": npz_without("sha256"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_file_that_holds_no_features_is_an_error_that_names_the_file(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    path, _ = saved(tmp_path)
    damage(path)

    with pytest.raises(ArtifactError, match=r"features\.npz: cannot read the features"):
        load_features(path)


@settings(max_examples=60)
@given(data=st.data())
def test_features_cut_off_anywhere_are_an_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path, _ = saved(tmp_path_factory.mktemp("features"))
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1), label="length")])

    with pytest.raises(ArtifactError):
        load_features(path)


@settings(max_examples=150)
@given(data=st.data())
def test_a_changed_byte_anywhere_is_an_error_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path, features = saved(tmp_path_factory.mktemp("features"))
    changed = bytearray(path.read_bytes())
    changed[data.draw(st.integers(0, len(changed) - 1), label="position")] ^= data.draw(st.integers(1, 255), label="by")
    path.write_bytes(changed)

    try:
        loaded = load_features(path)
    except ArtifactError:
        return
    same(loaded, features)


def test_a_features_file_can_be_read_by_numpy_alone(tmp_path: Path) -> None:
    path, features = saved(tmp_path)

    with np.load(path, allow_pickle=False) as file:
        names = {name: list(file[name].shape) for name in file.files}

    assert json.loads(json.dumps(names)) == {
        "labels": [2],
        "embedding": [12, 3],
        "label_index": [12],
        "is_holdout": [12],
        "sha256": [12],
        "group": [12],
        "weight": [12],
        "source": [0],
    }
    assert features.labels == ("猫", "Hund")
