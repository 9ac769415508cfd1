"""What a server would measure and choose for a model, without starting one."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from regraft.files import cache_folder
from regraft.model import artifact
from regraft.model.session import DEFAULT_CUDA, CudaOptions, ProviderChoice, cpu_budget, processor
from regraft.stores.models import MODEL_FILE, ModelStore
from serving.inference.engine import measure_model
from serving.inference.execution_plan import Goal, settle


def plan_report(
    store: Path,
    model: str,
    provider: ProviderChoice,
    goal: Goal,
    *,
    fresh: bool,
    cuda: CudaOptions = DEFAULT_CUDA,
    cpus: int = 0,
) -> dict[str, Any]:
    """Measure a version, or recall what was measured, and choose.

    Args:
        store: the model store.
        model: see `regraft.stores.models.ModelStore.find`.
        provider: as for a server.
        goal: likewise.
        fresh: measure even what is known already, and keep the new figures.
        cuda: as for a server.
        cpus: as for a server.

    Raises:
        RegraftError: there is no such version.
        ProviderError: CUDA was asked for and does not work.
        ArtifactError: the model cannot be run.
    """
    models, cpus = ModelStore(store), cpus or cpu_budget()
    path = models.folder(*models.find(model)) / MODEL_FILE
    loaded = artifact.read(path)
    opened, measured = measure_model(
        path, loaded.card, provider, cache_folder() / "plans", fresh=fresh, cuda=cuda, cpus=cpus
    )
    plan = settle(measured, goal, cpus, on_cpu=opened.provider == "cpu")
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
