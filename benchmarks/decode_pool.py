"""Decoding in the lanes against decoding in a pool before them.

``[taskset -c 0] python -m benchmarks.decode_pool STORE NAME``: on a CPU, one lane for each that it may use, several
numbers of callers, no gRPC. Windows of both take turns, and printed are the quartiles of their ratios, pool to lanes:
pictures a second, and CPU time for each picture, which a busy machine tells better.
"""

import asyncio
import statistics
import sys
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Final

from benchmarks.in_process import SIZE, infer
from benchmarks.preprocessing import photo
from regraft.machine import cpu_budget
from regraft.model import artifact
from regraft.model.session import open_session
from regraft.stores.models import MODEL_FILE, ModelStore
from serving.inference.backbone import Backbone, InferenceRequest
from serving.inference.engine import Engine
from serving.inference.execution_plan import ExecutionPlan

ROUNDS: Final = 40
WINDOW_S: Final = 0.5
CALLERS: Final = (1, 8, 32)


async def compare(lanes: Backbone, pool: Backbone, question: InferenceRequest, callers: int) -> str:
    """Return a line of the report."""
    rates, costs = [], []
    for number in range(ROUNDS):
        order = (lanes, pool) if number % 2 else (pool, lanes)
        found = {id(each): await infer(each, repeat(question), callers, WINDOW_S) for each in order}
        rates.append(found[id(pool)][0] / found[id(lanes)][0])
        costs.append(found[id(pool)][1] / found[id(lanes)][1])
    told = (", ".join(f"{value:.3f}" for value in statistics.quantiles(ratios, n=4)) for ratios in (rates, costs))
    return "{} callers: pictures/s {}; CPU time {}\n".format(callers, *told)


async def main() -> None:
    """Do as the module says."""
    store, name = ModelStore(Path(sys.argv[1])), sys.argv[2]
    read = artifact.read(store.folder(*store.find(name)) / MODEL_FILE)
    plan = ExecutionPlan(cpu_budget(), 1, 1).on_a_cpu("throughput")
    opened = open_session(store.folder(*store.find(name)) / MODEL_FILE, provider="cpu", threads=1)
    plans = plan, replace(plan, decode_in_lane=False)
    lanes, pool = (Backbone(Engine(opened, each), max_queue=max(CALLERS)) for each in plans)
    question = InferenceRequest(photo(*SIZE), read.card.image, read.head)
    sys.stdout.write(f"{cpu_budget()} CPUs, pool to lanes, quartiles\n")
    for callers in CALLERS:
        sys.stdout.write(await compare(lanes, pool, question, callers))
    lanes.close()
    pool.close()


if __name__ == "__main__":
    asyncio.run(main())
