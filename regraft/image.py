"""Bytes of a picture to the uint8 crop that the network sees: THE preprocessing.

Training, evaluation and serving all call `decode_crop`, so that they cannot disagree. Normalisation is not here: it
lives in the ONNX graph. Pillow decodes and enlarges, ``cykooz_resizer`` (Rust's ``fast_image_resize``) reduces; no
other module may import either.
"""

import hashlib
import io
import json
import math
from dataclasses import asdict, dataclass
from typing import Final, Literal, TypeAlias, get_args

import cykooz_resizer
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from regraft.errors import ArtifactError, InvalidImageError

Crop: TypeAlias = npt.NDArray[np.uint8]
"""uint8 [crop_px, crop_px, 3], RGB."""

ResizeRule = Literal["crop", "squash", "pad"]
Interpolation = Literal["bilinear", "bicubic", "lanczos"]

RULE_VERSION: Final = 1
"""Raised whenever the same bytes and spec would give other pixels: stored crops and embeddings then no longer match."""

_FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_PAD_LEVEL: Final = 128
_FILTERS: Final = {
    "bilinear": (cykooz_resizer.FilterType.bilinear, Image.Resampling.BILINEAR),
    "bicubic": (cykooz_resizer.FilterType.catmull_rom, Image.Resampling.BICUBIC),  # the same kernel, a = -0.5
    "lanczos": (cykooz_resizer.FilterType.lanczos3, Image.Resampling.LANCZOS),
}

# Pillow's own bomb check warns through process-wide state; `Limits` refuses before decoding, per call and for certain.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Limits:
    """What a picture may cost. Both are checked before a pixel is decoded."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 64_000_000


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True)
class ImageSpec:
    """How a picture becomes a crop; stored in the model card, so that every consumer does the same.

    Attributes:
        resize: ``crop`` scales the short side to ``resize_px`` and keeps the middle; ``squash`` scales both sides
            to ``resize_px``, whatever the shape; ``pad`` scales the long side and fills up with grey.
        resize_px: side after scaling, in pixels; at least ``crop_px``.
        crop_px: side of the square that is cut from the middle, in pixels.
        interpolation: kernel of the antialiased resize.
        rule_version: the version of this module's rule that the model was trained with.
    """

    resize: ResizeRule = "crop"
    resize_px: int = 256
    crop_px: int = 224
    interpolation: Interpolation = "bicubic"
    rule_version: int = RULE_VERSION

    def __post_init__(self) -> None:
        """Refuse values that no picture could satisfy."""
        if self.resize not in get_args(ResizeRule):
            raise ArtifactError(f"image spec: resize is {self.resize!r}, not one of {get_args(ResizeRule)}")
        if self.interpolation not in _FILTERS:
            raise ArtifactError(f"image spec: interpolation is {self.interpolation!r}, not one of {tuple(_FILTERS)}")
        if not 1 <= self.crop_px <= self.resize_px <= 4096:
            raise ArtifactError(
                f"image spec: need 1 <= crop_px <= resize_px <= 4096, not {self.crop_px} and {self.resize_px}"
            )
        if self.rule_version != RULE_VERSION:
            raise ArtifactError(
                f"image spec: made with image rule {self.rule_version}, this Regraft has rule {RULE_VERSION}: "
                "train the model again, or serve it with the Regraft that made it"
            )

    def digest(self) -> str:
        """Return the SHA-256 (hex) by which crops made under this spec are told from others."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _Window:
    """The part of the source that the crop keeps, and the size it gets; all centred."""

    source_width: float
    source_height: float
    width_px: int
    height_px: int


