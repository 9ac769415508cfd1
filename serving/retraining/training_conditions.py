"""Conditions of a training job: torch, and the pictures of the champion."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Final

import numpy as np

from regraft.errors import PreconditionError, StorageError
from regraft.stores.examples import ExamplesStore
from regraft.stores.models import FEATURES_FILE, ModelStore
from regraft.stores.originals import pictures_missing

_NO_TORCH: Final = (
    "a training needs torch, which is not installed where this server runs: pip install 'regraft[train]'; a retrain of "
    "the head alone does without"
)


def has_torch() -> bool:
    """Tell whether torch is installed, without importing it."""
    return find_spec("torch") is not None


def check_trainable(
    store: ModelStore, examples: ExamplesStore, model: str, version: int, torch_is_here: Callable[[], bool] = has_torch
) -> None:
    """Check that a model can be trained anew on its examples.

    Args:
        store: has the model.
        examples: should have all its pictures.
        model: its name.
        version: the champion.
        torch_is_here: tells whether torch is installed.

    Raises:
        PreconditionError: it cannot; the text says what to do.
        StorageError: a store refused.
    """
    if not torch_is_here():
        raise PreconditionError(_NO_TORCH)
    file = store.folder(model, version) / FEATURES_FILE
    try:
        with np.load(file, allow_pickle=False) as features:
            pictures = [str(sha256) for sha256 in features["sha256"]]
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(f"{file}: cannot read the features ({error})") from error
    known = examples.originals.known(model)
    if missing := [sha256 for sha256 in pictures if sha256 not in known]:
        raise PreconditionError(pictures_missing(model, missing, len(pictures)))
