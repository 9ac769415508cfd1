"""Multinomial logistic regression with an L2 penalty and weighted rows; the same rows give the same bytes.

L-BFGS (Liu and Nocedal, 1989). The columns must be uncorrelated, see `principal_axes`: then the square root of its
curvature is a good unit for each, and the path from strong to weak penalties takes a fraction of the steps that
scikit-learn needs on plain embeddings, and ends nearer to the optimum.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from regraft.artifact import FloatArray

Matrix = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

_CURVATURE: Final = 0.02
"""A typical p (1 - p) of a class that is mostly told right; only the speed depends on it."""
_OPTIONS: Final = {"maxiter": 1000, "ftol": 2e-8, "gtol": 1e-5, "maxcor": 10}


@dataclass(frozen=True)
class Rows:
    """What to fit on: x float32 [n, d], label_index [n] below ``classes``, weight float64 [n], not all 0."""

    x: FloatArray
    label_index: Index
    weight: Matrix
    classes: int

    def select(self, rows: npt.NDArray[np.bool_]) -> "Rows":
        """Return the rows where the mask [n] is true."""
        return Rows(self.x[rows], self.label_index[rows], self.weight[rows], self.classes)

    @cached_property
    def spread(self) -> Matrix:
        """The weighted mean square [d] of each column."""
        share = (self.weight / self.weight.sum()).astype(np.float32)
        return np.asarray(share @ np.square(self.x), np.float64)


@dataclass(frozen=True)
class Linear:
    """Coefficients float64 [K, d] and intercepts [K]."""

    coefficients: Matrix
    intercepts: Matrix

    def logits(self, x: FloatArray) -> Matrix:
        """Return logits [n, K] of rows [n, d]."""
        return x @ self.coefficients.T + self.intercepts


def solve(rows: Rows, c: float, start: Linear | None = None) -> Linear:
    """Minimise ``c * sum(weight * log loss) + |coefficients|^2 / 2``.

    Args:
        rows: what to fit on.
        c: inverse strength of the penalty, in scikit-learn's unit.
        start: a solution to begin at, such as that of a somewhat smaller c.
    """
    weight, penalty = rows.weight / rows.weight.sum(), 1 / (c * rows.weight.sum())
    unit = np.sqrt(penalty / np.append(penalty + _CURVATURE * rows.spread, _CURVATURE))
    design = rows.x * unit[:-1].astype(np.float32)
    shrunk = penalty * unit[:-1] ** 2
    k, truth = rows.classes, np.eye(rows.classes)[rows.label_index]

    def objective(flat: Matrix) -> tuple[float, Matrix]:
        w, intercepts = flat[:-k].reshape(k, -1), flat[-k:] * unit[-1]
        likelihood = log_softmax((design @ w.T.astype(np.float32)).astype(np.float64) + intercepts)
        residual = (np.exp(likelihood) - truth) * weight[:, None]
        loss = -float(weight @ (likelihood * truth).sum(axis=1)) + float((shrunk * w * w).sum()) / 2  # intercepts free
        slope = (residual.T.astype(np.float32) @ design + shrunk * w).ravel()
        return loss, np.concatenate([slope, residual.sum(axis=0) * unit[-1]])

    begin = np.zeros(k * len(unit))
    if start is not None:
        begin = np.concatenate([(start.coefficients / unit[:-1]).ravel(), start.intercepts / unit[-1]])
    found = minimize(objective, begin, jac=True, method="L-BFGS-B", options=_OPTIONS).x
    return Linear(found[:-k].reshape(k, -1) * unit[:-1], found[-k:] * unit[-1])


def principal_axes(x: Matrix) -> tuple[FloatArray, Matrix]:
    """Turn centred rows [n, D] onto their principal axes, of which there are m = min(n, D).

    Returns:
        The rows float32 [n, m], and the rotation [m, D]: coefficients times it are coefficients on ``x``. It leaves the
        L2 penalty as it is.
    """
    if len(x) < x.shape[1]:  # the eigenvectors of the smaller of the two products
        variance, left = np.linalg.eigh(x @ x.T)
        scale = np.sqrt(np.maximum(variance, variance.max(initial=0) * 1e-14 + 1e-30))
        return (left * scale).astype(np.float32), (left / scale).T @ x
    _, right = np.linalg.eigh(x.T @ x)
    return (x @ right).astype(np.float32), right.T


def log_softmax(logits: Matrix) -> Matrix:
    """Return the logarithms of softmax probabilities [n, K]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def log_loss(logits: Matrix, label_index: Index, weight: Matrix) -> float:
    """Return the weighted mean of the negative log-likelihood, in nats."""
    return -float(np.average(log_softmax(logits)[np.arange(len(label_index)), label_index], weights=weight))
