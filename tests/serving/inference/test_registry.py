import asyncio
import json
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest

from regraft.cancellation import set_wanted
from regraft.errors import (
    DrainingError,
    InvalidRequestError,
    NotFoundError,
    NoVersionError,
    PreconditionError,
    ProviderError,
    StorageError,
)
from regraft.image.decode import decode_crop
from regraft.model.artifact import Head
from regraft.model.card import EmbeddingKey, parse_card
from regraft.model.session import Arithmetic, CudaOptions, OpenSession
from regraft.stores.lifecycle.history import Beginning, HistoryEntry
from regraft.stores.models import MODEL_FILE, ModelStore
from serving.inference.backbone import Backbone, InferenceRequest
from serving.inference.engine import Engine, Output
from serving.inference.execution_plan import ExecutionPlan
from serving.inference.models_in_memory import ServedModel
from serving.inference.registry import ModelRegistry
from serving.supervisor import Backoff
from serving.telemetry.metrics import Metrics
from serving.telemetry.statistics import STAGES
from serving.threads import Threads
from tests.serving.broken_versions import SPOIL, too_large_to_read
from tests.serving.fakes import Engines
from tests.serving.metric_samples import value_of
from tests.tiny import (
    SPEC,
    add_tiny_backbone,
    as_written_before,
    begin_tiny,
    picture,
    publish_tiny,
    tiny_backbone,
    tiny_card,
    tiny_features,
    tiny_head,
)
from tests.waiting import PATIENCE_S, asynchronous, until

RED = decode_crop(picture("red"), SPEC)
SHORT, LONG = Backoff(0.001, 0.002), Backoff(PATIENCE_S, PATIENCE_S)


class Stage:
    """Models on gated engines, with what can be seen of them from outside."""

    def __init__(self, store: ModelStore, engines: Engines, metrics: Metrics, pauses: Backoff) -> None:
        self.store, self.engines, self.metrics = store, engines, metrics
        self.threads = Threads()
        self.models = ModelRegistry(
            store, engines, max_queue=8, metrics=self.metrics, threads=self.threads, pauses=pauses
        )

    def metric(self, name: str, **labels: str) -> float | None:
        return value_of(self.metrics.registry, name, labels)

    def failures(self, name: str = "colours") -> float | None:
        return self.metric("regraft_load_failures_total", model=name)

    async def promote(self, version: int, name: str = "colours") -> None:
        await self.models.move(name, version, who="test", why="")

    def move_alias(self, version: int, name: str = "colours") -> None:
        """Promote in the store alone, as another process would."""
        self.store.move(name, version, who="another process", why="")

    async def infer(self, name: str = "") -> tuple[int, Output]:
        """Return the version that answers, and its answer to a red picture."""
        with self.models.acquire(name) as served:
            return served.version, await answer_of(served)


@pytest.mark.parametrize(
    ("opened", "arithmetic"),
    [(("cpu",), "cpu"), (("cuda",), "cuda fp32"), (("cuda", "", CudaOptions(tf32=True)), "cuda tf32")],
)
def test_embeddings_are_kept_under_the_arithmetic_that_they_were_served_in(
    opened: tuple[Any, ...], arithmetic: Arithmetic
) -> None:
    head = tiny_head(("red", "green"))
    card = tiny_card(tiny_backbone(), head, ("red", "green"))
    engine = Engine(OpenSession(cast("Any", None), *opened), ExecutionPlan(1, 1, 1))
    backbone = Backbone(engine, max_queue=1)

    served = ServedModel("colours", 1, card, head, backbone)

    backbone.close()
    assert served.key == EmbeddingKey(card.backbone.digest, card.image.digest()).computed_in(arithmetic)


async def answer_of(served: ServedModel) -> Output:
    return (await served.backbone.infer(InferenceRequest(RED, SPEC, served.head))).output


@contextmanager
def stage(
    store: ModelStore, plan: ExecutionPlan | None = None, metrics: Metrics | None = None, pauses: Backoff = LONG
) -> Iterator[Stage]:
    engines = Engines(plan)
    stage = Stage(store, engines, metrics or Metrics(), pauses)
    try:
        yield stage
    finally:
        engines.open_all_gates()
        stage.models.close()
        stage.threads.close()


def head_of(output: Output, head: Head) -> bool:
    """Tell whether the answer is the one that a head gives."""
    return bool(np.allclose(output.probabilities, head.probabilities(output.embedding[None])[0], atol=1e-5))


@asynchronous
async def test_nothing_is_served_before_the_first_look_at_the_store(store: ModelStore) -> None:
    with stage(store) as s:
        assert s.models.names() == []
        with pytest.raises(PreconditionError):
            s.models.get("colours")


