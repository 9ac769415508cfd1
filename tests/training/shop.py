"""A model that was trained on a folder, with the examples that people labelled since."""

from pathlib import Path

from regraft.gate_limits import GateLimits
from regraft.label_rules import image_hash
from regraft.model import artifact
from regraft.model.card import ModelCard
from regraft.stores.examples import ExamplesStore, open_examples
from regraft.stores.jobs import JobState
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, GateMode, ModelStore
from tests.tiny import picture
from tests.training.conftest import crayons
from training.head.features import Features, load_features
from training.retrain.job import run_job
from training.retrain.refresh import Refreshed, refresh
from training.settings import TrainSettings
from training.train import TrainResult, train

FIRST, SECOND = "timm/test_resnet", "timm/test_vit"
"""The network that the model was trained on, and another."""
MODEL = "crayons"


class Shop:
    """A store with version 1 of `MODEL`, its training folder, and empty examples."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.data, self.cache = crayons(root / MODEL, 20), cache
        self.store = ModelStore(root / "models")
        self.train()
        self.examples: ExamplesStore = open_examples(self.store.root)

    def train(
        self, data: Path | None = None, backbone: str = FIRST, gate: GateMode = GateMode.AUTO, seed: int = 0
    ) -> TrainResult:
        settings = TrainSettings(
            data or self.data, MODEL, self.store.root, backbone, "none", seed=seed, tensorboard=False
        )
        return train(settings, cache=self.cache, gate=gate)

    def refresh(
        self,
        backbone: str = FIRST,
        gate: GateMode = GateMode.AUTO,
        limits: GateLimits = GateLimits(),  # noqa: B008 - frozen
    ) -> Refreshed:
        settings = TrainSettings(self.data, MODEL, self.store.root, backbone, "none", tensorboard=False)
        return refresh(settings, self.examples, cache=self.cache, gate=gate, limits=limits)

    def add(self, label: str, numbers: range, called: str = "") -> list[bytes]:
        """Label pictures of a colour, by that colour unless said otherwise, and return them."""
        pictures = [picture(label, number) for number in numbers]
        for data in pictures:
            self.examples.add(MODEL, data, called or label)
        return pictures

    def learn(self, label: str, numbers: range) -> list[str]:
        """Let the champion learn pictures over gRPC, and return their hashes."""
        pictures = self.add(label, numbers)
        job = run_job(self.store, self.examples, self.examples.jobs.create(MODEL, {"gate": "off"}, "Ann").id)
        assert job.state is JobState.SUCCEEDED, job.message
        return [image_hash(data) for data in pictures]

    def card(self, version: int) -> ModelCard:
        return artifact.read(self.store.folder(MODEL, version) / MODEL_FILE).card

    def features(self, version: int) -> Features:
        return load_features(self.store.folder(MODEL, version) / FEATURES_FILE)
