import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regraft.image.decode import decode_crop, decode_window, upright_size
from regraft.image.spec import ImageSpec
from regraft.label_rules import image_hash
from tests import REPOSITORY
from tests.tiny import SPEC, picture
from training.data.random_crop import random_window
from training.data.samples import Sample
from training.strategies.finetuning.batches import (
    AugmentedPictures,
    Key,
    PlainPictures,
    Schedule,
    loader,
    loaders,
    seed_of,
)
from training.strategies.finetuning.recipe import recipe_for

pytestmark = pytest.mark.usefixtures("one_torch_thread")

RECIPE = recipe_for("finetune", 100)
COUNT = 6


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    folder = tmp_path_factory.mktemp("pictures")
    found = []
    for number in range(COUNT):
        data = picture("red", number, side_px=24)
        path = folder / f"{number}.png"
        path.write_bytes(data)
        found.append(Sample(path, image_hash(data), number % 2))
    return tuple(found)


def augmented(samples: tuple[Sample, ...], seed: int = 0, **changes: Any) -> AugmentedPictures:  # noqa: ANN401 - fields of a recipe
    return AugmentedPictures(samples, SPEC, replace(RECIPE, **changes), seed)


def images_of(pictures: AugmentedPictures, epoch: int) -> torch.Tensor:
    return torch.stack([pictures[epoch, index][0] for index in range(COUNT)])


def test_a_picture_is_one_of_its_kind(samples: tuple[Sample, ...]) -> None:
    image, index = augmented(samples)[3, 4]

    assert (image.dtype, image.shape, index) == (torch.uint8, (8, 8, 3), 4)
    assert image.is_contiguous()


@given(st.integers(0, 2**32), st.integers(0, 1000), st.integers(0, COUNT - 1))
def test_a_picture_is_a_function_of_seed_epoch_and_file(
    samples: tuple[Sample, ...], seed: int, epoch: int, index: int
) -> None:
    elsewhere = samples[::-1]

    image, _ = augmented(samples, seed)[epoch, index]
    again, _ = augmented(elsewhere, seed)[epoch, COUNT - 1 - index]

    assert torch.equal(image, again)


def test_another_epoch_or_seed_gives_other_pictures(samples: tuple[Sample, ...]) -> None:
    here = images_of(augmented(samples), 0)

    assert not torch.equal(here, images_of(augmented(samples), 1))
    assert not torch.equal(here, images_of(augmented(samples, seed=1), 0))


def test_pictures_of_one_epoch_are_not_all_augmented_alike(samples: tuple[Sample, ...]) -> None:
    same_file = tuple(replace(samples[0], sha256=f"{number:064x}") for number in range(COUNT))
    larger = ImageSpec("squash", 64, 64)  # TrivialAugment may move a picture by 32 px

    images = images_of(AugmentedPictures(same_file, larger, RECIPE, 0), 0)

    assert len({bytes(image.flatten().tolist()) for image in images}) == COUNT


def test_augmenting_leaves_the_random_numbers_of_others_alone(samples: tuple[Sample, ...]) -> None:
    before = torch.random.get_rng_state()

    images_of(augmented(samples), 0)

    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_augmenting_pictures_are_those_that_are_served(samples: tuple[Sample, ...]) -> None:
    plain = augmented(samples, augment="none", mirror=False, small_epochs=1)
    served = torch.stack([PlainPictures(samples, SPEC)[0, index][0] for index in range(COUNT)])

    for epoch in range(1, 6):
        assert torch.equal(images_of(plain, epoch), served)
    half = replace(SPEC, crop_px=4, resize_px=4)
    assert torch.equal(
        images_of(plain, 0), torch.stack([PlainPictures(samples, half)[0, index][0] for index in range(COUNT)])
    )


def test_pictures_are_only_mirrored_where_they_may_be(samples: tuple[Sample, ...]) -> None:
    whole = [torch.from_numpy(decode_crop(sample.path.read_bytes(), SPEC)) for sample in samples]

    seen = Counter[str]()
    for epoch in range(10):
        mirrored = images_of(augmented(samples, augment="none", mirror=True), epoch)
        for image, original in zip(mirrored, whole, strict=True):
            seen["as it is"] += torch.equal(image, original)
            seen["mirrored"] += torch.equal(image, original.flip(1))

    assert seen.total() == 10 * COUNT
    assert min(seen.values()) > 2 * COUNT


