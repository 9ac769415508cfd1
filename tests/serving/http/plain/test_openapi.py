import grpc
from openapi_spec_validator import validate

from tests.live_server import LiveServer
from tests.serving.http.http_client import fetch
from tests.serving.rpc.rpcs import rpcs_of


def test_the_description_is_valid_and_has_every_rpc_of_ours(shared: LiveServer) -> None:
    described = fetch(shared, "GET", "/openapi.json").json
    validate(described)
    with grpc.insecure_channel(shared.target) as channel:
        ours = {rpc for rpc in rpcs_of(channel) if rpc.startswith("/regraft.")}
    assert ours <= described["paths"].keys()
    answer = described["components"]["schemas"]["regraft.v1.ClassifyResponse"]["properties"]
    assert answer["version"]["type"] == "string"
    assert answer["predictions"]["items"] == {"$ref": "#/components/schemas/regraft.v1.Prediction"}
    assert described["paths"]["/v1/models/{name}/classify"]["post"]["responses"].keys() >= {"200", "400", "429", "503"}
