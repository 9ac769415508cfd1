"""Process of a look at the next head, ``python -m training.preview``.

A server starts it for `Preview` and `GetLearningCurve`, and ends it when a newer one takes its place. The answer is one
JSON object on standard output, ``{"answer": ...}`` or ``{"error": NAME, "text": ...}`` with a name of `regraft.errors`.
"""

import argparse
import json
import logging
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from regraft.client.proxies import spare_loopback
from regraft.errors import RegraftError, TrainingError
from regraft.logs import FORMATS, LEVELS, write_log
from regraft.stores.examples import open_examples
from regraft.stores.models import ModelStore
from training.preview.preview import curve_of, preview
from training.retrain.resource_limits import limited, lower_priority

log = logging.getLogger("regraft.preview")

_CURVE: Final = "curve"


def main(arguments: list[str] | None = None) -> int:
    """Look, and write the answer.

    Returns:
        The exit code: 0 where there is an answer, 1 where an error is it.
    """
    options = _parser().parse_args(arguments)
    write_log(options.log_format, options.log_level)
    lower_priority(options.cpus)
    spare_loopback()
    try:
        answer: dict[str, Any] = {"answer": _look(options)}
    except RegraftError as error:
        answer = {"error": type(error).__name__, "text": str(error)}
    except MemoryError:
        answer = {"error": TrainingError.__name__, "text": "it needs more memory than there is"}
    json.dump(answer, sys.stdout, allow_nan=False)
    return 0 if "answer" in answer else 1


def _look(options: argparse.Namespace) -> dict[str, Any]:
    with (
        limited(options.minutes, options.memory_mb),
        closing(open_examples(options.store, options.examples, options.database)) as examples,
    ):
        look = curve_of if options.what == _CURVE else preview
        return look(ModelStore(options.store), examples, options.name).to_dict()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.preview", description="Look at a model's next head.")
    parser.add_argument("--store", type=Path, required=True, help="the model store")
    parser.add_argument("--examples", default=os.environ.get("REGRAFT_EXAMPLES", ""), help="as of training.retrain")
    parser.add_argument("--database", default=os.environ.get("REGRAFT_DATABASE", ""), help="as of training.retrain")
    parser.add_argument("--name", required=True, help="the model")
    what = ["preview", _CURVE]
    parser.add_argument("--what", choices=what, default="preview", help="the head, or only the learning curve")
    parser.add_argument("--minutes", type=float, default=2.0, help="the longest that it may take (default: 2)")
    parser.add_argument("--cpus", type=int, default=0, help="how many CPUs it may use (default: all)")
    parser.add_argument("--memory-mb", type=int, default=0, help="how much memory it may have (default: any)")
    for flag, choices, usual in (("format", FORMATS, "text"), ("level", LEVELS, "info")):
        default = os.environ.get(f"REGRAFT_LOG_{flag.upper()}", usual)
        parser.add_argument(f"--log-{flag}", choices=choices, default=default, help="of the log (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