def test_trivial_augment_changes_the_colours(samples: tuple[Sample, ...]) -> None:
    with_it, without = (augmented(samples, augment=augment) for augment in ("full", "light"))

    assert not torch.equal(images_of(with_it, 0), images_of(without, 0))


def test_light_changes_are_windows_of_most_of_the_picture(samples: tuple[Sample, ...]) -> None:
    light = augmented(samples, augment="light", mirror=False)

    for index, sample in enumerate(samples):
        data = sample.path.read_bytes()
        random = np.random.default_rng(seed_of(0, 3, sample.sha256))
        window = random_window(upright_size(data), random, (0.7, 1.0))
        assert np.array_equal(light[3, index][0].numpy(), decode_window(data, SPEC, window))


def test_the_small_epochs_see_half_the_side(samples: tuple[Sample, ...]) -> None:
    pictures = augmented(samples, small_epochs=2)

    assert [pictures[epoch, 0][0].shape for epoch in range(4)] == [(4, 4, 3), (4, 4, 3), (8, 8, 3), (8, 8, 3)]


def test_plain_pictures_are_what_the_server_will_see(samples: tuple[Sample, ...]) -> None:
    pictures = PlainPictures(samples, SPEC)

    for index, sample in enumerate(samples):
        image, found = pictures[7, index]
        assert found == index
        assert np.array_equal(image.numpy(), decode_crop(sample.path.read_bytes(), SPEC))


def test_processes_make_the_same_batches_as_this_one(samples: tuple[Sample, ...]) -> None:
    pictures, schedule = augmented(samples), Schedule(COUNT, 2, seed=5)
    made_ahead = loader(pictures, schedule)

    for epoch in (0, 1):
        schedule.epoch = epoch
        expected = list(schedule)
        found = list(made_ahead)
        assert [indices.tolist() for _, indices in found] == [[index for _, index in keys] for keys in expected]
        for (images, indices), keys in zip(found, expected, strict=True):
            assert indices.dtype == torch.int64
            assert torch.equal(images, torch.stack([pictures[key][0] for key in keys]))


def test_loading_goes_on_from_any_batch(samples: tuple[Sample, ...]) -> None:
    pictures, schedule = PlainPictures(samples, SPEC), Schedule(COUNT, 2, seed=5)
    made_ahead = loader(pictures, schedule)
    whole = [indices.tolist() for _, indices in made_ahead]

    schedule.first = 1

    assert [indices.tolist() for _, indices in made_ahead] == whole[1:]


IMAGES = st.integers(1, 300)
BATCHES = st.integers(1, 64)
RANKS = st.integers(1, 9)
SEEDS = st.one_of(st.none(), st.integers(0, 2**63 - 1))
EPOCHS = st.integers(0, 1000)


def schedules(images: int, batch: int, seed: int | None, processes: int, epoch: int = 0) -> list[Schedule]:
    found = [Schedule(images, batch, seed, rank, processes) for rank in range(processes)]
    for schedule in found:
        schedule.epoch = epoch
    return found


def indices(batches: Iterable[list[Key]]) -> list[int]:
    return [index for batch in batches for _, index in batch]


@given(IMAGES, BATCHES, SEEDS, RANKS, EPOCHS)
def test_all_processes_together_see_every_picture_exactly_once(
    images: int, batch: int, seed: int | None, processes: int, epoch: int
) -> None:
    plans = [list(schedule) for schedule in schedules(images, batch, seed, processes, epoch)]

    assert sorted(index for plan in plans for index in indices(plan)) == list(range(images))
    assert {number for plan in plans for keys in plan for number, _ in keys} == {epoch}


@given(IMAGES, BATCHES, SEEDS, RANKS)
def test_the_batches_of_all_processes_together_are_those_of_one(
    images: int, batch: int, seed: int | None, processes: int
) -> None:
    alone = list(Schedule(images, batch, seed))
    smallest = min(len(keys) for keys in alone)
    plans = [list(schedule) for schedule in schedules(images, batch, seed, min(processes, smallest))]

    assert [sorted(key for part in parts for key in part) for parts in zip(*plans, strict=True)] == [
        sorted(keys) for keys in alone
    ]


