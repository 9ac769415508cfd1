"""A classifier that a plain torch script saved is imported, served, and retrained with a third class."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from regraft.image.encode import encode_png
from regraft.model import artifact
from regraft.stores.models import MODEL_FILE, ModelStore
from regraft.v1 import retraining_pb2
from tests.live_server import LiveServer
from tests.tiny import COLOURS
from training.importing.classifier import ImageRule
from training.importing.import_version import ImportSettings, import_version

SIDE, CROP = 72, 64
"""Of pictures that need no resizing, so that a plain script's crop of the middle is the server's."""


def script(file: Path) -> torch.nn.Module:
    """Make a ResNet-18 with a head of two labels, and save it as tutorials do."""
    torch.manual_seed(0)
    model: torch.nn.Module = torchvision.models.resnet18()
    model.fc = torch.nn.Linear(512, 2)
    torch.save(model.state_dict(), file)
    return model.eval()


def asked(model: torch.nn.Module, pictures: list[bytes]) -> np.ndarray:
    """Return the logits of pictures, prepared as tutorials do."""
    v2 = torchvision.transforms
    prepare = v2.Compose(
        [
            v2.Resize(SIDE),
            v2.CenterCrop(CROP),
            v2.ToTensor(),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.stack([prepare(Image.open(BytesIO(data))) for data in pictures]))
    return logits.numpy()


def photographs_of(label: str, count: int) -> list[bytes]:
    """Return pictures of patches in shades of a colour, all different."""
    generator = np.random.default_rng(list(COLOURS).index(label))
    patches = generator.integers(-60, 61, (count, 8, 8, 3)) + np.array(COLOURS[label])
    large = np.clip(patches, 0, 255).astype(np.uint8).repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)
    return [encode_png(pixels) for pixels in large]


def test_a_resnet_of_two_labels_is_imported_served_and_retrained_with_a_third(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    model = script(tmp_path / "two.pth")
    rule = ImageRule(image_px=CROP, resize_px=SIDE)
    settings = ImportSettings(
        tmp_path / "two.pth", "two", tmp_path / "models", "resnet18", labels=("red", "green"), rule=rule
    )
    pictures = [data for label in ("red", "green") for data in photographs_of(label, 4)]
    expected = asked(model, pictures)

    import_version(settings)

    with LiveServer(ModelStore(settings.store)) as live:
        answers = [
            {each.label: each.probability for each in live.client.classify(data).predictions} for data in pictures
        ]
        sent = [(data, label) for label in ("red", "green", "blue") for data in photographs_of(label, 12)]
        list(live.client.add_examples(sent))
        *_, job = live.client.watch_job(live.client.retrain().id)
        after = live.client.classify(photographs_of("blue", 13)[-1])

    found = np.log([answer["red"] / answer["green"] for answer in answers])
    difference = np.abs(found - (expected[:, 0] - expected[:, 1])).max()
    assert difference <= 1e-3 * expected.std()
    assert job.state == retraining_pb2.RetrainJob.STATE_SUCCEEDED, job.message
    assert (after.version, after.predictions[0].label) == (2, "blue")
    assert artifact.read(ModelStore(settings.store).folder("two", 2) / MODEL_FILE).card.labels == (
        "red",
        "green",
        "blue",
    )
