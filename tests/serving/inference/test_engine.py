import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from regraft.errors import ArtifactError, ProviderError
from regraft.image.decode import decode_crop
from regraft.image.spec import Crop
from regraft.machine import cpu_budget
from regraft.model.artifact import IMAGE, NOVELTY, PROBABILITIES, FloatArray, Head, graft
from regraft.model.session import OpenSession
from serving.inference.engine import Engine, open_engine
from serving.inference.execution_plan import (
    Clock,
    ExecutionPlan,
    Goal,
    Point,
    choose,
    plan_file,
    read_plan,
    read_points,
    write_points,
)
from tests.cuda_pretended import in_pretended_cuda
from tests.serving.cuda import CUDA_WORKS
from tests.serving.fakes import GatedSession
from tests.tiny import COLOURS, EMBEDDING_SIZE, SPEC, picture, tiny_backbone, tiny_card, tiny_head

LABELS = ("red", "green", "blue")
HEADS = (
    tiny_head(LABELS),
    tiny_head(("grey", "red")),
    tiny_head(("blue", "grey", "green", "red"), sharpness=3.0),
    tiny_head(LABELS, sharpness=8.0),
)
PLAN = ExecutionPlan(lanes=1, threads=1, max_batch=4)
TOLERANCE = 1e-5
CARD = tiny_card(tiny_backbone(), HEADS[0], LABELS)


def tiny_model(head: Head = HEADS[0]) -> onnx.ModelProto:
    backbone = tiny_backbone()
    return graft(backbone, head, tiny_card(backbone, head, LABELS))


def engine_on(model: onnx.ModelProto, plan: ExecutionPlan = PLAN) -> tuple[Engine, GatedSession]:
    session = GatedSession(model.SerializeToString())
    return Engine(OpenSession(session, "cpu"), plan), session


ENGINE, SESSION = engine_on(tiny_model())


def crop_of(label: str, number: int = 0) -> Crop:
    return decode_crop(picture(label, number), SPEC)


def test_an_engine_answers_in_the_order_of_the_pictures() -> None:
    outputs = ENGINE.run([crop_of(label) for label in ("blue", "red", "green")], [HEADS[0]] * 3)

    assert [LABELS[int(output.probabilities.argmax())] for output in outputs] == ["blue", "red", "green"]


def test_an_output_holds_the_embedding_and_the_novelty_of_its_picture() -> None:
    crop = crop_of("red")
    quarters = crop.reshape(2, 4, 2, 4, 3).mean(axis=(1, 3)).transpose(2, 0, 1).ravel() / 255

    (output,) = ENGINE.run([crop], [HEADS[0]])

    np.testing.assert_allclose(output.embedding, quarters, atol=TOLERANCE)
    assert output.novelty == pytest.approx(float(HEADS[0].novelty(output.embedding[None])[0]), abs=TOLERANCE)
    assert 0 <= output.novelty < 0.05


crops = st.tuples(st.sampled_from(sorted(COLOURS)), st.integers(0, 9)).map(lambda which: crop_of(*which))


@given(st.lists(st.tuples(crops, st.sampled_from(HEADS)), min_size=1, max_size=9))
def test_a_batch_for_several_heads_gives_what_each_picture_alone_would_get(batch: list[tuple[Crop, Head]]) -> None:
    """Invariant 4: response i equals the unbatched answer, whatever head its batch-mates are for."""
    runs = len(SESSION.batches)

    together = ENGINE.run([crop for crop, _ in batch], [head for _, head in batch])

    assert len(SESSION.batches) == runs + 1, "one pass of the backbone for all"
    assert len(together) == len(batch)
    for (crop, head), output in zip(batch, together, strict=True):
        (alone,) = ENGINE.run([crop], [head])
        np.testing.assert_allclose(output.probabilities, alone.probabilities, atol=TOLERANCE)
        np.testing.assert_allclose(output.embedding, alone.embedding, atol=TOLERANCE)
        assert output.novelty == pytest.approx(alone.novelty, abs=TOLERANCE)


class CountedHead(Head):
    """Notes how many embeddings each of its products is of."""

    def probabilities(self, embedding: FloatArray) -> FloatArray:
        PRODUCTS.append((len(self.bias), len(embedding)))
        return super().probabilities(embedding)