@given(IMAGES, BATCHES, SEEDS)
def test_batches_are_of_one_size_give_or_take_a_picture_and_never_too_large(
    images: int, batch: int, seed: int | None
) -> None:
    schedule = Schedule(images, batch, seed)
    sizes = [len(keys) for keys in schedule]

    assert len(sizes) == len(schedule)
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1


@given(IMAGES, BATCHES, SEEDS, RANKS, EPOCHS, st.data())
def test_a_resumed_epoch_is_the_rest_of_the_very_same_batches(
    images: int, batch: int, seed: int | None, processes: int, epoch: int, data: st.DataObject
) -> None:
    smallest = min(len(keys) for keys in Schedule(images, batch, seed))
    for schedule in schedules(images, batch, seed, min(processes, smallest), epoch):
        whole = list(schedule)
        schedule.first = data.draw(st.integers(0, len(whole)))
        assert list(schedule) == whole[schedule.first :]


@given(st.integers(10, 300), BATCHES, st.integers(0, 2**63 - 1), EPOCHS)
def test_every_epoch_has_an_order_of_its_own(images: int, batch: int, seed: int, epoch: int) -> None:
    (one,), (next_one,) = (schedules(images, batch, seed, 1, number) for number in (epoch, epoch + 1))

    assert indices(one) != indices(next_one)
    assert indices(one) == indices(one)


@given(IMAGES, BATCHES)
def test_without_a_seed_pictures_come_in_their_order(images: int, batch: int) -> None:
    assert indices(Schedule(images, batch, None)) == list(range(images))


def test_no_pictures_make_no_batches() -> None:
    assert list(Schedule(0, 8, None)) == []


@given(st.lists(st.one_of(st.integers(), st.text()), max_size=4), st.lists(st.one_of(st.integers(), st.text())))
def test_a_seed_is_a_function_of_all_its_parts(parts: list[object], others: list[object]) -> None:
    seed = seed_of(*parts)

    assert 0 <= seed < 2**63
    assert seed == seed_of(*parts)
    assert (seed == seed_of(*others)) == (parts == others)


def test_loading_processes_have_room_for_what_they_make_ahead() -> None:
    batch_bytes = 32 * 3 * 224**2

    assert loaders(7, batch_bytes, free_bytes=2**30) == 7
    assert loaders(7, batch_bytes, free_bytes=64 * 2**20) == 5  # what containers have by default
    assert loaders(7, batch_bytes, free_bytes=3 * 2**20) == 0
    assert loaders(7, batch_bytes, free_bytes=0) == 0


LITTLE_SHARED_MEMORY = """
import logging, sys
from pathlib import Path
from regraft.label_rules import image_hash
from tests.tiny import SPEC, picture
from training.strategies.finetuning.batches import PlainPictures, Schedule, loader
from training.data.samples import Sample
logging.basicConfig(level=logging.WARNING, format="%(message)s")
spec = SPEC.__class__(resize="squash", resize_px=224, crop_px=224)
paths = [Path(sys.argv[1]) / f"{number}.png" for number in range(64)]
for number, path in enumerate(paths):
    path.write_bytes(picture("red", number))
samples = [Sample(path, image_hash(path.read_bytes()), 0) for path in paths]
for _ in range(2):
    print(sum(len(images) for images, _ in loader(PlainPictures(samples, spec), Schedule(64, 32, None))))
"""


def test_with_a_dev_shm_of_3_mb_fewer_processes_load_and_one_line_says_so(tmp_path: Path) -> None:
    unshare = shutil.which("unshare") or pytest.skip("unshare is not installed")
    if subprocess.run([unshare, "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not give a process a /dev/shm of its own")
    mount = 'mount -t tmpfs -o size=3m tmpfs /dev/shm && exec "$@"'

    done = subprocess.run(
        [unshare, "-m", "sh", "-c", mount, "sh", sys.executable, "-c", LITTLE_SHARED_MEMORY, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.split() == ["64", "64"], done.stderr
    [line] = done.stderr.splitlines()
    assert "shm is too small for " in line
    assert "docker run --shm-size 1g" in line
