"""The report of a version: one HTML page without scripts or outside files."""

from collections.abc import Sequence
from html import escape
from typing import Final, TypeAlias

from regraft.card import Metrics, ModelCard

LeftOutFile: TypeAlias = tuple[str, str]
"""A file, and the reason why it took no part."""

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430 }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } th, td { padding: .3rem .7rem; text-align: right }
th { font-weight: 600; border-bottom: 1px solid #aab } td:first-child, th:first-child, .facts td { text-align: left }
.bar { display: inline-block; height: .7rem; background: #3b7dd8; border-radius: 2px }
.big { font-size: 2.2rem; font-weight: 650 } .muted { color: #667 } code { font-size: .85em }
"""


def render(card: ModelCard, left_out: Sequence[LeftOutFile]) -> str:
    """Return the page for a version."""
    parts = [
        f"<h1>{escape(card.name)}</h1>",
        f"<p class=muted>{escape(card.strategy)} on {escape(card.backbone.name)} ({escape(card.backbone.weights)}), "
        f"{escape(card.created_at)}</p>",
        _headline(card),
        *([_per_class(card.metrics), _confusion(card.metrics, card.labels)] if card.metrics else []),
        _facts(card),
        _left_out(left_out),
    ]
    title = escape(f"{card.name}: report")
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    return head + "".join(parts)


def _headline(card: ModelCard) -> str:
    metrics = card.metrics
    if metrics is None:
        return "<p>No holdout images: nothing was measured.</p>"
    low, high = metrics.accuracy_interval
    return (
        f"<p><span class=big>{metrics.accuracy:.1%}</span> accuracy on {metrics.images} holdout images "
        f"(95 % interval {low:.1%} to {high:.1%}), macro F1 {metrics.macro_f1:.3f}, log loss {metrics.log_loss:.3f}. "
        f"{card.train_images} training images; nothing was chosen on the holdout.</p>"
    )


def _per_class(metrics: Metrics) -> str:
    rows = "".join(
        f"<tr><td>{escape(entry.label)}<td>{entry.precision:.3f}<td>{entry.recall:.3f}<td>{entry.f1:.3f}"
        f"<td>{entry.support}<td style='text-align:left'><span class=bar style='width:{entry.f1 * 8:.2f}rem'></span>"
        for entry in metrics.per_class
    )
    return f"<h2>Classes</h2><table><tr><th>class<th>precision<th>recall<th>F1<th>images<th>{rows}</table>"


def _confusion(metrics: Metrics, labels: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(label)}" for label in labels)
    rows = ""
    for label, counts in zip(labels, metrics.confusion, strict=True):
        total = max(1, sum(counts))
        cells = "".join(f"<td style='background:rgba(59,125,216,{count / total:.2f})'>{count}" for count in counts)
        rows += f"<tr><th>{escape(label)}{cells}"
    return (
        f"<h2>Confusion</h2><p class=muted>Rows: the truth. Columns: the answer.</p><table><tr><th>{head}{rows}</table>"
    )


def _facts(card: ModelCard) -> str:
    facts = {
        "labels": ", ".join(card.labels),
        "image": f"{card.image.resize} to {card.image.resize_px} px, crop {card.image.crop_px} px, "
        f"{card.image.interpolation}",
        "temperature (folded in)": f"{card.temperature:.3f}",
        "novelty threshold": f"{card.novelty_threshold:.4f}",
        "parent version": card.parent_version if card.parent_version is not None else "none",
        "seed": card.seed,
        **{f"setting {name}": value for name, value in card.settings.items()},
        "backbone digest": card.backbone.digest,
        "head digest": card.head_digest,
        "data digest": card.data_digest,
        **card.libraries,
    }
    rows = "".join(f"<tr><td>{escape(name)}<td><code>{escape(str(value))}</code>" for name, value in facts.items())
    return f"<h2>How it was made</h2><table class=facts>{rows}</table>"


def _left_out(left_out: Sequence[LeftOutFile]) -> str:
    if not left_out:
        return "<h2>Left out</h2><p>No file was left out.</p>"
    rows = "".join(f"<tr><td>{escape(file)}<td style='text-align:left'>{escape(reason)}" for file, reason in left_out)
    return f"<h2>Left out</h2><table><tr><th>file<th style='text-align:left'>reason{rows}</table>"
