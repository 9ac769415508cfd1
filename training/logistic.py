"""Multinomial logistic regression with an L2 penalty and weighted rows; the same rows give the same bytes.

L-BFGS (Liu and Nocedal, 1989) from SciPy. The columns must be uncorrelated, see `principal_axes`: then the square root
of its curvature is a good unit for each. scikit-learn has no units of columns, so its solver takes several times the
steps to the same distance from the optimum.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import OptimizeResult, minimize

from regraft.artifact import FloatArray

Matrix = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
_Precision = Literal["float32", "float64"]

CONVERGED: Final = 3e-5
"""Logits are then within a thousandth of their standard deviation of the optimum."""
_ROUGHLY: Final = 2e-3
"""As far as float32 leads, in half the time of float64."""
_CURVATURE: Final = 0.02
"""A typical p (1 - p) under a strong penalty; a weak one tells rows more surely. Only the speed depends on it."""
_OPTIONS: Final = {"maxiter": 10_000, "maxfun": 20_000, "ftol": 0, "gtol": 0, "maxcor": 10}
_BLOCK: Final = 128
"""Rows at a time: they stay in a core's cache between the product that gives logits and the one that gives slopes."""


@dataclass(frozen=True)
class Rows:
    """What to fit on.

    Attributes:
        x: float32 [n, d].
        label_index: [n] below ``classes``.
        weight: float64 [n], 0 for a row that takes no part; not all 0.
    """

    x: FloatArray
    label_index: Index
    weight: Matrix
    classes: int


@dataclass(frozen=True)
class Linear:
    """A solution: coefficients float64 [K, d] and intercepts [K]."""

    coefficients: Matrix
    intercepts: Matrix

    def logits(self, x: FloatArray) -> Matrix:
        """Return logits [n, K] of rows [n, d]."""
        return np.asarray(x @ self.coefficients.T + self.intercepts)


def solve(rows: Rows, c: float, start: Linear | None = None, tolerance: float = CONVERGED) -> Linear:
    """Minimise ``c * sum(weight * log loss) + |coefficients|^2 / 2``.

    It ends where the slope is at most ``tolerance`` times the length of the coefficients. Since the penalty's curvature
    is 1, they are then no further than that from the optimum, in parts of their length, whatever c and the rows are.

    One thread does it all, so the number of CPUs does not change a bit of the solution while BLAS keeps to one thread.

    Args:
        rows: what to fit on.
        c: inverse strength of the penalty, in scikit-learn's unit.
        start: a solution to begin at, such as that of a somewhat smaller c.
        tolerance: see above.
    """
    parameters = np.zeros((rows.classes, rows.x.shape[1] + 1))
    if start is not None:
        parameters = np.column_stack([start.coefficients, start.intercepts])
    parameters = _descend(rows, c, parameters, max(tolerance, _ROUGHLY), "float32")
    if tolerance < _ROUGHLY:
        parameters = _descend(rows, c, parameters, tolerance, "float64")
    return Linear(parameters[:, :-1], parameters[:, -1])


def _descend(rows: Rows, c: float, start: Matrix, tolerance: float, precision: _Precision) -> Matrix:
    """Return coefficients beside intercepts [K, d + 1]; it also ends where rounding hides any further descent."""
    total = c * float(rows.weight.sum())
    spread = sum(rows.weight[block] @ np.square(rows.x[block]) for block in blocks(len(rows.x))) / rows.weight.sum()
    curvature = _CURVATURE * total / np.sqrt(1 + total)
    unit = 1 / np.sqrt(np.append(1 + curvature * spread, curvature))
    weak = min(1.0, curvature)  # what bends the loss along the intercepts, which are free of penalty
    slope = np.empty_like(start)

    def objective(flat: Matrix) -> tuple[float, Matrix]:
        nonlocal slope
        loss, slope = _loss_and_slope(rows, c, flat.reshape(start.shape) * unit, precision)
        return loss, (slope * unit).ravel()

    def stop_if_converged(intermediate_result: OptimizeResult) -> None:
        coefficients = intermediate_result.x.reshape(start.shape)[:, :-1] * unit[:-1]
        distance = np.hypot(np.linalg.norm(slope[:, :-1]), np.linalg.norm(slope[:, -1]) / weak)
        if distance <= tolerance * np.linalg.norm(coefficients):
            raise StopIteration

    begin = (start / unit).ravel()
    found = minimize(objective, begin, jac=True, method="L-BFGS-B", callback=stop_if_converged, options=_OPTIONS)
    return np.asarray(found.x.reshape(start.shape) * unit)


def _loss_and_slope(rows: Rows, c: float, parameters: Matrix, precision: _Precision) -> tuple[float, Matrix]:
    """Return the penalised loss and its slope [K, d + 1]; products are of the precision, sums of float64."""
    coefficients, intercepts = parameters[:, :-1], parameters[:, -1]
    factors: npt.NDArray[Any] = coefficients.astype(precision)
    loss, slope = 0.0, np.zeros_like(parameters)
    for block in blocks(len(rows.x)):
        weight = c * rows.weight[block]
        if not weight.any():
            continue
        x: npt.NDArray[Any] = rows.x[block].astype(precision, copy=False)
        likelihood = log_softmax(x @ factors.T + intercepts)
        row = np.arange(len(x)), rows.label_index[block]
        loss -= float(weight @ likelihood[row])
        residual = np.exp(likelihood)
        residual[row] -= 1
        residual *= weight[:, None]
        slope[:, :-1] += residual.T.astype(precision) @ x
        slope[:, -1] += residual.sum(axis=0)
    slope[:, :-1] += coefficients
    return loss + float(np.square(coefficients).sum()) / 2, slope


def blocks(count: int) -> Iterator[slice]:
    """Yield slices of so many rows, in order."""
    return (slice(begin, begin + _BLOCK) for begin in range(0, count, _BLOCK))


def principal_axes(embedding: FloatArray, mean: Matrix, scale: float) -> tuple[FloatArray, Matrix]:
    """Turn rows [n, D] onto their principal axes, of which there are m = min(n, D).

    Args:
        embedding: float32 [n, D].
        mean: float64 [D], is subtracted; not necessarily of these very rows.
        scale: they are divided by it.

    Returns:
        The rows float32 [n, m], and the rotation [m, D]: coefficients times it are coefficients on rows that were not
        turned. It leaves the L2 penalty as it is.
    """
    if len(embedding) < embedding.shape[1]:  # the eigenvectors of the smaller of the two products
        x = (embedding - mean) / scale
        variance, left = np.linalg.eigh(x @ x.T)
        length = np.sqrt(np.maximum(variance, variance.max(initial=0) * 1e-14 + 1e-30))
        return (left * length).astype(np.float32), (left / length).T @ x
    product = np.zeros((embedding.shape[1], embedding.shape[1]))
    for block in blocks(len(embedding)):  # so that a copy in float64 never exists as a whole
        x = (embedding[block] - mean) / scale
        product += x.T @ x
    _, right = np.linalg.eigh(product)
    turned = np.empty(embedding.shape, np.float32)
    for block in blocks(len(embedding)):
        turned[block] = (embedding[block] - mean) / scale @ right
    return turned, right.T


def log_softmax(logits: Matrix) -> Matrix:
    """Return the logarithms of softmax probabilities [..., K]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def log_loss(logits: Matrix, label_index: Index, weight: Matrix) -> float:
    """Return the weighted mean of the negative log-likelihood, in nats."""
    return -float(np.average(log_softmax(logits)[np.arange(len(label_index)), label_index], weights=weight))
