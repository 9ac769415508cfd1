"""Child processes of a server: flags, priority, answers."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regraft.client.proxies import spare_loopback
from regraft.errors import RegraftError, TrainingError
from regraft.logs import FORMATS, LEVELS, write_log
from regraft.stores.images import EXAMPLES_FOLDER
from training.retrain.resource_limits import limited, lower_priority


def add_store_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where the stores are."""
    parser.add_argument("--store", type=Path, required=True, help="the model store")
    parser.add_argument(
        "--examples",
        default=os.environ.get("REGRAFT_EXAMPLES", ""),
        help=f"the examples: a folder, or a URL (default: REGRAFT_EXAMPLES, or {EXAMPLES_FOLDER} in the model store)",
    )


def add_database_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag that says where the examples' database is."""
    parser.add_argument(
        "--database",
        default=os.environ.get("REGRAFT_DATABASE", ""),
        help="URL of the examples' database (default: REGRAFT_DATABASE, or SQLite inside the store)",
    )


def add_limit_flags(parser: argparse.ArgumentParser, minutes: float) -> None:
    """Add the flags of the limits and of the log."""
    parser.add_argument(
        "--minutes", type=float, default=minutes, help="the longest that it may take (default: %(default)g)"
    )
    parser.add_argument("--cpus", type=int, default=0, help="how many CPUs it may use (default: all)")
    parser.add_argument("--memory-mb", type=int, default=0, help="how much memory it may have (default: any)")
    for flag, choices, usual in (("format", FORMATS, "text"), ("level", LEVELS, "info")):
        default = os.environ.get(f"REGRAFT_LOG_{flag.upper()}", usual)
        parser.add_argument(f"--log-{flag}", choices=choices, default=default, help="of the log (default: %(default)s)")


def begin(options: argparse.Namespace) -> None:
    """Write the log as asked for, and yield to the server."""
    write_log(options.log_format, options.log_level)
    lower_priority(options.cpus)
    spare_loopback()


def answer_of(work: Callable[[argparse.Namespace], dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Run the work of a process within its limits.

    Returns:
        ``{"answer": ...}``, or ``{"error": NAME, "text": ...}`` with a name of `regraft.errors`.
    """
    try:
        with limited(options.minutes, options.memory_mb):
            return {"answer": work(options)}
    except RegraftError as error:
        return {"error": type(error).__name__, "text": str(error)}
    except MemoryError:
        return {"error": TrainingError.__name__, "text": "it needs more memory than there is"}
