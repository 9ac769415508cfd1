"""The command ``regraft train``."""

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli import terminal, verdict
from regraft.cli.json_output import print_result
from regraft.cli.options import Database, Json, KeepPictures, RunExamples, read_training_flags, with_flags
from regraft.errors import InvalidRequestError
from regraft.label_rules import nfc
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.models import MODEL_FILE, GateMode, ModelStore

if TYPE_CHECKING:  # pydantic, which other commands spare
    from training.settings import TrainSettings


def train() -> Callable[..., None]:
    """Train a classifier on a folder of labelled photos.

    It goes live unless the gate prefers the champion before it. Exit 1 where the gate refused. Under torchrun its
    processes fine-tune together.
    """
    from regraft.cli.settings_flags import flags_of, pop_fields, training_flags  # noqa: PLC0415 - it takes a second, which other commands spare
    from training.settings import DATA, TUNING, TrainSettings  # noqa: PLC0415 - as above
    from training.strategies.finetuning.recipe import FLAG_NAMES, Recipe  # noqa: PLC0415 - as above

    def settings(values: dict[str, Any]) -> TrainSettings:
        changes = pop_fields(Recipe, values, FLAG_NAMES)
        extra_classes = _renamed(values.pop("extra_class") or ())
        return TrainSettings(**read_training_flags(values), extra_classes=extra_classes, changes=changes)

    extra_class = typer.Option(
        metavar="<str>",
        help="A class of --extra that has another name here, as THEIRS=OURS; as often as needed.",
        rich_help_panel=DATA,
    )
    flags = {
        **training_flags(),
        "extra_class": (Annotated[list[str] | None, extra_class], None),
        **flags_of(Recipe, names=FLAG_NAMES, unset=True, section=TUNING),
    }
    return with_flags(_train, "settings", flags, settings)


def _train(
    context: typer.Context,
    settings: "TrainSettings",
    like: Annotated[
        str,
        typer.Option(
            help="NAME or NAME:VERSION in the store, whose whole recipe is repeated; flags that you give go before it."
        ),
    ] = "",
    gate: Annotated[
        GateMode,
        typer.Option(
            help="Where the model has a champion. auto: what the gate blesses goes live. manual: it waits for promote. "
            "off: it goes live anyhow."
        ),
    ] = GateMode.AUTO,
    examples: RunExamples = "",
    database: Database = "",
    keep_pictures: KeepPictures = True,
    as_json: Json = False,
) -> None:
    from training.train import ran_as_follower  # noqa: PLC0415 - as above
    from training.train import train as run  # noqa: PLC0415 - as above
    from training.versions.pictures import ExamplesPlace  # noqa: PLC0415 - as above

    if like:
        settings = _like(settings, like, _typed(context))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if ran_as_follower(settings):
        return
    with terminal.training() as listener:
        place = ExamplesPlace(settings.store, examples, database)
        result = run(settings, listener, gate=gate, examples=place, keep=keep_pictures).to_dict()
    print_result(result, show_result, as_json)
    if not (result["promoted"] or result["verdict"]["blessed"]):
        raise typer.Exit(1)


