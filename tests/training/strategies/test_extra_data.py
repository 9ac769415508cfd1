from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.errors import DatasetError, InvalidRequestError
from tests.tiny import SPEC, picture, tiny_backbone
from tests.training.conftest import COLOUR_KEY, colour_features, crayons
from training.data.samples import Sample
from training.evaluation.findings import ExtraData
from training.head.features import Embedder
from training.head.fit import fit
from training.settings import TrainSettings
from training.strategies.context import Context, SilentListener
from training.strategies.extra_data import check_extra, fit_with_extra

FIRST = colour_features(("blue", "red"), 12, 5)
ALONE = fit(FIRST)


def write(root: Path, counts: Mapping[str, int], *, first: int = 500, called: Callable[[str], str] = str) -> Path:
    """Write so many pictures of each colour into folders; from number 500 on the first set does not have them."""
    for colour, count in counts.items():
        (root / called(colour)).mkdir(parents=True)
        for number in range(first, first + count):
            (root / called(colour) / f"{number}.png").write_bytes(picture(colour, number))
    return root


def join(extra: Path, **settings: object) -> tuple[ExtraData, tuple[Sample, ...]]:
    given = TrainSettings(extra.parent / "first", extra=extra, **settings)  # type: ignore[arg-type]  # fields by name
    context = Context(given, extra.parent / "cache", extra.parent / "runs", SilentListener())
    embedder = Embedder.open(tiny_backbone().SerializeToString(), SPEC, COLOUR_KEY)
    joined = fit_with_extra(extra, FIRST, ALONE, None, embedder, context)
    return joined.finding, joined.samples


def test_it_says_how_many_pictures_took_part_and_why_the_others_did_not(tmp_path: Path) -> None:
    extra = write(tmp_path / "more", {"blue": 6, "red": 5, "green": 3})
    (extra / "blue" / "known.png").write_bytes(picture("blue", 0))
    (extra / "blue" / "twice.png").write_bytes(picture("blue", 500))
    (extra / "red" / "broken.png").write_bytes(picture("red", 900)[:100])

    found, samples = join(extra)

    assert (found.found, found.images, len(samples)) == (17, 11, 11)
    told = dict(found.left_out)
    assert told.pop("in the first set already") == 1
    assert told.pop("no picture, or the same as another") == 1
    assert told.pop("cannot be read") == 1
    ((unknown, count),) = told.items()
    assert count == 3
    assert "of classes that the first set does not have (green)" in unknown
    assert found.images + sum(found.left_out.values()) == found.found


def test_classes_of_other_names_join_under_those_of_the_first_set(tmp_path: Path) -> None:
    extra = write(tmp_path / "more", {"blue": 4, "red": 5}, called=lambda colour: f"very {colour}")

    found, samples = join(extra, extra_classes={"very blue": "blue", "very red": "red"})

    assert (found.images, found.left_out) == (9, {})
    assert sorted(sample.label_index for sample in samples) == [0] * 4 + [1] * 5


def test_several_classes_may_join_one(tmp_path: Path) -> None:
    extra = write(tmp_path / "more", {"green": 4, "grey": 5})

    found, samples = join(extra, extra_classes={"green": "blue", "grey": "blue"})

    assert found.images == 9
    assert {sample.label_index for sample in samples} == {0}


def test_a_second_set_without_any_class_of_the_first_says_which_it_has(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"--extra: .*no further image .*it has: green; --extra-class says"):
        join(write(tmp_path / "more", {"green": 4}))


@pytest.mark.parametrize(
    ("renamed", "told"),
    [
        ({"blue": "sky"}, r"'sky' is no class of the first set \(blue, red\)"),
        ({"kitten": "blue"}, r"'kitten' is no class of .*more \(blue, green, red\)"),
    ],
)
def test_a_name_that_neither_set_has_is_refused_before_a_picture_is_read(
    tmp_path: Path, renamed: dict[str, str], told: str
) -> None:
    extra = crayons(tmp_path / "more", 1)

    with pytest.raises(InvalidRequestError, match=f"--extra-class: {told}"):
        check_extra(extra, renamed, ("blue", "red"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--extra-class", "kitten"], "'kitten'; need THEIRS=OURS, such as kitten=cat"),
        (["--extra-class", "=cat"], "'=cat'; need THEIRS=OURS"),
        (["--extra-class", "a=b", "--extra-class", "a=c"], "'a' cannot be both 'b' and 'c'"),
        (["--extra-class", "kitten=cat"], "names classes of --extra, which is not given"),
    ],
)
def test_renaming_that_makes_no_sense_is_refused(tmp_path: Path, arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["train", str(tmp_path), *arguments])

    assert isinstance(result.exception, InvalidRequestError)
    assert str(result.exception).startswith("--extra-class: ")
    assert told in str(result.exception)
