"""Lines of the audit, against what SECURITY.md promises and the stores hold."""

import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import grpc
import pytest

from regraft.client.client import Client, RemoteError
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.models import ModelStore
from regraft.v1.examples_pb2 import RelabelExampleRequest
from regraft.v1.examples_pb2_grpc import ExamplesStub
from regraft.v1.retraining_pb2 import AddExamplesRequest
from serving.rpc.security.roles import LEAST_ROLE, Role
from tests import REPOSITORY
from tests.live_server import LiveServer, stalled_retrain
from tests.serving.conftest import AuditLines
from tests.serving.rpc.rpcs import outcome_of, rpcs_of
from tests.tiny import picture, publish_tiny
from tests.waiting import wait_until

SECURITY = REPOSITORY / "SECURITY.md"
RED, GREY = picture("red", 70), picture("grey", 71)


@pytest.fixture
def live(store: ModelStore) -> Iterator[LiveServer]:
    publish_tiny(store, sharpness=5.0, promote=False)
    with LiveServer(store) as server:
        yield server


def test_a_line_of_every_rpc_has_the_fields_that_are_promised(store: ModelStore, audit_lines: AuditLines) -> None:
    publish_tiny(store, name="shapes")  # a request that names no model is refused before it starts a process
    promised = re.findall(r"^\| `(\w+)` \|", SECURITY.read_text().partition("## TLS")[0], re.MULTILINE)[-6:]
    with LiveServer(store) as live, grpc.insecure_channel(live.target) as channel:
        control = [rpc for rpc in rpcs_of(channel) if LEAST_ROLE[rpc] > Role.CLASSIFY]
        for rpc in control:
            outcome_of(channel, rpc)

    assert "effect" in promised
    wait_until(lambda: len(audit_lines()) == len(control))
    for line in audit_lines():
        assert list(line) == promised
        assert line["rpc"] in control


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(RemoteError):
        call()


def add(client: Client, *labelled: tuple[bytes, str]) -> None:
    assert len(list(client.add_examples(labelled, source="a test"))) == len(labelled)


def change_all(client: Client, examples: ExamplesStore) -> None:
    """Bring about every effect that a caller can, and be refused each."""
    add(client, (RED, "red"), (GREY, "grey"), (RED, "red"), (RED, "blue"), (b"no picture", "red"))
    red, grey = sorted(client.list_examples(), key=lambda example: example.label, reverse=True)
    client.relabel_example(grey.sha256[:12], "silver")
    refused(lambda: client.relabel_example(grey.sha256, ""))
    refused(lambda: client.release_example(red.sha256))
    examples.labels.quarantine("colours", {red.sha256: ("red", "a test")})
    client.release_example(red.sha256)
    client.remove_example(grey.sha256)
    refused(lambda: client.remove_example(grey.sha256))
    client.promote(2)
    refused(lambda: client.promote(7))
    client.shadow(1)
    refused(lambda: client.shadow(2))
    client.shadow(0)
    client.rollback()
    refused(client.rollback)
    job = client.retrain()
    refused(client.retrain)
    client.cancel_job(job.id)
    refused(lambda: client.cancel_job("nobody"))


def test_all_lines_agree_with_what_the_stores_hold(
    store: ModelStore, live: LiveServer, audit_lines: AuditLines
) -> None:
    before = len(store.history("colours"))
    with closing(ExamplesStore(store.root / EXAMPLES_FOLDER)) as examples, stalled_retrain(store):
        change_all(live.client, examples)
        wait_until(lambda: audit_lines()[-1]["request"] == {"id": "nobody"})

        effects = [line["effect"] for line in audit_lines()]
        moves = [(effect["event"], effect["version"]) for effect in effects if "event" in effect]
        assert moves == [(entry.event, entry.version) for entry in store.history("colours")[before:]]
        assert len(moves) == 4
        with closing(sqlite3.connect(store.root / EXAMPLES_FOLDER / "examples.sqlite")) as database:
            labels = database.execute("SELECT sha256, label FROM label_history ORDER BY id").fetchall()
        added = next(effect for effect in effects if "accepted" in effect)
        assert added == {"accepted": 2, "duplicate": 1, "conflicting": 1, "rejected": 1}
        changed = [(effect["sha256"], effect.get("label", "red") or None) for effect in effects if "sha256" in effect]
        assert changed == labels[added["accepted"] :]
        jobs = [effect["job"] for effect in effects if "job" in effect]
        assert jobs == [job.id for job in examples.jobs.list()] * 2, "it was begun and cancelled"
        assert [line for line in audit_lines() if line["outcome"] != "OK" and line["effect"]] == []
        told = Counter(line["rpc"].rpartition("/")[2] for line in audit_lines() if line["effect"])
        of_examples = {"AddExamples", "RelabelExample", "RemoveExample", "ReleaseExample"}
        assert told.keys() == {*of_examples, "Promote", "Rollback", "Shadow", "Retrain", "CancelRetrainJob"}


def test_the_line_of_a_stream_says_what_was_asked_and_no_picture(live: LiveServer, audit_lines: AuditLines) -> None:
    add(live.client, (RED, "red"))

    wait_until(audit_lines)
    assert audit_lines()[0]["request"] == {"label": "red", "source": "a test"}


def test_the_line_of_a_message_of_pictures_says_as_much(live: LiveServer, audit_lines: AuditLines) -> None:
    request = AddExamplesRequest(image=RED, label="red", source="a test")
    live.client.add_examples_batch([request, request])

    wait_until(audit_lines)
    assert audit_lines()[0]["request"] == {"label": "red", "source": "a test"}
    assert audit_lines()[0]["effect"] == {"accepted": 1, "duplicate": 1}


def test_a_change_whose_deadline_passes_is_not_made_and_the_line_says_so(
    store: ModelStore, live: LiveServer, audit_lines: AuditLines
) -> None:
    add(live.client, (RED, "red"))
    (red,) = live.client.list_examples()
    file = store.root / EXAMPLES_FOLDER / "examples.sqlite"
    with grpc.insecure_channel(live.target) as channel, closing(sqlite3.connect(file)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        request = RelabelExampleRequest(sha256=red.sha256, label="blue")
        with pytest.raises(grpc.RpcError) as failure:
            ExamplesStub(channel).RelabelExample(request, timeout=0.5)
        wait_until(lambda: audit_lines()[-1]["rpc"].endswith("/RelabelExample"))
        writer.rollback()

    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert audit_lines()[-1]["outcome"] in ("DEADLINE_EXCEEDED", "CANCELLED")
    assert audit_lines()[-1]["effect"] == {}
    assert live.client.get_example(red.sha256).example.label == "red"


def test_what_a_client_that_leaves_had_kept_is_in_its_line(
    store: ModelStore, live: LiveServer, audit_lines: AuditLines
) -> None:
    answers = live.client.add_examples((picture("grey", number), "grey") for number in range(300))
    next(answers)
    with suppress(AttributeError):
        answers.close()  # type: ignore[attr-defined]  # it is a generator
    wait_until(audit_lines)

    with closing(ExamplesStore(store.root / EXAMPLES_FOLDER)) as examples:
        assert audit_lines()[0]["effect"]["accepted"] == examples.labels.count("colours") > 0
