"""The command ``regraft plan``."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from regraft.cli import terminal
from regraft.cli.json_output import print_result
from regraft.cli.options import Json, Store
from regraft.files import cache_folder
from regraft.machine import allowed_cpus, cpu_budget, processor
from regraft.model.session import CudaOptions, ProviderChoice
from regraft.stores.models import MODEL_FILE, ModelStore

if TYPE_CHECKING:  # numpy
    from serving.inference.execution_plan import Goal


def plan(
    model: Annotated[str, typer.Argument(help="NAME:VERSION, or NAME for its champion.")],
    store: Store = Path("models"),
    provider: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    cuda_tf32: Annotated[
        bool, typer.Option("--cuda-tf32", help="CUDA may multiply in TF32: faster since Ampere, and less exact.")
    ] = False,
    cuda_device: Annotated[int | None, typer.Option(help="Number of the GPU; 0 if not given.", min=0)] = None,
    optimise: Annotated[str, typer.Option(help="throughput, or latency of a single request.")] = "throughput",
    cpus: Annotated[
        int | None, typer.Option(min=1, help="CPUs that all lanes share; all that are ours if not given.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure anew, even if it was measured before.")] = False,
    as_json: Json = False,
) -> None:
    """Show how a model runs best on this machine.

    Every plan that was measured, and the one that a server would choose.
    """
    from serving.inference.execution_plan import Goal  # noqa: PLC0415 - NumPy takes a moment, which other commands spare

    for flag, value, choices in (
        ("--provider", provider, get_args(ProviderChoice)),
        ("--optimise", optimise, get_args(Goal)),
    ):
        if value not in choices:
            raise typer.BadParameter(f"{value!r}: need one of {', '.join(choices)}", param_hint=flag)
    if cpus and cpus > (most := allowed_cpus()):
        raise typer.BadParameter(f"{cpus}: this process may run on {most} only", param_hint="--cpus")
    cuda = CudaOptions(cuda_device or 0, tf32=cuda_tf32)
    report = _report(ModelStore(store), model, provider, optimise, fresh, cuda, cpus or cpu_budget())  # type: ignore[arg-type]  # checked above
    print_result(report, _show, as_json)


def _report(
    store: ModelStore, model: str, provider: ProviderChoice, goal: "Goal", fresh: bool, cuda: CudaOptions, cpus: int
) -> dict[str, Any]:
    """Measure a version, unless that was done before; choose a plan."""
    from regraft.model import artifact  # noqa: PLC0415 - ONNX takes a moment
    from serving.inference.engine import measure_model  # noqa: PLC0415 - as above
    from serving.inference.execution_plan import plan_from  # noqa: PLC0415 - as above

    path = store.folder(*store.find(model)) / MODEL_FILE
    loaded = artifact.read(path)
    opened, measured = measure_model(
        path, loaded.card, provider, cache_folder() / "plans", fresh=fresh, cuda=cuda, cpus=cpus
    )
    plan = plan_from(measured, goal, cpus, on_cpu=opened.provider == "cpu")
    return {
        "model": str(path),
        "backbone": loaded.card.backbone.name,
        "provider": opened.provider,
        "fallback_reason": opened.fallback_reason,
        "processor": processor(),
        "cpus": cpus,
        "optimise": goal,
        "plan": {**asdict(plan), "text": str(plan)},
        "doubt": measured.doubt,
        "measured": [asdict(point) for point in measured.points],
    }


def _show(report: Mapping[str, Any]) -> None:
    """Show every measured plan with a bar, and the chosen one."""
    chosen = report["plan"]
    best = max(point["pictures_per_s"] for point in report["measured"])
    rows = terminal.table(
        title=f"{report['backbone']} on {report['provider']}, {report['cpus']} CPUs ({report['processor']})",
        numbers=("lanes", "threads a lane", "batch", "pictures/s", "ms a run"),
    )
    rows.add_column("")
    for point in report["measured"]:
        is_chosen = tuple(point[key] for key in ("lanes", "threads", "batch")) == (
            chosen["lanes"],
            chosen["threads"],
            chosen["max_batch"],
        )
        rows.add_row(
            *(str(point[key]) for key in ("lanes", "threads", "batch")),
            f"{point['pictures_per_s']:.1f}",
            f"{point['run_ms']:.2f}",
            "█" * round(30 * point["pictures_per_s"] / best) + (" <- chosen" if is_chosen else ""),
            style="bold" if is_chosen else "",
        )
    terminal.out.print(rows)
    if report["fallback_reason"]:
        terminal.line(f"not on CUDA: {report['fallback_reason']}")
    if report["doubt"]:
        terminal.line(
            (f"in doubt, and not kept: {report['doubt']}; the next start, or --fresh, measures again", "yellow")
        )
    terminal.line(
        f"for {report['optimise']}: {chosen['text']}, that is {chosen['lanes']} run(s) at once, {chosen['threads']} "
        f"thread(s) each, up to {chosen['max_batch']} picture(s) a run, answers of {chosen['turn']} run(s) together"
    )
