"""Multinomial logistic regression with an L2 penalty and weighted rows; the same rows give the same bytes.

L-BFGS (Liu and Nocedal, 1989). The columns must be uncorrelated, see `principal_axes`: then the square root of its
curvature is a good unit for each, and the path from strong to weak penalties takes a fraction of the steps that
scikit-learn needs on plain embeddings, and ends nearer to the optimum.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from regraft.artifact import FloatArray
from regraft.runtime import cpu_budget

Matrix = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

_CURVATURE: Final = 0.02
"""A typical p (1 - p) of a class that is mostly told right; only the speed depends on it."""
_OPTIONS: Final = {"maxiter": 1000, "ftol": 2e-8, "gtol": 1e-5, "maxcor": 10}
_BLOCK: Final = 512
"""Rows at a time: they stay in a core's cache between the product that gives logits and the one that gives slopes."""


@dataclass(frozen=True)
class Rows:
    """What to fit on: F problems over the same rows, such as the folds of a cross-validation, solved side by side.

    Attributes:
        x: float32 [n, d].
        label_index: [n] below ``classes``.
        weight: float64 [F, n], 0 where a problem does without the row; not all 0 for any of them.
    """

    x: FloatArray
    label_index: Index
    weight: Matrix
    classes: int


@dataclass(frozen=True)
class Linear:
    """The solutions of F problems: coefficients float64 [F, K, d] and intercepts [F, K]."""

    coefficients: Matrix
    intercepts: Matrix

    def logits(self, x: FloatArray) -> Matrix:
        """Return logits [F, n, K] of rows [n, d]."""
        return np.asarray(x @ self.coefficients.transpose(0, 2, 1) + self.intercepts[:, None])


def solve(rows: Rows, c: float, start: Linear | None = None) -> Linear:
    """Minimise ``c * sum(weight * log loss) + |coefficients|^2 / 2`` for each problem.

    All problems go through the rows together, which are read once for all. The blocks of rows and the order of their
    sums are fixed, so the number of CPUs does not change a bit of the solution while BLAS keeps to one thread.

    Args:
        rows: what to fit on.
        c: inverse strength of the penalty, in scikit-learn's unit.
        start: solutions to begin at, such as those of a somewhat smaller c.
    """
    total = rows.weight.sum(axis=1)
    weight, penalty = rows.weight / total[:, None], (1 / (c * total))[:, None, None]
    spread = np.square(rows.x).T @ weight.mean(axis=0).astype(np.float32)
    unit = np.sqrt(penalty.min() / np.append(penalty.min() + _CURVATURE * spread.astype(np.float64), _CURVATURE))
    design = rows.x * unit[:-1].astype(np.float32)
    shrunk = penalty * unit[:-1] ** 2
    shape = (len(weight), rows.classes, len(unit))
    blocks = [slice(begin, begin + _BLOCK) for begin in range(0, len(design), _BLOCK)]

    def objective(flat: Matrix) -> tuple[float, Matrix]:
        parameters = flat.reshape(shape)
        w, intercepts = parameters[..., :-1], parameters[..., -1] * unit[-1]
        flat_w = w.reshape(-1, w.shape[-1]).astype(np.float32)

        def of_block(block: slice) -> tuple[float, FloatArray, Matrix]:
            logits = (design[block] @ flat_w.T).reshape(-1, *shape[:2]) + intercepts
            return _loss_and_slope(logits, rows.label_index[block], weight[:, block].T, design[block])

        losses, slopes, of_intercepts = zip(*pool.map(of_block, blocks), strict=True)
        slope = np.empty(shape)
        slope[..., :-1] = sum(slopes).reshape(w.shape) + shrunk * w
        slope[..., -1] = sum(of_intercepts) * unit[-1]
        return sum(losses) + float((shrunk * w * w).sum()) / 2, slope.ravel()  # intercepts are free of penalty

    begin = np.zeros(shape)
    if start is not None:
        begin = np.concatenate([start.coefficients, start.intercepts[..., None]], axis=-1) / unit
    with ThreadPoolExecutor(cpu_budget()) as pool:
        found = minimize(objective, begin.ravel(), jac=True, method="L-BFGS-B", options=_OPTIONS).x
    solution = found.reshape(shape) * unit
    return Linear(solution[..., :-1], solution[..., -1])


def _loss_and_slope(
    logits: Matrix, label_index: Index, weight: Matrix, design: FloatArray
) -> tuple[float, FloatArray, Matrix]:
    """Return the loss of rows [n, d], and its slope by coefficients [F * K, d] and by intercepts [F, K].

    Logits are [n, F, K], weights [n, F].
    """
    likelihood = log_softmax(logits)
    row = np.arange(len(logits))
    loss = -float((weight * likelihood[row, :, label_index]).sum())
    residual = np.exp(likelihood)
    residual[row, :, label_index] -= 1
    residual *= weight[..., None]
    return loss, residual.reshape(len(logits), -1).T.astype(np.float32) @ design, residual.sum(axis=0)


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
    """Return the logarithms of softmax probabilities [..., K]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def log_loss(logits: Matrix, label_index: Index, weight: Matrix) -> float:
    """Return the weighted mean of the negative log-likelihood, in nats."""
    return -float(np.average(log_softmax(logits)[np.arange(len(label_index)), label_index], weights=weight))
