"""The command ``regraft train``."""

import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from regraft.cli import terminal, verdict
from regraft.cli.json_output import print_json
from regraft.cli.options import (
    TUNING,
    Augment,
    Batch,
    Epochs,
    Freeze,
    GateExamples,
    HeadLr,
    Init,
    Json,
    Lr,
    Mirror,
    NoAugment,
    Optimizer,
    Resize,
    Store,
    share_of,
    strength_of,
)
from regraft.errors import InvalidRequestError
from regraft.label_rules import one_form
from regraft.stores.models import MODEL_FILE, GateMode, ModelStore

_Data = Annotated[
    Path,
    typer.Argument(
        help="A folder of images for each class, or train/ and val/ of such; or a list, .csv, .jsonl or .parquet, "
        "with columns file and label, and if you like split, group, source and weight."
    ),
]
_Seed = Annotated[int, typer.Option(help="Of everything that is random.")]
_Weights = Annotated[str, typer.Option(help="default, none, or the file of a state dict.")]
_LOOKING: Final = "Looking closer"
_DATA: Final = "More from the data"


def train(
    context: typer.Context,
    data: _Data,
    name: Annotated[str, typer.Option(help="Name of the model; the folder's if not given.")] = "",
    store: Store = Path("models"),
    backbone: Annotated[
        str, typer.Option(help="See `regraft backbones`; store:NAME[:VERSION] goes on from a version of the store.")
    ] = "efficientnet_lite0",
    weights: _Weights = "default",
    image_px: Annotated[
        int | None, typer.Option(min=1, help="Side of the input; the network's own if not given.")
    ] = None,
    resize: Resize = None,
    like: Annotated[
        str,
        typer.Option(
            help="NAME or NAME:VERSION in the store, whose whole recipe is repeated; flags that you give go before it."
        ),
    ] = "",
    strategy: Annotated[
        str,
        typer.Option(
            help="probe: a head on the frozen backbone. finetune: then the backbone too, and the better of both is "
            "published. scratch: random weights. auto: finetune where the probe leaves room for it and --max-minutes "
            "the time."
        ),
    ] = "probe",
    precision: Annotated[
        str,
        typer.Option(
            help="fp32. int8: faster on most CPUs, calibrated on training images. auto: int8 where it is faster here "
            "and nothing is lost."
        ),
    ] = "fp32",
    target_error: Annotated[
        str,
        typer.Option(
            help="Abstain from unsure answers, so that at most this share of those given is wrong, such as 2%."
        ),
    ] = "",
    seed: _Seed = 0,
    cv: Annotated[
        int, typer.Option(help="Cross-validate the strategy in so many folds.", rich_help_panel=_LOOKING)
    ] = 0,
    tensorboard: Annotated[
        bool, typer.Option(help="Write events where TensorBoard is installed.", rich_help_panel=_LOOKING)
    ] = True,
    mlflow: Annotated[str, typer.Option(help="URI of an MLflow server.", rich_help_panel=_LOOKING)] = "",
    balance: Annotated[
        str,
        typer.Option(help="on: classes weigh the same; auto: half-way, where counts differ.", rich_help_panel=_DATA),
    ] = "auto",
    views: Annotated[
        int, typer.Option(help="Further views of each training image for the probe.", rich_help_panel=_DATA)
    ] = 0,
    extra: Annotated[
        Path | None, typer.Option(help="A second labelled folder that joins.", rich_help_panel=_DATA)
    ] = None,
    extra_class: Annotated[
        list[str] | None,
        typer.Option(
            help="A class of it that has another name here, as THEIRS=OURS; as often as needed.", rich_help_panel=_DATA
        ),
    ] = None,
    extra_weighting: Annotated[
        bool, typer.Option("--extra-weighting", help="It counts as far as it is like the first.", rich_help_panel=_DATA)
    ] = False,
    group_by: Annotated[
        str,
        typer.Option(
            help="Keeps pictures together in every split: a pattern over their paths whose first group they share, "
            "such as 'patient_([0-9]+)', or parent, for those of one folder.",
            rich_help_panel=_DATA,
        ),
    ] = "",
    init: Init = "head",
    freeze: Freeze = None,
    epochs: Epochs = None,
    batch: Batch = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Steps whose gradients are added up.", rich_help_panel=TUNING)
    ] = None,
    optimizer: Optimizer = None,
    lr: Lr = None,
    head_lr: HeadLr = None,
    layer_decay: Annotated[
        float | None, typer.Option(min=0, max=1, help="From stage to stage.", rich_help_panel=TUNING)
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0, rich_help_panel=TUNING)] = None,
    label_smoothing: Annotated[float | None, typer.Option(min=0, max=1, rich_help_panel=TUNING)] = None,
    mixup: Annotated[float | None, typer.Option(min=0, help="Alpha; 0 for none.", rich_help_panel=TUNING)] = None,
    cutmix: Annotated[float | None, typer.Option(min=0, help="Alpha; 0 for none.", rich_help_panel=TUNING)] = None,
    augment: Augment = "full",
    no_augment: NoAugment = False,
    mirror: Mirror = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Epochs without gain before it ends.", rich_help_panel=TUNING)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint of an interrupted run.", rich_help_panel=TUNING)
    ] = False,
    keep_state: Annotated[
        bool,
        typer.Option(
            help="Keep the trained weights beside the version, for --backbone store:NAME.", rich_help_panel=TUNING
        ),
    ] = True,
    publish: Annotated[
        str,
        typer.Option(
            help="Of finetune: better, which may be the probe that it began with; or finetuned, however it fared.",
            rich_help_panel=TUNING,
        ),
    ] = "better",
    max_minutes: Annotated[
        float, typer.Option(min=0, help="The longest fine-tuning that `auto` starts.", rich_help_panel=TUNING)
    ] = 30,
    gate: Annotated[
        GateMode,
        typer.Option(
            help="Where the model has a champion. auto: what the gate blesses goes live. manual: it waits for promote. "
            "off: it goes live anyhow."
        ),
    ] = GateMode.AUTO,
    examples: GateExamples = "",
    as_json: Json = False,
) -> None:
    """Train a classifier on a folder of labelled photos; it goes live unless the gate prefers the champion before it.

    Exit 1 where the gate refused. Under torchrun its processes fine-tune together.
    """
    from training.settings import TrainSettings  # noqa: PLC0415 - scikit-learn takes a second
    from training.train import ran_as_follower  # noqa: PLC0415 - likewise
    from training.train import train as run  # noqa: PLC0415 - likewise

    changes: dict[str, Any] = {
        "freeze": freeze,
        "epochs": epochs,
        "batch": batch,
        "accumulate": accumulate,
        "optimizer": optimizer,
        "backbone_lr": lr,
        "head_lr": head_lr,
        "layer_decay": layer_decay,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "mixup": mixup,
        "cutmix": cutmix,
        "patience": patience,
    }
    settings = TrainSettings(
        data,
        name,
        store,
        backbone,
        weights,
        strategy,  # type: ignore[arg-type]  # checked there, as are the next two
        seed,
        image_px=image_px,
        resize=resize,  # type: ignore[arg-type]
        cv=cv,
        init=init,  # type: ignore[arg-type]
        balance=balance,  # type: ignore[arg-type]
        views=views,
        extra=extra,
        extra_classes=_renamed(extra_class or ()),
        extra_weighting=extra_weighting,
        augment=strength_of(augment, no_augment=no_augment),
        mirror=mirror,
        changes={key: value for key, value in changes.items() if value is not None},
        resume=resume,
        publish=publish,  # type: ignore[arg-type]  # likewise
        max_minutes=max_minutes,
        tensorboard=tensorboard,
        mlflow=mlflow,
        precision=precision,  # type: ignore[arg-type]
        target_error=share_of(target_error, "--target-error") if target_error else None,
        group_by=group_by,
        keep_state=keep_state,
    )
    if like:
        settings = _like(settings, like, _typed(context))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if ran_as_follower(settings):
        return
    with terminal.training() as listener:
        result = run(settings, listener, gate=gate, examples=examples).to_dict()
    if as_json:
        print_json(result)
    else:
        show_result(result)
    if not (result["promoted"] or result["verdict"]["blessed"]):
        raise typer.Exit(1)


