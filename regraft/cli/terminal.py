"""Lines, tables and progress bars on the terminal, for people."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from regraft.files import storage_errors
from regraft.progress import Round, Rounds, progress_lines

# No markup: labels, file names and messages are other people's text, and '[cpu]' is not a style.
# No soft limit of 80 columns where the output is a file or a pipe: tables would be cut.
out: Final = Console(soft_wrap=True, highlight=False, markup=False, width=None if sys.stdout.isatty() else 140)
err: Final = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)

_LEFT_OUT_LINES: Final = 50


def line(*parts: str | tuple[str, str]) -> None:
    """Print a line of plain and (text, style) parts."""
    out.print(Text.assemble(*parts))


def table(*columns: str, title: str | None = None, numbers: Sequence[str] = ()) -> Table:
    """Return an empty table.

    Args:
        columns: aligned to the left.
        title: above it.
        numbers: columns that follow, aligned to the right.
    """
    rows = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in numbers:
        rows.add_column(column, justify="right")
    return rows


def error(text: str) -> None:
    """Print an error to standard error."""
    err.print(Text.assemble(("error: ", "red"), text))


def remark(text: str) -> None:
    """Print a remark to standard error."""
    err.print(Text(text))


def write_page(file: Path, page: str, flag: str) -> None:
    """Write a page, and print its path to standard error.

    Raises:
        StorageError: it cannot be written; the text names the flag.
    """
    with storage_errors(f"{flag} {file}"):
        file.write_text(page, encoding="utf-8", errors="backslashreplace")
    remark(f"look at it: {file}")


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callable (stage, done, total) that shows progress.

    Each stage has a bar on a terminal, a line elsewhere.
    """
    if not err.is_terminal:
        with progress_lines(err.print) as tell:
            yield tell
        return
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as bars:
        rounds = Rounds()
        tasks: dict[str, tuple[Round, TaskID]] = {}

        def draw(stage: str, done: int, total: int) -> None:
            current, _ = rounds.update(stage, done, total)
            if not total:
                return
            if stage not in tasks or tasks[stage][0] is not current:  # begun anew, it has a bar of its own
                tasks[stage] = current, bars.add_task(stage, total=total)
            bars.update(tasks[stage][1], completed=done, total=total)

        yield draw


@contextmanager
def training() -> Iterator["TrainingView"]:
    """Yield a listener for a training run, see `training.strategies.context.Listener`."""
    with progress_bars() as progress:
        yield TrainingView(progress)


class TrainingView:
    """The progress of a training run: bars, epochs, decisions."""

    def __init__(self, progress: Callable[[str, int, int], None]) -> None:
        """Show progress with these bars."""
        self.progress = progress

    def epoch(self, epoch: Any, epochs: int) -> None:  # noqa: ANN401 - a training.evaluation.findings.Epoch
        """Show the figures of an epoch."""
        if epoch.number == 0:
            remark(
                f"to begin with, on images set aside: loss {epoch.tune_loss:.3f}, accuracy {epoch.tune_accuracy:.3f}; "
                f"{epochs} epochs at most"
            )
            return
        remark(
            f"epoch {epoch.number:>3} of {epochs}: loss {epoch.train_loss:.3f}; on images set aside: "
            f"loss {epoch.tune_loss:.3f}, accuracy {epoch.tune_accuracy:.3f}; {epoch.seconds:.0f} s"
        )

    def note(self, text: str) -> None:
        """Show a decision."""
        remark(text)


def left_out(
    entries: Sequence[Mapping[str, str]], rest: str = "all are in report.html beside the model, and in --json"
) -> None:
    """Show the files that were left out, with their reasons.

    ``rest`` says where those are that do not fit.
    """
    if not entries:
        return
    line((f"{len(entries)} file(s) left out:", "yellow"))
    for entry in entries[:_LEFT_OUT_LINES]:
        line(f"  {entry['file']}: {entry['reason']}")
    if len(entries) > _LEFT_OUT_LINES:
        line(f"  and {len(entries) - _LEFT_OUT_LINES} more; {rest}")
