from pathlib import Path
from typing import Any

import pytest

from regraft.errors import InvalidRequestError
from training.settings import TrainSettings

DATA = Path("photos")

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no such strategy": ({"strategy": "magic"}, r"--strategy: 'magic'; there is: probe, finetune, scratch, auto"),
    "no such start": ({"init": "zero"}, r"--init: 'zero'; there is: head, source"),
    "no such balance": ({"balance": "maybe"}, r"--balance: 'maybe'; there is: auto, on, off"),
    "a single fold": ({"cv": 1}, r"--cv: 1 folds; need at least 2"),
    "negative folds": ({"cv": -3}, r"--cv: -3 folds"),
    "a negative seed": ({"seed": -1}, r"--seed: -1; need 0 or more"),
    "negative views": ({"views": -1}, r"--views: -1"),
    "no such strength": ({"augment": "some"}, r"--augment: 'some'; there is: none, light, full"),
    "views of nothing new": ({"augment": "none", "views": 2}, r"--views: with --augment none"),
    "mirrored and unchanged": (
        {"strategy": "finetune", "augment": "none", "mirror": True},
        r"--mirror: --augment none",
    ),
    "a probe changed lightly": ({"augment": "light"}, r"--augment: has no effect on a probe .*add --views"),
    "a probe mirrored": ({"mirror": True}, r"--mirror: has no effect on a probe"),
    "a probe not mirrored": ({"mirror": False}, r"--no-mirror: has no effect on a probe"),
    "weights of nothing": ({"extra_weighting": True}, r"--extra-weighting: weights the images of --extra"),
    "a change to a probe": ({"changes": {"layer_decay": 0.5}}, r"--layer-decay: has no effect on a probe"),
    "a rate of a probe": ({"changes": {"backbone_lr": 1e-3, "head_lr": 1e-2}}, r"--lr: has no effect on a probe"),
    "a rate of a probe's head": ({"changes": {"head_lr": 1e-2}}, r"--head-lr: has no effect on a probe"),
    "no such choice of what is published": ({"publish": "best"}, r"--publish: 'best'; there is: better, finetuned"),
    "a fine-tuning that is not made": (
        {"strategy": "auto", "publish": "finetuned"},
        r"--publish finetuned: goes with --strategy finetune",
    ),
    "no such optimizer": (
        {"strategy": "finetune", "changes": {"optimizer": "adam"}},
        r"--optimizer: 'adam'; there is: adamw, sgd",
    ),
    "a probe that goes on": ({"resume": True}, r"--resume: has no effect on a probe: add --strategy finetune"),
    "a probe from the source": ({"init": "source"}, r"--init: has no effect on a probe"),
    "no such rule of resizing": ({"resize": "stretch"}, r"--resize: 'stretch'; there is: crop, squash, pad"),
    "an empty rule of resizing": ({"resize": ""}, r"--resize: ''; there is: crop, squash, pad"),
    "scratch from the source": ({"strategy": "scratch", "init": "source"}, r"--strategy scratch: takes no --init"),
    "scratch with more data": ({"strategy": "scratch", "extra": Path("more")}, r"--strategy scratch: .*--extra"),
    "scratch with views": ({"strategy": "scratch", "views": 2}, r"--strategy scratch: .*--views"),
}

GOOD: dict[str, dict[str, Any]] = {
    "nothing but data": {},
    "a probe with all that it can": {"cv": 5, "views": 4, "extra": Path("more"), "extra_weighting": True, "seed": 7},
    "fine-tuning": {"strategy": "finetune", "changes": {"epochs": 3}, "resume": True, "init": "source"},
    "auto": {"strategy": "auto", "augment": "light", "max_minutes": 0.0, "views": 1},
    "views that are not mirrored": {"views": 3, "augment": "light", "mirror": False},
    "pictures as they are": {"strategy": "finetune", "augment": "none", "mirror": False},
    "from scratch": {"strategy": "scratch", "changes": {"freeze": "0"}, "cv": 2, "resume": True},
}


@pytest.mark.parametrize("which", BAD)
def test_settings_that_make_no_sense_are_refused_by_the_name_of_the_flag(which: str) -> None:
    fields, complaint = BAD[which]

    with pytest.raises(InvalidRequestError, match=complaint):
        TrainSettings(DATA, **fields)


@pytest.mark.parametrize("which", GOOD)
def test_settings_that_make_sense_are_taken(which: str) -> None:
    settings = TrainSettings(DATA, **GOOD[which])

    assert {name: getattr(settings, name) for name in GOOD[which]} == GOOD[which]
