"""What people see on the terminal: progress bars, tables. Machines get JSON instead, from `regraft.cli.main`."""

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
from regraft.progress import Round, Rounds, told_in_lines
from regraft.v1 import models_pb2

# No markup: labels, file names and messages are other people's text, and '[cpu]' is not a style.
# No soft limit of 80 columns where the output is a file or a pipe: tables would be cut.
out: Final = Console(soft_wrap=True, highlight=False, markup=False, width=None if sys.stdout.isatty() else 140)
err: Final = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)

_LEFT_OUT_LINES: Final = 50


def line(*parts: str | tuple[str, str]) -> None:
    """Print a line of plain and (text, style) parts."""
    out.print(Text.assemble(*parts))


def table(*columns: str, title: str | None = None, numbers: Sequence[str] = ()) -> Table:
    """Return an empty table with ``columns``, then ``numbers``, which are aligned to the right."""
    made = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in numbers:
        made.add_column(column, justify="right")
    return made


def error(text: str) -> None:
    """Print what went wrong to standard error."""
    err.print(Text.assemble(("error: ", "red"), text))


def remark(text: str) -> None:
    """Print to standard error what belongs to no result."""
    err.print(Text(text))


def write_page(file: Path, page: str, flag: str) -> None:
    """Write a page, and say to standard error where it is.

    Raises:
        StorageError: it cannot be written; the text names the flag.
    """
    with storage_errors(f"{flag} {file}"):
        file.write_text(page, encoding="utf-8", errors="backslashreplace")
    remark(f"look at it: {file}")


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callable (stage, done, total): a bar for each stage on a terminal, a line for each elsewhere."""
    if not err.is_terminal:
        with told_in_lines(err.print) as tell:
            yield tell
        return
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as bars:
        rounds = Rounds()
        tasks: dict[str, tuple[Round, TaskID]] = {}

        def draw(stage: str, done: int, total: int) -> None:
            heard, _ = rounds.hear(stage, done, total)
            if not total:
                return
            if stage not in tasks or tasks[stage][0] is not heard:  # begun anew, it has a bar of its own
                tasks[stage] = heard, bars.add_task(stage, total=total)
            bars.update(tasks[stage][1], completed=done, total=total)

        yield draw


@contextmanager
def training() -> Iterator["TrainingView"]:
    """Yield a listener for a training run, see `training.strategies.context.Listener`."""
    with progress_bars() as progress:
        yield TrainingView(progress)


class TrainingView:
    """Shows how far a training run is: bars, a line for each epoch, and what was decided."""

    def __init__(self, progress: Callable[[str, int, int], None]) -> None:
        """Show with these bars."""
        self.progress = progress

    def epoch(self, epoch: Any, epochs: int) -> None:  # noqa: ANN401 - a training.findings.Epoch
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
        """Show what was decided."""
        remark(text)


def training_result(result: Mapping[str, Any]) -> None:
    """Show what `training.train.TrainResult.to_dict` returns."""
    left_out(result["left_out"])
    title = f"{result['name']}, version {result['version']}, {result['precision']}"
    classes = table("class", title=title, numbers=("precision", "recall", "F1", "images"))
    for entry in result["per_class"]:
        shares = (f"{entry[key]:.3f}" for key in ("precision", "recall", "f1"))
        classes.add_row(entry["label"], *shares, str(entry["support"]))
    out.print(classes)
    if result["accuracy"] is not None:
        low, high = result["accuracy_interval"]
        line(
            "accuracy ",
            (f"{result['accuracy']:.4f}", "bold"),
            f" (95 % interval {low:.3f} to {high:.3f}), "
            f"macro F1 {result['macro_f1']:.4f}, on {result['holdout_images']} holdout images",
        )
    else:
        line(("nothing was held out: how good it is on new pictures is not known", "yellow"))
    if result["cross_validation"]:
        validation = result["cross_validation"]
        low, high = validation["accuracy_interval"]
        line(
            f"cross-validated on the training images, {len(validation['folds'])} folds: {validation['accuracy']:.4f} "
            f"(95 % interval {low:.3f} to {high:.3f})"
        )
    if result["extra"]:
        _extra(result["extra"])
    if result["abstention"]:
        kept = result["abstention"]
        line(
            f"at most {kept['target_error']:.1%} of the answers given are wrong: {kept['answered']:.1%} are given, "
            f"those surer than {kept['threshold']:.3f}; {kept['error']:.1%} of them were wrong out of fold"
        )
    for note in result["notes"]:
        line((f"- {note}", "dim"))
    if result["choice"]:
        _choice(result["choice"])
    line(f"split: {result['split']}; trained on {result['train_images']} images")
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in result["stage_seconds"].items())
    line(f"{result['seconds']:.1f} seconds: {stages}")
    line((result["path"], "bold"))
    line(f"look at it: {result['report']}")
    if result["verdict"]:
        objections(result["verdict"])
    if result["promoted"]:
        line(f"serve it: regraft serve --store {Path(result['path']).parents[2]}")
    else:
        not_promoted(result)


def objections(verdict: Mapping[str, Any]) -> None:
    """Show why the gate would not let a version go live."""
    for reason in verdict["reasons"]:
        line(("the gate objects: ", "yellow"), reason)


def not_promoted(result: Mapping[str, Any]) -> None:
    """Show the command that lets a published version serve."""
    line(f"version {result['version']} is published, not promoted:")
    line((f"regraft models promote {result['version']} --name {result['name']}", "bold"))


def _choice(choice: Mapping[str, Any]) -> None:
    """Show what a run could have published, and why it took what it took."""
    rows = table(f"on {choice['images']} images set aside", numbers=("log loss", "accuracy", "accuracy on the holdout"))
    for entry in choice["candidates"]:
        held = entry["holdout_accuracy"]
        name = entry["strategy"] + (", published" if entry["strategy"] == choice["published"] else "")
        rows.add_row(
            name, f"{entry['log_loss']:.3f}", f"{entry['accuracy']:.4f}", "" if held is None else f"{held:.4f}"
        )
    out.print(rows)
    line(choice["reason"])


def _extra(extra: Mapping[str, Any]) -> None:
    """Show what a second labelled set brought, and what of it took no part."""
    line(extra_took_part(extra))
    for reason, count in extra["left_out"].items():
        line((f"  {count} left out: {reason}", "yellow"))
    rows = table(f"with {extra['images']} images of {extra['folder']}", numbers=("without", "with"))
    rows.add_row("cross-validated accuracy", f"{extra['cv_without']:.4f}", f"{extra['cv_with']:.4f}")
    if extra["holdout_with"] is not None:
        rows.add_row("accuracy on the holdout", f"{extra['holdout_without']:.4f}", f"{extra['holdout_with']:.4f}")
    out.print(rows)


def extra_took_part(extra: Mapping[str, Any]) -> str:
    """Return a line on the pictures of a second set that joined.

    It also says for how many they count.
    """
    joined = f"{extra['images']} of {extra['found']} files of {extra['folder']} joined the training images"
    if extra["mean_weight"] == 1:
        return joined
    counted = extra["mean_weight"] * extra["images"]
    return f"{joined}, and count as {counted:.1f} of them (mean weight {extra['mean_weight']:.3f})"


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


def classification(result: Mapping[str, Any]) -> None:
    """Show one picture's answer on a line, with its runners-up."""
    if "error" in result:
        line((result["file"], "red"), f": {result['error']}")
        return
    first, *others = result["predictions"]
    rest = ", ".join(f"{entry['label']} {entry['probability']:.3f}" for entry in others)
    mark = "  unlike the training images" if result["novelty"]["is_novel"] else ""
    unsure = f"  abstains: less sure than {result['abstention']['threshold']:.3f}" if result["abstain"] else ""
    line(
        f"{result['file']}: ",
        (f"{first['label']} {first['probability']:.3f}", "bold"),
        (f"  {rest}", "dim"),
        (unsure + mark, "yellow"),
        (f"  version {result['version']}, {result['timings_ms']['total']:.1f} ms", "dim"),
    )


