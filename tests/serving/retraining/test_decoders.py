import asyncio

import numpy as np
import pytest

from regraft.errors import DrainingError, InvalidImageError
from regraft.image.decode import decode_crop
from regraft.image.limits import ImageLimits
from regraft.image.spec import ImageSpec
from regraft.machine import cpu_budget
from serving.retraining.decoders import Decoders, Encoded
from serving.threads import Threads
from tests.serving.fakes import Panic
from tests.tiny import picture

SPEC = ImageSpec(resize_px=8, crop_px=8)


class Panicking(bytes):
    def __len__(self) -> int:
        raise Panic


@pytest.mark.parametrize("count", sorted({0, 1, cpu_budget(), cpu_budget() + 1, 7}))
def test_each_picture_gets_its_own_crop_however_many_threads_share_the_work(count: int, threads: Threads) -> None:
    pictures = [picture("grey", number) for number in range(count)]
    decoders = Decoders(threads.pictures)

    crops = asyncio.run(decoders.decode([Encoded(image, SPEC) for image in pictures]))

    assert len(crops) == count
    for crop, image in zip(crops, pictures, strict=True):
        np.testing.assert_array_equal(np.asarray(crop), decode_crop(image, SPEC))


def test_what_cannot_be_decoded_has_its_error_in_the_place_of_its_crop(threads: Threads) -> None:
    sent = [picture("red"), b"no picture", picture("red", side_px=32), picture("green")]
    decoders = Decoders(threads.pictures, ImageLimits(max_pixels=16 * 16))

    crops = asyncio.run(decoders.decode([Encoded(image, SPEC) for image in sent]))

    assert [isinstance(crop, InvalidImageError) for crop in crops] == [False, True, True, False]
    assert "not a picture" in str(crops[1])
    assert "the limit is 256 pixels" in str(crops[2])


def test_each_picture_is_cut_for_its_own_model(threads: Threads) -> None:
    sides = (8, 12)
    decoders = Decoders(threads.pictures)

    specs = [ImageSpec(resize_px=side, crop_px=side) for side in sides]
    crops = asyncio.run(decoders.decode([Encoded(picture("red"), spec) for spec in specs]))

    assert [np.asarray(crop).shape for crop in crops] == [(side, side, 3) for side in sides]


def test_what_nobody_wants_any_more_costs_nothing(threads: Threads) -> None:
    decoders = Decoders(threads.pictures)

    sent = [Encoded(Panicking(), SPEC, is_wanted=lambda: False), Encoded(picture("red"), SPEC)]
    unwanted, crop = asyncio.run(decoders.decode(sent))

    assert "nobody waits" in str(unwanted)
    assert not isinstance(crop, Exception)


def test_a_panic_of_native_code_is_the_error_of_its_picture_alone(threads: Threads) -> None:
    decoders = Decoders(threads.pictures)

    sent = [picture("red"), Panicking(), picture("green"), picture("blue")]
    crops = asyncio.run(decoders.decode([Encoded(image, SPEC) for image in sent]))

    assert [isinstance(crop, RuntimeError) for crop in crops] == [False, True, False, False]


def test_threads_that_are_gone_are_the_error_of_every_picture(threads: Threads) -> None:
    decoders = Decoders(threads.pictures)
    threads.close()

    crops = asyncio.run(decoders.decode([Encoded(picture("red"), SPEC) for _ in range(3)]))

    assert [isinstance(crop, DrainingError) for crop in crops] == [True] * 3
