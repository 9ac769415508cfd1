import json
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.gate_limits import GateLimits
from regraft.model.artifact import FloatArray
from training.gate.checks import LEVEL
from training.gate.judge import Answers, NewLabels, judge, mcnemar
from training.gate.verdict import Verdict

LABELS = ("ant", "bee", "wasp", "fly")


def answers(predicted: npt.NDArray[np.int64], classes: int) -> FloatArray:
    return np.asarray(np.eye(classes, dtype=np.float32)[predicted])


def right_answers(images: list[int], right: list[int], known: int) -> FloatArray:
    """Return probabilities [n, known] that answer the first ``right[k]`` of class k rightly."""
    predicted = []
    for label, (count, correct) in enumerate(zip(images, right, strict=True)):
        wrong = (label + 1) % known
        predicted += [label] * correct + [wrong] * (count - correct)
    return answers(np.array(predicted, np.int64), known)


@dataclass(frozen=True)
class Case:
    """Right answers per class, and what has to come of it.

    Attributes:
        images: holdout images of each class.
        champion: how many of them the champion gets right; 0 for a class that it does not know.
        challenger: likewise.
        objections: a piece of each reason, in order; none where the challenger is to be blessed.
        new: how many of the last classes are new to the champion.
        limits: how much worse it may be.
    """

    images: list[int]
    champion: list[int]
    challenger: list[int]
    objections: list[str] = field(default_factory=list)
    new: int = 0
    limits: GateLimits = field(default_factory=GateLimits)


CASES = {
    "the same": Case([20, 20], [18, 19], [18, 19]),
    "better": Case([20, 20], [18, 19], [20, 20]),
    "worse by exactly the allowance": Case([100, 100], [90, 90], [90, 89]),
    "worse by one image beyond a typed limit": Case(
        [100, 100], [90, 90], [89, 89], ["accuracy falls by 1.00 points"], limits=GateLimits(max_drop=0.5)
    ),
    "worse by what may be chance": Case([100, 100], [90, 90], [88, 88]),
    "worse beyond chance and the margin": Case([300, 300], [290, 290], [283, 283], ["accuracy falls by 2.33 points"]),
    "worse beyond chance, within the margin": Case([1500, 1500], [1400, 1400], [1394, 1394]),
    "much worse everywhere": Case(
        [100, 100],
        [90, 90],
        [50, 40],
        ["accuracy falls by 45.00 points", "class 'ant' loses 40.0", "class 'bee' loses 50.0"],
    ),
    "one class worse by exactly a typed limit, the other better": Case(
        [100, 100], [90, 90], [85, 95], limits=GateLimits(max_class_drop=5)
    ),
    "one class worse beyond a typed limit, the other better": Case(
        [100, 100],
        [90, 90],
        [84, 96],
        ["class 'ant' loses 6.0 points of recall, from 0.900 to 0.840"],
        limits=GateLimits(max_class_drop=5),
    ),
    "one class worse by what may be chance, the other better": Case([100, 100], [90, 90], [84, 96]),
    "one class worse beyond chance, the other better": Case(
        [100, 100],
        [90, 90],
        [75, 99],
        ["class 'ant' loses 15.0 points of recall, from 0.900 to 0.750 on 100 holdout images: more than the 5 that"],
    ),
    "one image of a small class, the other better": Case(
        [4, 100], [4, 90], [3, 95], limits=GateLimits(max_class_drop=5)
    ),
    "two images of a small class beyond a typed limit": Case(
        [4, 100],
        [4, 90],
        [2, 95],
        ["class 'ant' loses 50.0 points of recall, from 1.000 to 0.500"],
        limits=GateLimits(max_class_drop=5),
    ),
    "two images of a small class, which may be chance": Case([4, 100], [4, 90], [2, 95]),
    "the only image of a class": Case([1, 300], [1, 290], [0, 290]),
    "a class without holdout images": Case([0, 20], [0, 18], [0, 18]),
    "a new class with holdout images": Case([20, 20, 5], [18, 18, 0], [18, 18, 5], new=1),
    "a new class without holdout images": Case([20, 20, 0], [18, 18, 0], [18, 18, 0], new=1),
    "a new class of which nothing is recognised": Case([20, 20, 5], [18, 18, 0], [18, 18, 0], new=1),
    "a new class of which nothing is recognised, below a floor": Case(
        [20, 20, 5],
        [18, 18, 0],
        [18, 18, 0],
        ["class 'wasp' has a recall of 0.000"],
        new=1,
        limits=GateLimits(min_class_recall=1),
    ),
    "a new class at the cost of an old one": Case(
        [20, 20, 20], [20, 20, 0], [10, 20, 20], ["class 'ant' loses 50.0 points"], new=1
    ),
    "no holdout images": Case([0, 0], [0, 0], [0, 0], ["there are no holdout images"]),
    "no drop allowed, and none": Case([10, 10], [9, 9], [9, 9], limits=GateLimits(0, 0)),
    "no drop allowed, and one image: a typed limit needs no test": Case(
        [100, 100], [90, 90], [90, 89], ["accuracy falls by 0.50 points"], limits=GateLimits(0, 0)
    ),
    "much allowed": Case([10, 10], [9, 9], [5, 5], limits=GateLimits(50, 50)),
    "less than nothing allowed: it has to be better": Case(
        [10, 10], [9, 9], [9, 9], ["accuracy falls by 0.00 points"], limits=GateLimits(-1, 5)
    ),
}


