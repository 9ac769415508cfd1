"""The README beside an exported file."""

from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from regraft.model.card import ModelCard
from training.export.result import Export

_REACH: Final = {"bilinear": 1, "bicubic": 2, "lanczos": 3}
"""Where each kernel ends, in pixels."""


def readme(export: Export, card: ModelCard) -> str:
    """Render Markdown with figures and code that classifies ``photo.jpg`` or ``.ppm``."""
    # No escaping: this is no HTML, and labels are printable lines.
    environment = Environment(  # noqa: S701 - as above
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("README.md.j2").render(
        export=export,
        proof=export.proof,
        notes=export.notes,
        file=export.model.relative_to(export.folder).as_posix(),
        card=card,
        reach=_REACH[card.image.interpolation],
    )
