import io

import pytest
from PIL import Image

from regraft.errors import InvalidImageError, InvalidRequestError, OverloadedError
from regraft.image.limits import ImageLimits
from regraft.image.spec import ImageSpec
from serving.inference.picture_memory import PictureMemory
from serving.inference.shares import Shares
from serving.threads import Threads
from tests.tiny import picture
from tests.waiting import asynchronous

MB = 2**20
SPEC = ImageSpec(resize_px=8, crop_px=8)


def webp(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (side, side)).save(buffer, "WEBP", lossless=True, method=0)
    return buffer.getvalue()


@asynchronous
async def test_a_picture_that_never_fits_is_refused_by_its_header_and_the_text_says_what_to_change(
    threads: Threads,
) -> None:
    memory = PictureMemory(Shares(16 * MB), ImageLimits(), threads.pictures)

    with pytest.raises(InvalidImageError, match=r"the limit is 16 \(REGRAFT_PICTURE_MEMORY_MB\): scale it down"):
        await memory.cost(webp(1_200), SPEC)
    assert (await memory.cost(webp(500), SPEC)).pixels == 250_000


@asynchronous
async def test_a_picture_over_the_limits_is_left_to_the_decoder_which_says_so(threads: Threads) -> None:
    memory = PictureMemory(Shares(16 * MB), ImageLimits(max_pixels=10_000), threads.pictures)

    assert (await memory.cost(webp(1_000), SPEC)).memory_bytes < MB


@asynchronous
async def test_pictures_that_never_fit_together_are_refused_and_others_are_told_to_wait(
    threads: Threads,
) -> None:
    memory = PictureMemory(Shares(50 * MB), ImageLimits(), threads.pictures)
    cost = await memory.cost(webp(1_200), SPEC)

    with pytest.raises(InvalidRequestError, match="send fewer at once"):
        await memory.take(3 * [cost], "ada", patient=False)
    with await memory.take(2 * [cost], "ada", patient=False):
        with pytest.raises(OverloadedError, match="no memory"):
            await memory.take([cost], "ada", patient=False)
        assert not memory.is_used_up("ada")
        small = await memory.cost(picture("red"), SPEC)
        (await memory.take([small], "ada", patient=False)).give_back()
    (await memory.take([cost], "ada", patient=False)).give_back()
