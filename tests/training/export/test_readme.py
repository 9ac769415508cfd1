import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from regraft.image.decode import decode_crop
from regraft.image.encode import encode_png
from regraft.image.spec import ImageSpec, Interpolation, ResizeRule
from regraft.model.card import Abstention
from tests.tiny import tiny_backbone, tiny_card, tiny_head
from training.export.readme import readme
from training.export.result import Export, ExportSide, Proof

LABELS = ("red", "green")
SIDE = ExportSide(0.9, (0.8, 0.95), 0.3, 0.05, 12.0, 5.0)


def text(folder: Path, spec: ImageSpec, to: str = "onnx", **changed: Any) -> str:  # noqa: ANN401 - fields of an export
    card = tiny_card(tiny_backbone(), tiny_head(LABELS), LABELS)
    card = card.model_copy(update={"image": spec, "abstention": changed.pop("abstention", None)})
    fields: dict[str, Any] = {"cpu": None, "layers_in_float": (), "notes": (), **changed}
    proof = Proof(20, 0.95, 0.1, SIDE, fields.pop("exported", SIDE))
    return readme(Export("colours", 2, to, folder, folder / "model.onnx", proof=proof, **fields), card)


@pytest.mark.parametrize("resize", get_args(ResizeRule))
@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@pytest.mark.parametrize("size", [(90, 61), (50, 90)])
def test_the_python_cuts_what_the_server_cuts(
    resize: ResizeRule, interpolation: Interpolation, size: tuple[int, int], tmp_path: Path
) -> None:
    spec = ImageSpec(resize, 40, 36, interpolation)
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    (tmp_path / "photo.jpg").write_bytes(encode_png(noise))
    (code,) = re.findall(r"```python\n(.*?)```", text(tmp_path, spec), re.DOTALL)
    cutting = code[code.index("picture =") : code.index("probabilities,")].replace(
        "photo.jpg", str(tmp_path / "photo.jpg")
    )
    names: dict[str, Any] = {}

    exec("import numpy as np\nfrom PIL import Image, ImageOps\n" + cutting, names)  # noqa: S102 - our own README

    difference = np.abs(names["crop"].astype(int) - decode_crop(encode_png(noise), spec))
    assert difference.mean() < (8 if resize == "pad" else 1)  # Pillow's `pad` rounds where the picture begins


def test_it_says_what_a_reader_of_the_figures_must_know(tmp_path: Path) -> None:
    said = text(tmp_path, ImageSpec(), "int8", cpu="arm", layers_in_float=("stem",), notes=("it was slow",))

    assert said.startswith("# colours, version 2: int8 for arm\n")
    assert "| accuracy | 0.9000 | 0.9000 |" in said
    assert "- it was slow\n- in float: stem\n" in said


def test_time_is_left_out_where_none_was_taken(tmp_path: Path) -> None:
    untimed = ExportSide(0.9, (0.8, 0.95), 0.3, 0.05, 12.0, None)

    assert "ms an image" in text(tmp_path, ImageSpec())
    assert "ms an image" not in text(tmp_path, ImageSpec(), exported=untimed)


def test_it_says_which_answers_to_refuse_where_an_error_was_asked_for(tmp_path: Path) -> None:
    kept = Abstention(target_error=0.02, threshold=0.625, answered=0.75, error=0.01, images=400)

    said = text(tmp_path, ImageSpec(), abstention=kept)

    assert "At most 2 % of the answers given" in said
    assert "0.625000" in said
    assert "75.0 %" in said
    assert "regraft.abstain_at_most" in said
    assert "answers given" not in text(tmp_path, ImageSpec())
    none = kept.model_copy(update={"threshold": 1.0, "answered": 0.0})
    assert "no probability is high enough" in text(tmp_path, ImageSpec(), abstention=none)
