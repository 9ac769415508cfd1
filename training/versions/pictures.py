"""Pictures of a training run, kept as examples.

They lie beside the model store. No torch.
"""

from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regraft.errors import RegraftError
from regraft.label_rules import nfc
from regraft.machine import user_name
from regraft.stores.examples import open_examples
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.originals import FIRST_SOURCE, KeptOriginals, OriginalPicture
from training.data.dataset import Dataset
from training.head.features import Features
from training.strategies.context import Candidate, Context
from training.versions.publish import Challenger
from training.versions.read import key_here


@dataclass(frozen=True)
class ExamplesPlace:
    """A place of examples, as `regraft.stores.examples.open_examples` takes it."""

    store: Path
    folder: str = ""
    database: str = ""

    def __str__(self) -> str:
        """Return the folder or URL, for people."""
        return self.folder or str(self.store / EXAMPLES_FOLDER)


@dataclass(frozen=True)
class KeptPictures:
    """Outcome of keeping a run's pictures.

    Attributes:
        place: where they are.
        numbers: by what became of them.
        problem: why not all of them are there; empty if they are.
    """

    place: ExamplesPlace
    numbers: KeptOriginals
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"place": str(self.place), **asdict(self.numbers), "problem": self.problem}


def keep_pictures(
    place: ExamplesPlace, challenger: Challenger, candidate: Candidate, context: Context, *, is_live: bool
) -> KeptPictures:
    """Keep a run's pictures as examples.

    People can see, correct and train on them again.

    No failure is one of the run.

    Args:
        place: where they are kept.
        challenger: has their labels, sides and embeddings.
        candidate: has their files.
        context: hears of the stage ``keep``.
        is_live: whether the version goes live.
    """
    pictures = original_pictures(candidate.dataset, challenger.features)
    card = challenger.card
    try:
        with (
            context.watch.stage("keep"),
            closing(open_examples(place.store, place.folder, place.database)) as examples,
        ):
            numbers = examples.keep_originals(
                card.name, pictures, key_here(card), annotator=user_name(), is_live=is_live, progress=context.progress
            )
            return KeptPictures(place, numbers)
    except RegraftError as error:
        return KeptPictures(place, KeptOriginals(), str(error))


def original_pictures(dataset: Dataset, features: Features) -> list[OriginalPicture]:
    """Return the pictures of a dataset as a version knows them."""
    image_of = {image.sha256: image for image in dataset.images}
    sources = features.sources()
    return [
        OriginalPicture(
            sha256,
            image_of[sha256].path,
            nfc(features.labels[label]),
            bool(is_holdout),
            embedding,
            sources.get(sha256, FIRST_SOURCE),
            next(iter(image_of[sha256].group_names), ""),
        )
        for sha256, label, is_holdout, embedding in zip(
            features.sha256, features.label_index, features.is_holdout, features.embedding, strict=True
        )
        if sha256 in image_of
    ]
