"""Options of a training run that a request may state, checked without torch."""

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from regraft.errors import InvalidRequestError
from regraft.label_rules import check_note

Strategy: TypeAlias = Literal["probe", "finetune", "scratch", "auto"]
RequestedPrecision: TypeAlias = Literal["fp32", "int8", "auto"]

MAX_EPOCHS: Final = 1000
"""Each leaves a point of the learning curve in its job."""


@dataclass(frozen=True)
class TrainingOptions:
    """What a training job is asked for.

    Attributes:
        backbone: as `regraft train` takes it; the champion's if empty.
        strategy: a `Strategy`; ``probe`` if empty.
        precision: a `RequestedPrecision`; the champion's if empty.
        epochs: of fine-tuning, at most; a rule of the data if None.
    """

    backbone: str = ""
    strategy: str = ""
    precision: str = ""
    epochs: int | None = None

    def check(self) -> None:
        """Check what can be told without looking at a network.

        Raises:
            InvalidRequestError: the text names the field.
        """
        check_note("backbone", self.backbone)
        for field, value, choices in (
            ("strategy", self.strategy, get_args(Strategy)),
            ("precision", self.precision, get_args(RequestedPrecision)),
        ):
            if value and value not in choices:
                raise InvalidRequestError(f"{field}: {value!r}; there is: {', '.join(choices)}")
        if self.epochs is not None and not 1 <= self.epochs <= MAX_EPOCHS:
            raise InvalidRequestError(f"epochs: {self.epochs}; 1 to {MAX_EPOCHS}")
        if self.epochs is not None and self.strategy in ("", "probe"):
            raise InvalidRequestError("epochs: a probe has none; ask for strategy finetune, scratch or auto")

    def stated(self) -> dict[str, Any]:
        """Return those that are stated, by name."""
        return {name: value for name, value in vars(self).items() if value}
