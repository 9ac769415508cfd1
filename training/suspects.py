"""Pictures that a person should look at: labels that are likely wrong, and the worst mistakes.

Everything here speaks of rows; `training.diagnose` gives them names.
"""

import warnings
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.artifact import FloatArray

TOP_LOSSES: Final = 24
MIN_CLASS: Final = 5

_Rows = npt.NDArray[np.int64]


def top_losses(probabilities: FloatArray, label_index: _Rows) -> _Rows:
    """Return up to `TOP_LOSSES` rows that were answered wrong, the least probable label first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != label_index)
    given = _given(probabilities, label_index)
    return wrong[np.argsort(given[wrong], kind="stable")][:TOP_LOSSES]


def label_errors(probabilities: FloatArray, label_index: _Rows) -> tuple[_Rows, str]:
    """Find labels that are likely wrong by confident learning (Northcutt et al., 2021), worst first.

    Cleanlab's ``both`` marks fewer right labels than its default, and finds nearly as many of the wrong ones.

    Args:
        probabilities: float32 [n, K] of heads that were not fitted on the row.
        label_index: int64 [n], the labels given.

    Returns:
        Rows, and a note where they could not be looked for. Labels of fewer than `MIN_CLASS` rows are passed over: from
        so few images nobody can say what the class looks like.
    """
    try:
        from cleanlab.filter import find_label_issues  # noqa: PLC0415 - optional: retraining on a server goes without
    except ImportError:
        return _no_rows(), "Wrong labels were not looked for: that needs cleanlab, pip install 'regraft[train]'."
    given = _given(probabilities, label_index)
    rows = np.flatnonzero(np.bincount(label_index, minlength=probabilities.shape[1])[label_index] >= MIN_CLASS)
    known, renumbered = np.unique(label_index[rows], return_inverse=True)
    if len(known) < 2:
        return _no_rows(), ""
    among = np.maximum(probabilities[rows][:, known].astype(np.float64), 1e-9)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that it finds too few or too many errors in
            marked = find_label_issues(renumbered, among / among.sum(axis=1, keepdims=True), filter_by="both", n_jobs=1)
    except Exception as error:  # noqa: BLE001 - a picture of the data is no reason to lose a trained model
        return _no_rows(), f"Wrong labels were not looked for: cleanlab failed ({error or type(error).__name__})."
    suspects = rows[marked]
    return suspects[np.argsort(given[suspects], kind="stable")], ""


def _no_rows() -> _Rows:
    return np.empty(0, np.int64)


def _given(probabilities: FloatArray, label_index: _Rows) -> FloatArray:
    return np.asarray(probabilities[np.arange(len(label_index)), label_index], np.float32)
