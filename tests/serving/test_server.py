import asyncio
import os
import re
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic import ValidationError

from regraft.client.client import Client, RemoteError
from regraft.errors import OperatorError
from regraft.files import locked
from regraft.stores.examples import ExamplesStore
from regraft.stores.jobs import JobState
from regraft.stores.models import ModelStore
from regraft.v1 import classifier_pb2 as pb
from regraft.v1 import classifier_pb2_grpc as pb_grpc
from regraft.v1 import retraining_pb2
from serving.server import PROCESS, SERVICES, Ready, Server
from serving.settings import Settings
from tests.cuda_pretended import in_pretended_cuda
from tests.grpc_loop import grpc_loop
from tests.live_server import PLAN, LiveServer, stalled_retrain
from tests.serving.broken_versions import SPOIL, too_large_to_read
from tests.serving.cuda import CUDA_WORKS
from tests.tiny import picture, publish_tiny
from tests.waiting import PATIENCE_S, until, wait_until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


LOAD = """
import asyncio, sys
from pathlib import Path
from serving.server import Server
from serving.settings import Settings
server = Server(Settings(store=Path(sys.argv[1])))
asyncio.run(server.models.refresh())
print(server.models.get("colours").backbone.engine.arithmetic)
"""


def test_cuda_is_used_as_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_tiny(ModelStore(tmp_path / "models"))
    for name, value in {"TF32": "true", "DEVICE": "2", "MEMORY_MB": "3000", "ARENA": "as-requested"}.items():
        monkeypatch.setenv(f"REGRAFT_CUDA_{name}", value)

    child = in_pretended_cuda(["-c", LOAD, str(tmp_path / "models")], tmp_path)

    assert child.printed == ["cuda tf32"], "it answers"
    assert all(
        options.items() >= {"use_tf32": "1", "device_id": "2", "arena_extend_strategy": "kSameAsRequested"}.items()
        and options["gpu_mem_limit"] == str(3000 * 2**20)
        for options in child.cuda_options
    )


def test_a_plan_is_measured_in_the_arithmetic_that_is_asked_for(tmp_path: Path) -> None:
    publish_tiny(ModelStore(tmp_path / "models"))

    child = in_pretended_cuda(
        ["-m", "regraft.cli", "plan", "colours", "--store", str(tmp_path / "models"), "--cuda-tf32"], tmp_path
    )

    assert {options["use_tf32"] for options in child.cuda_options} == {"1"}


def health_of(live: LiveServer, service: str = "") -> int:
    with grpc.insecure_channel(live.target) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=PATIENCE_S).status)


@contextmanager
def health_watched(live: LiveServer) -> Iterator[Iterator[int]]:
    """Follow the server's health from another thread's point of view."""
    with grpc.insecure_channel(live.target) as channel:
        watch: Any = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        try:
            yield (answer.status for answer in watch)
        finally:
            watch.cancel()


def refusal(client: Client) -> str:
    """Return why a request that nobody could answer is not answered."""
    with pytest.raises(RemoteError) as failure:
        client.classify(b"no picture")
    assert ("stopping" in str(failure.value)) == (failure.value.code == "UNAVAILABLE")
    return str(failure.value)


def fetch(live: LiveServer, path: str) -> str:
    address = f"http://127.0.0.1:{live.ready.metrics_port}/{path}"
    with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


def scrape(live: LiveServer) -> str:
    return fetch(live, "metrics")


def test_a_server_with_a_champion_is_ready_when_it_has_started(live: LiveServer) -> None:
    assert live.ready.models == ["colours"]
    assert live.ready.grpc_port != live.ready.metrics_port
    for service in ("", *SERVICES):
        assert health_of(live, service) == SERVING
    assert live.client.classify(picture("red")).version == 1


def test_the_health_of_an_unknown_service_is_not_found(shared: LiveServer) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        health_of(shared, "regraft.v1.Nothing")

    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_server_becomes_ready_when_its_first_model_comes(empty_store: ModelStore) -> None:
    with LiveServer(empty_store) as live, health_watched(live) as health:
        assert live.ready.models == []
        assert health_of(live) == next(health) == NOT_SERVING
        assert health_of(live, PROCESS) == SERVING, "a restart would bring no model"
        publish_tiny(empty_store)

        assert next(health) == SERVING
        assert live.client.classify(picture("red")).version == 1


