from collections.abc import Callable

import numpy as np
import pytest

from regraft.errors import InvalidImageError, InvalidRequestError
from regraft.image.decode import decode_crop, decode_window, upright_size
from regraft.image.encode import encode_png, thumbnail
from regraft.image.limits import DEFAULT_LIMITS, ImageLimits, configured_limits
from regraft.image.spec import ImageSpec, Window

PICTURE = encode_png(np.zeros((40, 50, 3), np.uint8))


def test_the_limits_are_the_defaults_where_the_environment_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGRAFT_MAX_IMAGE_BYTES", raising=False)
    monkeypatch.delenv("REGRAFT_MAX_IMAGE_PIXELS", raising=False)

    assert configured_limits() == DEFAULT_LIMITS == ImageLimits(32 * 2**20, 64_000_000)


def test_another_process_gets_the_same_limits_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = ImageLimits(123_456, 7_890_123)
    for name, value in limits.environment().items():
        monkeypatch.setenv(name, value)

    assert configured_limits() == limits


def test_every_look_at_a_picture_keeps_the_limits_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Callable[[], object]] = [
        lambda: decode_crop(PICTURE, ImageSpec()),
        lambda: decode_window(PICTURE, ImageSpec(), Window(0, 0, 1, 1)),
        lambda: upright_size(PICTURE),
        lambda: thumbnail(PICTURE, 100),
    ]
    for look in looks:
        monkeypatch.setenv("REGRAFT_MAX_IMAGE_PIXELS", "2000")
        look()
        monkeypatch.setenv("REGRAFT_MAX_IMAGE_PIXELS", "1999")
        with pytest.raises(InvalidImageError, match=r"the limit is 1,999 pixels in all \(REGRAFT_MAX_IMAGE_PIXELS\)"):
            look()


@pytest.mark.parametrize("variable", ["REGRAFT_MAX_IMAGE_BYTES", "REGRAFT_MAX_IMAGE_PIXELS"])
@pytest.mark.parametrize("value", ["", "many", "1e9", "1023", "-1"])
def test_a_limit_that_makes_no_sense_is_refused_by_its_name(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(InvalidRequestError, match=f"{variable}: '{value}': need a whole number of at least 1,024"):
        configured_limits()