def models(entries: Sequence[models_pb2.Model]) -> None:
    """Show models, one a line."""
    if not entries:
        line("no models yet: train one with `regraft train`")
        return
    rows = table("model", "versions", "provider", numbers=("serves", "champion", "labels", "examples"))
    for model in entries:
        rows.add_row(
            model.name,
            ", ".join(map(str, model.versions)),
            model.provider,
            str(model.served_version or "nothing"),
            str(model.champion or "none"),
            str(len(model.labels)),
            str(model.examples) if model.HasField("examples") else "unknown",
        )
    out.print(rows)
    for model in entries:
        if model.problem:
            line((f"{model.name}: {model.problem}", "red"))


def model(entry: models_pb2.Model, card: Mapping[str, Any]) -> None:
    """Show one model with its card and history."""
    models([entry])
    if entry.fallback_reason:
        line((f"not on CUDA: {entry.fallback_reason}", "yellow"))
    if card:
        metrics = card["metrics"]
        backbone = card["backbone"]
        line(f"labels: {', '.join(card['labels'])}")
        precision = backbone.get("precision", "fp32")  # a server of an earlier Regraft does not say it
        made = f"{card['strategy']}, {precision}, {card['train_images']} images"
        line(f"backbone: {backbone['name']} ({backbone['weights']}), {made}")
        if sources := backbone.get("sources"):
            told = (f"{each['name']}:{each['version']} (backbone {each['digest'][:12]})" for each in sources)
            line(f"went on from {', then '.join(told)}")
        if state := backbone.get("state"):
            line(f"weights kept to go on from: {state['size_bytes'] / 1e6:.1f} MB")
        if metrics:
            low, high = metrics["accuracy_interval"]
            line(f"accuracy {metrics['accuracy']:.4f} ({low:.3f} to {high:.3f}) on {metrics['images']} holdout images")
    rows = table("when", "event", "who", "why", title="history", numbers=("version", "before"))
    for event in entry.history:
        rows.add_row(event.at, event.event, event.who, event.why, str(event.version), str(event.previous or ""))
    rows.columns[0].no_wrap = True
    out.print(rows)