@asynchronous
async def test_the_champion_is_loaded_and_answers_with_its_own_head(store: ModelStore) -> None:
    publish_tiny(store, ("grey", "red"), promote=False)  # newer, but no champion
    with stage(store) as s:
        await s.models.refresh()
        version, output = await s.infer("colours")

        assert s.models.names() == ["colours"]
        assert version == 1
        assert head_of(output, tiny_head(("red", "green", "blue")))
        assert s.models.get("").card.labels == ("red", "green", "blue")
        assert s.models.problem("colours") == ""
        assert s.failures() == 0


@asynchronous
async def test_a_first_version_is_visible_only_after_it_answered(store: ModelStore) -> None:
    """Invariant 2."""
    with stage(store) as s:
        s.engines.new_gates_are_open = False
        loading = asyncio.create_task(s.models.refresh())
        await until(lambda: s.engines.sessions and s.engines.sessions[0].batches)

        assert s.models.names() == []
        with pytest.raises(PreconditionError):
            s.models.get("colours")
        s.engines.open_all_gates()
        await loading
        assert s.models.get("colours").version == 1
        with_a_larger_head = 1
        sizes = [len(batch) for batch in s.engines.sessions[0].batches]
        assert sizes == [with_a_larger_head, 1, s.engines.plan.max_batch]


@pytest.mark.parametrize("scale", [1.0, 2.0], ids=["the same backbone", "another backbone"])
@asynchronous
async def test_a_new_version_is_visible_only_after_it_answered(store: ModelStore, scale: float) -> None:
    """Invariant 2."""
    with stage(store) as s:
        await s.models.refresh()
        runs = len(s.engines.sessions[0].batches)
        publish_tiny(store, sharpness=5.0, scale=scale)
        s.engines.new_gates_are_open = False
        s.engines.sessions[0].gate.clear()
        loading = asyncio.create_task(s.models.refresh())
        session = 0 if scale == 1.0 else 1
        await until(
            lambda: len(s.engines.sessions) > session and len(s.engines.sessions[session].batches) > (runs, 0)[session]
        )

        assert s.models.get("colours").version == 1
        s.engines.open_all_gates()
        await loading
        assert s.models.get("colours").version == 2


@asynchronous
async def test_while_a_new_session_loads_the_old_version_goes_on_answering(store: ModelStore) -> None:
    """Invariant 2."""
    with stage(store) as s:
        await s.models.refresh()
        publish_tiny(store, scale=2.0)
        s.engines.new_gates_are_open = False
        loading = asyncio.create_task(s.models.refresh())
        await until(lambda: len(s.engines.sessions) == 2 and s.engines.sessions[1].batches)

        assert (await s.infer())[0] == 1
        s.engines.open_all_gates()
        await loading
        assert (await s.infer())[0] == 2


@pytest.mark.parametrize("what", SPOIL)
@pytest.mark.parametrize("is_first", [True, False], ids=["first load", "reload"])
@asynchronous
async def test_a_version_that_cannot_be_loaded_changes_nothing_and_is_not_tried_at_every_look(
    tmp_path: Path, what: str, is_first: bool
) -> None:
    """Invariants 2 and 3: the same checks refuse a first load and a reload, in the same words."""
    store = ModelStore(tmp_path / "a store")
    spoil, reason = SPOIL[what]
    if not is_first:
        publish_tiny(store)
    with stage(store) as s:
        await s.models.refresh()
        sessions = len(s.engines.sessions)
        bad = publish_tiny(store, sharpness=5.0)
        spoil(store.folder("colours", bad))
        await s.models.refresh()

        assert reason in s.models.problem("colours")
        assert s.failures() == 1
        if is_first:
            assert s.models.names() == []
            with pytest.raises(PreconditionError, match=reason):
                s.models.get("colours")
        else:
            version, output = await s.infer()
            assert version == 1
            assert head_of(output, tiny_head(("red", "green", "blue")))
            assert s.metric("regraft_served_version", model="colours") == 1
        for _ in range(3):
            await s.models.refresh()
        assert s.failures() == 1
        assert len(s.engines.sessions) == sessions
        assert reason in s.models.problem("colours")


@contextmanager
def away(store: ModelStore, version: int) -> Iterator[None]:
    """Take the folder of a version away until the block ends.

    So one that is copied into the store comes late.
    """
    folder = store.folder("colours", version)
    elsewhere = folder.rename(store.root.parent / f"version-{version}")
    yield
    elsewhere.rename(folder)


async def becomes(s: Stage, version: int) -> None:
    """Look at the store until a version answers."""
    give_up_s = time.monotonic() + PATIENCE_S
    while s.models.names() != ["colours"] or s.models.get("colours").version != version:
        assert time.monotonic() < give_up_s
        await s.models.refresh()


