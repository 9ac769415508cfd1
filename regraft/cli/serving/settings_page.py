"""The page docs/settings.md, made from `Settings`; ``make docs`` writes it."""

import sys
from typing import Any, Final

from regraft.cli.serving.serve import flag_of
from serving.settings import Settings

_HEAD: Final = """\
# Settings of the server

Command line over environment over default. `make docs` makes this page from the code, as `regraft serve --help` is.

| flag | environment | default | |
|---|---|---|---|
"""


def settings_page() -> str:
    """Return the page."""
    rows = []
    for field, info in Settings.model_fields.items():
        flag, variable = flag_of(field), f"REGRAFT_{field.upper()}"
        rows.append(f"| `{flag}` | `{variable}` | {_default(info.default)} | {info.description} |\n")
    return _HEAD + "".join(rows)


def _default(value: Any) -> str:  # noqa: ANN401 - whatever a setting is
    return "" if value in (None, "", ()) else f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(settings_page())
