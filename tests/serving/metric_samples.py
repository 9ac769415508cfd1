"""Values of metrics, by their name and by as many of their labels as a test cares about."""

from prometheus_client import CollectorRegistry


def value_of(registry: CollectorRegistry, name: str, labels: dict[str, str]) -> float | None:
    """Return the sum over all series of ``name`` that have ``labels``, and maybe others; None where there is none."""
    values = [
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(values) if values else None
