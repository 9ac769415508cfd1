"""A model store whose model has a champion, the examples that people sent since, and pictures to send."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice, product
from pathlib import Path

from regraft.label_rules import image_hash, is_holdout
from regraft.model import artifact
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.jobs import RetrainJob
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, ModelStore
from tests.tiny import begin_tiny, picture
from tests.training.conftest import COLOUR_KEY, colour_challenger, colour_features
from training.data.dataset import Dataset, LabelledImage
from training.head.features import Features, load_features
from training.retrain.job import run_job
from training.versions.pictures import original_pictures
from training.versions.publish import Challenger, publish

MODEL = "colours"
FIRST_NEW = 1000
"""Numbers of pictures from here on are unknown to the champion."""


@dataclass(frozen=True)
class Workshop:
    """A model store whose model has a champion, and the examples that people sent since."""

    store: ModelStore
    examples: ExamplesStore

    def add(self, label: str, pictures: Sequence[bytes]) -> None:
        for data in pictures:
            self.examples.add(MODEL, data, label)

    def keep_originals(self, folder: Path) -> None:
        """Keep the champion's own pictures as examples, from files in a folder."""
        folder.mkdir()
        features, colours = self.features(1), ("blue", "red")
        files = {}
        for colour, number in product(colours, range(len(features.sha256))):
            data = picture(colour, number)
            if image_hash(data) in features.sha256:
                files[image_hash(data)] = folder / f"{colour}-{number}.png"
                files[image_hash(data)].write_bytes(data)
        images = [LabelledImage(file, "", is_holdout=False, sha256=sha256) for sha256, file in files.items()]
        dataset = Dataset((), tuple(images), (), "")
        pictures = original_pictures(dataset, features)
        assert len(pictures) == len(features.sha256)
        self.examples.keep_originals(MODEL, pictures, COLOUR_KEY)

    def vouch(self, data: bytes, label: str) -> None:
        """Say of a label that contradicts all others that it is right."""
        self.examples.labels.quarantine(MODEL, {image_hash(data): (label, "doubted")})
        self.examples.labels.release(MODEL, image_hash(data), annotator="Ann")

    def retrain(self, store: ModelStore | None = None, **settings: float | str) -> RetrainJob:
        job = self.examples.jobs.create(MODEL, settings, "Ann")
        return run_job(store or self.store, self.examples, job.id)

    def features(self, version: int) -> Features:
        return load_features(self.store.folder(MODEL, version) / FEATURES_FILE)

    def artifact(self, version: int) -> artifact.Artifact:
        return artifact.read(self.store.folder(MODEL, version) / MODEL_FILE)


@cache
def first_version(train: int, holdout: int, labels: tuple[str, ...] = ("blue", "red")) -> Challenger:
    return colour_challenger(colour_features(labels, train, holdout), MODEL)


def open_workshop(root: Path, train: int = 20, holdout: int = 8, labels: tuple[str, ...] = ("blue", "red")) -> Workshop:
    store = ModelStore(root / "models")
    publish(store, first_version(train, holdout, labels), left_out=[], who="tester", why="a test")
    store.move(MODEL, 1, who="tester", why="a test")
    return Workshop(store, ExamplesStore(store.root / EXAMPLES_FOLDER))


def begin_workshop(root: Path) -> Workshop:
    """Begin a model with the labels red and blue, and without a version."""
    store = ModelStore(root / "models")
    begin_tiny(store, MODEL, ("red", "blue"))
    return Workshop(store, ExamplesStore(store.root / EXAMPLES_FOLDER))


def new_pictures(colour: str, train: int, holdout: int) -> list[bytes]:
    """Return pictures that the champion does not know, so many of which their hashes put on either side."""
    every = [picture(colour, number) for number in range(FIRST_NEW, FIRST_NEW + 10 * (train + holdout) + 50)]
    fitted = (data for data in every if not is_holdout(image_hash(data)))
    held = (data for data in every if is_holdout(image_hash(data)))
    return [*islice(fitted, train), *islice(held, holdout)]


def known(colour: str, *, held: bool, number: int = 0) -> bytes:
    """Return a picture that the champion was fitted on, or judged by."""
    return picture(colour, (20 if held else 0) + number)
