"""Scans of a JPEG: their number, and missing ones.

Decoders say nothing of a scan that is missing: they show the picture coarser, or without its colours. Each scan takes
about as long as the whole picture, and may be a few bytes long.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

MOST_SCANS: Final = 64
"""More than any encoder makes: ten, or a few dozen where bits are told apart."""
_COEFFICIENTS: Final = 64
_PROGRESSIVE: Final = (0xC2, 0xC6, 0xCA, 0xCE)
FRAMES: Final = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
SCAN: Final = 0xDA
_END: Final = 0xD9
_NEXT_MARKER: Final = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")


class _Segment(NamedTuple):
    """A marker and what follows it, without its length."""

    marker: int
    body: bytes


class Scans(NamedTuple):
    """The number of scans, limited, and whether all components are there."""

    number: int
    are_all_there: bool


def read_scans(data: bytes) -> Scans:
    """Count the scans of a JPEG, and look for missing ones."""
    progressive, wanted, count = False, set[int](), 0
    missing: set[tuple[int, int]] = set()  # component and coefficient, of which a bit is still to come
    for marker, body in _segments(data):
        if marker in FRAMES and len(body) > 5:
            progressive = marker in _PROGRESSIVE
            wanted = set(body[6 : 6 + 3 * body[5] : 3])
            missing = {(each, number) for each in wanted for number in range(_COEFFICIENTS if progressive else 1)}
        elif marker == SCAN and len(body) > 2 * body[0] + 3:
            count += 1
            if count > MOST_SCANS:
                break
            components = set(body[1 : 1 + 2 * body[0] : 2])
            if not progressive and components >= wanted:
                return Scans(count, True)  # the usual file: one scan, whose end is not looked for
            first, last, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]]
            if not progressive:
                missing -= {(each, 0) for each in components}
            elif not bits & 0x0F:
                missing -= {(each, number) for each in components for number in range(first, last + 1)}
    return Scans(count, not missing)


def _segments(data: bytes) -> Iterator[_Segment]:
    start = 2
    while match := _NEXT_MARKER.search(data, start):
        marker, start = data[match.end() - 1], match.end()
        if marker == _END:
            return
        length = int.from_bytes(data[start : start + 2], "big")
        yield _Segment(marker, data[start + 2 : start + length])
        start += length