def judged(case: Case) -> Verdict:
    known = len(case.images) - case.new
    truth = np.repeat(np.arange(len(case.images)), case.images)
    answers = Answers(
        right_answers(case.images, case.champion, known),
        right_answers(case.images, case.challenger, len(case.images)),
        truth,
        LABELS[: len(case.images)],
    )
    return judge(answers, case.limits)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_gate_blesses_and_refuses(case: Case) -> None:
    verdict = judged(case)

    assert verdict.blessed == (not case.objections), verdict.reasons
    assert len(verdict.reasons) == len(case.objections)
    for reason, expected in zip(verdict.reasons, case.objections, strict=True):
        assert expected in reason


def test_images_of_a_class_that_the_champion_does_not_know_count_as_wrong_for_it() -> None:
    verdict = judged(Case([20, 20, 10], [18, 16, 0], [17, 19, 8], new=1))

    assert verdict.holdout_images == 50
    assert verdict.champion_accuracy == pytest.approx(34 / 50)
    assert verdict.challenger_accuracy == pytest.approx(44 / 50)
    assert verdict.champion_known_accuracy == pytest.approx(34 / 40)
    assert verdict.challenger_known_accuracy == pytest.approx(36 / 40)


def test_every_class_is_reported_with_its_images_and_both_recalls() -> None:
    verdict = judged(Case([20, 0, 10], [18, 0, 0], [17, 0, 8], new=1))

    assert [(c.label, c.holdout_images, c.is_new) for c in verdict.classes] == [
        ("ant", 20, False),
        ("bee", 0, False),
        ("wasp", 10, True),
    ]
    assert [c.champion_recall for c in verdict.classes] == pytest.approx([0.9, 0, 0])
    assert [c.challenger_recall for c in verdict.classes] == pytest.approx([0.85, 0, 0.8])


def test_a_verdict_without_holdout_images_has_no_accuracy_rather_than_an_error() -> None:
    verdict = judged(CASES["no holdout images"])

    assert (verdict.holdout_images, verdict.champion_accuracy, verdict.challenger_known_accuracy) == (0, 0, 0)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_verdict_is_plain_json(case: Case) -> None:
    verdict = judged(case)

    fields = json.loads(json.dumps(verdict.to_dict()))

    assert fields["blessed"] is verdict.blessed
    assert fields["reasons"] == list(verdict.reasons)
    assert [entry["label"] for entry in fields["classes"]] == list(LABELS[: len(case.images)])
    assert fields["challenger_accuracy"] == verdict.challenger_accuracy


@st.composite
def holdouts(draw: st.DrawFn) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64], tuple[str, ...]]:
    """Draw the answers of two heads on a holdout of some classes."""
    classes = draw(st.integers(2, 4))
    known = draw(st.integers(2, classes))
    images = draw(st.integers(0, 40))
    index = st.lists(st.integers(0, classes - 1), min_size=images, max_size=images)
    truth = np.array(draw(index), np.int64)
    champion = np.where(draw(st.booleans()), truth % known, np.array(draw(index), np.int64) % known)
    challenger = np.where(np.arange(images) % draw(st.integers(1, 9)) > 0, truth, np.array(draw(index), np.int64))
    return answers(champion, known), answers(challenger, classes), truth, LABELS[:classes]


