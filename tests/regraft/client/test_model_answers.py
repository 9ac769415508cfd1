from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from regraft.client.model_answers import Answering, Outcome, Reply, gather, replies_of_server
from regraft.errors import PreconditionError
from regraft.stores.models import ModelStore
from tests.live_server import LiveServer
from tests.tiny import picture, publish_tiny
from tests.waiting import wait_until

BY = Answering("colours", 1, ("red", "green"), 0.5)


def reply(share: float, by: Answering = BY) -> Reply:
    return Reply(by, np.array([share, 1 - share], np.float32), 1 - share)


def test_answers_keep_the_order_of_the_pictures_and_those_without_one_their_reason() -> None:
    told: list[tuple[str, int, int]] = []
    outcomes: list[Outcome] = [("a", reply(0.75)), ("b", "is damaged"), ("c", reply(0.25))]

    answers = gather(outcomes, 3, lambda *step: told.append(step))

    assert answers.ids == ("a", "c")
    assert answers.probabilities.tolist() == [[0.75, 0.25], [0.25, 0.75]]
    assert answers.novelty.tolist() == [0.25, 0.75]
    assert answers.failures == {"b": "is damaged"}
    assert told[-1] == ("evaluate", 3, 3)


def test_where_nothing_could_be_answered_the_first_reason_is_told() -> None:
    with pytest.raises(PreconditionError, match="not one picture could be answered; the first: a: is damaged"):
        gather([("a", "is damaged"), ("b", "is worse")], 2)


def test_a_version_that_goes_live_meanwhile_ends_it_since_both_would_be_judged_as_one(
    store: ModelStore, tmp_path: Path
) -> None:
    files = [(str(number), tmp_path / f"{number}.png") for number in range(40)]
    for number, (_, file) in enumerate(files):
        file.write_bytes(picture("red", number))

    with LiveServer(store) as live:

        def swapping() -> Iterator[Outcome]:
            outcomes = replies_of_server(live.client, files[:1])
            yield from outcomes
            version = publish_tiny(store, sharpness=5.0)
            wait_until(lambda: live.client.get_model("colours").served_version == version)
            yield from replies_of_server(live.client, files[1:])

        with pytest.raises(PreconditionError, match="version 2 went live while 1 was asked: evaluate again"):
            gather(swapping(), len(files))