def test_a_server_whose_only_champion_cannot_be_loaded_is_not_ready(store: ModelStore) -> None:
    """Invariant 2."""
    SPOIL["cut short"][0](store.folder("colours", 1))
    with LiveServer(store) as live:
        assert live.ready.models == []
        assert health_of(live) == NOT_SERVING

        publish_tiny(store)
        wait_until(lambda: health_of(live) == SERVING)


def test_a_server_serves_the_champion_before_until_the_champion_arrives_and_says_so(store: ModelStore) -> None:
    late = publish_tiny(store, sharpness=5.0)
    folder = store.folder("colours", late)
    elsewhere = folder.rename(store.root.parent / "late")
    with LiveServer(store) as live:
        assert live.client.classify(picture("red")).version == 1
        (model,) = live.client.list_models()
        assert (model.served_version, model.champion) == (1, late)
        assert model.problem.endswith("version 1 serves meanwhile")
        assert live.metric("regraft_served_version", model="colours") == 1

        elsewhere.rename(folder)
        wait_until(lambda: live.client.classify(picture("red")).version == late)
        assert live.client.get_model().problem == ""


def test_a_bad_champion_does_not_make_a_ready_server_unready(store: ModelStore, live: LiveServer) -> None:
    """Invariant 2."""
    version = publish_tiny(store, promote=False)
    SPOIL["rubbish"][0](store.folder("colours", version))
    store.move("colours", version, who="test", why="")
    wait_until(lambda: live.client.get_model().problem)

    assert health_of(live) == SERVING


@pytest.mark.skipif(CUDA_WORKS, reason="CUDA works on this machine, so it is not refused")
def test_a_server_told_to_use_cuda_is_never_ready_without_it(store: ModelStore) -> None:
    with LiveServer(store, provider="cuda") as live:
        assert live.ready.models == []
        for service in ("", *SERVICES):
            assert health_of(live, service) == NOT_SERVING
        assert "provider cuda was asked for" in live.client.get_model().problem
        assert live.metric("regraft_provider", model="colours", provider="cuda") in (None, 0)


@pytest.mark.skipif(CUDA_WORKS, reason="CUDA works on this machine, so nothing falls back")
def test_a_server_that_may_fall_back_is_ready_and_its_metrics_say_on_what(store: ModelStore) -> None:
    with LiveServer(store, provider="auto") as live:
        assert health_of(live) == SERVING
        text = scrape(live)
        assert 'regraft_provider{model="colours",provider="cpu"} 1.0' in text
        assert 'regraft_provider{model="colours",provider="cuda"} 0.0' in text


def test_reflection_lists_the_services(shared: LiveServer) -> None:
    with grpc.insecure_channel(shared.target) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([request]))

    listed = {service.name for service in answer.list_services_response.service}
    assert listed == {
        "regraft.v1.Classifier",
        "regraft.v1.Models",
        "regraft.v1.Examples",
        "regraft.v1.Exports",
        "regraft.v1.Pictures",
        "regraft.v1.Reports",
        "regraft.v1.Retraining",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_reflection_describes_the_messages(shared: LiveServer) -> None:
    with grpc.insecure_channel(shared.target) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="regraft.v1.Classifier")
        (answer,) = stub.ServerReflectionInfo(iter([request]))

    assert any(b"ClassifyStream" in file for file in answer.file_descriptor_response.file_descriptor_proto)


