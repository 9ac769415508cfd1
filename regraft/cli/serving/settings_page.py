"""The page docs/settings.md, made from `Settings` and its docstring; ``make docs`` writes it."""

import inspect
import re
import sys
from typing import Any, Final

from pydantic_core import PydanticUndefined

from regraft.cli.serving.serve import serve
from serving.settings import Settings

_HEAD: Final = """\
# Settings of the server

Command line over environment over default. `regraft serve --help` has the flags. `make docs` makes this page
from the code.

| flag | environment | default | |
|---|---|---|---|
"""
_FLAGS: Final = {"names": "name"}
"""Where the flag is not called like the setting."""


def settings_page() -> str:
    """Return the page."""
    meanings = _meanings()
    flags = inspect.signature(serve).parameters
    rows = []
    for field, info in Settings.model_fields.items():
        flag = _FLAGS.get(field, field)
        shown = f"`--{flag.replace('_', '-')}`" if flag in flags else ""
        rows.append(f"| {shown} | `REGRAFT_{field.upper()}` | {_default(info.default)} | {meanings[field]} |\n")
    return _HEAD + "".join(rows)


def _meanings() -> dict[str, str]:
    """Return what the docstring of `Settings` says of each."""
    _, _, attributes = inspect.cleandoc(Settings.__doc__ or "").partition("Attributes:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n      +.*)*)", attributes, flags=re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text).rstrip(".").replace("``", "`") for name, text in found}


def _default(value: Any) -> str:  # noqa: ANN401 - whatever a setting is
    if value is PydanticUndefined or value in (None, "", ()):
        return ""
    return f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(settings_page())