Holdout = tuple[FloatArray, FloatArray, npt.NDArray[np.int64], tuple[str, ...]]
LIMITS = st.builds(GateLimits, st.floats(0, 30), st.floats(0, 30))


@settings(max_examples=150)
@given(holdouts(), LIMITS)
def test_no_challenger_is_blessed_beyond_typed_limits_or_without_evidence(holdout: Holdout, limits: GateLimits) -> None:
    champion, challenger, truth, labels = holdout

    verdict = judge(Answers(*holdout), limits)

    old, new = champion.argmax(axis=1) == truth, challenger.argmax(axis=1) == truth
    if verdict.blessed:
        assert len(truth) > 0
        assert 100 * (old.mean() - new.mean()) <= limits.margins.drop + 1e-6
        for row in range(len(labels)):
            images = int((truth == row).sum())
            if row < champion.shape[1] and images:
                among_old = challenger[:, : champion.shape[1]].argmax(axis=1) == truth
                lost, forgotten = (
                    int(old[truth == row].sum()) - int(now[truth == row].sum()) for now in (new, among_old)
                )
                assert forgotten <= 1 or 100 * forgotten / images <= limits.margins.class_drop + 1e-6
                within = lost <= 1 or 100 * lost / images <= limits.margins.class_drop + 1e-6
                assert within or mcnemar(old[truth == row], new[truth == row]) >= 0.05
    assert verdict.blessed == (verdict.reasons == ())


@settings(max_examples=100)
@given(holdouts(), LIMITS)
def test_a_challenger_that_gets_nothing_wrong_is_blessed_where_there_is_evidence(
    holdout: Holdout, limits: GateLimits
) -> None:
    champion, _, truth, labels = holdout

    verdict = judge(Answers(champion, answers(truth, len(labels)), truth, labels), limits)

    assert verdict.blessed == (len(truth) > 0)


@settings(max_examples=100)
@given(holdouts())
def test_without_typed_limits_it_is_refused_only_for_what_a_test_shows(holdout: Holdout) -> None:
    champion, challenger, truth, _ = holdout

    verdict = judge(Answers(*holdout), GateLimits())

    tests = [verdict.loss_p_value, *(entry.loss_p_value for entry in verdict.classes if not entry.is_new)]
    assert verdict.blessed == (len(truth) > 0 and min(tests) >= LEVEL)
    old, new = champion.argmax(axis=1) == truth, challenger.argmax(axis=1) == truth
    if verdict.loss_p_value < LEVEL:
        assert old.sum() - new.sum() >= 3  # fewer are never beyond chance


@settings(max_examples=100)
@given(holdouts())
def test_wider_limits_never_turn_a_blessing_into_a_refusal(holdout: Holdout) -> None:
    blessings = [judge(Answers(*holdout), GateLimits(width, width)).blessed for width in (0, 1, 5, 20, 100)]

    assert blessings == sorted(blessings)


def test_mcnemar_is_exact_and_two_sided() -> None:
    first = np.array([True] * 6 + [False] + [True] * 10)
    second = np.array([False] * 6 + [True] + [True] * 10)

    assert mcnemar(first, second) == pytest.approx(2 * (1 + 7) / 2**7)
    assert mcnemar(first, first) == 1


def test_a_loss_beyond_a_typed_limit_is_refused_and_says_where_it_may_be_chance() -> None:
    typed = GateLimits(max_drop=0.5, max_class_drop=5)
    few, many = (judged(Case([20, 20], [18, 18], [18, 18 - lost], limits=typed)) for lost in (2, 12))

    assert "(p = 0.5, which may be chance)" in few.reasons[0]
    assert "(p = 0.00049)" in many.reasons[0]


def test_many_classes_are_tested_at_one_level_together() -> None:
    alone = judged(Case([60, 60], [60, 50], [53, 57]))
    among_many = judge(
        Answers(
            answers(np.repeat(np.arange(40), 60), 40),
            answers(np.concatenate([np.full(7, 1), np.repeat(np.arange(40), 60)[7:]]), 40),
            np.repeat(np.arange(40), 60),
            tuple(map(str, range(40))),
        ),
        GateLimits(),
    )

    assert among_many.classes[0].loss_p_value > alone.classes[0].loss_p_value > 0