@pytest.mark.parametrize("is_first", [True, False], ids=["first load", "reload"])
@asynchronous
async def test_a_champion_whose_folder_comes_late_answers_when_it_is_there(
    store: ModelStore, caplog: pytest.LogCaptureFixture, is_first: bool
) -> None:
    with stage(store, pauses=SHORT) as s:
        late = 1
        if not is_first:
            await s.models.refresh()
            late = publish_tiny(store, sharpness=5.0)
        with away(store, late):
            while (s.failures() or 0) < 4:
                await s.models.refresh()
            assert "has no version" in s.models.problem("colours")
            assert s.models.names() == ([] if is_first else ["colours"])
        pauses = [
            message.partition("tried again in ")[2][:5] for message in caplog.messages if "tried again" in message
        ]
        assert pauses == ["0.001", "0.002", "0.002", "0.002"]
        await becomes(s, late)

        assert s.models.problem("colours") == ""
        assert s.metric("regraft_served_version", model="colours") == late


@asynchronous
async def test_at_the_start_the_champion_before_answers_while_the_champion_cannot(
    store: ModelStore, caplog: pytest.LogCaptureFixture
) -> None:
    champion = publish_tiny(store, sharpness=5.0)
    with stage(store, pauses=SHORT) as s:
        with away(store, champion):
            await s.models.refresh()

            assert (await s.infer())[0] == 1
            assert s.models.problem("colours").endswith("; version 1 serves meanwhile")
            assert "champion 2 cannot be loaded, version 1 serves meanwhile; tried again in" in caplog.text
            assert s.metric("regraft_served_version", model="colours") == 1
            assert s.metric("regraft_champion_version", model="colours") == champion
        await becomes(s, champion)
        assert s.models.problem("colours") == ""


@asynchronous
async def test_at_the_start_the_latest_of_the_champions_before_answers_that_can(store: ModelStore) -> None:
    for _ in range(3):
        publish_tiny(store, sharpness=5.0)
    publish_tiny(store, promote=False)
    with stage(store) as s, away(store, 3), away(store, 4):
        await s.models.refresh()

        assert (await s.infer())[0] == 2


@asynchronous
async def test_a_version_that_was_rolled_back_does_not_answer_for_a_champion_that_cannot(store: ModelStore) -> None:
    publish_tiny(store, sharpness=5.0)
    store.move("colours", 1, who="test", why="", event="rollback")
    with stage(store) as s, away(store, 1):
        await s.models.refresh()

        assert s.models.names() == []
        assert s.models.problem("colours").endswith("; nothing serves for it")


@asynchronous
async def test_whatever_becomes_of_a_model_the_others_follow_and_its_error_is_raised(store: ModelStore) -> None:
    publish_tiny(store, name="animals")
    with stage(store) as s:
        await s.models.refresh()
        too_large_to_read(store.root / "animals" / "history.jsonl")
        publish_tiny(store, sharpness=5.0)
        with pytest.raises(MemoryError):
            await s.models.refresh()

        assert (await s.infer("colours"))[0] == 2
        assert (await s.infer("animals"))[0] == 1


@asynchronous
async def test_a_defect_while_a_version_is_loaded_is_raised_and_the_version_tried_again(store: ModelStore) -> None:
    with stage(store, pauses=SHORT) as s:
        s.engines.refusal = RuntimeError("a defect")
        with pytest.raises(RuntimeError, match="a defect"):
            await s.models.refresh()
        assert "a defect" in s.models.problem("colours")
        s.engines.refusal = None

        await becomes(s, 1)


@pytest.mark.parametrize("is_first", [True, False], ids=["first load", "reload"])
@asynchronous
async def test_a_version_that_answers_nonsense_is_not_served(tmp_path: Path, is_first: bool) -> None:
    """Invariants 2 and 3: the warm-up is part of every load."""
    store = ModelStore(tmp_path / "a store")
    if not is_first:
        publish_tiny(store)
    with stage(store) as s:
        await s.models.refresh()
        publish_tiny(store, scale=math.nan)
        for _ in range(3):
            await s.models.refresh()

        assert "nonsense" in s.models.problem("colours")
        assert s.failures() == 1
        assert len(s.engines.sessions) == (1 if is_first else 2)
        assert s.models.names() == ([] if is_first else ["colours"])
        if not is_first:
            assert (await s.infer())[0] == 1


@asynchronous
async def test_an_engine_that_cannot_be_opened_is_a_problem_with_a_reason(store: ModelStore) -> None:
    with stage(store) as s:
        s.engines.refusal = ProviderError("provider cuda was asked for, but there is none")
        await s.models.refresh()

        assert s.models.names() == []
        with pytest.raises(PreconditionError, match="provider cuda was asked for"):
            s.models.get("")
        assert s.failures() == 1


@asynchronous
async def test_a_bad_version_does_not_hinder_other_models(store: ModelStore) -> None:
    publish_tiny(store, name="animals")
    SPOIL["rubbish"][0](store.folder("animals", 1))
    with stage(store) as s:
        await s.models.refresh()

        assert s.models.names() == ["colours"]
        assert s.failures("animals") == 1
        assert (await s.infer("colours"))[0] == 1


def _history_is_a_folder(history: Path) -> None:
    history.mkdir()