PRODUCTS: list[tuple[int, int]] = []


def test_each_head_of_a_batch_is_one_product_of_all_its_pictures() -> None:
    two, three, four = (CountedHead(**vars(HEADS[number])) for number in (1, 0, 2))
    PRODUCTS.clear()

    ENGINE.run([crop_of("red")] * 7, [three, four, two, three, four, four, two])
    ENGINE.run([crop_of("red")] * 3, [four] * 3)

    assert PRODUCTS == [(3, 2), (4, 3), (2, 2)], "none for a head that has the batch to itself: it is in the graph"


BLAS = """
import numpy
from threadpoolctl import threadpool_info
from regraft.model.session import OpenSession
from serving.inference.engine import Engine
from serving.inference.execution_plan import ExecutionPlan
Engine(OpenSession(None, "cpu"), ExecutionPlan(1, 1, 1))
print({library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"})
"""


def test_a_run_without_memory_is_told_from_one_that_fails() -> None:
    engine, session = engine_on(tiny_model())
    session.failures.append(RuntimeError("bfc_arena.cc: Failed to allocate memory for requested buffer of size 240"))
    session.failures.append(RuntimeError("a kernel is missing"))

    with pytest.raises(MemoryError, match="of size 240"):
        engine.run([crop_of("red")], HEADS[:1])
    with pytest.raises(RuntimeError, match="a kernel"):
        engine.run([crop_of("red")], HEADS[:1])


def test_products_of_numpy_have_one_thread_where_an_engine_runs() -> None:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    printed = subprocess.run([sys.executable, "-c", BLAS], env=environment, capture_output=True, text=True, check=True)

    assert printed.stdout == "{1}\n"


def test_an_engine_may_be_run_from_several_threads_at_once() -> None:
    """Invariant 1: the head that is fed belongs to one call only."""
    start = threading.Barrier(8)

    def run(number: int) -> None:
        head, label = HEADS[number % len(HEADS)], sorted(COLOURS)[number % 4]
        expected = head.probabilities(ENGINE.run([crop_of(label)], [head])[0].embedding[None])[0]
        start.wait()
        for _ in range(50):
            (output,) = ENGINE.run([crop_of(label)], [head])
            np.testing.assert_allclose(output.probabilities, expected, atol=TOLERANCE)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(run, number) for number in range(8)]:
            done.result()


def test_the_warm_up_runs_one_picture_for_a_larger_head_and_the_smallest_and_the_largest_batch() -> None:
    engine, session = engine_on(tiny_model(), ExecutionPlan(lanes=2, threads=1, max_batch=32))

    engine.warm_up(HEADS[0], SPEC.crop_px)

    assert [len(batch) for batch in session.batches] == [1, 1, 32]


class DeafSession(GatedSession):
    """Answers by the head that is built into the file, whatever it is fed, as OpenVINO's execution provider does."""

    def run(self, names: Sequence[str], feed: dict[str, Any]) -> Any:  # noqa: ANN401 - as ONNX Runtime's
        return super().run(names, {IMAGE: feed[IMAGE]})


def test_a_session_that_takes_no_other_head_is_refused_before_it_answers() -> None:
    """Invariant 2."""
    engine = Engine(OpenSession(DeafSession(tiny_model().SerializeToString()), "cpu"), PLAN)

    with pytest.raises(ArtifactError, match="the one that is built into the file answered"):
        engine.warm_up(HEADS[0], SPEC.crop_px)


def test_the_warm_up_accepts_another_head_on_the_same_session() -> None:
    ENGINE.warm_up(HEADS[2], SPEC.crop_px)


def spoilt(output: str, node: onnx.NodeProto) -> onnx.ModelProto:
    """Return a model where one output is computed by another node."""
    model = tiny_model()
    (old,) = (n for n in model.graph.node if output in n.output)
    old.CopyFrom(node)
    return model


