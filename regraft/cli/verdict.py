"""The gate's verdict on the terminal."""

import shlex
from collections.abc import Mapping
from typing import Any, Final

from regraft.cli.terminal import line, out, table
from regraft.v1 import retraining_pb2 as pb

_SLICES: Final = 10


def show_objections(verdict: Mapping[str, Any]) -> None:
    """Show the reasons of the gate against a version."""
    for reason in verdict["reasons"]:
        line(("the gate objects: ", "yellow"), reason)


def show_not_promoted(result: Mapping[str, Any]) -> None:
    """Show the command that lets a published version serve."""
    line(f"version {result['version']} is published, not promoted:")
    line((f"regraft models promote {result['version']} --name {result['name']}", "bold"))


def show_suspects(verdict: pb.Verdict, name: str) -> None:
    """Show likely wrong labels, each with the command that corrects it."""
    for entry in verdict.suspected:
        line(
            (f"{entry.sha256[:12]} from {entry.source}: called ", "dim"),
            (entry.label, "bold"),
            (f", read as {entry.answer} ({entry.probability:.2f})", "dim"),
        )
        line(f"  {_relabelling(entry, name)}")
    if verdict.suspects:
        more = verdict.suspects - len(verdict.suspected)
        and_more = f", and {more} more" if more else ""
        line(f"look before you relabel: report.html of the version has the pictures{and_more}")
    if verdict.in_quarantine:
        line(
            f"{verdict.in_quarantine} labels are in quarantine, {verdict.quarantined} of them since this retrain: none "
            "is learned from until somebody has looked"
        )
        line(f"  {shlex.join(['regraft', 'examples', 'list', '--quarantined', '--name', name])}")
        line("  regraft examples release HASH, where the label is right")


def _relabelling(entry: pb.SuspectLabel, name: str) -> str:
    """Return the command that relabels an example, for a shell.

    The name comes first, since what follows ``--`` is no option.
    """
    words = ["regraft", "examples", "relabel", "--name", name, entry.sha256[:12], entry.answer]
    if entry.answer.startswith("-"):
        words.insert(-1, "--")
    return shlex.join(words)


def _bound(entry: pb.Verdict | pb.ClassVerdict | pb.SliceVerdict) -> str:
    """Return the largest loss that the holdout does not exclude.

    Earlier verdicts do not have it.
    """
    return f"{100 * entry.loss_bound:.1f}" if entry.loss_bound else ""


def show_verdict(verdict: pb.Verdict) -> None:
    """Show the comparison on the holdout, or a first version's evidence."""
    if verdict.HasField("first"):
        _show_first(verdict.first)
    else:
        _show_comparison(verdict)
    if verdict.golden_images:
        right = verdict.golden_images - len(verdict.golden_failures)
        line(f"golden images: {right} of {verdict.golden_images} answered rightly")
    if verdict.new_images:
        before = "" if verdict.HasField("first") else f" (of the labels before {verdict.old_suspect_share:.1%})"
        line(f"likely wrong: {verdict.suspects} of {verdict.new_images} new labels{before}")
    for caution in verdict.cautions:
        line((f"- {caution}", "dim"))


def _show_first(first: pb.FirstEvidence) -> None:
    rows = table("a first version, on", "95 % interval", numbers=("images", "accuracy"))
    interval, held = f"{first.low:.3f} to {first.high:.3f}", ""
    if first.HasField("holdout_accuracy"):
        held = f"{first.holdout_accuracy:.4f}"
    both = first.images + first.holdout_images
    rows.add_row("training images, out of fold", interval, str(first.images), f"{first.cross_validated_accuracy:.4f}")
    rows.add_row("holdout images", "", str(first.holdout_images), held)
    rows.add_row("both, by which floors are judged", "", str(both), f"{first.accuracy:.4f}")
    out.print(rows)


def _show_comparison(verdict: pb.Verdict) -> None:
    """Show champion and challenger, by class and source."""
    rows = table("on the holdout", numbers=("images", "champion", "challenger", "p", "loss up to"))
    images = sum(entry.holdout_images for entry in verdict.classes if not entry.is_new)
    accuracies = (f"{verdict.champion_accuracy:.4f}", f"{verdict.challenger_accuracy:.4f}")
    rows.add_row("accuracy", str(verdict.holdout_images), *accuracies, f"{verdict.p_value:.2g}", _bound(verdict))
    of_known = (f"{verdict.champion_known_accuracy:.4f}", f"{verdict.challenger_known_accuracy:.4f}")
    rows.add_row("accuracy, known classes", str(images), *of_known)
    for entry in verdict.classes:
        before_text = "new" if entry.is_new else f"{entry.champion_recall:.3f}"
        shares = (before_text, f"{entry.challenger_recall:.3f}", f"{entry.p_value:.2g}")
        bound = "" if entry.is_new else _bound(entry)
        rows.add_row(f"recall of {entry.label}", str(entry.holdout_images), *shares, bound)
    for part in [part for part in verdict.slices if part.holdout_images][:_SLICES]:
        shares = (f"{part.champion_accuracy:.3f}", f"{part.challenger_accuracy:.3f}", f"{part.p_value:.2g}")
        rows.add_row(f"from {part.source}", str(part.holdout_images), *shares, _bound(part))
    if verdict.HasField("anchor") and verdict.anchor.images:
        anchor = verdict.anchor
        shares = (f"{anchor.best_accuracy:.4f}", f"{anchor.accuracy:.4f}", f"{anchor.loss_p_value:.2g}")
        rows.add_row("first holdout, best version so far", str(anchor.images), *shares)
    out.print(rows)
