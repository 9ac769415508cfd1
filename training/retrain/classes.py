"""Classes of the next version, which come and go with their pictures."""

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
        """Sentences on the classes left out."""
        return tuple(f"class {label!r} {reason}" for label, reason in self.left_out.items())


def refuse_unseen(
    before: Sequence[str], seen: Collection[str], labelled: Iterable[tuple[str, bool]], champion: str
) -> None:
    """Check that no imported class would be dropped for want of pictures.

    Args:
        before: labels of the champion.
        seen: those of them that it has pictures of; these leave with their pictures.
        labelled: the label of each image, and whether it is holdout.
        champion: the champion, NAME:VERSION.

    Raises:
        PreconditionError: there are such classes; the text says what to do.
    """
    counts = Counter(label for label, is_holdout in labelled if not is_holdout)
    unseen = [label for label in before if label not in seen and counts[label] < FEWEST]
    if unseen:
        named = listed([*map(repr, unseen)], _NAMED)
        raise PreconditionError(
            f"{champion} was imported, and a head is fitted on pictures: label at least {FEWEST} to train on of each "
            f"of its classes; too few there are of {named}. Or import it again with --data, or train on its backbone, "
            f"for the classes that you have: regraft train DATA --backbone store:{champion} --name ANOTHER"
        )


def in_order_of(before: Iterable[str], labels: Iterable[str]) -> tuple[str, ...]:
    """Order labels as a champion has them, new ones behind.

    Clients may know them by number.
    """
    there = dict.fromkeys(labels)
    first = {label: None for label in before if label in there}
    return (*first, *(label for label in there if label not in first))


def settle_classes(before: Sequence[str], labelled: Iterable[tuple[str, bool]]) -> Classes:
    """Keep the classes that have enough training images.

    Args:
        before: labels of the champion.
        labelled: the label of each image, and whether it is holdout.

    Raises:
        PreconditionError: fewer than two classes are left, of which no head can be made.
    """
    counts = Counter(labelled)
    every = (*before, *sorted({label for label, _ in counts} - set(before)))
    left_out = {
        label: _reason(counts[label, False], counts[label, True], is_known=label in before)
        for label in every
        if counts[label, False] < FEWEST
    }
    labels = tuple(label for label in every if label not in left_out)
    if len(labels) < FEWEST:
        each = ", ".join(f"{label!r} has {counts[label, False]}" for label in left_out)
        or_go_back = ", or promote a version from before those images were removed or relabelled" if before else ""
        raise PreconditionError(
            f"a head needs two classes of at least {FEWEST} images to train on: {each or 'there is none'}: "
            f"label more{or_go_back}"
        )
    return Classes(labels, left_out, frozenset(left_out.keys() & set(before)))


def _reason(train: int, holdout: int, *, is_known: bool) -> str:
    if is_known and not train + holdout:
        return "leaves: no image bears its label any more"
    verb = "leaves" if is_known else "is left out"
    also = f" and {holdout} holdout" if holdout else ""
    return (
        f"{verb}: {train} training{also} image{'s' * (train + holdout != 1)} of it, and {FEWEST} to train on are needed"
    )
