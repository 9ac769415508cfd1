"""One ONNX Runtime session on one backbone, fed with whatever heads the requests carry."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from regraft.artifact import EMBEDDING, IMAGE, NOVELTY, PROBABILITIES, FloatArray, Head
from regraft.errors import ArtifactError
from regraft.image import Crop
from regraft.runtime import OpenSession, ProviderChoice, cpu_budget, open_session


@dataclass(frozen=True)
class ExecutionPlan:
    """How a backbone is run.

    Attributes:
        lanes: how many runs go on at once.
        threads: threads of one run, on a CPU.
        max_batch: the most pictures of one run.
        decode_in_lane: whether the thread that runs a picture decodes it too; else other threads do.
    """

    lanes: int
    threads: int
    max_batch: int
    decode_in_lane: bool = False


@dataclass(frozen=True)
class Output:
    """What the network says of one picture: probabilities [K], embedding [D], novelty 0 to 2."""

    probabilities: FloatArray
    embedding: FloatArray
    novelty: float

    def best(self, count: int) -> npt.NDArray[np.intp]:
        """Return the indexes of the ``count`` most probable labels, most probable first; equal ones in their order."""
        return np.argsort(-self.probabilities, kind="stable")[:count]


class Engine:
    """A session and its plan. `run` may be called from several threads at once."""

    def __init__(self, opened: OpenSession, plan: ExecutionPlan) -> None:
        """Take over a session; see `open_engine`."""
        self._session = opened.session
        self.provider = opened.provider
        self.fallback_reason = opened.fallback_reason
        self.plan = plan

    def run(self, crops: Sequence[Crop], heads: Sequence[Head]) -> list[Output]:
        """Run the network once.

        The first head goes into the graph. Where the batch holds pictures for other heads too (during a swap, or when
        several models share the backbone), those heads are applied to the same embeddings: one backbone pass for all.

        Args:
            crops: N crops, uint8 [P, P, 3].
            heads: N heads; ``heads[i]`` answers for ``crops[i]``.

        Returns:
            N outputs in the same order.
        """
        feed = {IMAGE: np.stack(crops), **heads[0].feed()}
        names = [PROBABILITIES, EMBEDDING, NOVELTY]
        probabilities, embedding, novelty = (np.asarray(array) for array in self._session.run(names, feed))
        return [
            Output(probabilities[row], embedding[row], float(novelty[row]))
            if head is heads[0]
            else Output(
                head.probabilities(embedding[[row]])[0], embedding[row], float(head.novelty(embedding[[row]])[0])
            )
            for row, head in enumerate(heads)
        ]

    def warm_up(self, head: Head, crop_px: int) -> None:
        """Run every batch size that the plan may use at its ends, and check that the answers make sense.

        Raises:
            ArtifactError: they do not.
        """
        blank = np.zeros((crop_px, crop_px, 3), np.uint8)
        for size in sorted({1, self.plan.max_batch}):
            try:
                outputs = self.run([blank] * size, [head] * size)
            except Exception as error:  # ONNX Runtime's exception classes share no base class but this
                raise ArtifactError(f"the model does not run on {self.provider}: {error}") from error
            for output in outputs:
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


def open_engine(model: Path, provider: ProviderChoice) -> Engine:
    """Open a session on a model file.

    On a CPU each picture runs alone, on one thread, as many at once as there are CPUs: with EfficientNet-Lite0 a
    picture costs 6 % more in a batch of 8 and 20 % more in one of 16 (``benchmarks/batching.py``).

    Raises:
        ProviderError: ``provider`` is ``cuda`` and CUDA does not work.
        ArtifactError: ONNX Runtime refuses the model.
    """
    opened = open_session(model, provider=provider, threads=1)
    if opened.provider == "cuda":
        return Engine(opened, ExecutionPlan(lanes=2, threads=1, max_batch=32))
    return Engine(opened, ExecutionPlan(lanes=cpu_budget(), threads=1, max_batch=1, decode_in_lane=True))
