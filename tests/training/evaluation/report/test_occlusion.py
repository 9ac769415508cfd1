from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from regraft.image.decode import decode_crop
from regraft.image.encode import encode_png
from regraft.image.occlusion import CELLS, tinted
from regraft.image.spec import Crop
from regraft.label_rules import image_hash
from regraft.model.artifact import FloatArray
from tests.tiny import SPEC, picture, tiny_backbone, tiny_head
from tests.training.conftest import COLOUR_KEY
from training.evaluation.report.occlusion import MOST_PICTURES, Answer, importance, occlusion_maps
from training.head.features import Embedder

EMBEDDER = Embedder.open(tiny_backbone().SerializeToString(), SPEC, COLOUR_KEY)
HEAD = tiny_head(("red", "green", "blue"))
CORNERS = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def brightness_of(rows: slice, columns: slice) -> Answer:
    """Return a network of two classes that looks at one part of the picture alone."""

    def logits(crops: Sequence[Crop]) -> FloatArray:
        bright = np.array([crop[rows, columns].mean() / 50 for crop in crops], np.float32)
        return np.stack([bright, -bright], axis=1)

    return logits


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("side_px", [32, 50])
def test_the_part_that_an_answer_depends_on_is_the_hottest(corner: str, side_px: int, pool: ThreadPoolExecutor) -> None:
    down, along = CORNERS[corner]
    half = side_px // 2
    rows, columns = slice(down * half, down * half + half), slice(along * half, along * half + half)
    crop = np.full((side_px, side_px, 3), 20, np.uint8)
    crop[rows, columns] = 220

    heat = importance(crop, 0, brightness_of(rows, columns), pool)

    quarters = heat.reshape(2, CELLS // 2, 2, CELLS // 2).mean(axis=(1, 3))
    assert heat.shape == (CELLS, CELLS)
    assert quarters[down, along] == quarters.max()


def test_what_speaks_against_an_answer_is_cold(pool: ThreadPoolExecutor) -> None:
    crop = np.full((32, 32, 3), 20, np.uint8)
    crop[:16] = 220
    network = brightness_of(slice(0, 16), slice(0, 32))

    for_it, against = (importance(crop, answer, network, pool) for answer in (0, 1))

    np.testing.assert_allclose(for_it, -against, atol=1e-4)
    assert against.min() < 0


def test_a_network_that_looks_at_nothing_has_no_heat(pool: ThreadPoolExecutor) -> None:
    crop = decode_crop(picture("red"), SPEC)

    heat = importance(crop, 1, lambda crops: np.tile(np.arange(3, dtype=np.float32), (len(crops), 1)), pool)

    assert (heat == 0).all()
    assert (tinted(crop, heat) == tinted(crop, heat)[..., :1]).all()  # grey: nothing is tinted


def test_the_file_is_asked_for_the_first_few_pictures_and_unreadable_ones_are_skipped(tmp_path: Path) -> None:
    files: dict[str, Path] = {}
    for number in range(MOST_PICTURES + 4):
        data = picture("red", number)
        files[image_hash(data)] = tmp_path / f"{number}.png"
        files[image_hash(data)].write_bytes(data)
    names = list(files)
    files[names[1]].write_bytes(b"no picture")
    files[names[2]].unlink()
    told: list[tuple[str, int, int]] = []

    drawn = occlusion_maps(EMBEDDER, HEAD, dict.fromkeys(names, 0), files, lambda *step: told.append(step))

    assert list(drawn) == [names[0], *names[3:MOST_PICTURES]]
    assert all(data.startswith(b"\xff\xd8") for data in drawn.values())
    assert told[-1] == ("occlusion", MOST_PICTURES, MOST_PICTURES)


def test_pictures_that_are_not_at_hand_are_passed_over(tmp_path: Path) -> None:
    data = picture("green")
    (tmp_path / "green.png").write_bytes(data)
    files = {image_hash(data): tmp_path / "green.png"}

    drawn = occlusion_maps(EMBEDDER, HEAD, {"f" * 64: 0, image_hash(data): 1}, files)

    assert list(drawn) == [image_hash(data)]


def test_the_map_of_the_exported_file_points_at_the_quarter_that_was_taken_for_the_class(
    pool: ThreadPoolExecutor,
) -> None:
    pixels = np.full((8, 8, 3), (40, 40, 200), np.uint8)
    pixels[:4, 4:] = (40, 200, 40)
    crop = decode_crop(encode_png(pixels), SPEC)

    heat = importance(crop, 1, lambda crops: EMBEDDER.run(list(crops)) @ HEAD.weight.T + HEAD.bias, pool)

    assert heat[: CELLS // 2, CELLS // 2 :].mean() > 0 > heat[CELLS // 2 :, : CELLS // 2].mean()
