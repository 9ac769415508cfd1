"""What `benchmarks.steady` serves, sends and labels: a copy of a model with a second head, and pictures."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import onnx

from regraft.client.client import Client
from regraft.datasets.labelled_files import find_in_folder
from regraft.errors import PreconditionError
from regraft.model import artifact
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.models import MODEL_FILE, ModelStore

_EMBEDDED_WITHIN_S = 900.0
_MANY = 100


def copy_model(store: Path, name: str, target: Path) -> tuple[int, int]:
    """Copy a model to the store ``target``; return its champion, and a new version with the same backbone."""
    shutil.copytree(store / name, target / name)
    copy = ModelStore(target)
    _, champion = copy.find(name)
    folder = copy.folder(name, champion)

    def write(fresh: Path) -> None:
        shutil.copytree(folder, fresh, dirs_exist_ok=True)
        loaded = artifact.read(folder / MODEL_FILE)
        other = replace(loaded.head, weight=loaded.head.weight * loaded.head.weight.dtype.type(0.99))
        card = loaded.card.model_copy(update={"head_digest": other.digest()})
        onnx.save(artifact.rehead(loaded, other, card), fresh / MODEL_FILE)

    return champion, copy.publish(name, write, who="benchmarks.steady", why="another head to swap with")


def labelled(data: Path) -> list[tuple[Path, str]]:
    """Return (file, label) of all pictures of a folder, with or without ``train`` and ``val`` in it."""
    splits = [data / split for split in ("train", "val") if (data / split).is_dir()]
    return [pair for folder in splits or [data] for pair in find_in_folder(folder)]


def pictures(data: Path, most: int) -> tuple[bytes, ...]:
    """Return the bytes of at most ``most`` pictures, of all classes."""
    files = labelled(data)
    return tuple(path.read_bytes() for path, _ in files[:: -(-len(files) // most)])


def label_copies(target: str, store: Path, name: str, data: Path, count: int, first: int = 0) -> None:
    """Label ``count`` copies of pictures over gRPC, and wait until they are embedded; see `labeller`."""
    with labeller(target, store, name, data) as label:
        label(count, first)


@contextmanager
def labeller(target: str, store: Path, name: str, data: Path) -> Iterator[Callable[[int, int], None]]:
    """Open whatever it takes to label pictures over gRPC and to see when they are embedded.

    Yields:
        What labels so many copies of the pictures, of a number and those after it, and returns when they are embedded.
        Some bytes behind its end make each a picture of its own, which the model has not seen.
    """
    files = labelled(data)
    with Client(target) as client, _embedding(store, name) as wait:

        def label(count: int, first: int) -> None:
            answers = list(client.add_examples(_copies(files, count, first), name=name))
            rejected = [answer for answer in answers if answer.outcome == answer.OUTCOME_REJECTED]
            if rejected:
                raise PreconditionError(f"{len(rejected)} examples were rejected: {rejected[0]}")
            wait()

        yield label


def wait_until_embedded(store: Path, name: str) -> None:
    """Wait until every example of a model is embedded for its champion."""
    with _embedding(store, name) as wait:
        wait()


@contextmanager
def _embedding(store: Path, name: str) -> Iterator[Callable[[], None]]:
    """Yield what waits until every example of a model is embedded for its champion."""
    models, examples = ModelStore(store), ExamplesStore(store / EXAMPLES_FOLDER)
    key = artifact.read(models.folder(*models.find(name)) / MODEL_FILE).card.embedding_key

    def wait() -> None:
        ends_s = time.monotonic() + _EMBEDDED_WITHIN_S
        while (missing := examples.labels.without_embedding(name, key, _MANY)) and time.monotonic() < ends_s:
            time.sleep(0.1 if len(missing) == _MANY else 0.03)  # to ask takes milliseconds of the server's CPUs
        if missing:
            raise PreconditionError(
                f"{next(iter(missing))} and others are not embedded after {_EMBEDDED_WITHIN_S:.0f} s"
            )

    with closing(examples):
        yield wait


def _copies(files: Sequence[tuple[Path, str]], count: int, first: int) -> Iterator[tuple[bytes, str]]:
    for number in range(first, first + count):
        path, label = files[number % len(files)]
        yield path.read_bytes() + f"copy {number}".encode(), label
