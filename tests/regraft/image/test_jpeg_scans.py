import io
from pathlib import Path

import pytest

from benchmarks.damage import generated
from regraft.errors import InvalidImageError
from regraft.image.decode import decode_crop
from regraft.image.jpeg_scans import MOST_SCANS, read_scans
from regraft.image.spec import ImageSpec

SCAN, END = b"\xff\xda", b"\xff\xd9"


def jpeg(mode: str = "RGB", *, progressive: bool = True) -> bytes:
    buffer = io.BytesIO()
    generated(0).convert(mode).save(buffer, "JPEG", quality=85, progressive=progressive)
    return buffer.getvalue()


def scans(data: bytes) -> list[int]:
    """Return where the scans begin; in what is compressed this marker cannot be."""
    return [at for at in range(len(data)) if data.startswith(SCAN, at)]


def has_every_scan(data: bytes) -> bool:
    return read_scans(data).are_all_there


def test_scans_are_counted_up_to_one_more_than_the_most() -> None:
    data = jpeg("RGB", progressive=True)
    last = data[scans(data)[-1] : -2]

    assert read_scans(data).number == len(scans(data))
    assert read_scans(data[:-2] + (MOST_SCANS - len(scans(data))) * last + END).number == MOST_SCANS
    assert read_scans(data[:-2] + 10 * MOST_SCANS * last + END).number == MOST_SCANS + 1
    assert read_scans(jpeg("RGB", progressive=False)).number == 1


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_whole_jpeg_has_every_scan(mode: str, progressive: bool) -> None:
    assert has_every_scan(jpeg(mode, progressive=progressive))


def test_a_jpeg_whose_scans_never_end_is_refused_before_it_is_decoded() -> None:
    data = jpeg()
    last = data[scans(data)[-1] : -2]

    with pytest.raises(InvalidImageError, match="more than 64 scans"):
        decode_crop(data[:-2] + 1_000 * last + END, ImageSpec())


def test_a_progressive_jpeg_without_its_later_scans_is_refused() -> None:
    data = jpeg()
    assert len(scans(data)) > 5

    for start in scans(data)[1:]:
        with pytest.raises(InvalidImageError, match="cannot be decoded: scans of its JPEG are missing"):
            decode_crop(data[:start] + END, ImageSpec())
        assert not has_every_scan(data[:start] + END)


def test_what_comes_behind_the_picture_does_not_count() -> None:
    data = jpeg()

    assert has_every_scan(data + data[:200])
    assert not has_every_scan(data[: scans(data)[3]] + END + data)


def test_what_is_no_jpeg_is_not_told_from() -> None:
    assert has_every_scan(b"")
    assert has_every_scan(b"no jpeg")


def test_every_photograph_has_every_scan(photographs: Path) -> None:
    assert all(has_every_scan(file.read_bytes()) for file in photographs.rglob("*.jpg"))