NONSENSE = {
    "sums that are not 1": spoilt(PROBABILITIES, helper.make_node("Sigmoid", ["head.logits"], [PROBABILITIES])),
    "not numbers": spoilt(PROBABILITIES, helper.make_node("Sqrt", ["head.logits"], [PROBABILITIES])),
    "another number of labels": spoilt(PROBABILITIES, helper.make_node("Softmax", ["embedding"], [PROBABILITIES])),
    "novelty not finite": spoilt(NOVELTY, helper.make_node("Log", ["head.nearest"], [NOVELTY])),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_the_warm_up_refuses_a_model_that_answers_nonsense(what: str) -> None:
    """Invariant 2: a version is visible only after it answered, and sensibly."""
    engine, _ = engine_on(NONSENSE[what])

    with pytest.raises(ArtifactError, match="nonsense on cpu"):
        engine.warm_up(HEADS[0], SPEC.crop_px)


def test_the_warm_up_refuses_nonsense_that_only_the_largest_batch_shows() -> None:
    """Invariant 2."""
    model = tiny_model()
    (softmax,) = (node for node in model.graph.node if PROBABILITIES in node.output)
    model.graph.node.remove(softmax)
    # One softmax over all pictures together: right for one picture, wrong for two.
    model.graph.node.extend(
        [
            helper.make_node("Flatten", ["head.logits"], ["flat logits"], axis=0),
            helper.make_node("Softmax", ["flat logits"], ["flat probabilities"], axis=1),
            helper.make_node("Shape", ["head.logits"], ["shape"]),
            helper.make_node("Reshape", ["flat probabilities", "shape"], [PROBABILITIES]),
        ]
    )
    engine, session = engine_on(model, ExecutionPlan(lanes=1, threads=1, max_batch=2))

    with pytest.raises(ArtifactError, match="nonsense"):
        engine.warm_up(HEADS[0], SPEC.crop_px)
    assert [len(batch) for batch in session.batches] == [1, 1, 2]


def test_the_warm_up_refuses_a_model_that_does_not_run_and_says_where() -> None:
    """Invariant 2."""
    too_wide = np.ones((3, EMBEDDING_SIZE + 1), np.float32)

    with pytest.raises(ArtifactError, match="does not run on cpu"):
        ENGINE.warm_up(Head(too_wide, np.ones(3, np.float32), too_wide, too_wide), SPEC.crop_px)
    with pytest.raises(ArtifactError, match="does not run on cpu"):
        ENGINE.warm_up(HEADS[0], SPEC.crop_px + 1)


def test_the_warm_up_refuses_a_model_with_room_for_one_picture_only() -> None:
    model = tiny_model()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 8, 3]))
    engine, _ = engine_on(model)

    with pytest.raises(ArtifactError, match="does not run on cpu"):
        engine.warm_up(HEADS[0], SPEC.crop_px)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save_model(tiny_model(), path)
    return path


def test_an_engine_opens_with_a_plan_for_all_cpus_of_this_process(model_file: Path) -> None:
    engine = open_engine(model_file, CARD, "cpu")

    assert engine.plan.decode_in_lane
    assert engine.plan.lanes * engine.plan.threads == cpu_budget()
    assert (engine.provider, engine.fallback_reason) == ("cpu", "")
    assert engine.run([crop_of("red")], [HEADS[0]])[0].embedding.shape == (EMBEDDING_SIZE,)