def _typed(context: typer.Context) -> set[str]:
    """Return the flags that were given, by hand or by the environment."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source is not None and source.name != "DEFAULT"}
    return given | ({"augment"} if "no_augment" in given else set())


def _like(settings: "TrainSettings", like: str, typed: set[str]) -> "TrainSettings":
    """Return the recipe of a version, with the flags that were typed."""
    from regraft.model import artifact  # noqa: PLC0415 - as above, onnx
    from training.like import settings_like  # noqa: PLC0415 - as above

    store = ModelStore(settings.store)
    name, version = store.find(like)
    card = artifact.read(store.folder(name, version) / MODEL_FILE).card
    repeated = settings_like(card, settings, typed)
    flags = ", ".join(f"--{flag.replace('_', '-')}" for flag in sorted(typed - {"data", "like", "store", "name"}))
    terminal.remark(
        f"like {name}:{version}: {repeated.strategy} of {repeated.backbone}" + (f"; yours: {flags}" if flags else "")
    )
    if "extra" in card.recipe and not settings.extra:
        terminal.remark(f"like {name}:{version}: it learned from --extra {card.recipe['extra']} too; this one does not")
    return repeated


def _renamed(pairs: Iterable[str]) -> dict[str, str]:
    """Return the pairs of ``--extra-class THEIRS=OURS``, in one form."""
    renamed: dict[str, str] = {}
    for pair in pairs:
        theirs, equals, ours = (nfc(part.strip()) for part in pair.partition("="))
        if not (theirs and equals and ours):
            raise InvalidRequestError(f"--extra-class: {pair!r}; need THEIRS=OURS, such as kitten=cat")
        if renamed.setdefault(theirs, ours) != ours:
            raise InvalidRequestError(f"--extra-class: {theirs!r} cannot be both {renamed[theirs]!r} and {ours!r}")
    return renamed


def show_result(result: Mapping[str, Any]) -> None:
    """Show what `training.train.TrainResult.to_dict` returns."""
    terminal.left_out(result["left_out"])
    title = f"{result['name']}, version {result['version']}, {result['precision']}"
    classes = terminal.table("class", title=title, numbers=("precision", "recall", "F1", "images"))
    for entry in result["per_class"]:
        shares = (f"{entry[key]:.3f}" for key in ("precision", "recall", "f1"))
        classes.add_row(entry["label"], *shares, str(entry["support"]))
    terminal.out.print(classes)
    if result["accuracy"] is not None:
        low, high = result["accuracy_interval"]
        terminal.line(
            "accuracy ",
            (f"{result['accuracy']:.4f}", "bold"),
            f" (95 % interval {low:.3f} to {high:.3f}), "
            f"macro F1 {result['macro_f1']:.4f}, on {result['holdout_images']} holdout images",
        )
    else:
        terminal.line(("nothing was held out: how good it is on new pictures is not known", "yellow"))
    if result["cross_validation"]:
        validation = result["cross_validation"]
        low, high = validation["accuracy_interval"]
        terminal.line(
            f"cross-validated on the training images, {len(validation['folds'])} folds: {validation['accuracy']:.4f} "
            f"(95 % interval {low:.3f} to {high:.3f})"
        )
    if result["extra"]:
        _extra(result["extra"])
    if result["abstention"]:
        rule = result["abstention"]
        terminal.line(
            f"at most {rule['target_error']:.1%} of the answers given are wrong: {rule['answered']:.1%} are "
            f"given, those surer than {rule['threshold']:.3f}; {rule['error']:.1%} of them were wrong out of fold"
        )
    for note in result["notes"]:
        terminal.line((f"- {note}", "dim"))
    if result["choice"]:
        _choice(result["choice"])
    terminal.line(f"split: {result['split']}; trained on {result['train_images']} images")
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in result["stage_seconds"].items())
    terminal.line(f"{result['seconds']:.1f} seconds: {stages}")
    terminal.line((result["path"], "bold"))
    terminal.line(f"look at it: {result['report']}")
    if result["verdict"]:
        verdict.show_objections(result["verdict"])
    if result["pictures"]:
        show_pictures(result["pictures"])
    if result["promoted"]:
        terminal.line(f"serve it: regraft serve --store {Path(result['path']).parents[2]}{_examples_flag(result)}")
    else:
        verdict.show_not_promoted(result)


def _examples_flag(result: Mapping[str, Any]) -> str:
    """Return the flag by which a server finds pictures that are elsewhere."""
    place = result["pictures"]["place"] if result["pictures"] else ""
    is_elsewhere = place and Path(place) != Path(result["path"]).parents[2] / EXAMPLES_FOLDER
    return f" --examples {place}" if is_elsewhere else ""


def show_pictures(pictures: Mapping[str, Any]) -> None:
    """Show what `training.versions.pictures.KeptPictures.to_dict` returns."""
    if pictures["problem"]:
        terminal.line(
            (f"the pictures are not all kept in {pictures['place']}: {pictures['problem']}", "yellow"),
            "; `regraft refresh` keeps them later",
        )
        return
    linked = f", {pictures['linked']} as hard links" if pictures["linked"] else ""
    aside = [f"; {pictures['removed']} were removed from the examples and stay so"] if pictures["removed"] else []
    aside += [f"; {pictures['changed']} changed since they were read"] if pictures["changed"] else []
    terminal.line(
        f"pictures: {pictures['examples']} are examples in {pictures['place']}{linked}{''.join(aside)}; "
        "see `regraft examples`"
    )


def _choice(choice: Mapping[str, Any]) -> None:
    """Show the candidates of a run, and the reason for its choice."""
    rows = terminal.table(
        f"on {choice['images']} images set aside", numbers=("log loss", "accuracy", "accuracy on the holdout")
    )
    for entry in choice["candidates"]:
        accuracy = entry["holdout_accuracy"]
        name = entry["strategy"] + (", published" if entry["strategy"] == choice["published"] else "")
        rows.add_row(
            name, f"{entry['log_loss']:.3f}", f"{entry['accuracy']:.4f}", "" if accuracy is None else f"{accuracy:.4f}"
        )
    terminal.out.print(rows)
    terminal.line(choice["reason"])


def _extra(extra: Mapping[str, Any]) -> None:
    """Show the gain of a second labelled set, and its skipped files."""
    terminal.line(_joined_text(extra))
    for reason, count in extra["left_out"].items():
        terminal.line((f"  {count} left out: {reason}", "yellow"))
    rows = terminal.table(f"with {extra['images']} images of {extra['folder']}", numbers=("without", "with"))
    rows.add_row("cross-validated accuracy", f"{extra['cv_without']:.4f}", f"{extra['cv_with']:.4f}")
    if extra["holdout_with"] is not None:
        rows.add_row("accuracy on the holdout", f"{extra['holdout_without']:.4f}", f"{extra['holdout_with']:.4f}")
    terminal.out.print(rows)


def _joined_text(extra: Mapping[str, Any]) -> str:
    """Return a line on the pictures of a second set that joined."""
    joined = f"{extra['images']} of {extra['found']} files of {extra['folder']} joined the training images"
    if extra["mean_weight"] == 1:
        return joined
    counted = extra["mean_weight"] * extra["images"]
    return f"{joined}, and count as {counted:.1f} of them (mean weight {extra['mean_weight']:.3f})"
