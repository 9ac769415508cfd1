"""Page of an evaluation, of parts of the report."""

from collections.abc import Mapping
from typing import Any, Final

from training.evaluation.diagnose import small_pictures
from training.evaluation.evaluate import Evaluation, EvaluationResult, EvaluationSet
from training.evaluation.report.confusion import confusion
from training.evaluation.report.page import classes_of, templates, verdict_on

_JUDGED: Final = "pictures"
_PLACES: Final = ("first-", "second-")


def page(result: EvaluationResult, pictures: EvaluationSet) -> str:
    """Render the page; reads its pictures again."""
    shown = {each.sha256 for model in result.models for each in model.top_losses}
    shown |= {each.sha256 for each in result.paired.differing} if result.paired else set()
    thumbnails = small_pictures({key: pictures.images[key].path for key in sorted(shown)})
    template = templates().get_template("evaluation.html.j2")
    return template.render(
        result=result,
        models=[_model(each, place, thumbnails) for each, place in zip(result.models, _PLACES, strict=False)],
        paired={"found": result.paired, "thumbnails": thumbnails} if result.paired else None,
        left_out=result.left_out,
    )


def _model(evaluation: Evaluation, place: str, thumbnails: Mapping[str, bytes]) -> dict[str, Any]:
    """Return one model's part of the page; ``place`` begins its anchors."""
    metrics = evaluation.metrics
    mixed = confusion([entry.label for entry in metrics.per_class], metrics.confusion)
    novel = {label: f"{share.count} of {share.images}" for label, share in evaluation.novel_by_label.items()}
    return {
        "found": evaluation,
        "place": place,
        "metrics": metrics,
        "verdict": verdict_on(metrics, evaluation.reliability, mixed.worst, _JUDGED),
        "classes": classes_of(metrics, novel),
        "confusion": mixed,
        "thumbnails": thumbnails,
    }
