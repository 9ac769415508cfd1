"""Classes come and go with their pictures: which ones the next version can learn, and what is said of the others."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from regraft.errors import PreconditionError
from regraft.label_rules import listed

_NAMED: Final = 5
FEWEST: Final = 2
"""Training images that a class needs; of fewer, cross-validation could never set one aside."""


@dataclass(frozen=True)
class Classes:
    """The classes of the next version.

    Attributes:
        labels: those of the champion in its order, then the new ones in alphabetical order.
        left_out: by label, why a class takes no part.
        lost: those of them that the champion knows.
    """

    labels: tuple[str, ...]
    left_out: dict[str, str]
    lost: frozenset[str]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What people are told."""
        return tuple(f"class {label!r} {reason}" for label, reason in self.left_out.items())


def refuse_unseen(known: Sequence[str], seen: Collection[str], labelled: Iterable[tuple[str, bool]], who: str) -> None:
    """Check that no imported class would be dropped for want of pictures.

    Args:
        known: labels of the champion.
        seen: those of them that it has pictures of; these leave with their pictures.
        labelled: the label of each image, and whether it is holdout.
        who: the champion, NAME:VERSION.

    Raises:
        PreconditionError: there are such classes; the text says what to do.
    """
    counts = Counter(label for label, held in labelled if not held)
    unseen = [label for label in known if label not in seen and counts[label] < FEWEST]
    if unseen:
        named = listed([*map(repr, unseen)], _NAMED)
        raise PreconditionError(
            f"{who} was imported, and a head is fitted on pictures: label at least {FEWEST} to train on of each of its "
            f"classes; too few there are of {named}. Or import it again with --data, or train on its backbone, for the "
            f"classes that you have: regraft train DATA --backbone store:{who} --name ANOTHER"
        )


def in_order_of(known: Iterable[str], labels: Iterable[str]) -> tuple[str, ...]:
    """Order labels as a champion has them, new ones behind.

    Clients may know them by number.
    """
    there = dict.fromkeys(labels)
    first = {label: None for label in known if label in there}
    return (*first, *(label for label in there if label not in first))


def settle_classes(known: Sequence[str], labelled: Iterable[tuple[str, bool]]) -> Classes:
    """Keep the classes that have enough training images; the others take no part until they do.

    Args:
        known: labels of the champion.
        labelled: the label of each image, and whether it is holdout.

    Raises:
        PreconditionError: fewer than two classes are left, of which no head can be made.
    """
    counts = Counter(labelled)
    every = (*known, *sorted({label for label, _ in counts} - set(known)))
    left_out = {
        label: _reason(counts[label, False], counts[label, True], is_known=label in known)
        for label in every
        if counts[label, False] < FEWEST
    }
    labels = tuple(label for label in every if label not in left_out)
    if len(labels) < FEWEST:
        each = ", ".join(f"{label!r} has {counts[label, False]}" for label in left_out)
        raise PreconditionError(
            f"a head needs two classes of at least {FEWEST} images to train on: {each}: label more, or promote a "
            "version from before those images were removed or relabelled"
        )
    return Classes(labels, left_out, frozenset(left_out.keys() & set(known)))


def _reason(train: int, held: int, *, is_known: bool) -> str:
    if is_known and not train + held:
        return "leaves: no image bears its label any more"
    verb = "leaves" if is_known else "is left out"
    also = f" and {held} holdout" if held else ""
    return f"{verb}: {train} training{also} image{'s' * (train + held != 1)} of it, and {FEWEST} to train on are needed"
