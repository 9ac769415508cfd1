"""How people see what a server makes of live traffic: trial, drift, shadow; docs/drift.md says how to read it."""

from regraft.cli.terminal import line
from regraft.v1 import models_pb2 as pb

_FLIPS = 5


def traffic(model: pb.Model) -> None:
    """Show a line for each thing that is known."""
    if model.HasField("baking"):
        baking = model.baking
        line(
            f"baking: version {baking.version} is on trial for {baking.remaining_s:.0f} more seconds, {baking.images} "
            f"pictures so far; if it does worse, the server goes back to version {baking.previous}"
        )
    if model.HasField("drift"):
        line(*_drift(model.drift))
    if model.HasField("shadow"):
        line(*_shadow(model.shadow))


def _drift(drift: pb.Drift) -> tuple[str | tuple[str, str], ...]:
    if drift.state == pb.Drift.NOT_KNOWN:
        return ("drift: not known, since this version's card has no reference; a retrain makes one",)
    if drift.state == pb.Drift.TOO_FEW:
        return (f"drift: too few pictures yet to say ({drift.images})",)
    shifts = ", ".join(f"{shift.of} {shift.ks:.2f}{'!' if shift.drifted else ''}" for shift in drift.shifts)
    word = ("seen", "yellow") if drift.state == pb.Drift.DRIFTED else ("none", "green")
    return ("drift: ", word, f" over {drift.images} pictures; KS {shifts}; unknown {drift.unknown_share:.1%}")


def _shadow(shadow: pb.Shadow) -> tuple[str | tuple[str, str], ...]:
    if shadow.problem:
        return (("shadow: ", "red"), shadow.problem)
    if not shadow.images:
        return (f"shadow: version {shadow.version}, no picture yet",)
    flips = ", ".join(f"{flip.champion} → {flip.shadow} {flip.images}" for flip in shadow.flips[:_FLIPS])
    return (
        f"shadow: version {shadow.version} agrees on {shadow.agreed / shadow.images:.1%} of {shadow.images} pictures, "
        f"confidence {shadow.confidence_shift:+.3f}{'; ' if flips else ''}{flips}",
    )
