"""Tolerance of an exported network, by the spread of its logits."""

from typing import Final

import numpy as np

from regraft.errors import ArtifactError
from regraft.model.artifact import FloatArray
from training.evaluation.findings import Agreement

TIE: Final = 1e-2
"""Share of the logits' spread: answers that are no farther apart are alike, and either will do."""
LARGE: Final = 0.1
"""Likewise; rounding grows with the activations, which are huge where BatchNorm knows few pictures."""


def agreement(expected: FloatArray, exported: FloatArray) -> Agreement:
    """Compare an exported network's logits [n, K] with torch's.

    Raises:
        ArtifactError: an answer is another one, or a logit differs by much of the spread.
    """
    centred = expected - expected.mean(axis=1, keepdims=True)
    spread = max(float(np.ptp(centred)), float(np.finfo(np.float32).tiny))
    difference = float(np.abs(exported - expected).max())
    answer = exported.argmax(axis=1)
    short = expected.max(axis=1) - expected[np.arange(len(expected)), answer]  # 0 where both answer alike
    same = float((short == 0).mean())
    if not difference <= LARGE * spread or (short > TIE * spread).any():
        raise ArtifactError(
            f"the exported network answers otherwise than the trained one: a logit differs by {difference:.2g}, "
            f"{difference / spread:.1%} of their spread, and {same:.2%} of {len(expected)} answers are the same"
        )
    return Agreement(len(expected), difference, same, spread)
