"""The house in ARCHITECTURE.md, drawn from the tree: ``python -m tests.house`` writes it, as does ``make docs``."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests import REPOSITORY

PAGE: Final = REPOSITORY / "ARCHITECTURE.md"
WINGS: Final = ("regraft", "training", "serving")
_NAMES_END: Final = 34
_BEGIN: Final = "## The house\n\n```text\n"
_END: Final = "\n```\n"


def halls() -> Iterator[tuple[Path, list[Path]]]:
    """Yield every folder of the packages and its modules, folders after the modules beside them."""
    for wing in WINGS:
        yield from _halls(REPOSITORY / wing)


def _halls(hall: Path) -> Iterator[tuple[Path, list[Path]]]:
    rooms = {path for path in hall.glob("*.py") if path.stem != "__init__"}
    yield hall, sorted(rooms - set(hall.glob("v0*.py")))  # the steps of a database's tables
    for inner in sorted(hall.glob("*/__init__.py")):
        yield from _halls(inner.parent)


def house() -> str:
    """Return the tree with the first line of each docstring."""
    lines: list[str] = []
    for hall, rooms in halls():
        indent = "  " * len(hall.relative_to(REPOSITORY).parents)
        lines.append(_line(f"{indent[2:]}{hall.name}/", hall / "__init__.py"))
        lines += [_line(f"{indent}{room.name}", room) for room in rooms]
    return "\n".join(lines)


def _line(name: str, module: Path) -> str:
    first, _, _ = (ast.get_docstring(ast.parse(module.read_text())) or "").partition("\n")
    return f"{name:{_NAMES_END}}{first}".rstrip()


def main() -> None:
    """Write the house into its page."""
    before, _, after = PAGE.read_text().partition(_BEGIN)
    PAGE.write_text(f"{before}{_BEGIN}{house()}{after[after.index(_END) :]}")


if __name__ == "__main__":
    main()
