from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regraft.image.decode import decode_crop, decode_window, upright_size
from regraft.image.encode import encode_png
from regraft.label_rules import image_hash
from regraft.stores.database.engine import open_database, sqlite_url
from regraft.stores.embeddings import EmbeddingCache
from tests.tiny import SPEC, picture, tiny_backbone
from tests.training.conftest import COLOUR_KEY, colour_rows, embed, features_of
from training.data.random_crop import Augmentation, random_window
from training.head.additional import Additional
from training.head.features import Embedder
from training.head.fit import fit
from training.head.views import augmentation_of, embed_views, view

TRAIN = [*colour_rows("red", range(4), held=False), *colour_rows("blue", range(4), held=False)]
HELD = colour_rows("red", range(4, 6), held=True)
FEATURES = features_of(("blue", "red"), TRAIN + HELD)
EMBEDDER = Embedder.open(tiny_backbone().SerializeToString(), SPEC, COLOUR_KEY)
LARGE = picture("green", 1, side_px=40)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[EmbeddingCache]:
    engine = open_database(sqlite_url(tmp_path / "embeddings.sqlite"))
    yield EmbeddingCache(engine)
    engine.dispose()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for number, (data, _, _) in enumerate(TRAIN + HELD):
        found[image_hash(data)] = tmp_path / f"{number}.png"
        found[image_hash(data)].write_bytes(data)
    return found


def wide_picture() -> bytes:
    """Return a picture that squashing and padding make different crops of."""
    return encode_png(np.tile(np.arange(0, 240, 5).astype(np.uint8)[None, :, None], (12, 1, 3)))


def views_of(files: dict[str, Path], cache: EmbeddingCache, count: int, seed: int = 0) -> Additional:
    return embed_views(EMBEDDER, FEATURES, files, count, seed, cache)


def test_the_first_view_is_the_mirror_image_of_the_crop() -> None:
    mirrored = view(LARGE, image_hash(LARGE), spec=SPEC, number=1, seed=5)

    np.testing.assert_array_equal(mirrored, decode_crop(LARGE, SPEC)[:, ::-1])
    assert mirrored.flags.c_contiguous


def test_a_view_is_a_function_of_picture_number_and_seed() -> None:
    def seen(number: int, seed: int) -> bytes:
        return view(LARGE, image_hash(LARGE), spec=SPEC, number=number, seed=seed).tobytes()

    assert seen(2, 0) == seen(2, 0)
    assert len({seen(number, seed) for number in (1, 2, 3) for seed in (0, 1)}) == 5  # the mirror image has no seed


def test_where_mirroring_is_left_out_every_view_is_a_window() -> None:
    unmirrored = Augmentation(mirror=False)
    upright = decode_crop(LARGE, SPEC)

    for number in range(1, 9):
        random = np.random.default_rng([int(image_hash(LARGE)[:16], 16), number, 5])
        window = random_window(upright_size(LARGE), random, (0.35, 1.0))
        seen = view(LARGE, image_hash(LARGE), spec=SPEC, number=number, seed=5, augmentation=unmirrored)
        np.testing.assert_array_equal(seen, decode_window(LARGE, SPEC, window))
        assert not np.array_equal(seen, upright[:, ::-1])


def test_light_views_show_most_of_the_picture() -> None:
    light = Augmentation("light", mirror=False)
    random = np.random.default_rng([int(image_hash(LARGE)[:16], 16), 2, 5])
    window = random_window(upright_size(LARGE), random, (0.7, 1.0))

    seen = view(LARGE, image_hash(LARGE), spec=SPEC, number=2, seed=5, augmentation=light)

    np.testing.assert_array_equal(seen, decode_window(LARGE, SPEC, window))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Augmentation("full", mirror=True)),
        ({"augment": False}, Augmentation("full", mirror=True)),  # an earlier Regraft's word for no TrivialAugment
        ({"augment": "light", "mirror": True}, Augmentation("light", mirror=True)),
        ({"augment": "full", "mirror": False}, Augmentation("full", mirror=False)),
    ],
)
def test_a_card_says_how_views_were_made(settings: dict[str, object], expected: Augmentation) -> None:
    assert augmentation_of(settings) == expected


