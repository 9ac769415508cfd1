"""Settings of a comparison."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

from regraft.datasets.manifest import is_manifest
from regraft.errors import InvalidRequestError
from regraft.files import text_of
from regraft.model.card import Strategy
from regraft.stores.models import GateMode
from training.backbones.catalogue import STORE_PREFIX
from training.data.subsets import ALL, check_share
from training.settings import Init
from training.strategies.finetuning.recipe import FLAG_NAMES

_BEST: Final = "best"


@dataclass(frozen=True)
class CompareSettings:
    """Settings of a comparison; every field is a flag of ``regraft compare``.

    Attributes:
        data: one or more, see `training.data.dataset`.
        backbones: see `training.backbones.build`.
        strategies: see `training.settings.Strategy`.
        out: where everything goes; named after the data if None.
        weights: ``default`` or ``none``, of all backbones; scratch never takes any.
        seed: of the first run of each combination.
        seeds: how many runs each has; the next seeds follow.
        shares: of the training pictures, see `training.data.subsets`; all of them are always among them.
        init: what fine-tuning starts its head from, see `training.settings.TrainSettings`.
        changes: fields of `training.strategies.finetuning.recipe.Recipe`, of all but probes; ``freeze`` not from
            scratch.
        resume: whether to keep the runs that an interrupted comparison has finished.
        publish: ``best`` trains the winner into a store, through its gate; empty publishes nothing.
        store: that it goes to.
        name: of the model there; the data's if empty.
        gate: see `training.train.train`.
        examples: folder or URL of the examples beside that store, see `regraft.stores.examples.open_examples`.
        database: of them, likewise.
        keep_pictures: whether the pictures of what is published join them.
    """

    data: tuple[Path, ...]
    backbones: tuple[str, ...]
    strategies: tuple[str, ...] = ("probe",)
    out: Path | None = None
    weights: str = "default"
    seed: int = 0
    seeds: int = 1
    shares: tuple[str, ...] = (ALL,)
    init: str = "head"
    changes: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    publish: str = ""
    store: Path = Path("models")
    name: str = ""
    gate: GateMode = GateMode.AUTO
    examples: str = ""
    database: str = ""
    keep_pictures: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense, by the name of the flag."""
        lists = (
            ("DATA", self.names),
            ("--backbones", self.backbones),
            ("--strategies", self.strategies),
            ("--shares", self.shares),
        )
        for flag, values in lists:
            if not values or not all(values):
                raise InvalidRequestError(f"{flag}: {','.join(values)!r} is no list of names such as a,b,c")
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise InvalidRequestError(f"{flag}: {twice[0]!r} is there twice")
        if versions := [name for name in self.backbones if name.startswith(STORE_PREFIX)]:
            raise InvalidRequestError(
                f"--backbones: {versions[0]}: a comparison trains networks in a store of its own; "
                "`regraft train --backbone store:...` goes on from a version"
            )
        for flag, values, choices in (
            ("strategies", self.strategies, get_args(Strategy)),
            ("init", (self.init,), get_args(Init)),
            ("publish", (self.publish,), ("", _BEST)),
        ):
            unknown = [value for value in values if value not in choices]
            if unknown:
                allowed = ", ".join(choice for choice in choices if choice)
                raise InvalidRequestError(f"--{flag}: {unknown[0]!r}; there is: {allowed}")
        for share in self.shares:
            check_share(share)
        if self.seed < 0 or self.seeds < 1:
            raise InvalidRequestError(f"--seed: {self.seed}, --seeds: {self.seeds}; need 0 or more, and 1 or more")
        if self.weights not in {"default", "none"}:
            raise InvalidRequestError(
                f"--weights: {self.weights!r} is neither 'default' nor 'none'; a file fits one network only: put "
                "<backbone>.pth into a folder that the environment variable REGRAFT_WEIGHTS names"
            )
        self._check_recipe()
        if self.name and (not self.publish or len(self.data) > 1):
            raise InvalidRequestError("--name: names the one model that --publish best makes, of one DATA")

    def _check_recipe(self) -> None:
        """Refuse flags of the recipe that no strategy would heed."""
        tuned = {"finetune", "auto"} & {*self.strategies}
        for name in self.changes:
            flag = FLAG_NAMES.get(name, name).replace("_", "-")
            if name == "freeze" and not tuned:
                raise InvalidRequestError("--freeze: has no effect: add finetune or auto to --strategies")
            if set(self.strategies) == {"probe"}:
                raise InvalidRequestError(
                    f"--{flag}: has no effect on a probe: add finetune or scratch to --strategies"
                )
        if self.init != "head" and not tuned:
            raise InvalidRequestError("--init: has no effect: add finetune or auto to --strategies")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the data sets: those of their folders, or lists."""
        places = [path.resolve() for path in self.data]
        return tuple(text_of(Path(place.stem if is_manifest(place) else place.name)) for place in places)

    @property
    def all_shares(self) -> tuple[str, ...]:
        """The shares as they are learned from: all pictures first."""
        return (ALL, *(share for share in self.shares if share != ALL))

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds, in order."""
        return tuple(range(self.seed, self.seed + self.seeds))

    @property
    def folder(self) -> Path:
        """The folder of the comparison."""
        return self.out or Path(f"compare-{'-'.join(self.names)}"[:100])