def _history_is_a_rollback_of_nothing(history: Path) -> None:
    entry = {"event": "rollback", "version": 1, "previous": None, "who": "", "why": "", "job": "", "at": ""}
    history.write_text(json.dumps(entry) + "\n")


@pytest.mark.parametrize("spoil", [_history_is_a_folder, _history_is_a_rollback_of_nothing])
@asynchronous
async def test_a_history_that_cannot_be_read_does_not_hinder_other_models(
    store: ModelStore, spoil: Callable[[Path], None]
) -> None:
    (store.root / "animals").mkdir()
    spoil(store.root / "animals" / "history.jsonl")
    with stage(store) as s:
        await s.models.refresh()

        assert s.models.names() == ["colours"]


@asynchronous
async def test_a_version_shown_as_0_is_one_that_does_not_answer(store: ModelStore) -> None:
    SPOIL["rubbish"][0](store.folder("colours", 1))
    with stage(store) as s:
        await s.models.refresh()

        assert s.metric("regraft_served_version", model="colours") == 0
        assert s.metric("regraft_champion_version", model="colours") == 1


@asynchronous
async def test_a_problem_is_forgotten_when_a_better_version_comes(store: ModelStore) -> None:
    with stage(store) as s:
        await s.models.refresh()
        SPOIL["rubbish"][0](store.folder("colours", publish_tiny(store)))
        await s.models.refresh()
        publish_tiny(store, sharpness=5.0)
        await s.models.refresh()

        assert (await s.infer())[0] == 3
        assert s.models.problem("colours") == ""


@asynchronous
async def test_a_problem_is_forgotten_when_the_alias_goes_back_and_tried_again_when_it_returns(
    store: ModelStore,
) -> None:
    with stage(store) as s:
        await s.models.refresh()
        bad = publish_tiny(store)
        whole = (store.folder("colours", bad) / "model.onnx").read_bytes()
        SPOIL["rubbish"][0](store.folder("colours", bad))
        await s.models.refresh()
        s.move_alias(1)
        await s.models.refresh()

        assert s.models.problem("colours") == ""
        (store.folder("colours", bad) / "model.onnx").write_bytes(whole)
        s.move_alias(bad)
        await s.models.refresh()
        assert (await s.infer())[0] == bad


@pytest.mark.parametrize("labels", [("blue", "red", "grey", "green"), ("blue", "red")], ids=["more", "fewer"])
@asynchronous
async def test_a_head_on_the_same_backbone_goes_into_the_session_that_is_there(
    store: ModelStore, labels: tuple[str, ...]
) -> None:
    """Invariant 9, with more labels or fewer."""
    with stage(store) as s:
        await s.models.refresh()
        publish_tiny(store, labels, sharpness=5.0)
        await s.models.refresh()
        version, output = await s.infer()

        assert version == 2
        assert len(output.probabilities) == len(labels)
        assert head_of(output, tiny_head(labels, 5.0))
        assert len(s.engines.sessions) == 1
        assert s.metric("regraft_swaps_total", model="colours", kind="session") == 1
        assert s.metric("regraft_swaps_total", model="colours", kind="head") == 1
        assert s.metric("regraft_served_version", model="colours") == 2


@asynchronous
async def test_another_backbone_gets_a_session_of_its_own_and_the_unused_one_is_closed(store: ModelStore) -> None:
    """Invariant 9."""
    with stage(store) as s:
        await s.models.refresh()
        old = s.models.get("")
        publish_tiny(store, scale=2.0)
        await s.models.refresh()

        assert (await s.infer())[0] == 2
        assert len(s.engines.sessions) == 2
        assert s.metric("regraft_swaps_total", model="colours", kind="session") == 2
        with pytest.raises(DrainingError):
            await answer_of(old)


@asynchronous
async def test_a_version_lives_as_long_as_a_request_holds_it(store: ModelStore) -> None:
    """Invariant 1: a handle is kept to the end."""
    with stage(store) as s:
        await s.models.refresh()
        with s.models.acquire() as first, s.models.acquire() as second:
            publish_tiny(store, scale=2.0)
            await s.models.refresh()

            assert (first.version, second.version, s.models.get("").version) == (1, 1, 2)
            assert head_of(await answer_of(first), first.head)
        with pytest.raises(DrainingError):
            await answer_of(first)


@asynchronous
async def test_a_session_is_closed_only_when_the_last_model_on_it_has_moved_on(store: ModelStore) -> None:
    publish_tiny(store, ("grey", "red"), name="animals")
    with stage(store) as s:
        await s.models.refresh()
        assert len(s.engines.sessions) == 1, "two models share it"
        shared = s.models.get("colours")

        publish_tiny(store, scale=2.0)
        await s.models.refresh()
        assert head_of((await s.infer("animals"))[1], tiny_head(("grey", "red")))

        publish_tiny(store, ("grey", "red"), name="animals", scale=2.0)
        await s.models.refresh()
        assert head_of((await s.infer("animals"))[1], tiny_head(("grey", "red")))
        assert len(s.engines.sessions) == 2
        with pytest.raises(DrainingError):
            await answer_of(shared)