def test_the_verdict_says_which_loss_it_cannot_exclude() -> None:
    verdict = judged(Case([40, 10, 0, 4], [40, 10, 0, 0], [40, 10, 0, 0], new=1))

    assert verdict.blessed
    assert verdict.cautions == (
        "54 holdout images cannot exclude a loss of up to 4.8 points of accuracy",
        "a loss of recall cannot be excluded: wasp (up to 100 points, 0 images), bee (up to 21 points, 10 images), "
        "ant (up to 6 points, 40 images)",
        "class 'fly' is new, and none of its 4 holdout images is recognised: label more of it (about one image in five "
        "becomes holdout)",
    )


def test_a_new_class_without_evidence_is_said_and_not_refused() -> None:
    verdict = judged(Case([2000, 2000, 0], [1800, 1800, 0], [1800, 1800, 0], new=1))

    assert verdict.blessed
    assert verdict.cautions == (
        "class 'wasp' is new, and it has no holdout images, so nothing shows that it is recognised: label more of it "
        "(about one image in five becomes holdout)",
    )


def test_a_floor_holds_for_all_images_and_for_each_class() -> None:
    verdict = judged(Case([20, 20], [14, 10], [14, 10], limits=GateLimits(min_accuracy=75, min_class_recall=60)))

    assert verdict.reasons == (
        "accuracy 0.6000 is below the floor of 75 %",
        "class 'bee' has a recall of 0.500 on 20 holdout images, below the floor of 60 %",
    )


OF_SOURCES = GateLimits(max_drop=100, max_class_drop=100, max_slice_drop=5)


def by_source(source: tuple[str, ...], new_wrong: list[int], limits: GateLimits = OF_SOURCES) -> Verdict:
    truth = np.zeros(len(source), np.int64)
    wrong = truth.copy()
    wrong[new_wrong] = 1
    return judge(Answers(answers(truth, 2), answers(wrong, 2), truth, LABELS[:2], source), limits)


def test_a_source_that_loses_is_named_and_one_image_is_always_allowed() -> None:
    source = ("phone",) * 10 + ("web",) * 90

    assert by_source(source, [0]).blessed
    verdict = by_source(source, [0, 1])
    assert verdict.reasons == (
        "source 'phone' loses 20.0 points of accuracy, from 1.000 to 0.800 on 10 holdout images "
        "(p = 0.5, which may be chance); allowed is 10.0",
    )
    assert [(part.source, part.holdout_images) for part in verdict.slices] == [("web", 90), ("phone", 10)]


def test_a_source_that_is_shown_to_lose_is_named() -> None:
    source = ("phone",) * 60 + ("web",) * 540

    assert by_source(source, [0, 1, 2, 3, 4], GateLimits()).blessed
    (reason,) = by_source(source, list(range(15)), GateLimits(max_drop=100)).reasons
    assert "source 'phone' loses 25.0 points of accuracy, from 1.000 to 0.750 on 60 holdout images: more than" in reason


def test_a_floor_holds_for_each_source_too() -> None:
    source = ("phone",) * 10 + ("web",) * 90
    limits = GateLimits(max_drop=100, max_slice_drop=100, max_class_drop=100, min_slice_accuracy=70)

    assert by_source(source, [0, 1, 2], limits).blessed
    assert by_source(source, [0, 1, 2, 3], limits).reasons == (
        "source 'phone' has an accuracy of 0.600 on 10 holdout images, below the floor of 70 %",
    )


def test_a_source_without_holdout_images_is_held_to_no_floor() -> None:
    truth = np.zeros(5, np.int64)
    same = Answers(answers(truth, 2), answers(truth, 2), truth, LABELS[:2], ("web",) * 5)

    verdict = judge(same, GateLimits(min_slice_accuracy=100), news=NewLabels(("phone",), np.array([False]), 10, 0))

    assert verdict.blessed
    assert [part.source for part in verdict.slices] == ["web", "phone"]


