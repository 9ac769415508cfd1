"""Tables of ``regraft evaluate`` in the terminal."""

from collections.abc import Mapping
from typing import Any, Final

from regraft.cli import terminal

_CLASSES: Final = 40
_MATRIX: Final = 8
_MISTAKES: Final = 8
_CONFUSIONS: Final = 8


def evaluation(result: Mapping[str, Any]) -> None:
    """Show what `training.evaluation.evaluate.Result.to_dict` returns."""
    terminal.left_out(result["left_out"], "all are in --report and in --json")
    terminal.line(f"{result['images']} pictures of {result['data']}, {result['split']}")
    for each in result["models"]:
        _model(each)
    if result["paired"]:
        _paired(result["paired"], [each["model"] for each in result["models"]])


def _model(found: Mapping[str, Any]) -> None:
    metrics = found["metrics"]
    _classes(found, metrics)
    _confusion(metrics)
    low, high = metrics["accuracy_interval"]
    terminal.line(
        "accuracy ",
        (f"{metrics['accuracy']:.4f}", "bold"),
        f" (95 % interval {low:.3f} to {high:.3f}), macro F1 {metrics['macro_f1']:.4f}, log loss "
        f"{metrics['log_loss']:.3f}, on {metrics['images']} pictures",
    )
    if found["trained_on"]:
        _trained_on(found)
    elif found["trained_on"] == 0:
        terminal.line(("this version was fitted on none of these pictures", "dim"))
    else:
        terminal.line(("whether some of these pictures were trained on is not known", "dim"))
    served = found["reliability"]
    terminal.line(
        f"calibration error {served['unbiased']:.1%}; a model whose confidence is its accuracy would look as bad in "
        f"{served['p_value']:.1%} of such samples"
    )
    terminal.line(f"novelty: {_share(found['novel'])} are unlike the training images")
    if declined := found["declined"]:
        terminal.line(
            f"abstention: {_share(declined['answered'])} are answered, those surer than {declined['threshold']:.3f}; "
            f"{_share(declined['wrong'])} of these are wrong, {declined['target_error']:.1%} may be"
        )
    for each in found["unknown"]:
        terminal.line(
            ("a label that the model does not know: ", "yellow"),
            f"{each['label']}, {each['novel']['images']} pictures, {each['novel']['count']} of them called novel",
        )
    _mistakes(found["top_losses"])
    terminal.line((f"{found['images_per_s']:.1f} pictures a second, {found['seconds']:.1f} s", "dim"))


def _trained_on(found: Mapping[str, Any]) -> None:
    text = f"{found['trained_on']} of these pictures were trained on"
    if unseen := found["unseen"]:
        low, high = unseen["accuracy_interval"]
        text += f"; on the other {unseen['images']}: {unseen['accuracy']:.4f} (95 % interval {low:.3f} to {high:.3f})"
    terminal.line((text, "yellow"))


def _classes(found: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    version = f", version {found['version']}" if found["version"] else ""
    title = f"{found['model']}: {found['name']}{version}"
    rows = terminal.table("class", title=title, numbers=("precision", "recall", "F1", "pictures", "novel"))
    weakest = sorted(metrics["per_class"], key=lambda entry: (not entry["support"], entry["f1"]))
    for entry in weakest[:_CLASSES]:
        shares = (f"{entry[key]:.3f}" for key in ("precision", "recall", "f1"))
        novel = found["novel_by_label"].get(entry["label"], {"count": 0})["count"]
        rows.add_row(entry["label"], *shares, str(entry["support"]), str(novel))
    terminal.out.print(rows)
    if len(weakest) > _CLASSES:
        terminal.line((f"the {_CLASSES} weakest of {len(weakest)} classes; all are in --json", "dim"))


def _confusion(metrics: Mapping[str, Any]) -> None:
    labels, counts = [entry["label"] for entry in metrics["per_class"]], metrics["confusion"]
    if len(labels) <= _MATRIX:
        rows = terminal.table("truth \\ answer", numbers=labels)
        for label, row in zip(labels, counts, strict=True):
            rows.add_row(label, *(str(count) if count else "" for count in row))
        terminal.out.print(rows)
        return
    mistakes = sorted(
        (-count, truth, answer)
        for truth, row in enumerate(counts)
        for answer, count in enumerate(row)
        if count and truth != answer
    )
    for count, truth, answer in mistakes[:_CONFUSIONS]:
        terminal.line(f"{-count} x {labels[truth]} taken for {labels[answer]}")


def _mistakes(worst: list[dict[str, Any]]) -> None:
    if not worst:
        return
    rows = terminal.table("worst mistakes", "label", "answer", numbers=("label's", "answer's probability"))
    for each in worst[:_MISTAKES]:
        shares = (f"{each['label_probability']:.3f}", f"{each['probability']:.3f}")
        rows.add_row(each["file"], each["label"], each["answer"], *shares)
    terminal.out.print(rows)


def _paired(paired: Mapping[str, Any], models: list[str]) -> None:
    first, second = paired["accuracy"]
    terminal.line(
        (f"{models[0]} {first:.4f}, {models[1]} {second:.4f}", "bold"),
        f" on the {paired['images']} pictures that both answer and whose label both know",
    )
    terminal.line(
        f"right by the first alone {paired['only_first']}, by the second alone {paired['only_second']}: "
        f"p = {paired['p_value']:.3g} (McNemar's exact test); log loss of the second less that of the first "
        f"{0.0 - paired['gain']:+.4f}, standard error {paired['gain_error']:.4f}"
    )
    if not paired["differing"]:
        terminal.line("no picture is answered differently")
        return
    title = f"answered differently: {paired['differing_found']}"
    rows = terminal.table("picture", "label", "first", "second", title=title)
    for each in paired["differing"][:_MISTAKES]:
        pairs = zip(each["answers"], each["probabilities"], strict=True)
        rows.add_row(each["file"], each["label"], *(f"{answer} {probability:.3f}" for answer, probability in pairs))
    terminal.out.print(rows)


def _share(share: Mapping[str, int]) -> str:
    part = share["count"] / share["images"] if share["images"] else 0.0
    return f"{share['count']} of {share['images']} ({part:.1%})"
