"""Content of the model store at a server's last look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from regraft.errors import OperatorError, StorageError
from regraft.stores.lifecycle.history import Beginning, HistoryEntry, beginning_of, champions_of, shadow_of
from regraft.stores.models import ModelStore
from serving.threads import Threads


@dataclass(frozen=True)
class StoredModel:
    """A model as the store had it at the last look.

    Attributes:
        history: as `ModelStore.history`.
        problem: why it could not be read this time, or empty.
    """

    history: Sequence[HistoryEntry] = ()
    problem: str = ""

    @property
    def champion(self) -> int | None:
        """The version that should answer, or None."""
        return self.champions[-1] if self.champions else None

    @cached_property
    def champions(self) -> Sequence[int]:
        """The champions of the line of rollbacks, the present one last."""
        return champions_of(self.history)

    @cached_property
    def has_versions(self) -> bool:
        """True once one was published."""
        return not self.beginning or any(entry.event == "publish" for entry in self.history)

    @cached_property
    def beginning(self) -> Beginning | None:
        """The beginning of a model that began without a version, or None."""
        return beginning_of(self.history)

    @cached_property
    def shadow(self) -> int | None:
        """The version that judges beside the champion, or None."""
        return shadow_of(self.history)


class StoreWatcher:
    """The part of a server that reads the model store over and over."""

    def __init__(self, store: ModelStore, threads: Threads, only: frozenset[str] = frozenset()) -> None:
        """Watch all of ``store``, or ``only`` some models.

        Nothing is known before the first `look`.
        """
        self._store = store
        self._threads = threads
        self._only = only
        self._models: Mapping[str, StoredModel] = {}
        self.has_looked = False

    def names(self) -> list[str]:
        """Return the names of the models that the store had."""
        return sorted(self._models)

    def get(self, name: str) -> StoredModel:
        """Return a model as the store had it, or one without history."""
        return self._models.get(name, StoredModel())

    async def look(self) -> None:
        """Read the store.

        A model that cannot be read keeps none of the others from being read.

        Raises:
            OSError: it cannot be listed; the last look stays.
            StorageError: it is empty altogether, and was not before, as where its disk is not mounted; likewise.
        """
        self._models, error = await self._threads.store.run(self._read)
        self.has_looked = True
        if error:
            raise error

    def _read(self) -> tuple[Mapping[str, StoredModel], Exception | None]:
        """Read every model, and return them and the first unexpected error.

        A model with such an error, which is neither the disk's nor an operator's, stays as it was.
        """
        models: dict[str, StoredModel] = {}
        first: Exception | None = None
        names, root = self._store.names(), self._store.root
        if self._models and not names and not (root.is_dir() and any(root.iterdir())):
            raise StorageError(f"{root} is empty: is its disk mounted? The models that were loaded answer on")
        for name in names:
            if self._only and name not in self._only:
                continue
            try:
                models[name] = self._read_one(name)
            except (OSError, OperatorError) as error:
                models[name] = replace(self.get(name), problem=f"its history cannot be read: {error}")
            except Exception as error:  # noqa: BLE001 - it is raised when the others are read
                models[name], first = self.get(name), first or error
        return models, first

    def _read_one(self, name: str) -> StoredModel:
        """Read a model; an unchanged one stays the same object."""
        last, history = self.get(name), self._store.history(name)
        return last if not last.problem and last.history == history else StoredModel(history)
