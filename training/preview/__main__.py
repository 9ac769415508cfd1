"""Process of a look at the next head, ``python -m training.preview``.

A server starts it for `Preview` and `GetLearningCurve`, and ends it when a newer one takes its place. The answer is one
JSON object on standard output, ``{"answer": ...}`` or ``{"error": NAME, "text": ...}`` with a name of `regraft.errors`.
"""

import argparse
import json
import sys
from contextlib import closing
from typing import Any, Final

from regraft.stores.examples import open_examples
from regraft.stores.models import ModelStore
from training.child_process import add_database_flag, add_limit_flags, add_store_flags, answer_of, begin
from training.preview.preview import curve_of, preview

_CURVE: Final = "curve"


def main(arguments: list[str] | None = None) -> int:
    """Look at the next head, and print the answer.

    Returns:
        The exit code: 0 where there is an answer, 1 where an error is it.
    """
    options = _parser().parse_args(arguments)
    begin(options)
    answer = answer_of(_look, options)
    json.dump(answer, sys.stdout, allow_nan=False)
    return 0 if "answer" in answer else 1


def _look(options: argparse.Namespace) -> dict[str, Any]:
    with closing(open_examples(options.store, options.examples, options.database)) as examples:
        look = curve_of if options.what == _CURVE else preview
        return look(ModelStore(options.store), examples, options.name).to_dict()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.preview", description="Look at a model's next head.")
    add_store_flags(parser)
    add_database_flag(parser)
    parser.add_argument("--name", required=True, help="the model")
    what = ["preview", _CURVE]
    parser.add_argument("--what", choices=what, default="preview", help="the head, or only the learning curve")
    add_limit_flags(parser, 2.0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
