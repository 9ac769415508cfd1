"""Report of a version, as one HTML page and as JSON.

The page has no scripts or outside files; it is made of the templates beside. Labels, file names and reasons are other
people's text: Jinja escapes whatever comes in.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from regraft.model.card import BackboneCard, ClassMetrics, Metrics, ModelCard
from training.evaluation.findings import Findings, Reliability
from training.evaluation.report.charts import chart
from training.evaluation.report.confusion import Mix, confusion

LeftOutFile: TypeAlias = tuple[str, str]
"""A file, and the reason why it took no part."""

NO_PICTURES: Final[Mapping[str, bytes]] = MappingProxyType({})
_WEAK: Final = 0.85
_WIDE: Final = 0.1
_OFF: Final = 0.02
_SHOWN: Final = 0.05
"""Calibration that a calibrated head would show as rarely as this is taken for wrong."""


def render(
    card: ModelCard,
    findings: Findings,
    left_out: Sequence[LeftOutFile],
    thumbnails: Mapping[str, bytes] = NO_PICTURES,
    looked: Mapping[str, bytes] = NO_PICTURES,
) -> str:
    """Render a version's page.

    Args:
        card: of the version.
        findings: of the run that made it.
        left_out: files that took no part.
        thumbnails: JPEGs by image hash, see `training.evaluation.diagnose.thumbnails`.
        looked: likewise, see `training.evaluation.report.occlusion.occlusion_maps`.
    """
    metrics = card.metrics
    mixed = confusion(card.labels, metrics.confusion) if metrics else None
    served = findings.calibration.after if findings.calibration else None
    train_images = {label: str(count) for label, count in findings.train_images.items()}  # earlier reports have none
    template = templates().get_template("report.html.j2")
    return template.render(
        card=card,
        metrics=metrics,
        findings=findings,
        verdict=verdict_on(metrics, served, mixed.worst, "holdout images") if metrics and mixed else "",
        classes=classes_of(metrics, train_images) if metrics else [],
        confusion=mixed,
        facts=_facts(card),
        left_out=left_out,
        thumbnails=thumbnails,
        looked=looked,
    )


def report_json(card: ModelCard, findings: Findings, left_out: Sequence[LeftOutFile]) -> str:
    """Return the report as JSON, without pictures; numbers not finite are null."""
    report = {
        "card": card.model_dump(mode="json"),
        "findings": _finite(findings.to_dict()),
        "left_out": [{"file": file, "reason": reason} for file, reason in left_out],
    }
    return json.dumps(report, indent=1, allow_nan=False) + "\n"


@cache
def templates() -> Environment:
    """Return the templates beside, with the filters that they need."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = "{:.1%}".format
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    environment.filters["chart"] = chart
    return environment


def verdict_on(metrics: Metrics, served: Reliability | None, worst: Sequence[Mix], judged: str) -> str:
    """Sum up the figures in a line.

    Args:
        metrics: the figures.
        served: how far the probabilities can be taken at their word, if that was looked at.
        worst: the most frequent mistakes first.
        judged: what the pictures are called that it was measured on.
    """
    wrong = metrics.images - round(metrics.accuracy * metrics.images)
    often = (
        f", most often {worst[0].truth} taken for {worst[0].answer} ({worst[0].images})"
        if worst and worst[0].images > 1
        else ""
    )
    sentences = [f"{wrong} of {metrics.images} answers were wrong{often}." if wrong else "Every answer was right."]
    weakest = min(metrics.per_class, key=_strength)
    if weakest.f1 < _WEAK:
        sentences.append(f"The weakest class is {weakest.label}, F1 {weakest.f1:.2f}.")
    if served and served.unbiased > _OFF and served.p_value <= _SHOWN:
        sentences.append("Its probabilities are not to be taken at their word.")
    if metrics.accuracy_interval[1] - metrics.accuracy_interval[0] > _WIDE:
        sentences.append(f"More {judged} would measure it better.")
    return " ".join(sentences)


@dataclass(frozen=True)
class ClassRow:
    """A class on the page.

    Attributes:
        right: its images that are answered right.
        further: what the last column says of it.
    """

    metrics: ClassMetrics
    right: int
    further: str


def classes_of(metrics: Metrics, further: Mapping[str, str]) -> list[ClassRow]:
    """List the classes, weakest first, with the last column by label."""
    rows = [
        ClassRow(entry, metrics.confusion[index][index], further.get(entry.label, "?"))
        for index, entry in enumerate(metrics.per_class)
    ]
    return sorted(rows, key=lambda row: _strength(row.metrics))


def _strength(entry: ClassMetrics) -> tuple[bool, float, str]:
    return not entry.support, entry.f1, entry.label


def _facts(card: ModelCard) -> dict[str, Any]:
    """List facts of a version's making by their names on the page."""
    state = card.backbone.state
    return {
        "labels": ", ".join(card.labels),
        "precision": card.backbone.precision,
        "image": f"{card.image.resize} to {card.image.resize_px} px, crop {card.image.crop_px} px, "
        f"{card.image.interpolation}",
        "temperature (folded in)": f"{card.temperature:.3f}",
        "novelty": card.novelty_method,
        "novelty threshold": f"{card.novelty_threshold:.4f}",
        "parent version": card.parent_version if card.parent_version is not None else "none",
        "seed": card.seed,
        **{f"setting {name}": value for name, value in card.settings.items()},
        **({"went on from": _sources(card.backbone)} if card.backbone.sources else {}),
        **({"weights kept to go on from": f"{state.size_bytes / 1e6:.1f} MB, SHA-256 {state.sha256}"} if state else {}),
        "backbone digest": card.backbone.digest,
        "head digest": card.head_digest,
        "data digest": card.data_digest,
        **card.libraries,
    }


def _sources(backbone: BackboneCard) -> str:
    return ", ".join(f"{each.name}:{each.version} (backbone {each.digest})" for each in backbone.sources)


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