def test_the_metrics_are_served_over_http(live: LiveServer) -> None:
    live.client.classify(picture("red"))
    with pytest.raises(RemoteError):
        live.client.classify(b"no picture")
    list(live.client.add_examples([(picture("grey"), "grey")]))

    text = scrape(live)

    for line in (
        'regraft_requests_total{code="OK",method="Classify",model="colours"} 1.0',
        'regraft_requests_total{code="INVALID_ARGUMENT",method="Classify",model="colours"} 1.0',
        'regraft_requests_total{code="OK",method="AddExamples",model="colours"} 1.0',
        'regraft_examples_total{outcome="accepted"} 1.0',
        'regraft_stage_seconds_count{model="colours",stage="total"} 1.0',
        'regraft_served_version{model="colours"} 1.0',
        'regraft_provider{model="colours",provider="cpu"} 1.0',
        'regraft_swaps_total{kind="session",model="colours"} 1.0',
        "regraft_in_flight 0.0",
        "regraft_queue_depth 0.0",
        "# TYPE regraft_load_failures_total counter",
        "# TYPE regraft_retrain_jobs_total counter",
        "# TYPE process_cpu_seconds_total counter",
    ):
        assert line in text.splitlines()


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_taken_grpc_port_is_the_operators_to_change(store: ModelStore) -> None:
    with (
        taken_port() as port,
        pytest.raises(OperatorError, match=f"--grpc 127.0.0.1:{port}"),
        LiveServer(store, grpc=f"127.0.0.1:{port}"),
    ):
        pass


def test_a_taken_metrics_port_is_the_operators_to_change(store: ModelStore) -> None:
    with (
        taken_port() as port,
        pytest.raises(OperatorError, match=f"--metrics 127.0.0.1:{port}"),
        LiveServer(store, metrics=f"127.0.0.1:{port}"),
    ):
        pass


def test_two_servers_cannot_share_a_port(store: ModelStore, live: LiveServer) -> None:
    with pytest.raises(OperatorError, match="--grpc"), LiveServer(store, grpc=live.target):
        pass
    metrics = f"127.0.0.1:{live.ready.metrics_port}"
    with pytest.raises(OperatorError, match="--metrics"), LiveServer(store, metrics=metrics):
        pass

    assert live.client.classify(picture("red")).version == 1


@pytest.mark.parametrize("flag", ["grpc", "metrics"])
def test_a_port_that_no_machine_has_is_the_operators_to_change(store: ModelStore, flag: str) -> None:
    with pytest.raises((OperatorError, ValidationError), match=flag), LiveServer(store, **{flag: "127.0.0.1:70000"}):
        pass


@pytest.mark.parametrize("flag", ["grpc", "metrics"])
def test_a_host_that_does_not_exist_is_the_operators_to_change(store: ModelStore, flag: str) -> None:
    host = {flag: "no-such-host.invalid:0", "insecure": True}
    with pytest.raises(OperatorError, match=f"--{flag}"), LiveServer(store, **host):
        pass