def decode_crop(data: bytes, spec: ImageSpec, limits: Limits = DEFAULT_LIMITS) -> Crop:
    """Decode one picture and cut the crop that ``spec`` describes.

    JPEG, PNG, WebP, BMP, GIF and TIFF (first frame). EXIF orientation is applied; transparency is laid on white; CMYK
    is converted; 16-bit grey keeps its high byte; 32-bit grey has no defined range and is refused. Large JPEGs are
    decoded at the smallest DCT scale that is still at least twice the target. Thread-safe.

    Args:
        data: the encoded picture.
        spec: the rule.
        limits: the most bytes and pixels accepted.

    Returns:
        uint8 [crop_px, crop_px, 3], RGB, C-contiguous.

    Raises:
        InvalidImageError: the bytes are no such picture, or over the limits; the text says which.
    """
    if not data:
        raise InvalidImageError("the image is empty (0 bytes)")
    if len(data) > limits.max_bytes:
        raise InvalidImageError(f"the image has {len(data):,} bytes; the limit is {limits.max_bytes:,}")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        _check_size(image, limits)
        image.draft(None, _smallest_useful_size(image.size, spec))
        return _cut(_to_rgb(_upright(image)), spec)
    except InvalidImageError:
        raise
    except UnidentifiedImageError:
        raise InvalidImageError(f"not a picture in a format that is read here ({', '.join(_FORMATS)})") from None
    except MemoryError:
        raise
    except Exception as error:
        raise InvalidImageError(f"the image cannot be decoded: {error or type(error).__name__}") from error


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode uint8 pixels, [H, W] grey or [H, W, 3] RGB, as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _check_size(image: Image.Image, limits: Limits) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise InvalidImageError(f"the image is {width} x {height} px")
    if width * height > limits.max_pixels:
        raise InvalidImageError(
            f"the image is {width} x {height} px; the limit is {limits.max_pixels:,} pixels in all: scale it down"
        )


def _smallest_useful_size(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    """Return the size below which the decoder must not scale: twice what the resize will make of the whole picture."""
    width, height = size
    if spec.resize == "squash":
        return 2 * spec.resize_px, 2 * spec.resize_px
    side = min(size) if spec.resize == "crop" else max(size)
    scale = 2 * spec.resize_px / side
    return math.ceil(width * scale), math.ceil(height * scale)


def _upright(image: Image.Image) -> Image.Image:
    """Apply EXIF orientation; damaged EXIF counts as none."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - damaged EXIF makes Pillow raise anything; damaged pixels raise again on load
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode that a decoder may yield to RGB by a rule that is the same everywhere."""
    if image.mode in ("I", "F"):
        raise InvalidImageError("pixels of 32 bits have no defined range: save the image with 8 or 16 bits a channel")
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint16)  # also swaps the bytes of the big-endian variant
        return Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return image.convert("RGB")  # the same object where it is RGB already


def _window(size: tuple[int, int], spec: ImageSpec) -> _Window:
    width, height = size
    kept = spec.crop_px / spec.resize_px
    if spec.resize == "crop":
        side = min(width, height) * kept
        return _Window(side, side, spec.crop_px, spec.crop_px)
    if spec.resize == "squash":
        return _Window(width * kept, height * kept, spec.crop_px, spec.crop_px)
    side = max(width, height) * kept
    seen_width, seen_height = min(width, side), min(height, side)
    scale = spec.crop_px / side
    return _Window(seen_width, seen_height, max(1, round(seen_width * scale)), max(1, round(seen_height * scale)))


def _cut(image: Image.Image, spec: ImageSpec) -> Crop:
    """Resize just the window that the crop keeps, in one antialiased pass."""
    image.load()
    window = _window(image.size, spec)
    resized = _resize(image, window, spec.interpolation)
    if resized.size == (spec.crop_px, spec.crop_px):
        return np.array(resized)
    canvas = np.full((spec.crop_px, spec.crop_px, 3), _PAD_LEVEL, np.uint8)
    top, left = (spec.crop_px - window.height_px) // 2, (spec.crop_px - window.width_px) // 2
    canvas[top : top + window.height_px, left : left + window.width_px] = np.asarray(resized)
    return canvas


def _resize(image: Image.Image, window: _Window, interpolation: Interpolation) -> Image.Image:
    left = (image.width - window.source_width) / 2
    top = (image.height - window.source_height) / 2
    size = (window.width_px, window.height_px)
    fast_filter, pillow_filter = _FILTERS[interpolation]
    if window.source_width < window.width_px or window.source_height < window.height_px:
        # The fast resizer reads out of bounds when it enlarges and an output pixel falls on a source pixel (4.0.1).
        return image.resize(size, pillow_filter, (left, top, left + window.source_width, top + window.source_height))
    options = cykooz_resizer.ResizeOptions(
        resize_alg=cykooz_resizer.ResizeAlg.convolution(fast_filter),
        crop_box=cykooz_resizer.CropBox(left, top, window.source_width, window.source_height),
    )
    resized = Image.new("RGB", size)
    # A resizer keeps scratch buffers and is not thread-safe; making one costs microseconds.
    cykooz_resizer.Resizer().resize_pil(image, resized, options)
    return resized
