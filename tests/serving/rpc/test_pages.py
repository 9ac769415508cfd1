import asyncio
from collections.abc import AsyncGenerator, Iterable

import pytest

from regraft.errors import InvalidRequestError
from regraft.v1 import examples_pb2, models_pb2
from regraft.v1 import retraining_pb2 as pb
from serving.rpc.pages import MAX_ANSWER_BYTES, as_many_as_fit, numbered_start, page_size, page_start, page_token


async def each(jobs: Iterable[pb.RetrainJob]) -> AsyncGenerator[pb.RetrainJob, None]:
    for job in jobs:
        yield job


@pytest.mark.parametrize(("sizes", "fitting"), [([], 0), ([10, 10], 2), ([1, 2 * MAX_ANSWER_BYTES, 1], 1)])
def test_an_answer_holds_as_many_messages_as_fit(sizes: list[int], fitting: int) -> None:
    jobs = [pb.RetrainJob(message="x" * size) for size in sizes]

    assert asyncio.run(as_many_as_fit(each(jobs))) == jobs[:fitting]
    assert asyncio.run(as_many_as_fit(each(jobs[1:2]))) == jobs[1:2], "one there is in any case"
    assert asyncio.run(as_many_as_fit(jobs)) == jobs[:fitting], "what is at hand needs no generator"


def test_a_page_is_no_larger_than_the_server_allows() -> None:
    sizes = [page_size(pb.ListRetrainJobsRequest(page_size=asked), 200) for asked in (0, 3, 1_000)]

    assert sizes == [200, 3, 200]
    with pytest.raises(InvalidRequestError, match="page_size: -1"):
        page_size(pb.ListRetrainJobsRequest(page_size=-1), 200)


def test_a_token_leads_to_the_next_page_of_the_same_list_whatever_its_size() -> None:
    request = examples_pb2.ListExamplesRequest(name="colours", label="Möwe")
    request.page_token = page_token(request, "aa")
    request.page_size = 7

    assert page_start(request, parts=1) == ["aa"]
    assert page_start(examples_pb2.ListExamplesRequest(), parts=1) is None


@pytest.mark.parametrize("token", ["x", "ä", "bm8ganNvbg==", "W10=", "e30=", "MQ=="])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequestError, match="page_token: it belongs to another request"):
        page_start(models_pb2.ListModelsRequest(page_token=token), parts=1)


def test_a_token_of_another_list_or_of_other_filters_is_refused() -> None:
    token = page_token(examples_pb2.ListExamplesRequest(label="red"), "aa")
    others = [
        examples_pb2.ListExamplesRequest(label="blue", page_token=token),
        models_pb2.ListModelsRequest(page_token=page_token(pb.ListRetrainJobsRequest(), "aa")),
    ]

    for request in others:
        with pytest.raises(InvalidRequestError, match="page_token"):
            page_start(request, parts=1)
    with pytest.raises(InvalidRequestError, match="page_token"):
        page_start(examples_pb2.ListExamplesRequest(label="red", page_token=token), parts=2)


@pytest.mark.parametrize("numbers", [("x", "0"), ("1", "-1"), ("1", "9" * 19)])
def test_a_token_of_numbers_that_was_made_up_is_the_callers_fault(numbers: tuple[str, str]) -> None:
    request = models_pb2.ListModelsRequest()
    request.page_token = page_token(request, "3", "20")
    assert numbered_start(request, parts=2) == [3, 20]

    request.page_token = page_token(request, *numbers)
    with pytest.raises(InvalidRequestError, match="page_token: it is none of ours"):
        numbered_start(request, parts=2)
