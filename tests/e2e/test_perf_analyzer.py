"""NVIDIA's own load generator, as it is, drives the Open Inference Protocol."""

import base64
import json
import os
import re
import subprocess
from pathlib import Path

import grpc
import pytest

from regraft.oip import inference_pb2 as pb
from regraft.oip import inference_pb2_grpc as pb_grpc
from regraft.stores.models import ModelStore
from serving.rpc.open_inference.tensors import join
from tests import REPOSITORY
from tests.e2e.conftest import ServerProcess
from tests.tiny import picture

REQUESTS = 20
# It ends as soon as it has measured; what a noisy machine makes of the figures is no matter here.
MEASUREMENT = f"--measurement-mode count_windows --measurement-request-count {REQUESTS} --max-trials 3 -s 999"


@pytest.fixture(scope="session")
def perf_analyzer() -> Path:
    """The program, with the libraries that it wants in ``lib`` beside its ``bin``."""
    program = Path(os.environ.get("PERF_ANALYZER", REPOSITORY / ".perf_analyzer" / "bin" / "perf_analyzer"))
    if not program.is_file():
        pytest.skip(f"no {program}: `make perf-analyzer` fetches it, or set PERF_ANALYZER to where it is")
    return program


@pytest.mark.parametrize(
    ("options", "batch"),
    [("", 1), ("--async", 1), ("--async --streaming", 1), ("", 4), ("--async --streaming", 4)],
    ids=["sync", "async", "streaming", "sync-batch-of-4", "streaming-batch-of-4"],
)
def test_perf_analyzer_measures_the_server_and_no_request_fails(
    perf_analyzer: Path, store: ModelStore, tmp_path: Path, options: str, batch: int
) -> None:
    data = tmp_path / "pictures.json"
    # Its base64 is that of the tensor, not of the picture: an element of a BYTES tensor begins with its length.
    tensors = [join([picture(label)]) for label in ("red", "green", "blue", "grey")]
    contents = [{"b64": base64.b64encode(tensor).decode()} for tensor in tensors]
    data.write_text(json.dumps({"data": [{"image": {"content": content, "shape": [1]}} for content in contents]}))
    libraries = [str(perf_analyzer.parents[1] / "lib"), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]

    with ServerProcess(store.root) as server:
        target = server.places["grpc"]
        command = [str(perf_analyzer), "-i", "grpc", "-u", target, "-m", "colours", "--input-data", str(data)]
        done = subprocess.run(
            [*command, "-b", str(batch), *MEASUREMENT.split(), *options.split()],
            env={**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        with grpc.insecure_channel(target) as channel:
            asked = pb.ModelStatisticsRequest(name="colours")
            [found] = pb_grpc.GRPCInferenceServiceStub(channel).ModelStatistics(asked).model_stats

    report = done.stdout + done.stderr
    assert done.returncode == 0, report
    throughputs = re.findall(r"Throughput: ([\d.]+) infer/sec", report)
    assert throughputs, report
    assert min(map(float, throughputs)) > 0, report
    # Its server-side block, which it makes of the server's own statistics.
    assert re.search(r"Inference count: [1-9]", report), report
    assert re.search(r"queue \d+ usec \+ compute input \d+ usec \+ compute infer \d+ usec", report), report
    assert found.inference_stats.fail.count == 0
    assert found.inference_stats.success.count >= REQUESTS
    assert found.inference_count == batch * found.inference_stats.success.count
