"""Messages of previews and learning curves, from what their processes say."""

from typing import Any

from regraft.v1 import examples_pb2, reports_pb2, retraining_pb2


def to_curve(curve: dict[str, Any]) -> examples_pb2.LearningCurve:
    """Return a learning curve as a message."""
    return examples_pb2.LearningCurve(
        labels=curve["labels"],
        points=[_point(point) for point in curve["points"]],
        forecasts=[_forecast(forecast) for forecast in curve["forecasts"]],
        weakest=[
            examples_pb2.LearningCurve.ClassCurve(
                label=entry["label"],
                images=entry["images"],
                points=[_point(point) for point in entry["points"]],
                forecasts=[_forecast(forecast) for forecast in entry["forecasts"]],
            )
            for entry in curve["weakest"]
        ],
        unknown=curve["unknown"],
    )


def _point(point: dict[str, Any]) -> examples_pb2.LearningCurve.Point:
    low, high = point["accuracy_interval"]
    return examples_pb2.LearningCurve.Point(
        share=point["share"],
        labels=point["labels"],
        accuracy=point["accuracy"],
        accuracy_low=low,
        accuracy_high=high,
    )


def _forecast(forecast: dict[str, Any]) -> examples_pb2.LearningCurve.Forecast:
    low, high = forecast["interval"]
    return examples_pb2.LearningCurve.Forecast(
        more=forecast["more"],
        accuracy=forecast["accuracy"],
        accuracy_low=low,
        accuracy_high=high,
        gain=forecast["gain"],
    )


def to_preview(name: str, seen: dict[str, Any]) -> retraining_pb2.Preview:
    """Return a preview of a model as a message."""
    metrics, holdout = seen["metrics"], seen["holdout"]
    low, high = metrics["accuracy_interval"]
    return retraining_pb2.Preview(
        name=name,
        champion=seen["champion"],
        train_images=seen["train_images"],
        holdout_images=seen["holdout_images"],
        new_images=seen["new_images"],
        not_embedded=seen["not_embedded"],
        accuracy=metrics["accuracy"],
        accuracy_low=low,
        accuracy_high=high,
        holdout_accuracy=holdout and holdout["accuracy"],
        classes=[
            retraining_pb2.Preview.ClassResult(
                label=entry["label"],
                images=entry["support"],
                precision=entry["precision"],
                recall=entry["recall"],
                f1=entry["f1"],
            )
            for entry in metrics["per_class"]
        ],
        cells=[reports_pb2.ConfusionCell(**cell) for cell in seen["cells"]],
        suspects=[retraining_pb2.SuspectLabel(**suspect) for suspect in seen["suspects"]],
        verdict=retraining_pb2.Verdict(**seen["verdict"]),
        remarks=seen["remarks"],
        learning_curve=to_curve(seen["learning_curve"]),
    )