def _typed(context: typer.Context) -> set[str]:
    """Return the names of the flags that were given, by hand or by the environment."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source is not None and source.name != "DEFAULT"}
    return given | ({"augment"} if "no_augment" in given else set())


def _like(settings: Any, like: str, typed: set[str]) -> Any:  # noqa: ANN401 - training's settings, which take a second
    from regraft.model import artifact  # noqa: PLC0415 - onnx, likewise
    from training.like import settings_like  # noqa: PLC0415 - likewise

    store = ModelStore(settings.store)
    name, version = store.find(like)
    card = artifact.read(store.folder(name, version) / MODEL_FILE).card
    found = settings_like(card, settings, typed)
    yours = ", ".join(f"--{flag.replace('_', '-')}" for flag in sorted(typed - {"data", "like", "store", "name"}))
    terminal.remark(
        f"like {name}:{version}: {found.strategy} of {found.backbone}" + (f"; yours: {yours}" if yours else "")
    )
    if "extra" in card.recipe and not settings.extra:
        terminal.remark(f"like {name}:{version}: it learned from --extra {card.recipe['extra']} too; this one does not")
    return found


def _renamed(pairs: Iterable[str]) -> dict[str, str]:
    """Return what ``--extra-class THEIRS=OURS`` says, in one form."""
    renamed: dict[str, str] = {}
    for pair in pairs:
        theirs, equals, ours = (one_form(part.strip()) for part in pair.partition("="))
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
        kept = result["abstention"]
        terminal.line(
            f"at most {kept['target_error']:.1%} of the answers given are wrong: {kept['answered']:.1%} are given, "
            f"those surer than {kept['threshold']:.3f}; {kept['error']:.1%} of them were wrong out of fold"
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
    if result["promoted"]:
        terminal.line(f"serve it: regraft serve --store {Path(result['path']).parents[2]}")
    else:
        verdict.show_not_promoted(result)


def _choice(choice: Mapping[str, Any]) -> None:
    """Show what a run could have published, and why it took what it took."""
    rows = terminal.table(
        f"on {choice['images']} images set aside", numbers=("log loss", "accuracy", "accuracy on the holdout")
    )
    for entry in choice["candidates"]:
        held = entry["holdout_accuracy"]
        name = entry["strategy"] + (", published" if entry["strategy"] == choice["published"] else "")
        rows.add_row(
            name, f"{entry['log_loss']:.3f}", f"{entry['accuracy']:.4f}", "" if held is None else f"{held:.4f}"
        )
    terminal.out.print(rows)
    terminal.line(choice["reason"])


def _extra(extra: Mapping[str, Any]) -> None:
    """Show what a second labelled set brought, and what of it took no part."""
    terminal.line(_joined_text(extra))
    for reason, count in extra["left_out"].items():
        terminal.line((f"  {count} left out: {reason}", "yellow"))
    rows = terminal.table(f"with {extra['images']} images of {extra['folder']}", numbers=("without", "with"))
    rows.add_row("cross-validated accuracy", f"{extra['cv_without']:.4f}", f"{extra['cv_with']:.4f}")
    if extra["holdout_with"] is not None:
        rows.add_row("accuracy on the holdout", f"{extra['holdout_without']:.4f}", f"{extra['holdout_with']:.4f}")
    terminal.out.print(rows)


def _joined_text(extra: Mapping[str, Any]) -> str:
    """Return a line on the pictures of a second set that joined.

    It also says for how many they count.
    """
    joined = f"{extra['images']} of {extra['found']} files of {extra['folder']} joined the training images"
    if extra["mean_weight"] == 1:
        return joined
    counted = extra["mean_weight"] * extra["images"]
    return f"{joined}, and count as {counted:.1f} of them (mean weight {extra['mean_weight']:.3f})"
