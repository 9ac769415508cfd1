"""Trackers of a run's figures: TensorBoard and MLflow."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from regraft.errors import InvalidRequestError, MissingPackageError, first_line
from training.evaluation.findings import Epoch
from training.strategies.context import Listener

log = logging.getLogger("regraft.train")


class Tracker(Protocol):
    """Keeps the figures of one run."""

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """Keep the figures of an epoch of fine-tuning."""

    def result(self, figures: Mapping[str, float], report: Path) -> None:
        """Keep the figures of the version that came out, and its report."""

    def close(self, *, failed: bool = False) -> None:
        """Write out the rest; ``failed`` says that the run came to nothing."""


class TensorBoard:
    """TensorBoard events, in a folder for each run."""

    def __init__(self, folder: Path) -> None:
        """Write events into a folder of the run's own below ``folder``.

        It is created with the first epoch: a probe has none.
        """
        self._folder = folder
        self._writer: Any = None

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """Keep the figures of an epoch."""
        if self._writer is None:
            from tensorboard.summary import Writer  # noqa: PLC0415 - optional, and takes two seconds

            self._writer = Writer(str(folder_of_its_own(self._folder)))
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step=number)
        self._writer.flush()

    def result(self, figures: Mapping[str, float], report: Path) -> None:
        """Keep nothing more: it is a log of epochs."""

    def close(self, *, failed: bool = False) -> None:  # noqa: ARG002 - a log of epochs has no end of its own
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def folder_of_its_own(parent: Path) -> Path:
    """Create a folder for one run alone, called after the time.

    Such as ``2026-03-01T09-30-05Z``.
    """
    name = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    for number in count(1):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError("there is always another number")


class MLflow:
    """A run on an MLflow server, or in its database."""

    def __init__(self, uri: str, name: str, settings: Mapping[str, Any]) -> None:
        """Start a run.

        Raises:
            MissingPackageError: MLflow is not installed.
            InvalidRequestError: there is nothing at ``uri`` that takes runs.
        """
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # only `uri` is to hear of this run
        try:
            import mlflow  # noqa: PLC0415 - optional, and takes seconds
        except ImportError as error:
            raise MissingPackageError("--mlflow: pip install 'regraft[track]'") from error
        self._mlflow = mlflow
        try:
            mlflow.set_tracking_uri(uri)
            mlflow.set_experiment(name)
            mlflow.start_run()
            mlflow.log_params(dict(settings))
        except Exception as error:
            raise InvalidRequestError(f"--mlflow: {uri}: {first_line(error)}") from error

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """Keep the figures of an epoch."""
        self._mlflow.log_metrics(dict(figures), step=number)

    def result(self, figures: Mapping[str, float], report: Path) -> None:
        """Keep the result and the report."""
        self._mlflow.log_metrics(dict(figures))
        self._mlflow.log_artifact(str(report))

    def close(self, *, failed: bool = False) -> None:
        """End the run."""
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


class Trackers:
    """All trackers of a run; one that fails is logged and left out."""

    def __init__(self, trackers: list[Tracker]) -> None:
        """Track with these."""
        self._trackers = trackers

    def epoch(self, epoch: Epoch) -> None:
        """Keep the figures of an epoch of fine-tuning."""
        figures = {name: value for name, value in asdict(epoch).items() if name != "number"}
        self._each(lambda tracker: tracker.epoch(epoch.number, figures))

    def result(self, figures: Mapping[str, float], report: Path) -> None:
        """Keep what came out."""
        self._each(lambda tracker: tracker.result(figures, report))

    def close(self, *, failed: bool = False) -> None:
        """Close them all."""
        self._each(lambda tracker: tracker.close(failed=failed))

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                do(tracker)
            except Exception as error:  # noqa: BLE001 - a server that is gone can raise anything
                log.warning("%s takes no more figures of this run: %s", type(tracker).__name__, error)
                self._trackers.remove(tracker)


class Tracked:
    """Listener that passes on all, and tells trackers of epochs."""

    def __init__(self, listener: Listener, trackers: Trackers) -> None:
        """Listen for both."""
        self.progress, self.note = listener.progress, listener.note
        self._listener, self._trackers = listener, trackers

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """Hear the figures of an epoch."""
        self._listener.epoch(epoch, epochs)
        self._trackers.epoch(epoch)


@contextmanager
def tracking(
    folder: Path, mlflow: str, name: str, settings: Mapping[str, Any], *, tensorboard: bool
) -> Iterator[Trackers]:
    """Open the trackers of a run; closed when the block ends.

    Args:
        folder: of TensorBoard's events, with a folder in it for each run.
        mlflow: URI, empty for none.
        name: of the model.
        settings: of the run, for people.
        tensorboard: whether to write events, where it is installed.
    """
    trackers: list[Tracker] = []
    if tensorboard and find_spec("tensorboard"):
        trackers.append(TensorBoard(folder))
    if mlflow:
        trackers.append(MLflow(mlflow, name, settings))
    open_trackers = Trackers(trackers)
    try:
        yield open_trackers
    except BaseException:
        open_trackers.close(failed=True)
        raise
    open_trackers.close()
