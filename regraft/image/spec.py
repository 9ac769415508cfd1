"""The contract of preprocessing: from picture to crop.

Training, evaluation and serving make their crops by one `ImageSpec`, so that they cannot disagree. Normalisation is no
part of it: it lies in the ONNX graph.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from regraft.errors import ArtifactError

Crop: TypeAlias = npt.NDArray[np.uint8]
"""uint8 [crop_px, crop_px, 3], RGB."""

ResizeRule = Literal["crop", "squash", "pad"]
Interpolation = Literal["bilinear", "bicubic", "lanczos"]

RULE_VERSION: Final = 2
"""Raised whenever the same bytes and spec would give other pixels: stored crops and embeddings then no longer match."""

DECODER_VERSION: Final = 2
"""Raised whenever other files are refused than before; what was sound keeps its crops, or `RULE_VERSION` rises too."""

_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class ImageSpec:
    """The rule by which a picture becomes a crop.

    It is stored in the model card, so that every consumer does the same.

    Attributes:
        resize: ``crop`` scales the short side to ``resize_px`` and keeps the middle; ``squash`` scales both sides
            to ``resize_px``, whatever the shape; ``pad`` scales the long side and fills up with grey (128).
        resize_px: side after scaling, in pixels; at least ``crop_px``.
        crop_px: side of the square that is cut from the middle, in pixels.
        interpolation: kernel of the antialiased resize.
        rule_version: the `RULE_VERSION` that the model was trained with.
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
        if self.interpolation not in get_args(Interpolation):
            raise ArtifactError(
                f"image spec: interpolation is {self.interpolation!r}, not one of {get_args(Interpolation)}"
            )
        if not 1 <= self.crop_px <= self.resize_px <= 4096:
            raise ArtifactError(
                f"image spec: need 1 <= crop_px <= resize_px <= 4096, not {self.crop_px} and {self.resize_px}"
            )
        if self.rule_version != RULE_VERSION:
            raise ArtifactError(
                f"image spec: made with image rule {self.rule_version}, this Regraft has rule {RULE_VERSION}: "
                "`regraft upgrade` fits it anew, or serve it with the Regraft that made it"
            )

    def resized_by(self, rule: ResizeRule | None) -> "ImageSpec":
        """Return the spec with another rule; itself for None."""
        if rule is None or rule == self.resize:
            return self
        return replace(self, resize=rule, resize_px=self.resize_px if rule == "crop" else self.crop_px)

    def digest(self) -> str:
        """Return the SHA-256 (hex) of spec and decoder."""
        named = {**asdict(self), "decoder_version": DECODER_VERSION}
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Window:
    """A part of the upright picture, in shares of its sides."""

    left: float
    top: float
    width: float
    height: float

    def __post_init__(self) -> None:
        """Refuse a window that is empty or beyond the picture."""
        right, bottom = self.left + self.width, self.top + self.height
        inside = min(self.left, self.top) >= 0 and max(right, bottom) <= 1 + _ROUNDING
        if not (inside and self.width > 0 and self.height > 0):
            raise ValueError(f"{self} is no part of a picture")
