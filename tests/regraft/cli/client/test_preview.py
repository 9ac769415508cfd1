"""Looks at the next head, on the terminal and as JSON."""

from tests.live_server import LiveServer
from tests.regraft.cli.client.commands import run, say
from tests.tiny import picture


def test_a_preview_says_how_good_the_next_head_would_be_and_what_it_mistakes(live: LiveServer) -> None:
    [*live.client.add_examples([(picture("blue", 900), "red")])]

    shown = say(live, "preview")

    assert shown.startswith("colours: ")
    assert "pictures, each answered by a head that was not fitted on it" in shown
    for label in ("red", "green", "blue"):
        assert f"{label} " in shown
    assert "learning curve" in shown
    assert "+200" in shown
    assert "the gate would" in shown
    assert live.client.list_jobs() == []


def test_a_learning_curve_tells_what_more_labels_bring(live: LiveServer) -> None:
    (curve,) = run(live, "examples", "curve")

    assert [point["share"] for point in curve["points"]] == [0.25, 0.5, 0.75, 1.0]
    assert curve["points"][-1]["labels"] == curve["labels"] == 90
    assert [forecast["more"] for forecast in curve["forecasts"]] == [50, 100, 200]
    assert all(each["accuracy_low"] <= each["accuracy"] <= each["accuracy_high"] for each in curve["forecasts"])