@given(goal=st.sampled_from(["throughput", "latency"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_measured_before_is_not_measured_again(model_file: Path, goal: Goal) -> None:
    plans = model_file.parent / "plans"
    file = plan_file(plans, CARD.backbone.digest, "cpu", cpu_budget(), onnxruntime.__version__)
    write_points(file, [Point(3, 2, 5, 100.0, 7.0), Point(3, 2, 1, 40.0, 6.9)])

    assert open_engine(model_file, CARD, "cpu", goal=goal, plans=plans).plan == ExecutionPlan(3, 2, 5, True)


class Ticks(threading.local):
    """A clock that goes on by 10 ms at each look.

    So every run takes as long. Each thread has its own.
    """

    s = 0.0

    def __call__(self) -> float:
        self.s += 0.01
        return self.s


def test_what_is_measured_is_kept(model_file: Path) -> None:
    plans = model_file.parent / "plans"

    plan = open_engine(model_file, CARD, "cpu", plans=plans, clock=Clock(Ticks(), lambda: 0.0)).plan

    (file,) = plans.iterdir()
    assert choose(read_points(file), "throughput", decode_in_lane=True) == plan


def test_what_is_in_doubt_is_said_and_measured_again_at_the_next_start(
    model_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plans, ticks = model_file.parent / "plans", Ticks()

    doubted = open_engine(model_file, CARD, "cpu", plans=plans, clock=Clock(ticks, lambda: ticks.s))

    assert not plans.exists()
    assert str(doubted.plan) == f"{cpu_budget()}x1x1"
    (line,) = caplog.messages
    assert "in doubt and measured again at the next start: other work kept the lanes waiting" in line
    assert "--plan" in line
    open_engine(model_file, CARD, "cpu", plans=plans, clock=Clock(ticks, lambda: 0.0))
    assert len(list(plans.iterdir())) == 1


def test_a_plan_that_was_given_is_taken_without_measuring(model_file: Path) -> None:
    plans = model_file.parent / "plans"

    engine = open_engine(model_file, CARD, "cpu", plans=plans, plan=read_plan("3x2x2"))

    assert engine.plan == ExecutionPlan(3, 2, 2, decode_in_lane=True, turn=2)
    assert not plans.exists()
    assert engine.run([crop_of("red")], [HEADS[0]])[0].embedding.shape == (EMBEDDING_SIZE,)


def test_a_plan_is_measured_for_as_many_cpus_as_are_given(model_file: Path) -> None:
    engine = open_engine(model_file, CARD, "cpu", cpus=1, clock=Clock(Ticks(), lambda: 0.0))

    assert (engine.plan.lanes, engine.plan.threads) == (1, 1)


@pytest.mark.skipif(CUDA_WORKS, reason="CUDA works on this machine, so nothing falls back")
def test_auto_falls_back_to_the_cpu_and_says_why(model_file: Path) -> None:
    engine = open_engine(model_file, CARD, "auto", plan=PLAN)

    assert engine.provider == "cpu"
    assert engine.fallback_reason


@pytest.mark.skipif(CUDA_WORKS, reason="CUDA works on this machine, so it is not refused")
def test_cuda_is_refused_where_it_does_not_work(model_file: Path) -> None:
    with pytest.raises(ProviderError, match="provider cuda was asked for, but"):
        open_engine(model_file, CARD, "cuda")


@pytest.mark.parametrize("content", [b"", b"rubbish", None], ids=["empty", "rubbish", "cut short"])
def test_a_file_that_is_no_model_is_refused(model_file: Path, content: bytes | None) -> None:
    model_file.write_bytes(model_file.read_bytes()[:-100] if content is None else content)

    with pytest.raises(ArtifactError, match="ONNX Runtime refuses the model"):
        open_engine(model_file, CARD, "cpu")


ON_CUDA = """
import logging, sys
from pathlib import Path
import numpy as np
from regraft.model.artifact import read
from regraft.image.decode import decode_crop
from regraft.model.session import CudaOptions
from serving.inference.engine import open_engine
from tests.tiny import SPEC, picture, tiny_head
logging.basicConfig(stream=sys.stdout, format="%(message)s")
path = Path(sys.argv[1])
engine = open_engine(path, read(path).card, "cuda", cuda=CudaOptions(device=3))
first, second, third = (tiny_head(labels) for labels in (("red", "green", "blue"), ("red", "grey"), ("grey", "blue")))
engine.warm_up(first, SPEC.crop_px)
heads = [first, second, first, third]
outputs = engine.run([decode_crop(picture(label), SPEC) for label in ("red", "grey", "blue", "green")], heads)
for head, output in zip(heads, outputs):
    np.testing.assert_allclose(output.probabilities, head.probabilities(output.embedding[None])[0], atol=1e-5)
print(engine.provider, engine.plan.threads, engine.plan.decode_in_lane)
"""


def test_an_engine_on_cuda_is_measured_and_answers_by_what_is_on_its_device_and_says_what_runs_on_the_cpu(
    model_file: Path, tmp_path: Path
) -> None:
    child = in_pretended_cuda(["-c", ON_CUDA, str(model_file)], tmp_path)

    doubt = "execution plan is in doubt"  # where the machine was busy
    warning, told = (line for line in child.printed if doubt not in line)
    assert warning.startswith("backbone tiny: CUDA has no kernel for a part of it, and copies to the CPU and back")
    assert "3 Gemm" in warning
    assert told == "cuda 1 False"
    assert {options["device_id"] for options in child.cuda_options} == {"3"}
