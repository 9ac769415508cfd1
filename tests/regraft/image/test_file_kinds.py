import io
import struct

import pytest
from PIL import Image

from regraft.errors import InvalidImageError
from regraft.image.decode import decode_crop
from regraft.image.file_kinds import unsupported_kind
from regraft.image.spec import ImageSpec


def box(*brands: bytes) -> bytes:
    """Return the first box of an ISO media file, and a little more."""
    body = brands[0] + bytes(4) + b"".join(brands)
    return struct.pack(">I4s", 8 + len(body), b"ftyp") + body + bytes(64)


def of_pillow(file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 100, 50)).save(buffer, file_format)
    return buffer.getvalue()


FILES = {
    "HEIC": (box(b"heic", b"mif1", b"heic"), "HEIC is not read here: convert it to JPEG"),
    "HEIC, by its other brand": (box(b"mif1", b"heic"), "HEIC is not read here: convert it"),
    "HEIF of an unknown kind": (box(b"mif1", b"jpeg"), "HEIF is not read here: convert it"),
    "CR3": (box(b"crx ", b"isom"), r"camera raw \(CR3\) is not read here: develop it"),
    "MP4": (box(b"isom", b"mp42", b"avc1"), r"video \(MP4, QuickTime\) is not read here: take single pictures"),
    "QuickTime": (box(b"qt  "), "video .* is not read here"),
    "JPEG XL": (b"\xff\x0a" + bytes(64), "JPEG XL is not read here: convert it"),
    "JPEG XL in a box": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(64), "JPEG XL is not read here"),
    "JPEG 2000": (of_pillow("JPEG2000"), "JPEG 2000 is not read here: convert it"),
    "JPEG-LS": (b"\xff\xd8\xff\xf7" + bytes(64), "JPEG-LS is not read here: convert it"),
    "JPEG XR": (b"II\xbc\x01" + bytes(64), "JPEG XR is not read here: convert it"),
    "PSD": (b"8BPS\0\x01" + bytes(64), r"Photoshop \(PSD\) is not read here: convert it"),
    "CR2": (b"II*\0\x10\0\0\0CR\x02\0" + bytes(64), r"camera raw \(CR2\) is not read here: develop it"),
    "RAF": (b"FUJIFILMCCD-RAW 0201" + bytes(64), r"camera raw \(RAF\) is not read here: develop it"),
    "ORF": (b"IIRO\x08\0\0\0" + bytes(64), r"camera raw \(ORF\) is not read here"),
    "RW2": (b"IIU\0\x18\0\0\0" + bytes(64), r"camera raw \(RW2\) is not read here"),
    "PDF": (b"%PDF-1.7\n" + bytes(64), "PDF is not read here: render its pages"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG is not read here: render it"),
    "SVG, with a prolog": (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- by hand -->\n<svg/>", "SVG is not read here"),
    "a web page": (b"\n<!DOCTYPE html><html>404</html>", "a web page is not read here: save the picture itself"),
    "AVI": (b"RIFF\0\0\0\0AVI LIST" + bytes(64), r"video \(AVI\) is not read here"),
    "WebM": (b"\x1a\x45\xdf\xa3" + bytes(64), "video .* is not read here"),
    "DICOM": (bytes(128) + b"DICM" + bytes(64), "DICOM is not read here: convert it"),
    "OpenEXR": (b"v/1\x01" + bytes(64), "OpenEXR is not read here: convert it"),
    "ICO": (of_pillow("ICO"), "ICO is not read here: convert it"),
    "PPM": (of_pillow("PPM"), r"Netpbm .* is not read here: convert it"),
    "DDS": (of_pillow("DDS"), "DDS is not read here: convert it"),
    "ZIP": (b"PK\x03\x04" + bytes(64), "ZIP is not read here: unpack it"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_not_read_is_named_with_what_to_do(kind: str) -> None:
    data, complaint = FILES[kind]

    with pytest.raises(InvalidImageError, match=complaint):
        decode_crop(data, ImageSpec())


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_a_format_that_is_read_is_damaged_rather_than_no_picture(file_format: str) -> None:
    data = of_pillow(file_format)

    with pytest.raises(InvalidImageError, match="the image cannot be decoded: "):
        decode_crop(data[:12] + b"\xff" * 200, ImageSpec())


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF", "AVIF"])
def test_a_damaged_header_is_said_to_be_that_of_its_format(file_format: str) -> None:
    data = of_pillow(file_format)

    with pytest.raises(InvalidImageError, match=f"it begins like {file_format}, but its header is damaged"):
        decode_crop(data[:12] + b"\xff" * 200, ImageSpec())


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_a_format_that_is_read_has_no_name_among_the_others(file_format: str) -> None:
    assert unsupported_kind(of_pillow(file_format)) == ""
