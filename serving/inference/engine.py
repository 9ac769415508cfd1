"""Engine: an ONNX Runtime session on a backbone, fed with heads."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from regraft.errors import ArtifactError, RegraftError, first_line
from regraft.image.spec import Crop
from regraft.machine import cpu_budget
from regraft.model.artifact import IMAGE, FloatArray, Head, blank_head
from regraft.model.card import ModelCard
from regraft.model.session import (
    DEFAULT_CUDA,
    CudaOptions,
    OpenSession,
    ProviderChoice,
    arithmetic_here,
    is_out_of_memory,
    open_session,
    require_onnxruntime,
)
from regraft.stores.backbones import StoredBackbone
from serving.inference.cpus import CpuPool
from serving.inference.execution_plan import (
    REAL_CLOCK,
    Clock,
    ExecutionPlan,
    Goal,
    Grid,
    Measurement,
    Point,
    Run,
    grid_of,
    measure,
    plan_file,
    plan_from,
    read_points,
    write_points,
)
from serving.inference.gpu import OUTPUTS, DeviceRunner

log = logging.getLogger("regraft.plan")

_CUDA_BATCH: Final = 32
"""Pictures of a run where nothing was measured."""


@dataclass(frozen=True)
class Output:
    """The network's output for a picture: probabilities [K], embedding [D], novelty 0 to 2."""

    probabilities: FloatArray
    embedding: FloatArray
    novelty: float

    def best(self, count: int) -> npt.NDArray[np.intp]:
        """Return the indexes of the most probable labels; equal ones in their order."""
        return np.argsort(-self.probabilities, kind="stable")[:count]


class Engine:
    """A session and its plan; `run` is safe in several threads at once."""

    def __init__(self, opened: OpenSession, plan: ExecutionPlan) -> None:
        """Make an engine of a session; see `open_engine`."""
        keep_blas_to_one_thread()
        self._session = opened.session
        self._device = DeviceRunner(opened) if opened.provider == "cuda" else None
        self.provider = opened.provider
        self.arithmetic = opened.arithmetic
        self.fallback_reason = opened.fallback_reason
        self.plan = plan

    def run(self, crops: Sequence[Crop], heads: Sequence[Head]) -> list[Output]:
        """Run the network once.

        The head goes into the graph where there is one. Where the batch holds pictures for several (during a swap, or
        when models share the backbone), each is applied to its pictures' embeddings: one backbone pass for all.

        Args:
            crops: N crops, uint8 [P, P, 3].
            heads: N heads; ``heads[i]`` answers for ``crops[i]``.

        Returns:
            N outputs in the same order.

        Raises:
            MemoryError: the run needs more memory than there is, on the CPU or on the GPU.
        """
        try:
            return self._outputs(crops, heads)
        except Exception as error:  # ONNX Runtime's exception classes share no base class but this
            if is_out_of_memory(error):
                raise MemoryError(first_line(error)) from error
            raise

    def _outputs(self, crops: Sequence[Crop], heads: Sequence[Head]) -> list[Output]:
        by_head = rows_by_head(heads)
        if len(by_head) == 1:
            return [Output(p, e, float(n)) for p, e, n in zip(*self._run_graph(crops, heads[0]), strict=True)]
        embedding, answers = self._run_heads(crops, by_head)
        outputs: dict[int, Output] = {}
        for (_, rows), (probabilities, novelty) in zip(by_head, answers, strict=True):
            for row, of_row, novel in zip(rows, probabilities, novelty, strict=True):
                outputs[row] = Output(of_row, embedding[row], float(novel))
        return [outputs[row] for row in range(len(heads))]

    def _run_graph(self, crops: Sequence[Crop], head: Head) -> tuple[FloatArray, FloatArray, FloatArray]:
        if self._device:
            return self._device.run(crops, head)
        feed = {IMAGE: np.stack(crops), **head.feed()}
        probabilities, embedding, novelty = (np.asarray(array) for array in self._session.run(list(OUTPUTS), feed))
        return probabilities, embedding, novelty

    def _run_heads(
        self, crops: Sequence[Crop], by_head: Sequence[tuple[Head, list[int]]]
    ) -> tuple[FloatArray, list[tuple[FloatArray, FloatArray]]]:
        """Return all embeddings, and each head's probabilities and novelty of its rows."""
        if self._device:
            return self._device.run_heads(crops, by_head)
        _, embedding, _ = self._run_graph(crops, blank_head(by_head[0][0].weight.shape[1]))
        of_heads = [(head, embedding[rows]) for head, rows in by_head]
        return embedding, [(head.probabilities(rows), head.novelty(rows)) for head, rows in of_heads]

    def warm_up(self, head: Head, crop_px: int, *, only_one: bool = False) -> None:
        """Run the smallest and the largest batch, and check the answers.

        On a GPU all sizes between too; with ``only_one``, a batch of one picture. Otherwise a head with a label more is
        fed too, since some execution providers take the built-in head whatever they are fed, and say nothing.

        Raises:
            ArtifactError: they do not.
        """
        blank = np.zeros((crop_px, crop_px, 3), np.uint8)
        if not only_one:
            self._check_that_heads_count(head, blank)
            if self._device and self.plan.max_batch > 1:
                self._try([blank] * 2, head, blank_head(head.weight.shape[1]))
        largest = self.plan.max_batch
        between = {1 << power for power in range(largest.bit_length())} if self._device else set()
        for size in sorted({1} if only_one else {1, largest, *between}):
            for output in self._try([blank] * size, head):
                total = float(output.probabilities.sum())
                if (
                    output.probabilities.shape != head.bias.shape
                    or not abs(total - 1) < 1e-3
                    or not np.isfinite(output.novelty)
                ):
                    raise ArtifactError(
                        f"the model answers nonsense on {self.provider}: {output.probabilities.size} probabilities for "
                        f"{head.bias.size} labels that sum to {total}, novelty {output.novelty}"
                    )

    def _check_that_heads_count(self, head: Head, blank: Crop) -> None:
        """Refuse a session that ignores the head it is fed."""
        larger = replace(
            head,
            weight=np.concatenate([head.weight, head.weight[:1]]),
            bias=np.append(head.bias, head.bias[:1]),
            prototypes=np.concatenate([head.prototypes, head.prototypes[:1]]),
        )
        (output,) = self._try([blank], larger)
        if output.probabilities.shape == head.bias.shape:
            raise ArtifactError(
                f"a head was fed on {self.provider}, and the one that is built into the file answered: this execution "
                "provider takes initializers for constants, so heads cannot be swapped on it"
            )

    def _try(self, crops: Sequence[Crop], *heads: Head) -> list[Output]:
        """Run the network for one head, or one for each crop."""
        try:
            return self.run(crops, heads if len(heads) > 1 else heads * len(crops))
        except Exception as error:  # ONNX Runtime's exception classes share no base class but this
            raise ArtifactError(f"the model does not run on {self.provider}: {error}") from error


