from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from regraft.stores.models import ModelStore
from tests.live_server import LiveServer
from tests.serving.http.http_client import fetch
from tests.serving.rpc.security.test_guard import callers_file
from tests.tiny import picture, publish_tiny

CLASSIFY = "/v1/models/colours/classify"
FORM = "multipart/form-data; boundary=between"


def form(*parts: tuple[str, bytes]) -> bytes:
    told = [b'--between\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (n.encode(), c) for n, c in parts]
    return b"".join(told) + b"--between--\r\n"


BODIES = {
    "raw": ("image/png", picture("blue")),
    "raw by curl": ("application/x-www-form-urlencoded", picture("blue")),
    "form": (FORM, form(("image", picture("blue")))),
    "JSON": ("application/json", b'{"image":"%b"}' % b64encode(picture("blue"))),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_picture_is_classified_however_it_is_sent(shared: LiveServer, kind: str) -> None:
    content_type, body = BODIES[kind]
    reply = fetch(shared, "POST", f"{CLASSIFY}?top_k=2", body, {"content-type": content_type})
    assert reply.status == 200, reply
    assert [reply.json["predictions"][0]["label"], len(reply.json["predictions"])] == ["blue", 2]
    assert (reply.json["name"], reply.json["version"]) == ("colours", "1")


@pytest.mark.parametrize(
    ("path", "content_type", "body", "status", "word"),
    [
        ("/v1/models/nobody/classify", "image/png", picture("red"), 404, "nobody"),
        (CLASSIFY, "image/png", b"no picture", 400, "picture"),
        (CLASSIFY, "image/png", b"", 400, "empty"),
        (f"{CLASSIFY}?top_k=many", "image/png", picture("red"), 400, "top_k"),
        (f"{CLASSIFY}?topk=3", "image/png", picture("red"), 400, "topk"),
        (CLASSIFY, FORM, form(("picture", picture("red"))), 400, "image"),
        (CLASSIFY, "multipart/form-data", form(("image", picture("red"))), 400, "boundary"),
        (CLASSIFY, FORM, form(("image", picture("red")), ("top_k", b"-1")), 400, "top_k"),
        (CLASSIFY, "application/json", b'{"picture":""}', 400, "picture"),
        (CLASSIFY, "application/json", b'{"image":"*"}', 400, "image"),
        (CLASSIFY, "application/json", b'{"name":"others"}', 400, "name"),
        ("/v1/models//classify", "image/png", picture("red"), 200, "red"),
        ("/v1/models/%ff/classify", "image/png", picture("red"), 404, "model"),
        ("/v1/nothing", "image/png", b"", 404, "/v1/nothing"),
    ],
)
def test_what_makes_no_sense_is_a_problem_that_names_it(
    shared: LiveServer, path: str, content_type: str, body: bytes, status: int, word: str
) -> None:
    reply = fetch(shared, "POST", path, body, {"content-type": content_type})
    assert reply.status == status, reply
    if status != 200:
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json["status"] == status
        assert word in reply.json["detail"]


def test_a_method_that_is_not_there_is_told_which_is(shared: LiveServer) -> None:
    for path, allowed in ((CLASSIFY, "POST"), ("/v1/models", "GET"), ("/healthz", "GET, HEAD")):
        reply = fetch(shared, "PUT", path, b"")
        assert (reply.status, reply.headers["allow"]) == (405, allowed)


def test_models_are_listed(shared: LiveServer) -> None:
    reply = fetch(shared, "GET", "/v1/models?page_size=1")
    assert [model["name"] for model in reply.json["models"]] == ["colours"]
    assert fetch(shared, "GET", "/v1/models?page_size=x").status == 400


def test_probes_need_no_token_and_tell_what_is_wrong(empty_store: ModelStore, tmp_path: Path) -> None:
    with LiveServer(empty_store, http="127.0.0.1:0", callers=callers_file(tmp_path)) as live:
        assert (fetch(live, "GET", "/healthz").status, fetch(live, "GET", "/healthz").body) == (200, b"ok\n")
        assert fetch(live, "HEAD", "/healthz").body == b""
        assert fetch(live, "GET", "/readyz").status == 503
        assert b"no model" in fetch(live, "GET", "/readyz").body


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that asks who calls, and whose pages may be elsewhere."""
    folder = tmp_path_factory.mktemp("asking")
    publish_tiny(ModelStore(folder / "store"))
    with LiveServer(
        ModelStore(folder / "store"),
        http="127.0.0.1:0",
        callers=callers_file(folder),
        http_origin=("https://label.example.com",),
    ) as server:
        yield server


def test_roles_are_those_of_grpc(asking: LiveServer) -> None:
    def status(method: str, path: str, token: str) -> int:
        body = picture("red") if method == "POST" else None
        return fetch(asking, method, path, body, {"authorization": f"Bearer {token}"} if token else {}).status

    assert [status("POST", CLASSIFY, token) for token in ("", "wrong", "classify")] == [401, 401, 200]
    assert [status("GET", "/v1/models", token) for token in ("", "classify", "label")] == [401, 403, 200]
