import pytest

from tests.live_server import LiveServer
from tests.serving.http.http_client import fetch
from tests.serving.http.plain.test_rest import CLASSIFY, asking
from tests.tiny import picture

__all__ = ["asking"]

NAMED = "https://label.example.com"
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}


def test_a_named_origin_may_ask_and_reads_the_answer(asking: LiveServer) -> None:
    asked = fetch(asking, "OPTIONS", CLASSIFY, None, PREFLIGHT | {"origin": NAMED})
    assert (asked.status, asked.headers["access-control-allow-origin"]) == (200, NAMED)
    assert "authorization" in asked.headers["access-control-allow-headers"]
    told = fetch(asking, "POST", CLASSIFY, picture("red"), {"origin": NAMED, "authorization": "Bearer classify"})
    assert (told.status, told.headers["access-control-allow-origin"]) == (200, NAMED)


@pytest.mark.parametrize(
    "origin", ["https://evil.example.com", "http://label.example.com", "null", f"{NAMED}.evil.com"]
)
def test_no_other_origin_may(asking: LiveServer, origin: str) -> None:
    for method, more in (("OPTIONS", PREFLIGHT), ("POST", {"authorization": "Bearer classify"})):
        reply = fetch(asking, method, CLASSIFY, b"", more | {"origin": origin})
        assert reply.status == 403
        assert "access-control-allow-origin" not in reply.headers


def test_without_named_origins_a_page_may_ask_its_own_server_alone(shared: LiveServer) -> None:
    here = f"127.0.0.1:{shared.ready.http_port}"
    own = fetch(shared, "POST", CLASSIFY, picture("red"), {"origin": f"http://{here}", "host": here})
    assert (own.status, own.headers.get("access-control-allow-origin")) == (200, None)
    assert fetch(shared, "POST", CLASSIFY, picture("red"), {"origin": NAMED}).status == 403
