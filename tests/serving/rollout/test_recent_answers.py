from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.model.drift import reference_of
from serving.inference.backbone import Backbone
from serving.inference.engine import Output
from serving.inference.models_in_memory import ServedModel
from serving.rollout.recent_answers import MIN_ANSWERS, AnswerWindow, RecentAnswers
from tests.tiny import tiny_backbone, tiny_card, tiny_head

LABELS = ("red", "green", "blue")
THRESHOLD = 0.05  # of the tiny card


def outputs(count: int, *, confidence: float = 0.9, novelty: float = 0.02, seed: int = 0) -> list[Output]:
    """Return answers that are about so sure and so far from the training images."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        probabilities = np.empty(3, np.float32)
        sure = float(np.clip(rng.normal(confidence, 0.02), 0.34, 1))
        probabilities[:] = (1 - sure) / 2
        probabilities[number % 3] = sure
        found.append(Output(probabilities, np.zeros(12, np.float32), float(abs(rng.normal(novelty, 0.005)))))
    return found


def served(*, referenced: bool = True) -> ServedModel:
    """Return a version that was judged by 300 such answers; the backbone is not asked for."""
    head, backbone = tiny_head(LABELS), tiny_backbone()
    judged = outputs(300, seed=9)
    probabilities = np.stack([output.probabilities for output in judged])
    novelty = np.array([output.novelty for output in judged], np.float32)
    reference = reference_of(probabilities, novelty, LABELS, "holdout") if referenced else None
    card = tiny_card(backbone, head, LABELS).model_copy(update={"reference": reference})
    return ServedModel("colours", 1, card, head, cast("Backbone", None))


def begin(*, most: int = 1000, span_s: float = 3600.0, referenced: bool = True) -> RecentAnswers:
    return RecentAnswers.begin(served(referenced=referenced), most, span_s)


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 40)), max_size=20))
def test_a_window_holds_the_newest_answers_that_are_young_enough_and_no_more(rounds: list[tuple[int, float]]) -> None:
    window = AnswerWindow(50, 60.0, np.empty((0, 1), np.float32), np.empty(0))
    seen: list[tuple[float, float]] = []
    now_s = 0.0
    for count, pause_s in rounds:
        now_s += pause_s
        seen += [(float(len(seen) + number), now_s) for number in range(count)]
        new = np.array([value for value, _ in seen[len(seen) - count :]], np.float32)[:, None]
        window = window.slid(new, now_s)

    expected = [value for value, at_s in seen if at_s > now_s - 60.0][-50:]
    assert window.figures[:, 0].tolist() == expected


def test_answers_like_those_of_the_reference_are_steady() -> None:
    traffic = begin().after(outputs(200), 0.0)

    assert traffic.drift == "steady"
    assert [shift.of for shift in traffic.largest_shifts][:2] == ["distance", "confidence"]
    assert traffic.unknown_share < 0.05


@pytest.mark.parametrize(("changed", "of"), [({"confidence": 0.7}, "confidence"), ({"novelty": 0.04}, "distance")])
def test_answers_unlike_them_are_drift(changed: dict[str, Any], of: str) -> None:
    traffic = begin().after(outputs(200, **changed), 0.0)

    assert traffic.drift == "drifted"
    assert {shift.of: shift.drifted for shift in traffic.largest_shifts}[of]


def test_what_lies_beyond_the_threshold_is_unknown() -> None:
    traffic = begin().after([*outputs(150), *outputs(50, novelty=2 * THRESHOLD)], 0.0)

    assert traffic.unknown_share == pytest.approx(0.25)


def test_before_enough_answers_nothing_is_said() -> None:
    few = begin().after(outputs(MIN_ANSWERS - 1, novelty=1.0), 0.0)

    assert (few.drift, few.shifts) == ("too few", ())
    assert few.after(outputs(1), 1.0).drift == "drifted"


def test_without_a_reference_drift_is_not_known_but_unknown_pictures_are() -> None:
    traffic = begin(referenced=False).after(outputs(200, novelty=2 * THRESHOLD), 0.0)

    assert (traffic.drift, traffic.shifts) == ("not known", ())
    assert traffic.unknown_share == 1


def test_drift_that_ended_leaves_the_window_by_number_and_by_time() -> None:
    by_number = begin(most=200).after(outputs(200, novelty=1.0), 0.0).after(outputs(200), 1.0)
    by_time = begin(span_s=60.0).after(outputs(200, novelty=1.0), 0.0).after(outputs(200), 61.0)
    silence = begin(span_s=60.0).after(outputs(200, novelty=1.0), 0.0).after([], 61.0)

    assert (by_number.drift, by_time.drift, silence.drift) == ("steady", "steady", "too few")
    assert (silence.images, silence.unknown_share) == (200, 0)


def test_answers_that_are_no_numbers_are_counted_and_kept_out_of_the_figures() -> None:
    rubbish = Output(np.full(3, np.nan, np.float32), np.zeros(12, np.float32), 0.02)
    endless = Output(outputs(1)[0].probabilities, np.zeros(12, np.float32), float("inf"))

    traffic = begin().after([*outputs(200), rubbish, endless], 0.0)

    assert (traffic.images, traffic.nonsense, len(traffic.distance)) == (202, 2, 200)
    assert traffic.drift == "steady"
