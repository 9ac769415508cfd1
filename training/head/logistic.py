"""Multinomial logistic regression with weighted rows, reproducible to the byte.

L-BFGS (Liu and Nocedal, 1989) from SciPy. The columns must be uncorrelated, see `principal_axes`: then the square root
of the loss's curvature along each column, for each class, is a good unit. scikit-learn has no units of columns, so its
solver takes several times the steps to the same distance from the optimum.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import OptimizeResult, minimize

from regraft.model.artifact import FloatArray

Matrix = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
_Precision = Literal["float32", "float64"]

CONVERGED: Final = 1e-4
"""Logits are then within a thousandth of their standard deviation of the optimum."""
_ROUGHLY: Final = 2.5e-4
"""Logits are then within some hundredths of it, as far as float32 leads, in half the time of float64."""
_LEAST: Final = 1e-6
"""Of the curvature of an intercept, which no penalty bends."""
_OPTIONS: Final = {"maxiter": 10_000, "maxfun": 20_000, "ftol": 0, "gtol": 0, "maxcor": 10}
_BLOCK: Final = 128
"""Rows at a time: they stay in a core's cache between the product that gives logits and the one that gives slopes."""


@dataclass(frozen=True)
class Rows:
    """Weighted rows to fit on.

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


def solve(rows: Rows, c: float, start: Linear | None = None, *, exactly: bool = True) -> Linear:
    """Minimise ``c * sum(weight * log loss) + |coefficients|^2 / 2``.

    It ends where the slope is at most `CONVERGED` times the length of the coefficients. Since the penalty's curvature
    is 1, they are then no further than that from the optimum, in parts of their length, whatever c and the rows are.

    One thread does it all, so the number of CPUs does not change a bit of the solution while BLAS keeps to one thread.

    Args:
        rows: what to fit on.
        c: inverse strength of the penalty, in scikit-learn's unit.
        start: a solution to begin at, such as that of a somewhat smaller c.
        exactly: false ends it where the logits are about right, see `_Units.logits_off`: for fits that are only
            compared, in a fraction of the time.
    """
    parameters = np.zeros((rows.classes, rows.x.shape[1] + 1))
    if start is not None:
        parameters = np.column_stack([start.coefficients, start.intercepts])
    parameters = _descend(rows, c, parameters, "float32")
    if exactly:
        parameters = _descend(rows, c, parameters, "float64")
    return Linear(parameters[:, :-1], parameters[:, -1])


@dataclass(frozen=True)
class _Units:
    """Units of the parameters, in which the loss bends alike along all.

    Attributes:
        spread: mean square of each column [d].
        curvature: float64 [K, d + 1], what bends the loss along each parameter, nearly.
    """

    spread: Matrix
    curvature: Matrix

    @staticmethod
    def at(rows: Rows, c: float, start: Matrix) -> "_Units":
        """Measure the columns' spread and the classes' doubt at the start."""
        doubt, spread = np.zeros(rows.classes), np.zeros(rows.x.shape[1])
        factors = start[:, :-1].astype(np.float32)
        for block in blocks(len(rows.x)):
            p = np.exp(log_softmax(rows.x[block] @ factors.T + start[:, -1]))
            doubt += rows.weight[block] @ (p * (1 - p))
            spread += rows.weight[block] @ np.square(rows.x[block])
        spread /= rows.weight.sum()
        doubt = np.maximum(c * doubt, _LEAST)
        return _Units(spread, np.column_stack([1 + doubt[:, None] * spread, doubt]))

    def logits_off(self, parameters: Matrix, slope: Matrix) -> float:
        """Estimate the logits' relative distance from the optimum, by root mean squares."""
        step = slope / self.curvature
        squares = self.spread @ np.square(step[:, :-1]).sum(axis=0) + np.square(step[:, -1]).sum()
        return float(np.sqrt(squares / max(self.spread @ np.square(parameters[:, :-1]).sum(axis=0), 1e-300)))

    def distance(self, parameters: Matrix, slope: Matrix) -> float:
        """Bound the coefficients' distance from the optimum, in parts of their length."""
        weak = np.minimum(1.0, self.curvature[:, -1])
        size = np.linalg.norm(parameters[:, :-1])
        return float(np.hypot(np.linalg.norm(slope[:, :-1]), np.linalg.norm(slope[:, -1] / weak)) / max(size, 1e-300))


def _descend(rows: Rows, c: float, start: Matrix, precision: _Precision) -> Matrix:
    """Descend to coefficients beside intercepts [K, d + 1].

    In float32 they end about right, in float64 all but exact; or where rounding hides any descent.
    """
    units = _Units.at(rows, c, start)
    unit = 1 / np.sqrt(units.curvature)
    slope = np.empty_like(start)

    def objective(flat: Matrix) -> tuple[float, Matrix]:
        nonlocal slope
        loss, slope = _loss_and_slope(rows, c, flat.reshape(start.shape) * unit, precision)
        return loss, (slope * unit).ravel()

    def stop_if_converged(intermediate_result: OptimizeResult) -> None:
        parameters = intermediate_result.x.reshape(start.shape) * unit
        is_rough = precision == "float32"
        if is_rough and units.logits_off(parameters, slope) <= _ROUGHLY:
            raise StopIteration
        if units.distance(parameters, slope) <= CONVERGED:
            raise StopIteration

    begin = (start / unit).ravel()
    solution = minimize(objective, begin, jac=True, method="L-BFGS-B", callback=stop_if_converged, options=_OPTIONS)
    return np.asarray(solution.x.reshape(start.shape) * unit)


def _loss_and_slope(rows: Rows, c: float, parameters: Matrix, precision: _Precision) -> tuple[float, Matrix]:
    """Compute the penalised loss and its slope [K, d + 1], in blocks."""
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


def principal_axes(
    embedding: FloatArray, mean: Matrix, scale: float, rows: Index | None = None
) -> tuple[FloatArray, Matrix]:
    """Rotate rows [n, D] onto their min(n, D) principal axes.

    Args:
        embedding: float32 [n, D], or more.
        mean: float64 [D], is subtracted; not necessarily of these very rows.
        scale: they are divided by it.
        rows: int64 [n], which of the embeddings take part; None for all of them.

    Returns:
        The rows float32 [n, m], and the rotation [m, D]: coefficients times it are coefficients on rows that were not
        turned. It leaves the L2 penalty as it is.
    """
    rows = np.arange(len(embedding)) if rows is None else rows
    if len(rows) < embedding.shape[1]:  # the eigenvectors of the smaller of the two products
        x = (embedding[rows] - mean) / scale
        variance, left = np.linalg.eigh(x @ x.T)
        length = np.sqrt(np.maximum(variance, variance.max(initial=0) * 1e-14 + 1e-30))
        return (left * length).astype(np.float32), (left / length).T @ x
    product = np.zeros((embedding.shape[1], embedding.shape[1]))
    for block in blocks(len(rows)):  # so that a copy in float64 never exists as a whole
        x = (embedding[rows[block]] - mean) / scale
        product += x.T @ x
    _, right = np.linalg.eigh(product)
    turned = np.empty((len(rows), embedding.shape[1]), np.float32)
    for block in blocks(len(rows)):
        turned[block] = (embedding[rows[block]] - mean) / scale @ right
    return turned, right.T


def log_softmax(logits: Matrix) -> Matrix:
    """Return the logarithms of softmax probabilities [..., K]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def log_loss(logits: Matrix, label_index: Index, weight: Matrix) -> float:
    """Return the weighted mean of the negative log-likelihood, in nats."""
    return -float(np.average(log_softmax(logits)[np.arange(len(label_index)), label_index], weights=weight))
