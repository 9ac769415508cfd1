"""Removal of models from the trash, with their pictures."""

import logging
from datetime import datetime
from typing import Final

from regraft.files import locked_or_none, storage_errors
from regraft.stores.examples import ExamplesStore
from regraft.stores.models import ModelStore

log = logging.getLogger("regraft.store")

_LOCK: Final = ".purge.lock"


def empty_trash(store: ModelStore, examples: ExamplesStore, days: float, now: datetime) -> list[str]:
    """Remove the models that were in the trash for so many days.

    Their names are returned. What another model has of their pictures stays. A crash between any two steps leaves what
    the next call ends; a model whose removal has begun cannot be restored, and its name is free only after the last
    step.

    Raises:
        StorageError: the disk or the database refused.
    """
    folders = store.folders
    folders.settle()
    if not folders.trash.is_dir():
        return []
    removed = []
    with storage_errors("cannot empty the trash"), locked_or_none(folders.trash / _LOCK) as taken:
        if not taken:  # another server is at it, and whoever came late would remove rows of a new model of that name
            return []
        for model in folders.deleted():
            if model.kept_until(days) <= now:
                folders.begin_purge(model)
                by = model.deleted
                log.warning("model %s, deleted at %s by %s, is removed for good", model.name, by.at, by.who)
        for name in folders.purging():
            examples.forget(name)
            folders.end_purge(name)
            removed.append(name)
    return removed