@pytest.mark.parametrize("older", ["animals", "colours"], ids=["loaded first", "loaded second"])
@asynchronous
async def test_a_file_with_lp_normalization_shares_its_session_with_a_new_one(store: ModelStore, older: str) -> None:
    publish_tiny(store, ("grey", "red"), name="animals")
    path = store.folder(older, 1) / MODEL_FILE
    onnx.save_model(as_written_before(onnx.load_model(path)), path)
    with stage(store) as s:
        await s.models.refresh()

        assert len(s.engines.sessions) == 1
        assert head_of((await s.infer("animals"))[1], tiny_head(("grey", "red")))
        assert head_of((await s.infer("colours"))[1], tiny_head(("red", "green", "blue")))


@asynchronous
async def test_a_model_that_is_deleted_answers_no_more_but_its_requests_in_flight(store: ModelStore) -> None:
    publish_tiny(store, ("grey", "red"), name="animals", scale=2.0)
    with stage(store) as s:
        await s.models.refresh()
        with s.models.acquire("animals") as held:
            shutil.rmtree(store.root / "animals")
            await s.models.refresh()

            assert s.models.names() == ["colours"]
            assert s.models.resolve("") == "colours"
            with pytest.raises(NotFoundError):
                s.models.get("animals")
            assert head_of(await answer_of(held), tiny_head(("grey", "red")))
            s.metrics.of("animals").answered(SECONDS, "red", 0.9, is_novel=False)
        with pytest.raises(DrainingError):
            await answer_of(held)
        await s.models.refresh()
        assert s.metric("regraft_confidence_count", model="animals") is None
        assert s.metric("regraft_served_version", model="animals") is None

        publish_tiny(store, ("grey", "red"), name="animals", scale=2.0)
        await s.models.refresh()
        assert s.models.names() == ["animals", "colours"]


SECONDS = dict.fromkeys(STAGES, 0.001)


@pytest.mark.parametrize("is_mounted", [True, False], ids=["a mount point", "not even that"])
@asynchronous
async def test_a_store_that_is_empty_altogether_takes_no_model_away(store: ModelStore, is_mounted: bool) -> None:
    with stage(store) as s:
        await s.models.refresh()
        away = store.root.rename(store.root.with_name("away"))
        if is_mounted:
            store.root.mkdir()

        for _ in range(3):
            with pytest.raises(StorageError, match="is its disk mounted"):
                await s.models.refresh()

        assert (await s.infer())[0] == 1
        if is_mounted:
            store.root.rmdir()
        away.rename(store.root)
        await s.models.refresh()
        assert s.models.names() == ["colours"]


@asynchronous
async def test_a_session_about_to_be_reused_is_not_closed_by_the_last_request_of_an_old_version(
    store: ModelStore,
) -> None:
    """Invariant 2: what becomes visible answers."""
    publish_tiny(store, scale=2.0, promote=False)
    publish_tiny(store, sharpness=5.0, promote=False)
    with stage(store) as s, ExitStack() as request:
        await s.models.refresh()
        request.enter_context(s.models.acquire())  # holds version 1, and so its session
        await s.promote(2)
        session = s.engines.sessions[0]
        runs = len(session.batches)
        with session.held():
            swap = asyncio.create_task(s.promote(3))
            await until(lambda: len(session.batches) > runs)  # version 3 is being tried in the session of version 1
            request.close()
        await swap

        version, output = await s.infer()
        assert version == 3
        assert head_of(output, tiny_head(("red", "green", "blue"), 5.0))


@asynchronous
async def test_models_on_one_session_share_batches_and_each_gets_its_own_head(store: ModelStore) -> None:
    """Invariant 1."""
    publish_tiny(store, ("grey", "red"), name="animals")
    with stage(store) as s:
        await s.models.refresh()
        session = s.engines.sessions[0]
        runs = len(session.batches)
        with session.held():
            first = asyncio.create_task(s.infer("colours"))
            await until(lambda: len(session.batches) == runs + 1)
            rest = [asyncio.create_task(s.infer(name)) for name in ("animals", "colours", "animals")]
            await until(lambda: s.metric("regraft_queue_depth") == 3)
        answers = await asyncio.gather(first, *rest)

        assert [len(batch) for batch in session.batches[runs:]] == [1, 3]
        for (_, output), name in zip(answers, ("colours", "animals", "colours", "animals"), strict=True):
            assert head_of(output, s.models.get(name).head)