def rows_by_head(heads: Sequence[Head]) -> list[tuple[Head, list[int]]]:
    """Return each head with its rows of a batch."""
    rows: dict[int, tuple[Head, list[int]]] = {}
    for row, head in enumerate(heads):
        rows.setdefault(id(head), (head, []))[1].append(row)
    return list(rows.values())


@cache
def keep_blas_to_one_thread() -> None:
    """Keep NumPy's products to one thread, in this process from now on.

    The lanes use all CPUs already: threads of BLAS beside them, as many again
    for every lane, only wait for each other.
    """
    threadpool_limits(limits=1, user_api="blas")


def open_engine(
    model: Path | bytes,
    card: ModelCard | StoredBackbone,
    provider: ProviderChoice,
    *,
    goal: Goal = "throughput",
    plans: Path | None = None,
    cuda: CudaOptions = DEFAULT_CUDA,
    cpus: int = 0,
    plan: ExecutionPlan | None = None,
    clock: Clock = REAL_CLOCK,
) -> Engine:
    """Open a session on a model file, by a measured or a given plan.

    Args:
        model: the file, or its bytes, with a head on it; of a backbone alone a blank one.
        card: what it holds.
        provider: see `regraft.model.session.open_session`.
        goal: what to choose the plan for (`serving.inference.execution_plan`).
        plans: the folder where measurements are kept. Measured anew if None: a second or two, more for large networks.
        cuda: see `regraft.model.session.open_session`.
        cpus: that the plan is for; all that this process may use if 0.
        plan: used as it is; nothing is measured.
        clock: a test's own.

    Raises:
        ProviderError: ``provider`` is ``cuda`` and CUDA does not work.
        ArtifactError: ONNX Runtime refuses the model, or cannot run it.
    """
    if plan:
        opened = open_session(model, provider=provider, threads=plan.threads, cuda=cuda)
        _warn_of_cpu(opened, card)
        return Engine(opened, plan.on_a_cpu(goal) if opened.provider == "cpu" else plan)
    opened, measured = measure_model(model, card, provider, plans, cuda=cuda, cpus=cpus, clock=clock)
    if measured.doubt:
        log.warning(
            "backbone %s: its execution plan is in doubt and measured again at the next start: %s; "
            "`regraft plan --fresh` on a quiet machine, or --plan, settles it",
            card.backbone.name,
            measured.doubt,
        )
    _warn_of_cpu(opened, card)
    plan = plan_from(measured, goal, cpus or cpu_budget(), on_cpu=opened.provider == "cpu")
    if plan.threads > 1:
        opened = replace(opened, session=open_session(model, provider="cpu", threads=plan.threads).session)
    return Engine(opened, plan)


