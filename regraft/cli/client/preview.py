"""The commands ``regraft preview`` and ``regraft examples curve``."""

from collections.abc import Iterable

from rich.table import Table

from regraft.cli import terminal
from regraft.cli.json_output import message_to_dict, print_json
from regraft.cli.options import Json, Name, asks_a_server
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.v1 import examples_pb2, retraining_pb2

_BAR = 40
_WORST = 10


@asks_a_server
def curve(server: Connection, name: Name = "", as_json: Json = False) -> None:
    """Tell what more labels should bring.

    A learning curve of all that is labelled, with a forecast for 50, 100 and 200 labels more.
    """
    with Client(server) as client:
        found = client.learning_curve(name=name)
    if as_json:
        print_json(message_to_dict(found))
    else:
        _show_curve(found)


@asks_a_server
def preview(server: Connection, name: Name = "", as_json: Json = False) -> None:
    """Look at the head that a retrain would make now.

    Nothing is published, and no request waits for it.
    """
    with Client(server) as client:
        seen = client.preview(name=name)
    if as_json:
        print_json(message_to_dict(seen))
        return
    terminal.line(
        f"{seen.name}: ",
        (f"{seen.accuracy:.1%}", "bold"),
        f" right ({seen.accuracy_low:.1%} to {seen.accuracy_high:.1%}) of {seen.train_images + seen.holdout_images} "
        "pictures, each answered by a head that was not fitted on it",
    )
    if seen.HasField("holdout_accuracy"):
        terminal.line(f"on the {seen.holdout_images} held-out pictures alone: {seen.holdout_accuracy:.1%}")
    if seen.champion:
        terminal.line(f"{seen.new_images} labels are new to version {seen.champion}")
    else:
        terminal.line("it would be the first version")
    if seen.not_embedded:
        terminal.line((f"{seen.not_embedded} pictures are not embedded yet, and take no part", "yellow"))
    _show_classes(seen)
    _show_mistakes(seen)
    if seen.suspects:
        terminal.line(
            (f"{len(seen.suspects)} labels are likely wrong, and would go into quarantine", "yellow"),
            f"; the first: {seen.suspects[0].sha256[:12]}, called {seen.suspects[0].label}, read as "
            f"{seen.suspects[0].answer}",
        )
    for remark in (*seen.remarks, *seen.verdict.cautions):
        terminal.line(remark)
    _show_curve(seen.learning_curve)
    if seen.verdict.blessed:
        terminal.line(("the gate would bless it", "green"), ": regraft retrain")
    else:
        terminal.line(("the gate would refuse it", "red"), ": " + "; ".join(seen.verdict.reasons))


def _show_classes(seen: retraining_pb2.Preview) -> None:
    rows = terminal.table("class", numbers=("pictures", "precision", "recall", "F1"))
    for entry in sorted(seen.classes, key=lambda entry: entry.f1):
        rows.add_row(entry.label, str(entry.images), f"{entry.precision:.3f}", f"{entry.recall:.3f}", f"{entry.f1:.3f}")
    terminal.out.print(rows)


def _show_mistakes(seen: retraining_pb2.Preview) -> None:
    """Show the largest cells beside the diagonal, with a picture each."""
    wrong = [cell for cell in seen.cells if cell.label != cell.answer]
    if not wrong:
        return
    rows = terminal.table("called", "read as", "such as", numbers=("pictures",), title="mistakes")
    for cell in wrong[:_WORST]:
        rows.add_row(cell.label, cell.answer, cell.sha256[0][:12], str(cell.images))
    terminal.out.print(rows)


def _show_curve(found: examples_pb2.LearningCurve) -> None:
    if found.points:
        rows = terminal.table("", numbers=("labels", "right", "95 %"), title="learning curve")
        for point in found.points:
            interval = f"{point.accuracy_low:.1%} to {point.accuracy_high:.1%}"
            rows.add_row("#" * round(_BAR * point.accuracy), str(point.labels), f"{point.accuracy:.1%}", interval)
        terminal.out.print(rows)
    if found.forecasts:
        rows = terminal.table(
            "class", numbers=("right now", "more labels", "right then", "9 in 10 times", "gain"), title="forecast"
        )
        _add_forecasts(rows, "all", found.points, found.forecasts)
        for entry in found.weakest:
            _add_forecasts(rows, entry.label, entry.points, entry.forecasts)
        terminal.out.print(rows)
    for sentence in found.unknown:
        terminal.line(sentence)


def _add_forecasts(
    rows: Table,
    label: str,
    points: Iterable[examples_pb2.LearningCurve.Point],
    forecasts: Iterable[examples_pb2.LearningCurve.Forecast],
) -> None:
    *_, last = points
    for forecast in forecasts:
        interval = f"{forecast.accuracy_low:.1%} to {forecast.accuracy_high:.1%}"
        rows.add_row(
            label,
            f"{last.accuracy:.1%}",
            f"+{forecast.more}",
            f"{forecast.accuracy:.1%}",
            interval,
            f"{100 * forecast.gain:+.1f} points",
        )