@asynchronous
async def test_promoting_loads_then_moves_the_alias_then_swaps(store: ModelStore) -> None:
    """Invariant 2."""
    publish_tiny(store, sharpness=5.0, promote=False)
    seen: list[tuple[int | None, int]] = []
    with stage(store) as s:
        await s.models.refresh()
        runs = len(s.engines.sessions[0].batches)

        def is_wanted() -> bool:
            """Note the champion right before the store writes.

            That is when it asks whether somebody waits.
            """
            if threading.current_thread().name == "moves":
                assert len(s.engines.sessions[0].batches) > runs, "it was tried before"
                seen.append((store.champion("colours"), s.models.get("").version))
            return True

        set_wanted(is_wanted)
        await s.promote(2)

        assert set(seen) == {(1, 1)}
        assert (store.champion("colours"), s.models.get("").version) == (2, 2)
        await s.models.refresh()
        assert s.metric("regraft_swaps_total", model="colours", kind="head") == 1, "the alias was no news"


@asynchronous
async def test_promoting_a_version_that_does_not_exist_changes_nothing(store: ModelStore) -> None:
    with stage(store) as s:
        await s.models.refresh()
        with pytest.raises(NotFoundError, match="no version 9"):
            await s.promote(9)

        assert (store.champion("colours"), s.models.get("").version) == (1, 1)


@pytest.mark.parametrize("what", [what for what in SPOIL if what != "no folder"])
@asynchronous
async def test_promoting_a_version_that_cannot_be_loaded_changes_nothing(store: ModelStore, what: str) -> None:
    """Invariants 2 and 3: the checks of a promotion are those of a reload."""
    spoil, reason = SPOIL[what]
    spoil(store.folder("colours", publish_tiny(store, promote=False)))
    with stage(store) as s:
        await s.models.refresh()
        with pytest.raises(PreconditionError, match="version 2 of 'colours' cannot be loaded") as failure:
            await s.promote(2)

        assert reason in str(failure.value)
        assert store.champion("colours") == 1
        assert (await s.infer())[0] == 1


@pytest.mark.parametrize("scale", [1.0, 2.0], ids=["the same backbone", "another backbone"])
@asynchronous
async def test_a_promotion_whose_alias_cannot_be_moved_changes_nothing(store: ModelStore, scale: float) -> None:
    """Invariant 2."""
    publish_tiny(store, scale=scale, promote=False)
    with stage(store) as s:
        await s.models.refresh()

        with pytest.raises(PreconditionError, match="is now version 1, not 3: look again"):
            await s.models.move("colours", 2, who="test", why="", expected=3)

        assert (await s.infer())[0] == 1
        await s.promote(2)  # what the attempt loaded is not in the way of the next
        assert (await s.infer())[0] == 2


class Looked(ModelStore):
    """A store that counts how often somebody asked for a champion."""

    looks = 0

    def champion(self, name: str) -> int | None:
        champion = super().champion(name)
        self.looks += 1
        return champion


@asynchronous
async def test_two_rollbacks_at_once_go_back_one(store: ModelStore) -> None:
    for sharpness in (15.0, 10.0):
        publish_tiny(store, sharpness=sharpness)
    looked = Looked(store.root)
    with stage(looked) as s:
        await s.models.refresh()
        before = looked.looks
        s.engines.close_all_gates()
        asked = [asyncio.create_task(s.models.move("colours", None, who="test", why="")) for _ in range(2)]
        await until(lambda: looked.looks == before + 2)
        s.engines.open_all_gates()
        first, second = await asyncio.gather(*asked, return_exceptions=True)

        done, refused = (first, second) if isinstance(second, PreconditionError) else (second, first)
        assert isinstance(done, HistoryEntry)
        assert (done.version, store.champion("colours"), s.models.get("").version) == (2, 2, 2)
        assert "the champion of 'colours' is now version 2, not 3: look again" in str(refused)
        assert (await s.models.move("colours", None, who="test", why="")).version == 1, "one after the other go on"


@pytest.mark.parametrize("what", [what for what in SPOIL if what != "no folder"])
@asynchronous
async def test_a_rollback_to_a_version_that_cannot_be_loaded_changes_nothing(store: ModelStore, what: str) -> None:
    """Invariant 2."""
    publish_tiny(store, sharpness=5.0)
    SPOIL[what][0](store.folder("colours", 1))
    with stage(store) as s:
        await s.models.refresh()
        with pytest.raises(PreconditionError, match="version 1 of 'colours' cannot be loaded"):
            await s.models.move("colours", None, who="test", why="")

        assert (store.champion("colours"), s.models.get("").version) == (2, 2)


class Unwell(Metrics):
    """Metrics that fail from a moment on."""

    is_well = True

    def show_provider(self, model: str, provider: str, *, is_fallback: bool) -> None:
        if not self.is_well:
            raise RuntimeError("a bug")
        super().show_provider(model, provider, is_fallback=is_fallback)


@asynchronous
async def test_what_fails_after_the_line_of_history_is_logged_and_not_raised(
    store: ModelStore, caplog: pytest.LogCaptureFixture
) -> None:
    publish_tiny(store, sharpness=5.0, promote=False)
    metrics = Unwell()
    with stage(store, metrics=metrics) as s:
        await s.models.refresh()
        metrics.is_well = False

        done = await s.models.move("colours", 2, who="test", why="")

        assert (done.version, store.champion("colours"), s.models.get("").version) == (2, 2, 2)
        assert "version 2 is the champion, but what follows from it failed" in caplog.text


