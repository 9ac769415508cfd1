import pytest

from regraft.v1 import retraining_pb2 as pb
from serving.rpc.parsing import MAX_ANSWER_BYTES, as_many_as_fit


@pytest.mark.parametrize(("sizes", "fitting"), [([], 0), ([10, 10], 2), ([1, 2 * MAX_ANSWER_BYTES, 1], 1)])
def test_an_answer_holds_as_many_messages_as_fit(sizes: list[int], fitting: int) -> None:
    jobs = [pb.RetrainJob(message="x" * size) for size in sizes]

    assert as_many_as_fit(jobs) == jobs[:fitting]
    assert as_many_as_fit(iter(jobs[1:2])) == jobs[1:2], "one there is in any case"