def _warn_of_cpu(opened: OpenSession, card: ModelCard | StoredBackbone) -> None:
    """Warn where a CUDA session runs a part on the CPU."""
    if opened.on_cpu:
        nodes = ", ".join(f"{count} {operator}" for operator, count in opened.on_cpu.items())
        log.warning(
            "backbone %s: CUDA has no kernel for a part of it, and copies to the CPU and back in every run: %s",
            card.backbone.name,
            nodes,
        )


def open_plain_engine(model: Path, provider: ProviderChoice = "auto") -> Engine:
    """Open a session without measuring; errors as `open_engine`.

    On a CPU each picture has a thread, on a GPU they run in batches.
    """
    opened = open_session(model, provider=provider, threads=1)
    if opened.provider == "cuda":
        return Engine(opened, ExecutionPlan(lanes=1, threads=1, max_batch=_CUDA_BATCH))
    return Engine(opened, ExecutionPlan(lanes=cpu_budget(), threads=1, max_batch=1))


def measure_model(
    model: Path | bytes,
    card: ModelCard | StoredBackbone,
    provider: ProviderChoice,
    plans: Path | None,
    *,
    fresh: bool = False,
    cuda: CudaOptions = DEFAULT_CUDA,
    cpus: int = 0,
    clock: Clock = REAL_CLOCK,
) -> tuple[OpenSession, Measurement]:
    """Open a session and measure it for a plan; errors as `open_engine`.

    A measurement in the folder ``plans`` is read instead, unless it shall be ``fresh``. One in doubt is not stored
    there, so that the next start measures again.
    """
    opened = open_session(model, provider=provider, threads=1, cuda=cuda)
    cpus = cpus or cpu_budget()
    file = plans and plan_file(plans, card.backbone.digest, opened.arithmetic, cpus, require_onnxruntime().__version__)
    if file and not fresh and (points := read_points(file)):
        return opened, Measurement(points)

    measured = _measured(_opener(opened, model, card), opened, card, grid_of(opened.provider, cpus), clock)
    if file and not measured.doubt:
        write_points(file, measured.points)
    return opened, measured


def measure_picture(
    model: bytes, card: StoredBackbone, *, provider: ProviderChoice, cuda: CudaOptions, cpus: CpuPool, clock: Clock
) -> Measurement:
    """Measure one picture at a time, beside the requests; errors as `open_engine`.

    Args:
        model: with a blank head on it.
        card: what it holds.
        provider: see `regraft.model.session.open_session`.
        cuda: likewise.
        cpus: of which each run takes one.
        clock: a test's own.
    """
    opened = open_session(model, provider=provider, threads=1, cuda=cuda)
    run = _opener(opened, model, card)(1)

    def in_turn(crops: npt.NDArray[np.uint8]) -> None:
        with cpus.reserve(1):
            run(crops)

    return _measured(lambda _: in_turn, opened, card, Grid(ways=((1, 1),), batches=(1,)), clock)


def kept_points(
    card: StoredBackbone, *, provider: ProviderChoice, plans: Path, cuda: CudaOptions, cpus: int
) -> tuple[Point, ...]:
    """Return the points that `measure_model` keeps of a backbone here.

    There are none while it was not loaded.
    """
    arithmetic = arithmetic_here(provider, cuda)
    return read_points(plan_file(plans, card.digest, arithmetic, cpus, require_onnxruntime().__version__))


def _opener(opened: OpenSession, model: Path | bytes, card: ModelCard | StoredBackbone) -> Callable[[int], Run]:
    """Return what makes a run of the network with so many threads."""

    def open_run(threads: int) -> Run:
        if opened.provider == "cuda":  # the way that requests take, with a head of this size on the device
            labels = len(card.labels) if isinstance(card, ModelCard) else 1
            device, head = DeviceRunner(opened), blank_head(card.embedding_size, labels)
            return lambda crops: device.run(list(crops), head)
        session = opened.session if threads == 1 else open_session(model, provider="cpu", threads=threads).session
        return lambda crops: session.run(list(OUTPUTS), {IMAGE: crops})

    return open_run


def _measured(
    open_run: Callable[[int], Run], opened: OpenSession, card: ModelCard | StoredBackbone, grid: Grid, clock: Clock
) -> Measurement:
    try:
        return measure(open_run, card.image.crop_px, grid, clock)
    except RegraftError:
        raise
    except Exception as error:  # ONNX Runtime's exception classes share no base class but this
        raise ArtifactError(f"the model does not run on {opened.provider}: {first_line(error)}") from error
