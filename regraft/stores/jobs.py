"""Retrain jobs as rows, shared by server and child process."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, get_args

from sqlalchemy import ColumnElement, Engine, RowMapping, Select, insert, not_, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from regraft.errors import InvalidRequestError, NotFoundError, PreconditionError
from regraft.files import utc_now
from regraft.label_rules import check_note
from regraft.model.card import RequestedPrecision, Strategy
from regraft.stores.database.engine import reading, transaction
from regraft.stores.database.tables import retrain_jobs


class JobState(StrEnum):
    """The state of a job; REFUSED by the gate after its work."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    REFUSED = "REFUSED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """True once nothing more will happen."""
        return self not in ACTIVE


class JobKind(StrEnum):
    """Kind of a job, by its product."""

    RETRAIN = "retrain"
    """A new head on the champion's backbone."""
    TRAIN = "train"
    """A new version, backbone and all."""


MAX_KEY_LENGTH: Final = 128
MAX_EPOCHS: Final = 1000
"""Of a training job, each of which leaves a point of the learning curve."""
ACTIVE: Final = (JobState.PENDING, JobState.RUNNING)


class JobCancelledError(Exception):
    """A request to end a job, raised inside it."""


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training job.

    Attributes:
        backbone: as `regraft train` takes it; the champion's if empty.
        strategy: a `Strategy`; ``probe`` if empty.
        precision: a `RequestedPrecision`; the champion's if empty.
        epochs: of fine-tuning, at most; a rule of the data if None.
    """

    backbone: str = ""
    strategy: str = ""
    precision: str = ""
    epochs: int | None = None

    def check(self) -> None:
        """Check what can be told without looking at a network.

        Raises:
            InvalidRequestError: the text names the field.
        """
        check_note("backbone", self.backbone)
        for field, value, choices in (
            ("strategy", self.strategy, get_args(Strategy)),
            ("precision", self.precision, get_args(RequestedPrecision)),
        ):
            if value and value not in choices:
                raise InvalidRequestError(f"{field}: {value!r}; there is: {', '.join(choices)}")
        if self.epochs is not None and not 1 <= self.epochs <= MAX_EPOCHS:
            raise InvalidRequestError(f"epochs: {self.epochs}; 1 to {MAX_EPOCHS}")
        if self.epochs is not None and self.strategy in ("", "probe"):
            raise InvalidRequestError("epochs: a probe has none; ask for strategy finetune, scratch or auto")

    def stated(self) -> dict[str, Any]:
        """Return those that are stated, by name."""
        return {name: value for name, value in vars(self).items() if value}


@dataclass(frozen=True)
class LearningPoint:
    """The figures after an epoch; of epoch 0, those to begin with.

    Attributes:
        epochs: how many there are at most.
        loss: on the pictures that are learned from, None of epoch 0.
        tune_loss: on those set aside, None where there are none.
        accuracy: on those set aside, None where there are none.
    """

    epoch: int
    epochs: int
    loss: float | None
    tune_loss: float | None
    accuracy: float | None


@dataclass(frozen=True)
class RetrainJob:
    """A snapshot of one job.

    Attributes:
        phase: what it does now, one word.
        fraction: how much of the whole is done, 0 to 1.
        message: a sentence for people; the reason where it was refused or failed; whether it is a second attempt.
        settings: the limits of the gate, the seed; of a training, backbone and strategy too.
        champion: the version it competes with.
        version: the version it published, blessed or not.
        verdict: every number of the gate.
        idempotency_key: of the request, None where it had none.
        interrupted: how the first attempt ended, where there is a second one; else empty.
        kind: what it makes.
        points: of the learning curve, by epoch.
    """

    id: str
    model: str
    state: JobState
    phase: str
    fraction: float
    message: str
    settings: dict[str, Any]
    requested_by: str
    champion: int | None
    version: int | None
    verdict: dict[str, Any] | None
    cancel_requested: bool
    created_at: str
    finished_at: str | None
    idempotency_key: str | None
    interrupted: str
    kind: JobKind
    points: tuple[LearningPoint, ...]


class RetrainJobs:
    """The table of jobs; each change is one conditional update."""

    def __init__(self, engine: Engine) -> None:
        """Use the tables of ``engine``, see `regraft.stores.database.engine.open_database`."""
        self._engine = engine

    def create(
        self,
        model: str,
        settings: dict[str, Any],
        requested_by: str,
        idempotency_key: str | None = None,
        kind: JobKind = JobKind.RETRAIN,
    ) -> RetrainJob:
        """Enter a job as PENDING.

        Raises:
            PreconditionError: the model has an unfinished job, which the text names, or one with this key.
        """
        job_id = uuid.uuid4().hex[:12]
        row = {
            "id": job_id,
            "model": model,
            "state": JobState.PENDING,
            "message": "waiting to start",
            "settings": settings,
            "requested_by": requested_by,
            "created_at": utc_now("auto"),
            "idempotency_key": idempotency_key,
            "kind": kind,
        }
        try:
            with transaction(self._engine, "cannot enter the retrain job") as connection:
                entered = connection.execute(insert(retrain_jobs).values(row).returning(retrain_jobs)).mappings().one()
        except IntegrityError as error:
            active = [job.id for job in self.unfinished(model)]
            raise PreconditionError(
                f"model {model!r} is being retrained already by job {' '.join(active)}: wait for it or cancel it"
            ) from error
        return _job(entered)

    def get(self, job_id: str) -> RetrainJob:
        """Return a job as it stands now.

        Raises:
            NotFoundError: there is none with this id.
        """
        if (job := self._one(select(retrain_jobs).where(retrain_jobs.c.id == job_id))) is None:
            raise NotFoundError(f"there is no retrain job {job_id!r}")
        return job

    def with_key(self, model: str, idempotency_key: str) -> RetrainJob | None:
        """Return a model's job with this key, if any."""
        here = retrain_jobs.c.model == model, retrain_jobs.c.idempotency_key == idempotency_key
        return self._one(select(retrain_jobs).where(*here))

    def list(
        self,
        model: str = "",
        state: JobState | None = None,
        *,
        among: Sequence[str] | None = None,
        before: Sequence[str] | None = None,
        most: int | None = None,
    ) -> list[RetrainJob]:
        """Return retrain jobs by model and state, newest first.

        Args:
            model: whose; of all if empty.
            state: which; any if None.
            among: only those of these models; of all if None.
            before: only those that come after this one, named by its time of creation and its id.
            most: no more than so many.
        """
        created_at, job_id = retrain_jobs.c.created_at, retrain_jobs.c.id
        query = select(retrain_jobs).order_by(created_at.desc(), job_id.desc()).limit(most)
        if before:
            query = query.where(tuple_(created_at, job_id) < tuple_(*before))  # OR would read all that is newer
        if model:
            query = query.where(retrain_jobs.c.model == model)
        if among is not None:
            query = query.where(retrain_jobs.c.model.in_(among))
        if state:
            query = query.where(retrain_jobs.c.state == state)
        with reading(self._engine, "cannot read the retrain jobs") as connection:
            rows = connection.execute(query).mappings().all()
        return [_job(row) for row in rows]

    def unfinished(self, model: str) -> Sequence[RetrainJob]:
        """Return a model's jobs that are not final, one at most."""
        return [job for state in ACTIVE for job in self.list(model, state)]

    def _one(self, query: Select[Any]) -> RetrainJob | None:
        with reading(self._engine, "cannot read the retrain job") as connection:
            row = connection.execute(query).mappings().one_or_none()
        return _job(row) if row else None

    def claim(self, job_id: str) -> bool:
        """Move a job from PENDING to RUNNING; False if too late."""
        return self._change(job_id, (JobState.PENDING,), state=JobState.RUNNING, message="started")

    def report(self, job_id: str, phase: str, fraction: float, message: str, **fields: int) -> None:
        """Record the progress of a RUNNING job.

        Raises:
            JobCancelledError: somebody asked for its end, or it was declared over: stop working.
        """
        running = self._change(job_id, (JobState.RUNNING,), phase=phase, fraction=fraction, message=message, **fields)
        if not running or self.get(job_id).cancel_requested:
            raise JobCancelledError(job_id)

    def add_point(self, job_id: str, point: LearningPoint) -> None:
        """Add a point to the curve of a RUNNING job.

        It replaces those from its epoch on.

        Raises:
            JobCancelledError: as `report`.
        """
        here = retrain_jobs.c.id == job_id, retrain_jobs.c.state == JobState.RUNNING
        with transaction(self._engine, "cannot update the retrain job") as connection:
            row = connection.execute(select(retrain_jobs.c.points).where(*here).with_for_update()).one_or_none()
            if row is None:
                raise JobCancelledError(job_id)
            before = [each for each in row.points or () if each["epoch"] < point.epoch]
            points = [*before, asdict(point)][-MAX_EPOCHS:]
            connection.execute(update(retrain_jobs).where(*here).values(points=points))

    def finish(self, job_id: str, state: JobState, message: str, **fields: Any) -> bool:  # noqa: ANN401 - columns differ in type
        """Bring an unfinished job to a final state; False if too late."""
        if not state.is_final:
            raise ValueError(f"{state} is not a final state")
        changes = {"state": state, "message": message, "finished_at": utc_now("auto"), **fields}
        if state in (JobState.SUCCEEDED, JobState.REFUSED):
            changes["fraction"] = 1.0
        return self._change(job_id, ACTIVE, **changes)

    def put_back(self, job: RetrainJob, interrupted: str) -> bool:
        """Let an interrupted job begin anew, once.

        Args:
            job: as it was found.
            interrupted: how its process ended, for people.

        Returns:
            False if it began anew before, is to be cancelled, or is no longer in the state that it was found in.
        """
        anew = {"state": JobState.PENDING, "phase": "", "fraction": 0.0, "message": "waiting to start"}
        first_time = retrain_jobs.c.interrupted == "", not_(retrain_jobs.c.cancel_requested)
        as_found = [state for state in ACTIVE if state is job.state]
        return self._change(job.id, as_found, *first_time, **anew, interrupted=interrupted)

    def request_cancel(self, job_id: str) -> RetrainJob:
        """Request the end of a job, and return it as it stands.

        One that has not started ends at once.

        Raises:
            NotFoundError: there is none with this id.
        """
        here, state = retrain_jobs.c.id == job_id, retrain_jobs.c.state
        ended = {"state": JobState.CANCELLED, "message": "cancelled", "finished_at": utc_now("auto")}
        requested = {"cancel_requested": True}
        with transaction(self._engine, "cannot cancel the retrain job") as connection:
            connection.execute(update(retrain_jobs).where(here, state == JobState.PENDING).values(ended))
            connection.execute(update(retrain_jobs).where(here, state == JobState.RUNNING).values(requested))
            row = connection.execute(select(retrain_jobs).where(here)).mappings().one_or_none()
            if row is None:
                raise NotFoundError(f"there is no retrain job {job_id!r}")
            return _job(row)

    def _change(
        self,
        job_id: str,
        states: Sequence[JobState],
        *conditions: ColumnElement[bool],
        **values: Any,  # noqa: ANN401 - columns differ in type
    ) -> bool:
        here = retrain_jobs.c.id == job_id, retrain_jobs.c.state.in_(states)
        statement = update(retrain_jobs).where(*here, *conditions)
        with transaction(self._engine, "cannot update the retrain job") as connection:
            return connection.execute(statement.values(**values)).rowcount == 1


def _job(row: RowMapping) -> RetrainJob:
    again = f" (second attempt; the first was {row['interrupted']})" if row["interrupted"] else ""
    points = tuple(LearningPoint(**point) for point in row["points"] or ())
    read = {"state": JobState(row["state"]), "message": row["message"] + again, "kind": JobKind(row["kind"])}
    return RetrainJob(**{**row, **read, "points": points})
