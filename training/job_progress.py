"""Progress of a job, written to its row."""

import time
from collections.abc import Mapping
from typing import Final

from regraft.progress import Progress
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import RetrainJob

_REPORT_EVERY_S: Final = 0.3


class JobProgress:
    """Progress of a job, written to its row now and then."""

    def __init__(self, examples: ExamplesStore, job: RetrainJob, phases: Mapping[str, tuple[float, float]]) -> None:
        """Tell of a job.

        Args:
            examples: holds it.
            job: it.
            phases: where each begins and ends, as shares of the whole; in any other it stays where it was.
        """
        self._jobs, self._id, self._last_s, self._phase = examples.jobs, job.id, 0.0, ""
        self._phases, self._fraction = phases, 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Hear of a step of a stage, see `regraft.progress`.

        Raises:
            JobCancelledError: somebody asked for the job's end.
        """
        now_s = time.monotonic()
        if phase == self._phase and now_s - self._last_s < _REPORT_EVERY_S:
            return
        self._phase, self._last_s = phase, now_s
        start, end = self._phases.get(phase, (0.0, 0.0))
        self._fraction = max(self._fraction, start + (end - start) * done / max(total, 1))
        message = f"{phase}: {done} of {total}" if total > 1 else phase
        self._jobs.report(self._id, phase, self._fraction, message)

    def as_phase(self, phase: str) -> Progress:
        """Report every stage as one phase."""
        return lambda _, done, total: self(phase, done, total)
