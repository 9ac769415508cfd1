from collections.abc import Iterator
from pathlib import Path

import pytest

from regraft.client.client import MessageTooLargeError
from regraft.stores.models import ModelStore
from tests.live_server import LiveServer
from tests.tiny import picture


def test_the_callers_own_error_is_raised_after_what_came_before_it_was_answered(shared: LiveServer) -> None:
    def pictures() -> Iterator[tuple[str, bytes]]:
        yield "one", picture("red")
        yield "other", Path("nowhere.png").read_bytes()

    answered = []
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):  # noqa: PT012 - of the loop
        for answer in shared.client.classify_stream(pictures()):
            answered.append(answer.id)  # noqa: PERF401 - what came before the error is kept

    assert answered == ["one"]


def test_a_message_that_the_server_cannot_take_says_what_to_do_and_what_the_limit_is(store: ModelStore) -> None:
    with LiveServer(store, max_image_bytes=2048) as live, pytest.raises(MessageTooLargeError) as failure:
        list(live.client.add_examples([(bytes(400_000), "grey")]))

    assert failure.value.code == "RESOURCE_EXHAUSTED"
    assert failure.value.limit_bytes == 2 * 2048 + 64 * 1024
    assert "too large to send: 400," in str(failure.value)
    assert "the limit of a message is 69,632: scale it down" in str(failure.value)


def test_a_message_that_the_client_itself_cannot_send_is_told_of_likewise(shared: LiveServer) -> None:
    with pytest.raises(MessageTooLargeError, match="the limit of a message is 67,108,864"):
        list(shared.client.add_examples([(bytes(65 * 2**20), "grey")]))
