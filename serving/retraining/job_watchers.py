"""Watchers of retrain jobs, for whom each row is read once."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial

from regraft.stores.jobs import RetrainJob


class JobWatchers:
    """The watchers of all jobs; use from one event loop."""

    def __init__(self, look: Callable[[str], Awaitable[RetrainJob]], every_s: float) -> None:
        """Watch jobs by ``look``, which returns one, every so often."""
        self._look = look
        self._every_s = every_s
        self._watched: dict[str, _Watched] = {}

    async def watch(self, job_id: str) -> AsyncGenerator[RetrainJob, None]:
        """Yield a job now and at each change, until its final state.

        A slow watcher gets the last change alone.

        Raises:
            RegraftError: what ``look`` raises, to all who watch then.
        """
        watched = self._watched.get(job_id)
        if watched is None or watched.looking.done():
            watched = self._watched[job_id] = _Watched(partial(self._look, job_id), self._every_s)
        watched.watchers += 1
        job: RetrainJob | None = None
        try:
            while job is None or not job.state.is_final:
                job = await watched.other_than(job)
                yield job
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                watched.looking.cancel()
                if self._watched.get(job_id) is watched:
                    del self._watched[job_id]


class _Watched:
    """A watched job, with its task and the number of its watchers."""

    def __init__(self, look: Callable[[], Awaitable[RetrainJob]], every_s: float) -> None:
        self.watchers = 0
        self._look = look
        self._every_s = every_s
        self._job: RetrainJob | None = None
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.looking = asyncio.create_task(self._look_until_the_end())
        self.looking.add_done_callback(lambda looking: looking.cancelled() or looking.exception())  # all may be gone

    async def other_than(self, seen: RetrainJob | None) -> RetrainJob:
        """Return the job once it differs from ``seen``."""
        while self._job is None or self._job == seen:
            if self.looking.done():
                self.looking.result()
            await asyncio.wait({self.looking, self._changed}, return_when=asyncio.FIRST_COMPLETED)
        return self._job

    async def _look_until_the_end(self) -> None:
        while self._job is None or not self._job.state.is_final:
            if self._job is not None:
                await asyncio.sleep(self._every_s)
            if (job := await self._look()) != self._job:
                self._job = job
                self._changed.set_result(None)
                self._changed = asyncio.get_running_loop().create_future()