def test_only_training_images_get_views_and_each_knows_its_row(files: dict[str, Path], cache: EmbeddingCache) -> None:
    additional = views_of(files, cache, 2)

    train = FEATURES.train()
    assert additional.embedding.shape == (16, train.embedding.shape[1])
    assert additional.parent.tolist() == [*range(8), *range(8)]
    np.testing.assert_array_equal(additional.label_index, train.label_index[additional.parent])
    np.testing.assert_array_equal(additional.weight, np.ones(16))


def test_the_embedding_is_that_of_the_view(files: dict[str, Path], cache: EmbeddingCache) -> None:
    data = TRAIN[0][0]
    row = FEATURES.train().sha256.index(image_hash(data))

    additional = views_of(files, cache, 1)

    plain = embed(data).reshape(3, 2, 2)  # the mean colour of each quarter of the crop, so that sides change places
    np.testing.assert_allclose(additional.embedding[row], plain[:, :, ::-1].ravel(), atol=1e-6)


def test_views_are_kept_apart_in_the_cache_and_read_back(files: dict[str, Path], cache: EmbeddingCache) -> None:
    first = views_of(files, cache, 3)
    chosen = (Augmentation("light"), Augmentation("light", mirror=False), Augmentation(mirror=False))
    others = [embed_views(EMBEDDER, FEATURES, files, 3, 0, cache, augmentation=each) for each in chosen]
    for path in files.values():
        path.unlink()

    again = views_of(files, cache, 3)

    assert again.embedding.tobytes() == first.embedding.tobytes()
    assert len(np.unique(first.embedding.round(6), axis=0)) == 24
    assert len({additional.embedding[8:].tobytes() for additional in (first, *others)}) == 4
    assert cache.get(COLOUR_KEY, files) == {}


def test_views_by_another_rule_are_kept_apart_and_prepared_by_it(files: dict[str, Path], cache: EmbeddingCache) -> None:
    padding = SPEC.resized_by("pad")
    padded = Embedder.open(
        tiny_backbone().SerializeToString(), padding, replace(COLOUR_KEY, image_spec=padding.digest())
    )
    wide = {sha256: path for sha256, path in files.items() if path.write_bytes(wide_picture())}

    squashed = embed_views(EMBEDDER, FEATURES, wide, 2, 0, cache)
    found = embed_views(padded, FEATURES, wide, 2, 0, cache)

    for number in (1, 2):
        cut = [view(wide_picture(), sha256, spec=padding, number=number, seed=0) for sha256 in FEATURES.train().sha256]
        rows = slice((number - 1) * len(cut), number * len(cut))
        np.testing.assert_allclose(found.embedding[rows], padded.run(cut), rtol=1e-5)
    assert not np.allclose(found.embedding, squashed.embedding)


def test_another_seed_draws_other_windows_but_the_mirror_image_stays(
    files: dict[str, Path], cache: EmbeddingCache
) -> None:
    one, other = views_of(files, cache, 2, seed=1), views_of(files, cache, 2, seed=2)

    np.testing.assert_array_equal(one.embedding[:8], other.embedding[:8])
    assert (one.embedding[8:] != other.embedding[8:]).any()


def test_pictures_that_are_gone_have_no_views(files: dict[str, Path], cache: EmbeddingCache) -> None:
    gone = FEATURES.train().sha256[3]
    files[gone].unlink()

    assert views_of(files, cache, 1).parent.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert views_of({}, cache, 1).parent.tolist() == []


def test_a_head_learns_from_views(files: dict[str, Path], cache: EmbeddingCache) -> None:
    assert fit(FEATURES, additional=views_of(files, cache, 2)).head.digest() != fit(FEATURES).head.digest()


def test_progress_runs_over_all_views(files: dict[str, Path], cache: EmbeddingCache) -> None:
    told: list[tuple[str, int, int]] = []

    embed_views(EMBEDDER, FEATURES, files, 3, 0, cache, lambda *step: told.append(step))

    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1] == ("views", 24, 24)