@pytest.mark.parametrize("scale", [1.0, 2.0], ids=["the same backbone", "another backbone"])
@asynchronous
async def test_a_promotion_that_is_given_up_while_it_loads_changes_nothing(store: ModelStore, scale: float) -> None:
    """Invariant 2."""
    publish_tiny(store, scale=scale, sharpness=5.0, promote=False)
    with stage(store) as s:
        await s.models.refresh()
        runs = len(s.engines.sessions[0].batches)
        s.engines.new_gates_are_open = False
        s.engines.sessions[0].gate.clear()
        promotion = asyncio.create_task(s.promote(2))
        await until(lambda: sum(len(session.batches) for session in s.engines.sessions) > runs)
        promotion.cancel()
        s.engines.open_all_gates()
        with pytest.raises(asyncio.CancelledError):
            await promotion
        s.engines.new_gates_are_open = True

        assert (store.champion("colours"), (await s.infer())[0]) == (1, 1)
        await s.promote(2)
        version, output = await s.infer()
        assert version == 2
        assert head_of(output, tiny_head(("red", "green", "blue"), 5.0))


@asynchronous
async def test_promotions_and_looks_at_the_store_at_once_end_with_the_champion(store: ModelStore) -> None:
    for number in range(2, 5):
        publish_tiny(store, sharpness=float(number), scale=float(1 + number % 2), promote=False)
    with stage(store) as s:
        await s.models.refresh()
        promotions = [s.promote(version) for version in (2, 3, 4, 2, 3)]
        await asyncio.gather(*promotions, *(s.models.refresh() for _ in range(5)))

        assert s.models.get("").version == store.champion("colours")
        version, output = await s.infer()
        assert head_of(output, tiny_head(("red", "green", "blue"), float(version)))


@asynchronous
async def test_the_provider_is_shown_and_only_one(store: ModelStore) -> None:
    with stage(store) as s:
        await s.models.refresh()

        assert s.metric("regraft_provider", model="colours", provider="cpu") == 1
        assert s.metric("regraft_provider", model="colours", provider="cuda") == 0


@asynchronous
async def test_batches_are_counted_by_size(store: ModelStore) -> None:
    with stage(store) as s:
        await s.models.refresh()
        await s.infer()

        assert s.metric("regraft_batch_size_count") == 1
        assert s.metric("regraft_batch_size_sum") == 1


@asynchronous
async def test_a_name_may_be_left_out_only_while_there_is_one_model(store: ModelStore) -> None:
    with stage(store) as s:
        await s.models.refresh()
        assert s.models.resolve("") == "colours"

        publish_tiny(store, name="animals", promote=False)
        await s.models.refresh()
        with pytest.raises(InvalidRequestError, match="animals, colours"):
            s.models.resolve("")


@asynchronous
async def test_what_is_missing_is_said(empty_store: ModelStore) -> None:
    with stage(empty_store) as s:
        await s.models.refresh()
        with pytest.raises(PreconditionError, match="train one"):
            s.models.get("")
        with pytest.raises(NotFoundError, match="no model 'cats'"):
            s.models.get("cats")

        publish_tiny(empty_store, promote=False)
        await s.models.refresh()
        with pytest.raises(PreconditionError, match="promote a version"):
            s.models.get("")


@asynchronous
async def test_closing_refuses_what_waits(store: ModelStore) -> None:
    """Invariant 10."""
    with stage(store) as s:
        await s.models.refresh()
        session = s.engines.sessions[0]
        runs = len(session.batches)
        with session.held():
            running = asyncio.create_task(s.infer())
            await until(lambda: len(session.batches) > runs)
            waiting = asyncio.create_task(s.infer())
            await until(lambda: s.metric("regraft_queue_depth") == 1)
            s.models.close()
            with pytest.raises(DrainingError):
                await waiting
        assert (await running)[0] == 1


@asynchronous
async def test_a_model_that_is_being_loaded_says_so(store: ModelStore) -> None:
    with stage(store) as s:
        with pytest.raises(PreconditionError, match="'colours' is being loaded"):
            s.models.get("colours")
        await s.models.refresh()

        assert s.models.get("colours").version == 1


@asynchronous
async def test_all_backbones_share_the_cpus_of_the_server(store: ModelStore) -> None:
    publish_tiny(store, name="shapes", scale=2.0)
    engines = Engines(ExecutionPlan(1, 1, 4, decode_in_lane=True))
    threads = Threads()
    models = ModelRegistry(store, engines, max_queue=8, metrics=Metrics(), threads=threads, cpus=1)
    await models.refresh()
    before = sum(len(session.batches) for session in engines.sessions)
    engines.close_all_gates()

    async with asyncio.TaskGroup() as tasks:
        for name in ("colours", "shapes"):
            tasks.create_task(answer_of(models.get(name)))
        await until(lambda: models.cpus.waiting == 1)
        assert sum(len(session.batches) for session in engines.sessions) == before + 1
        engines.open_all_gates()

    assert len(engines.sessions) == 2
    models.close()
    threads.close()


