"""A list of one class against all others, for `regraft compare`.

    python -m benchmarks.two_classes DATA CLASS LIST.csv [--train 750] [--holdout 248]

DATA has train/<class>/ and val/<class>/. Half of the pictures are of the class, or all that there are, the rest of the
others in turn; nothing is copied. What the class is not is called "not <class>".
"""

import argparse
import csv
import hashlib
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path


def pictures(folder: Path) -> list[Path]:
    """Return the pictures of a class in an order that their names alone decide."""
    return sorted(folder.iterdir(), key=lambda path: hashlib.sha256(path.name.encode()).hexdigest())


def chosen(split: Path, label: str, count: int) -> Iterator[tuple[Path, str]]:
    """Yield ``count`` pictures of a split with what they are called."""
    mine = pictures(split / label)[: count // 2]
    others = [pictures(folder) for folder in sorted(split.iterdir()) if folder.is_dir() and folder.name != label]
    in_turn = [path for path in chain.from_iterable(zip_longest(*others)) if path is not None]
    yield from ((path, label) for path in mine)
    yield from ((path, f"not {label}") for path in in_turn[: count - len(mine)])


def main() -> None:
    """Write the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("label")
    parser.add_argument("list", type=Path)
    parser.add_argument("--train", type=int, default=750)
    parser.add_argument("--holdout", type=int, default=248)
    asked = parser.parse_args()
    with asked.list.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "label", "split"))
        for split, count in (("train", asked.train), ("val", asked.holdout)):
            for path, label in chosen(asked.data / split, asked.label, count):
                rows.writerow((path.resolve(), label, split))


if __name__ == "__main__":
    main()