def with_new_labels(suspects: int, labels: int, old_suspects: int = 20) -> Verdict:
    truth = np.zeros(50, np.int64)
    suspect = np.arange(labels) < suspects
    news = NewLabels(("batch",) * labels, suspect, 1000, old_suspects)
    typed = GateLimits(max_suspects=5)
    return judge(Answers(answers(truth, 2), answers(truth, 2), truth, LABELS[:2]), typed, news=news)


def test_many_likely_wrong_new_labels_are_refused_where_a_limit_was_typed() -> None:
    verdict = with_new_labels(9, 45)

    assert verdict.reasons == (
        "9 of 45 new labels are likely wrong (20.0%; of the labels before 2.0%): the version's report shows them",
    )
    assert (verdict.new_images, verdict.suspects, verdict.old_suspect_share) == (45, 9, 0.02)


@pytest.mark.parametrize(
    ("suspects", "labels", "old"), [(0, 45, 0), (1, 45, 20), (1, 1, 20), (3, 45, 20), (9, 45, 170), (0, 0, 20)]
)
def test_a_few_suspects_or_as_many_as_ever_are_no_reason(suspects: int, labels: int, old: int) -> None:
    assert with_new_labels(suspects, labels, old).blessed


def test_golden_images_that_are_answered_wrong_are_named() -> None:
    truth = np.zeros(5, np.int64)
    same = Answers(answers(truth, 2), answers(truth, 2), truth, LABELS[:2])
    golden = [(f"ant/{number}.jpg", number > 6) for number in range(9)]

    verdict = judge(same, GateLimits(), golden=golden)

    assert (verdict.golden_images, len(verdict.golden_failures)) == (9, 7)
    assert verdict.reasons == (
        "golden images answered wrong: ant/0.jpg, ant/1.jpg, ant/2.jpg, ant/3.jpg, ant/4.jpg and 2 more",
    )


@pytest.mark.parametrize(("lost", "reasons"), [(5, 0), (6, 1)])
def test_an_old_class_may_lose_to_a_new_one_what_may_be_chance(lost: int, reasons: int) -> None:
    truth = np.repeat([0, 1, 2], 40)
    now = truth.copy()
    now[:lost] = 2  # answered with the new label; among the old labels the first comes next

    verdict = judge(Answers(answers(truth % 2, 2), answers(now, 3), truth, LABELS[:3]), GateLimits(max_class_drop=5))

    assert len(verdict.reasons) == reasons
    assert verdict.classes[0].challenger_old_labels_recall == 1
    if reasons:
        assert "loses 15.0 points of recall, from 1.000 to 0.850" in verdict.reasons[0]
        assert "to new labels (p = 0.031)" in verdict.reasons[0]


def test_what_is_forgotten_counts_whatever_is_new() -> None:
    truth = np.repeat([0, 1, 2], 40)
    now = truth.copy()
    now[:3] = 1

    verdict = judge(Answers(answers(truth % 2, 2), answers(now, 3), truth, LABELS[:3]), GateLimits(max_class_drop=5))

    assert "class 'ant' loses 7.5 points of recall" in verdict.reasons[0]


def unsure(images: int, probability: float, spread: float = 0.02) -> FloatArray:
    """Return right answers of so much confidence, more or less."""
    right = probability + spread * np.cos(np.arange(images))
    return np.asarray(np.column_stack([right, 1 - right]), np.float32)


def test_a_challenger_that_spoils_the_probabilities_of_old_classes_is_refused_though_every_answer_is_right() -> None:
    truth = np.zeros(60, np.int64)

    verdict = judge(Answers(unsure(60, 0.9), unsure(60, 0.6), truth, LABELS[:2]), GateLimits())

    assert verdict.champion_accuracy == verdict.challenger_accuracy == 1
    (reason,) = verdict.reasons
    assert "log loss on the images that both answer rightly rises from 0.10" in reason
    assert any("calibration error rises from" in caution for caution in verdict.cautions)


@pytest.mark.parametrize("probability", [0.97, 0.9, 0.86])
def test_probabilities_that_are_better_or_little_worse_are_no_reason(probability: float) -> None:
    truth = np.zeros(60, np.int64)

    assert judge(Answers(unsure(60, 0.9), unsure(60, probability), truth, LABELS[:2]), GateLimits()).blessed