@asynchronous
async def test_the_card_of_a_version_is_made_text_once(store: ModelStore) -> None:
    with stage(store) as s:
        await s.models.refresh()
        served = s.models.get("colours")

        assert parse_card(served.card_json) == served.card
        assert served.card_json is served.card_json


@asynchronous
async def test_a_model_without_a_version_is_held_on_its_backbone_and_answers_nothing(empty_store: ModelStore) -> None:
    begin_tiny(empty_store, labels=("red", "blue"))
    with stage(empty_store) as s:
        await s.models.refresh()

        assert (s.models.names(), s.models.names_held()) == ([], ["colours"])
        with pytest.raises(NoVersionError, match="has no version yet: it needs labelled pictures of two classes"):
            s.models.get("")
        with s.models.hold("colours") as held:
            request = InferenceRequest(RED, held.card.image, held.head)
            embedding = (await held.backbone.infer(request, background=True)).output.embedding
        np.testing.assert_allclose(embedding, tiny_features(tiny_backbone(), ("red",), 1).embedding[0], atol=1e-5)


@asynchronous
async def test_many_models_on_one_backbone_share_one_session_with_a_version_or_without(store: ModelStore) -> None:
    for number in range(5):
        begin_tiny(store, f"begun{number}")
    with stage(store) as s:
        await s.models.refresh()

        assert len(s.models.names_held()) == 6
        assert len(s.engines.sessions) == 1
        assert {s.models.held(name).key for name in s.models.names_held()} == {s.models.get("colours").key}


@asynchronous
async def test_the_first_version_answers_in_the_session_that_embedded(empty_store: ModelStore) -> None:
    begin_tiny(empty_store)
    with stage(empty_store) as s:
        await s.models.refresh()
        with s.models.hold() as before:
            publish_tiny(empty_store)
            await s.models.refresh()
            version, output = await s.infer()

            assert (version, len(s.engines.sessions)) == (1, 1)
            assert head_of(output, tiny_head(("red", "green", "blue")))
            assert s.models.held("") is s.models.get("")
            assert before.backbone is s.models.get("").backbone
            assert s.metric("regraft_swaps_total", model="colours", kind="head") == 1


@asynchronous
async def test_a_model_whose_backbone_is_gone_says_so_and_is_held_once_it_is_back(empty_store: ModelStore) -> None:
    begin_tiny(empty_store)
    backbones = empty_store.root / ".backbones"
    backbones.rename(empty_store.root / "aside.d")
    with stage(empty_store, pauses=SHORT) as s:
        await s.models.refresh()
        with pytest.raises(PreconditionError, match=r"its backbone 'tiny' cannot be loaded: .*regraft backbones add"):
            s.models.held("colours")

        (empty_store.root / "aside.d").rename(backbones)
        while s.models.names_held() != ["colours"]:
            await s.models.refresh()
        assert s.models.problem("colours") == ""


@asynchronous
async def test_a_created_model_takes_examples_at_once_and_a_deleted_one_answers_what_is_in_flight(
    store: ModelStore,
) -> None:
    digest = add_tiny_backbone(store).digest
    with stage(store) as s:
        await s.models.refresh()
        entry = await s.models.create("new", Beginning(digest, "tiny"), who="Ann", why="")
        assert (entry.event, s.models.names_held()) == ("create", ["colours", "new"])

        with s.engines.sessions[0].held(), s.models.acquire("colours") as served:
            answering = asyncio.create_task(answer_of(served))
            await until(lambda: bool(s.engines.sessions[0].batches))
            await s.models.delete("colours", who="Ben", why="")
            with pytest.raises(NotFoundError):
                s.models.get("colours")
        assert head_of(await answering, tiny_head(("red", "green", "blue")))
        assert s.metric("regraft_served_version", model="colours") is None

        await s.models.restore("colours", who="Ben", why="")
        assert (await s.infer("colours"))[0] == 1


@asynchronous
async def test_another_server_follows_what_is_created_deleted_and_restored(store: ModelStore) -> None:
    digest = add_tiny_backbone(store).digest
    with stage(store) as one, stage(ModelStore(store.root)) as other:
        await one.models.refresh()
        await other.models.refresh()
        await one.models.create("new", Beginning(digest, "tiny"), who="Ann", why="")
        await one.models.delete("colours", who="Ann", why="")
        await other.models.refresh()
        assert (other.models.names(), other.models.names_held()) == ([], ["new"])

        await one.models.restore("colours", who="Ann", why="")
        await one.models.delete("new", who="Ann", why="")
        await other.models.refresh()
        assert (other.models.names(), other.models.names_held()) == (["colours"], ["colours"])