def test_the_examples_may_be_kept_elsewhere(store: ModelStore, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/elsewhere.sqlite"
    with LiveServer(store, examples=str(tmp_path / "elsewhere"), database=database) as live:
        list(live.client.add_examples([(picture("grey"), "grey")]))
        assert live.client.get_model().examples == 1

    assert not (store.root / ".examples").exists()
    examples = ExamplesStore(tmp_path / "elsewhere", database)
    assert examples.labels.count("colours") == 1
    examples.close()


def test_a_retrain_finds_jobs_and_examples_that_are_kept_elsewhere(store: ModelStore, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/elsewhere.sqlite"
    with LiveServer(store, examples=str(tmp_path / "elsewhere"), database=database) as live:
        list(live.client.add_examples([(picture("grey"), "grey")]))
        job = live.client.retrain()
        end = list(live.client.watch_job(job.id))[-1]

    assert end.state == retraining_pb2.RetrainJob.STATE_REFUSED
    assert "class 'grey' is left out" in end.message


@pytest.fixture
def left_over(store: ModelStore) -> Iterator[ExamplesStore]:
    """The examples store as a crashed server left it."""
    examples = ExamplesStore(store.root / ".examples")
    yield examples
    examples.close()


def test_a_job_that_a_crash_interrupted_goes_on_at_the_start(store: ModelStore, left_over: ExamplesStore) -> None:
    """Invariant 6."""
    job = left_over.jobs.create("colours", {}, "ada")
    left_over.jobs.claim(job.id)
    with LiveServer(store) as live:
        *_, end = live.client.watch_job(job.id)

    assert (end.state, end.requested_by) == (retraining_pb2.RetrainJob.STATE_REFUSED, "ada")
    assert "nothing new" in end.message
    assert "second attempt; the first was interrupted" in end.message


def test_a_job_whose_process_dies_with_another_server_is_taken_up_by_this_one(
    store: ModelStore, left_over: ExamplesStore
) -> None:
    """Invariant 6."""
    with LiveServer(store):
        job = left_over.jobs.create("colours", {}, "ada")
        left_over.jobs.claim(job.id)

        wait_until(lambda: left_over.jobs.get(job.id).state.is_final)
        assert left_over.jobs.get(job.id).state is JobState.REFUSED


def test_a_job_that_was_interrupted_after_its_promotion_succeeded(store: ModelStore, left_over: ExamplesStore) -> None:
    """Invariant 6."""
    version = publish_tiny(store, sharpness=5.0, promote=False)
    job = left_over.jobs.create("colours", {}, "ada")
    left_over.jobs.claim(job.id)
    store.move("colours", version, who="ada", why="", job=job.id)
    with LiveServer(store) as live:
        end = live.client.get_job(job.id)
        assert live.client.classify(picture("red")).version == version

    assert (end.state, end.version) == (retraining_pb2.RetrainJob.STATE_SUCCEEDED, version)


def test_stopping_says_so_first_then_finishes_what_is_in_flight_and_refuses_what_is_new(store: ModelStore) -> None:
    """Invariant 10."""
    with (
        LiveServer(store, grace_s=PATIENCE_S) as live,
        ThreadPoolExecutor(1) as pool,
        live.busy_lanes() as lanes_go_on,
        health_watched(live) as health,
    ):
        assert next(health) == SERVING
        in_flight = pool.submit(live.client.classify, picture("red"))
        wait_until(lambda: live.metric("regraft_in_flight") == 1)
        stopped = live.stop()

        assert next(health) == NOT_SERVING
        wait_until(lambda: "stopping" in refusal(live.client))
        assert not in_flight.done()
        assert not stopped.done()
        lanes_go_on.set()
        assert in_flight.result(PATIENCE_S).predictions[0].label == "red"
        assert stopped.result(PATIENCE_S) == 0


def test_a_stopped_server_listens_no_more(store: ModelStore) -> None:
    """Invariant 10."""
    with LiveServer(store) as live:
        assert live.stop().result(PATIENCE_S) == 0

        with pytest.raises(RemoteError) as failure:
            live.client.classify(picture("red"))
        assert failure.value.code == "UNAVAILABLE"
        with pytest.raises(OSError, match="refused"):
            scrape(live)


def test_what_does_not_finish_in_the_grace_time_is_cut_and_counted(store: ModelStore) -> None:
    """Invariant 10."""
    with LiveServer(store, grace_s=0.2) as live, ThreadPoolExecutor(1) as pool, live.busy_lanes():
        in_flight = pool.submit(live.client.classify, picture("red"))
        wait_until(lambda: live.metric("regraft_in_flight") == 1)

        assert live.stop().result(PATIENCE_S) == 1
        with pytest.raises(RemoteError) as failure:
            in_flight.result(PATIENCE_S)
        assert failure.value.code in ("UNAVAILABLE", "CANCELLED")


def test_a_stream_that_its_client_keeps_open_does_not_hold_the_stop(store: ModelStore) -> None:
    """Invariant 10: what it had taken in is answered."""
    keep_open = threading.Event()

    def pictures() -> Iterator[tuple[str, bytes]]:
        yield "first", picture("red")
        keep_open.wait(PATIENCE_S)

    with LiveServer(store, grace_s=10 * PATIENCE_S) as live:
        answers = live.client.classify_stream(pictures())
        assert next(answers).id == "first"

        assert live.stop().result(PATIENCE_S) == 0
        with pytest.raises(RemoteError, match="stopping") as failure:
            next(answers)
        assert failure.value.code == "UNAVAILABLE"
        keep_open.set()


def test_pictures_of_a_stream_that_wait_for_a_lane_are_answered_before_the_stop(store: ModelStore) -> None:
    """Invariant 10."""
    with LiveServer(store, grace_s=PATIENCE_S) as live, grpc.insecure_channel(live.target) as channel:
        keep_open = threading.Event()

        def requests() -> Iterator[pb.ClassifyStreamRequest]:
            for number in range(5):
                yield pb.ClassifyStreamRequest(id=str(number), request=pb.ClassifyRequest(image=picture("red")))
            keep_open.wait(PATIENCE_S)

        with live.busy_lanes():
            stream = pb_grpc.ClassifierStub(channel).ClassifyStream(requests())
            wait_until(lambda: live.metric("regraft_queue_depth") == 5)
            stopped = live.stop()
        answered = []
        with pytest.raises(grpc.RpcError, match="stopping"):  # noqa: PT012 - the loop is what ends with the error
            for answer in stream:
                assert answer.response.predictions[0].label == "red"
                answered.append(answer.id)
        keep_open.set()

        assert answered == ["0", "1", "2", "3", "4"]
        assert stopped.result(PATIENCE_S) == 0


def test_a_client_that_watches_the_health_does_not_hold_the_stop_for_the_whole_grace_time(store: ModelStore) -> None:
    """Invariant 10: load balancers watch for ever."""
    with LiveServer(store, grace_s=10 * PATIENCE_S) as live, health_watched(live) as health:
        assert next(health) == SERVING

        assert live.stop().result(PATIENCE_S) == 0


def test_stopping_ends_the_process_of_a_job_and_the_next_start_goes_on_with_it(
    store: ModelStore, left_over: ExamplesStore
) -> None:
    """Invariants 6 and 10."""
    with stalled_retrain(store), LiveServer(store) as live:
        job = live.client.retrain()
        wait_until(lambda: live.client.get_job(job.id).state == retraining_pb2.RetrainJob.STATE_RUNNING)
        watch = live.client.watch_job(job.id)
        assert next(watch).state == retraining_pb2.RetrainJob.STATE_RUNNING
        assert live.stop().result(PATIENCE_S) == 0
        with pytest.raises(RemoteError, match="stopping"):
            list(watch)

    waiting = left_over.jobs.get(job.id)
    assert waiting.state is JobState.PENDING
    assert "its server was stopped" in waiting.message
    with LiveServer(store) as live:
        *_, end = live.client.watch_job(job.id)
    assert end.state == retraining_pb2.RetrainJob.STATE_REFUSED
    assert "nothing new" in end.message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_stops_the_server(store: ModelStore, number: signal.Signals) -> None:
    """Invariant 10."""
    settings = Settings(store=store.root, grpc="127.0.0.1:0", metrics="127.0.0.1:0", provider="cpu")
    announced: list[Ready] = []

    def announce(ready: Ready) -> None:
        announced.append(ready)
        os.kill(os.getpid(), number)

    async def serve() -> int:
        return await asyncio.wait_for(Server(settings).run(announce), PATIENCE_S)

    assert asyncio.run(serve()) == 0
    assert [ready.models for ready in announced] == [["colours"]]


def test_the_loop_that_the_servers_share_has_nothing_to_complain_of() -> None:
    assert grpc_loop().complaints == []


def answered_by(live: LiveServer) -> float:
    return live.metric("regraft_requests_total", method="Classify", code="OK") or 0


def test_two_servers_on_one_port_share_the_clients_and_a_swap_reaches_both(store: ModelStore) -> None:
    publish_tiny(store, sharpness=5.0, promote=False)
    with LiveServer(store, share_port=True) as first, LiveServer(store, share_port=True, grpc=first.target) as second:
        assert first.target == second.target
        while not (answered_by(first) and answered_by(second)):  # the kernel deals the connections out
            with Client(first.target) as client:
                assert client.classify(picture("red")).version == 1
        first.client.promote(2)
        wait_until(lambda: {live.server.models.get("colours").version for live in (first, second)} == {2})

        first.stop().result(PATIENCE_S)
        for _ in range(8):
            with Client(second.target) as client:
                assert client.classify(picture("red")).version == 2


def test_a_server_that_does_not_share_its_port_keeps_others_from_it(store: ModelStore) -> None:
    with LiveServer(store) as first, pytest.raises(OperatorError, match="--share-port"):
        LiveServer(store, share_port=True, grpc=first.target).__enter__()


def test_a_server_answers_for_the_models_that_it_was_told_to_serve(store: ModelStore) -> None:
    publish_tiny(store, ("grey", "red"), name="animals")
    publish_tiny(store, ("grey", "red"), name="plants")
    with LiveServer(store, names=("animals", "plants")) as live:
        assert live.ready.models == ["animals", "plants"]
        assert live.client.classify(picture("grey"), name="animals").predictions[0].label == "grey"
        with pytest.raises(RemoteError, match="no model 'colours'"):
            live.client.classify(picture("red"), name="colours")
        with pytest.raises(RemoteError, match="told to serve others"):
            live.client.promote(1, name="colours")


def test_models_on_one_backbone_share_a_session_and_a_batch(store: ModelStore) -> None:
    publish_tiny(store, ("grey", "red"), name="animals")
    with LiveServer(store) as live, ThreadPoolExecutor(8) as pool:
        backbones = {id(live.server.models.get(name).backbone) for name in ("animals", "colours")}
        assert len(backbones) == 1
        with live.busy_lanes("animals"):
            asked = [
                pool.submit(live.client.classify, picture("red", number), name=("animals", "colours")[number % 2])
                for number in range(8)
            ]
            wait_until(lambda: live.metric("regraft_queue_depth") == 8)

        assert [answer.result(PATIENCE_S).name for answer in asked] == ["animals", "colours"] * 4
        assert {answer.result().predictions[0].label for answer in asked} == {"red"}


def test_a_server_whose_memory_did_not_suffice_for_a_background_task_goes_on_with_it(store: ModelStore) -> None:
    history = store.root / "colours" / "history.jsonl"
    with LiveServer(store) as live:
        was = history.read_bytes()
        too_large_to_read(history)
        wait_until(lambda: live.metric("regraft_background_failures_total", task="follow the model store"))
        assert live.client.classify(picture("red")).version == 1

        beside = history.with_name("whole")
        beside.write_bytes(was)
        beside.replace(history)
        store.move("colours", publish_tiny(store, promote=False), who="test", why="")
        wait_until(lambda: live.client.classify(picture("red")).version == 2)
        assert health_of(live, PROCESS) == SERVING


def test_a_server_whose_background_task_keeps_dying_is_not_alive_and_stops_all_the_same(store: ModelStore) -> None:
    with LiveServer(store, reload_every_s=0.002) as live:
        too_large_to_read(store.root / "colours" / "history.jsonl")
        wait_until(lambda: health_of(live, PROCESS) == NOT_SERVING)
        with pytest.raises(urllib.error.HTTPError, match="503") as failure:
            fetch(live, "healthz")
        with failure.value as answer:
            assert re.match(r"the task to .* died \d+ times in a row", answer.read().decode())
        assert health_of(live) == SERVING, "it classifies"
        assert live.client.classify(picture("red")).version == 1


def test_a_server_whose_database_does_not_answer_starts_and_classifies_and_takes_labels_when_it_does(
    store: ModelStore,
) -> None:
    folder = store.root / ".examples"
    folder.mkdir()
    with ExitStack() as away:
        away.enter_context(locked(folder / "examples.sqlite.lock"))  # whoever opens it waits, as for one that hangs
        with LiveServer(store) as live:
            assert health_of(live) == health_of(live, PROCESS) == SERVING
            assert live.client.classify(picture("red")).version == 1
            assert {away_as(live.client.retrain), away_as(live.client.list_jobs)} == {"UNAVAILABLE"}
            assert away_as(lambda: list(live.client.add_examples([(picture("grey"), "grey")]))) == "UNAVAILABLE"

            away.close()
            wait_until(lambda: away_as(live.client.list_jobs) == "OK")
            (added,) = live.client.add_examples([(picture("grey"), "grey")])
            assert added.outcome == retraining_pb2.AddExamplesResponse.OUTCOME_ACCEPTED


def away_as(ask: Callable[[], object], why: str = "the database has not answered yet") -> str:
    """Return the code of an answer.

    Of an error, the text says what is away.
    """
    try:
        ask()
    except RemoteError as error:
        return error.code if f"{why}; the server tries again" in str(error) else str(error)
    return "OK"


def test_a_server_whose_database_cannot_be_opened_says_why_and_tries_again(
    store: ModelStore, caplog: pytest.LogCaptureFixture
) -> None:
    folder = store.root / ".examples"
    folder.write_text("a file where the folder should be")
    with LiveServer(store) as live:
        assert live.client.classify(picture("red")).version == 1
        assert away_as(live.client.list_jobs, f"Not a directory ({folder}/locks)") == "UNAVAILABLE"
        assert live.metric("regraft_background_failures_total", task="open the examples")
        assert "cannot open the examples, and tries again in" in caplog.text

        folder.unlink()
        wait_until(lambda: away_as(live.client.list_jobs) == "OK")


def test_a_server_starts_without_the_postgresql_that_it_was_told_of(store: ModelStore) -> None:
    pytest.importorskip("psycopg")
    with socket.socket() as nobody, LiveServer(store, database="postgresql+psycopg://ada@127.0.0.1:1/labels") as live:
        assert live.client.classify(picture("red")).version == 1
        with pytest.raises(RemoteError, match="Connection refused") as failure:
            live.client.list_jobs()
        assert failure.value.code == "UNAVAILABLE"
        nobody.bind(("127.0.0.1", 0))
        nobody.listen()  # connections are made, and nothing is ever said
        number = nobody.getsockname()[1]
        with LiveServer(store, database=f"postgresql+psycopg://ada@127.0.0.1:{number}/labels") as other:
            assert other.client.classify(picture("red")).version == 1
            assert away_as(other.client.list_jobs) == "UNAVAILABLE"


def test_a_signal_is_heeded_while_models_are_loaded(store: ModelStore) -> None:
    """Invariant 10: those of a slow store take long, and so do many."""
    for number in range(8):
        publish_tiny(store, name=f"model-{number}")
    slow = store.folder("model-4", 1) / "model.onnx"
    slow.unlink()
    os.mkfifo(slow)
    settings = Settings(store=store.root, grpc="127.0.0.1:0", metrics="127.0.0.1:0", provider="cpu", plan=PLAN)
    announced: list[Ready] = []
    ends: list[int] = []

    def is_loading() -> bool:
        with suppress(OSError):  # nobody reads it yet
            ends.append(os.open(slow, os.O_WRONLY | os.O_NONBLOCK))
        return bool(ends)

    async def serve() -> tuple[int, list[str]]:
        server = Server(settings)
        serving = asyncio.create_task(server.run(announced.append))
        await until(is_loading)
        loaded = server.models.names()
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(serving, PATIENCE_S), loaded

    cut, loaded = asyncio.run(serve())
    os.close(ends[0])

    assert (cut, announced) == (0, [])
    assert loaded == ["colours", "model-0", "model-1", "model-2", "model-3"]


def test_a_store_that_is_slow_holds_up_neither_the_port_nor_the_loop(
    store: ModelStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    history = store.root / "colours" / "history.jsonl"
    was = history.read_bytes()
    history.unlink()
    os.mkfifo(history)
    place = f"unix:{tmp_path_factory.mktemp('s') / 's'}"  # short, as the path of a socket must be
    servers: list[Server] = []

    async def start() -> Ready:
        servers.append(Server(LiveServer(store, grpc=place).settings))
        return await servers[0].start()

    starting = grpc_loop().begin(start())
    try:
        with grpc.insecure_channel(place) as channel, history.open("wb") as pipe:  # it is being read
            for service, status in (("", NOT_SERVING), (PROCESS, SERVING)):
                request = health_pb2.HealthCheckRequest(service=service)
                assert health_pb2_grpc.HealthStub(channel).Check(request, timeout=PATIENCE_S).status == status
            assert not starting.done()

            history.unlink()
            history.write_bytes(was)
            pipe.write(was)
        assert starting.result(PATIENCE_S).models == ["colours"]
    finally:
        grpc_loop().run(servers[0].stop())


def test_the_plan_and_the_cpus_that_are_given_hold_for_all_that_runs_or_decodes(store: ModelStore) -> None:
    with LiveServer(store, cpus=1, plan="1x1x2") as live:
        assert str(live.server.models.get("colours").backbone.engine.plan) == "1x1x2"
        assert live.server.models.cpus.count == live.server.models.threads.pictures.threads == 1
        assert live.client.classify(picture("red")).predictions[0].label == "red"
