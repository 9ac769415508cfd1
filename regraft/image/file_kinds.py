"""Kinds of files, by their first bytes."""

from typing import Final

_CONVERT: Final = "convert it to JPEG, PNG, WebP or TIFF"
_DEVELOP: Final = "develop it to JPEG or TIFF"
_RENDER: Final = "render its pages as PNG"
_FRAMES: Final = "take single pictures out of it, as with ffmpeg -i FILE -vf fps=1 %04d.png"
_UNPACK: Final = "unpack it"

_SIGNATURES: Final[tuple[tuple[int, bytes, str, str], ...]] = (
    (0, b"\xff\x0a", "JPEG XL", _CONVERT),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", _CONVERT),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", _CONVERT),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000", _CONVERT),
    (0, b"\xff\xd8\xff\xf7", "JPEG-LS", _CONVERT),
    (0, b"II\xbc", "JPEG XR", _CONVERT),
    (0, b"8BPS", "Photoshop (PSD)", _CONVERT),
    (0, b"gimp xcf", "GIMP (XCF)", _CONVERT),
    (0, b"FUJIFILMCCD-RAW", "camera raw (RAF)", _DEVELOP),
    (0, b"IIRO", "camera raw (ORF)", _DEVELOP),
    (0, b"IIRS", "camera raw (ORF)", _DEVELOP),
    (0, b"MMOR", "camera raw (ORF)", _DEVELOP),
    (0, b"IIU\0", "camera raw (RW2)", _DEVELOP),
    (0, b"II\x1a\0\0\0HEAPCCDR", "camera raw (CRW)", _DEVELOP),
    (0, b"\0MRM", "camera raw (MRW)", _DEVELOP),
    (0, b"FOVb", "camera raw (X3F)", _DEVELOP),
    (8, b"CR\x02\0", "camera raw (CR2)", _DEVELOP),
    (0, b"v/1\x01", "OpenEXR", _CONVERT),
    (0, b"#?RADIANCE", "Radiance HDR", _CONVERT),
    (0, b"#?RGBE", "Radiance HDR", _CONVERT),
    (0, b"SIMPLE  =", "FITS", _CONVERT),
    (128, b"DICM", "DICOM", _CONVERT),
    (0, b"\0\0\x01\0", "ICO", _CONVERT),
    (0, b"\0\0\x02\0", "CUR", _CONVERT),
    (0, b"icns", "ICNS", _CONVERT),
    (0, b"DDS ", "DDS", _CONVERT),
    (0, b"qoif", "QOI", _CONVERT),
    (0, b"BPG\xfb", "BPG", _CONVERT),
    (0, b"FLIF", "FLIF", _CONVERT),
    (0, b"AT&TFORM", "DjVu", _RENDER),
    (0, b"%PDF", "PDF", _RENDER),
    (0, b"%!PS", "PostScript", _RENDER),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript", _RENDER),
    (0, b"\xd7\xcd\xc6\x9a", "Windows metafile", _RENDER),
    (40, b" EMF", "Windows metafile", _RENDER),
    (8, b"AVI ", "video (AVI)", _FRAMES),
    (0, b"\x1a\x45\xdf\xa3", "video (Matroska, WebM)", _FRAMES),
    (0, b"\0\0\x01\xba", "video (MPEG)", _FRAMES),
    (0, b"\0\0\x01\xb3", "video (MPEG)", _FRAMES),
    (0, b"FLV\x01", "video (FLV)", _FRAMES),
    (0, b"OggS", "video (Ogg)", _FRAMES),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video (WMV)", _FRAMES),
    (4, b"moov", "video (QuickTime)", _FRAMES),
    (4, b"mdat", "video (QuickTime)", _FRAMES),
    (0, b"PK\x03\x04", "ZIP", _UNPACK),
    (0, b"\x1f\x8b", "gzip", _UNPACK),
    (0, b"Rar!", "RAR", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "7-Zip", _UNPACK),
    (257, b"ustar", "tar", _UNPACK),
    (0, b"version https://git-lfs", "Git LFS pointer", "fetch the picture itself with git lfs pull"),
    *((0, b"P%d" % kind, "Netpbm (PBM, PGM, PPM, PAM)", _CONVERT) for kind in range(1, 8)),
)
"""Offset, first bytes, name of the kind, and advice."""

_BRANDS: Final = (
    ((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC", _CONVERT),
    ((b"crx ",), "camera raw (CR3)", _DEVELOP),
    ((b"avif", b"avis"), "", ""),
    ((b"mif1", b"msf1", b"miaf"), "HEIF", _CONVERT),
)
"""Brands of an ``ftyp`` box, name and advice; any other brand is a video's."""

_READ: Final = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (0, b"GIF8", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
)


def unsupported_kind(data: bytes) -> str:
    """Name an unread file's kind and the remedy; empty if unknown.

    Example:
        ``HEIC is not read here: convert it to JPEG, PNG, WebP or TIFF``
    """
    kind = _by_brand(data) or _by_signature(data) or _by_text(data)
    return "{} is not read here: {}".format(*kind) if kind else ""


def format_of(data: bytes) -> str:
    """Name the format that a file begins like; empty if none."""
    if data[4:8] == b"ftyp" and {b"avif", b"avis"} & _brands(data):
        return "AVIF"
    return next((name for offset, start, name in _READ if data.startswith(start, offset)), "")


def _by_signature(data: bytes) -> tuple[str, str] | None:
    return next(((name, advice) for offset, start, name, advice in _SIGNATURES if data.startswith(start, offset)), None)


def _by_brand(data: bytes) -> tuple[str, str] | None:
    if data[4:8] != b"ftyp":
        return None
    brands = _brands(data)
    for brands_of_kind, name, advice in _BRANDS:
        if brands & set(brands_of_kind):
            return (name, advice) if name else None
    return "video (MP4, QuickTime)", _FRAMES


def _brands(data: bytes) -> set[bytes]:
    end = min(int.from_bytes(data[:4], "big"), 256)
    return {data[8:12], *(data[start : start + 4] for start in range(16, end - 3, 4))}


def _by_text(data: bytes) -> tuple[str, str] | None:
    start = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in start:
        return "SVG", "render it as PNG"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page", "save the picture itself"
    return None
