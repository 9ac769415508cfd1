"""Process of an export, ``python -m training.export``.

A server starts it for `Exports.Export`, and ends it when its caller leaves. It writes a zip, and lines of JSON on
standard output: ``{"stage": ..., "done": ..., "total": ...}``, and at last ``{"answer": ...}`` or
``{"error": NAME, "text": ...}`` with a name of `regraft.errors`.
"""

import argparse
import json
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, Final

from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.models import ModelStore
from training.child_process import add_limit_flags, add_store_flags, answer_of, begin
from training.export.export import MAX_DROP, export_version

_REPORT_EVERY_S: Final = 0.2


def main(arguments: list[str] | None = None) -> int:
    """Export a version, and print the answer.

    Returns:
        The exit code: 0 where the zip is there, 1 where an error is said.
    """
    options = _parser().parse_args(arguments)
    begin(options)
    said = answer_of(_export, options)
    _say(said)
    return 0 if "answer" in said else 1


def _export(options: argparse.Namespace) -> dict[str, Any]:
    """Export and pack a version; return the content of its export.json."""
    exported = export_version(
        ModelStore(options.store),
        options.version,
        options.to,
        options.out.with_suffix(""),
        data=None,
        examples=options.examples or str(options.store / EXAMPLES_FOLDER),
        cpu=options.cpu or None,
        max_drop=options.max_drop,
        progress=_Reporter(),
    )
    with zipfile.ZipFile(options.out, "w") as whole:  # weights hardly shrink
        for file in sorted(exported.folder.rglob("*")):
            whole.write(file, file.relative_to(exported.folder))
    return {**exported.to_dict(), "folder": "", "model": exported.model.relative_to(exported.folder).as_posix()}


class _Reporter:
    """A listener that prints the progress, not too often."""

    def __init__(self) -> None:
        self._stage, self._last_s = "", 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now_s = time.monotonic()
        if stage != self._stage or now_s - self._last_s >= _REPORT_EVERY_S:
            self._stage, self._last_s = stage, now_s
            _say({"stage": stage, "done": done, "total": total})


def _say(fact: dict[str, Any]) -> None:
    print(json.dumps(fact), flush=True)  # noqa: T201 - the server reads it


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.export", description="Export a version as a zip.")
    add_store_flags(parser)
    parser.add_argument("--version", required=True, help="NAME:VERSION")
    parser.add_argument("--to", required=True, help="the format")
    parser.add_argument("--cpu", default="", help="what int8 is for")
    parser.add_argument("--max-drop", type=float, default=MAX_DROP, help="points of accuracy that may be lost")
    parser.add_argument("--out", type=Path, required=True, help="the zip")
    add_limit_flags(parser, 60.0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
