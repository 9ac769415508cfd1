"""Augmented batches, functions of (seed, epoch, picture) alone. Imports torch."""

import hashlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from regraft.image.decode import decode_crop, decode_window
from regraft.image.spec import Crop, ImageSpec
from regraft.machine import cpu_budget
from training.data.random_crop import window_for
from training.data.samples import Sample
from training.strategies.finetuning.recipe import Recipe

log = logging.getLogger("regraft.train")

_MOST_LOADERS: Final = 8
_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - where Linux has it, and torch puts batches

Key = tuple[int, int]
"""Epoch and index of a picture."""


def seed_of(*parts: object) -> int:
    """Derive a seed, 0 to 2**63 - 1, from all parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


class AugmentedPictures(Dataset[tuple[torch.Tensor, int]]):
    """Samples of an epoch, augmented by the recipe."""

    def __init__(self, samples: Sequence[Sample], spec: ImageSpec, recipe: Recipe, seed: int) -> None:
        """Take what every loading process needs."""
        self._samples, self._spec, self._recipe, self._seed = samples, spec, recipe, seed
        self.picture_bytes = 3 * spec.crop_px**2
        self._small = replace(spec, crop_px=max(1, spec.crop_px // 2), resize_px=max(1, spec.resize_px // 2))
        self._augment = v2.TrivialAugmentWide() if recipe.augment == "full" else None

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, int]:
        """Return the picture uint8 [P, P, 3] of an epoch, and its index."""
        epoch, index = key
        sample = self._samples[index]
        seed = seed_of(self._seed, epoch, sample.sha256)
        random = np.random.default_rng(seed)
        data = sample.path.read_bytes()
        spec = self._small if epoch < self._recipe.small_epochs else self._spec
        crop = self._cut(data, spec, random)
        if self._recipe.mirror and random.random() < 0.5:
            crop = np.ascontiguousarray(crop[:, ::-1])
        image = torch.from_numpy(crop)
        if self._augment is not None:
            with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global generator
                torch.manual_seed(seed)
                image = self._augment(image.permute(2, 0, 1)).permute(1, 2, 0).contiguous()
        return image, index

    def _cut(self, data: bytes, spec: ImageSpec, random: np.random.Generator) -> Crop:
        if self._recipe.augment == "none":
            return decode_crop(data, spec)
        return decode_window(data, spec, window_for(data, spec, random, (self._recipe.min_scale, 1.0)))


class PlainPictures(Dataset[tuple[torch.Tensor, int]]):
    """Samples as the server will see them."""

    def __init__(self, samples: Sequence[Sample], spec: ImageSpec) -> None:
        """Take what every loading process needs."""
        self._samples, self._spec = samples, spec
        self.picture_bytes = 3 * spec.crop_px**2

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, int]:
        """Return the picture uint8 [P, P, 3] and its index."""
        _, index = key
        return torch.from_numpy(decode_crop(self._samples[index].path.read_bytes(), self._spec)), index


class Schedule(Sampler[list[Key]]):
    """Schedule of the pictures of each batch of a process."""

    def __init__(self, images: int, batch: int, seed: int | None, rank: int = 0, processes: int = 1) -> None:
        """Plan batches over all processes, in random order if there is a seed."""
        self._images, self._batch, self._seed, self._rank, self._processes = images, batch, seed, rank, processes
        self.batch = -(-batch // processes)
        self.epoch = 0
        self.first = 0

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        return max(1, -(-self._images // self._batch))

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield this process's share of each batch, from ``first`` on."""
        for batch in self._batches()[self.first :]:
            if share := [(self.epoch, int(index)) for index in batch[self._rank :: self._processes]]:
                yield share

    def _batches(self) -> list[npt.NDArray[np.int64]]:
        order = np.arange(self._images)
        if self._seed is not None:
            np.random.default_rng(seed_of(self._seed, self.epoch, "order")).shuffle(order)
        return np.array_split(order, len(self))  # of equal size, so that no batch is left with a single picture


def loaders(wanted: int, batch_bytes: int, free_bytes: int) -> int:
    """Return how many loading processes fit into shared memory, or none.

    Each has two batches ready at most, beside the two that the learning process holds.
    """
    return max(0, min(wanted, (free_bytes // batch_bytes - 2) // 2))


def _shared_memory_bytes() -> int:
    """Return the free bytes of shared memory; containers have 64 MB."""
    try:
        state = os.statvfs(_SHARED_MEMORY)
    except OSError:  # elsewhere than on Linux it has no such limit
        return sys.maxsize
    return state.f_bavail * state.f_frsize


@cache  # once a run, not with every set of pictures
def _say_that_memory_is_short(wanted: int, processes: int) -> None:
    log.warning(
        "%s is too small for %d processes that load pictures: %s (docker run --shm-size 1g gives it more)",
        _SHARED_MEMORY,
        wanted,
        f"there are {processes}" if processes else "the one that learns loads them, which is slower",
    )


def loader(pictures: "AugmentedPictures | PlainPictures", schedule: Schedule) -> DataLoader[Any]:
    """Load batches (uint8 [N, P, P, 3], indices int64 [N]) ahead, by processes."""
    wanted = min(_MOST_LOADERS, max(1, cpu_budget() - 1))
    processes = loaders(wanted, schedule.batch * pictures.picture_bytes, _shared_memory_bytes())
    if processes < wanted:
        _say_that_memory_is_short(wanted, processes)
    return DataLoader(
        pictures,
        batch_sampler=schedule,
        collate_fn=_collate,
        num_workers=processes,
        persistent_workers=processes > 0,
        worker_init_fn=_leave_signals_to_the_parent,
        pin_memory=torch.cuda.is_available(),
    )


def _collate(items: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.stack([image for image, _ in items]), torch.tensor([index for _, index in items])


def _leave_signals_to_the_parent(_number: int) -> None:
    """Ignore Ctrl-C, so that the parent can write its checkpoint first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
