"""What a comparison is asked to do."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from regraft.errors import InvalidRequestError
from training.catalogue import STORE_PREFIX
from training.settings import Strategy


@dataclass(frozen=True)
class CompareSettings:
    """Every field is a flag of ``regraft compare``.

    Attributes:
        data: see `training.dataset`.
        backbones: see `training.backbones`.
        strategies: see `training.settings.Strategy`.
        out: where everything goes; named after the data if None.
        weights: ``default`` or ``none``, of all backbones; scratch never takes any.
        seed: of every run.
        epochs: of finetune and scratch at most; the recipe's if None.
    """

    data: Path
    backbones: tuple[str, ...]
    strategies: tuple[str, ...] = ("probe",)
    out: Path | None = None
    weights: str = "default"
    seed: int = 0
    epochs: int | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense, by the name of the flag."""
        for flag, values in (("backbones", self.backbones), ("strategies", self.strategies)):
            if not values or not all(values):
                raise InvalidRequestError(f"--{flag}: {','.join(values)!r} is no list of names such as a,b,c")
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise InvalidRequestError(f"--{flag}: {twice[0]!r} is there twice")
        if versions := [name for name in self.backbones if name.startswith(STORE_PREFIX)]:
            raise InvalidRequestError(
                f"--backbones: {versions[0]}: a comparison trains networks in a store of its own; "
                "`regraft train --backbone store:...` goes on from a version"
            )
        unknown = [strategy for strategy in self.strategies if strategy not in get_args(Strategy)]
        if unknown:
            raise InvalidRequestError(f"--strategies: {unknown[0]!r}; there is: {', '.join(get_args(Strategy))}")
        if self.weights not in {"default", "none"}:
            raise InvalidRequestError(
                f"--weights: {self.weights!r} is neither 'default' nor 'none'; a file fits one network only: put "
                "<backbone>.pth into a folder that the environment variable REGRAFT_WEIGHTS names"
            )
        if self.epochs is not None and set(self.strategies) == {"probe"}:
            raise InvalidRequestError("--epochs: has no effect on a probe: add finetune or scratch to --strategies")

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.out or Path(f"compare-{self.data.resolve().name}")
