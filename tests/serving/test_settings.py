from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from regraft.model.session import CudaOptions, ProviderChoice
from serving.settings import Settings

NAMES = tuple(f"REGRAFT_{name.upper()}" for name in Settings.model_fields)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_the_defaults_listen_on_this_machine_only() -> None:
    settings = Settings()

    assert settings.store == Path("models")
    assert settings.grpc == "127.0.0.1:50051"
    assert settings.metrics == "127.0.0.1:8002"
    assert settings.provider == "auto"
    assert settings.database == ""


def test_the_environment_comes_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_STORE", "/srv/models")
    monkeypatch.setenv("REGRAFT_MAX_IN_FLIGHT", "7")
    monkeypatch.setenv("REGRAFT_PROVIDER", "cpu")

    settings = Settings()

    assert (settings.store, settings.max_in_flight, settings.provider) == (Path("/srv/models"), 7, "cpu")


def test_what_is_given_comes_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_GRPC", "0.0.0.0:1")
    monkeypatch.setenv("REGRAFT_METRICS", "0.0.0.0:2")

    settings = Settings(grpc="127.0.0.1:3")

    assert (settings.grpc, settings.metrics) == ("127.0.0.1:3", "0.0.0.0:2")


def test_every_setting_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "REGRAFT_STORE": "a",
        "REGRAFT_BACKBONES": "g",
        "REGRAFT_EXAMPLES": "b",
        "REGRAFT_DATABASE": "sqlite://",
        "REGRAFT_KEEP_REQUESTS": "0.1",
        "REGRAFT_KEEP_REQUESTS_MOST": "6",
        "REGRAFT_KEEP_REQUESTS_BYTES": "7",
        "REGRAFT_TRASH_DAYS": "14.5",
        "REGRAFT_POOL_MOST": "15",
        "REGRAFT_POOL_BYTES": "16",
        "REGRAFT_THUMBNAILS_MB": "17",
        "REGRAFT_LABELS": "closed",
        "REGRAFT_LABELS_PER_HOUR": "8",
        "REGRAFT_GRPC": "h:1",
        "REGRAFT_CONTROL": "h:3",
        "REGRAFT_HTTP": "h:4",
        "REGRAFT_HTTP_ORIGIN": "https://h",
        "REGRAFT_METRICS": "h:2",
        "REGRAFT_METRICS_LABELS": "15",
        "REGRAFT_TLS_CERT": "c",
        "REGRAFT_TLS_KEY": "d",
        "REGRAFT_TLS_CLIENT_CA": "e",
        "REGRAFT_INSECURE": "True",
        "REGRAFT_CALLERS": "f",
        "REGRAFT_SHARE_PORT": "True",
        "REGRAFT_NAMES": "flowers,ants",
        "REGRAFT_PROVIDER": "cuda",
        "REGRAFT_CUDA_TF32": "True",
        "REGRAFT_CUDA_DEVICE": "16",
        "REGRAFT_CUDA_MEMORY_MB": "17",
        "REGRAFT_CUDA_ARENA": "as-requested",
        "REGRAFT_CUDA_HEADS_MB": "18",
        "REGRAFT_OPTIMISE": "latency",
        "REGRAFT_CPUS": "1",
        "REGRAFT_PLAN": "2x1x8",
        "REGRAFT_MAX_IN_FLIGHT": "3",
        "REGRAFT_MAX_IMAGE_BYTES": "4096",
        "REGRAFT_MAX_IMAGE_PIXELS": "8192",
        "REGRAFT_MAX_STREAMS": "4",
        "REGRAFT_READ_TIMEOUT": "14",
        "REGRAFT_PICTURE_MEMORY_MB": "100",
        "REGRAFT_MAX_CONNECTIONS": "5",
        "REGRAFT_RELOAD_EVERY_S": "5",
        "REGRAFT_GATE": "manual",
        "REGRAFT_RETRAIN_EVERY": "7",
        "REGRAFT_MIN_NEW": "8",
        "REGRAFT_RETRAIN_MINUTES": "9",
        "REGRAFT_TRAIN_MINUTES": "14",
        "REGRAFT_RETRAIN_CPUS": "10",
        "REGRAFT_RETRAIN_MEMORY_MB": "11",
        "REGRAFT_BAKE": "90",
        "REGRAFT_DRIFT_WINDOW": "250",
        "REGRAFT_DRIFT_WINDOW_S": "60",
        "REGRAFT_OTLP": "http://h:4317",
        "REGRAFT_TRITON_METRICS": "True",
        "REGRAFT_MAX_CONNECTION_AGE": "11",
        "REGRAFT_MAX_CONNECTION_AGE_GRACE": "12",
        "REGRAFT_MIN_PING_INTERVAL": "13",
        "REGRAFT_LOG_FORMAT": "json",
        "REGRAFT_LOG_LEVEL": "debug",
        "REGRAFT_GRACE_S": "6",
    }
    assert given.keys() == set(NAMES)
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    values = Settings().model_dump()

    assert {f"REGRAFT_{name.upper()}": as_text(value) for name, value in values.items()} == given


def test_sessions_on_cuda_are_opened_as_the_settings_say() -> None:
    assert Settings().cuda == CudaOptions()
    told = Settings(cuda_tf32=True, cuda_device=1, cuda_memory_mb=3, cuda_arena="as-requested", cuda_heads_mb=5)
    assert told.cuda == CudaOptions(1, 3 * 2**20, "as-requested", tf32=True, heads_bytes=5 * 2**20)


@pytest.mark.parametrize(
    "bad", [{"cuda_device": -1}, {"cuda_memory_mb": -1}, {"cuda_arena": "large"}, {"cuda_heads_mb": 0}], ids=str
)
def test_settings_of_cuda_that_make_no_sense_are_refused_by_name(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(bad))):
        Settings(**bad)


def as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_a_listener_may_be_a_socket_and_then_needs_no_tls() -> None:
    assert Settings(grpc="unix:/run/regraft.sock").grpc == "unix:/run/regraft.sock"


@pytest.mark.parametrize("address", ["unix:", "unix:/a\0b", "unix:/" + "a" * 107])
def test_what_is_no_path_of_a_socket_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="need unix:PATH"):
        Settings(grpc=address)


@pytest.mark.parametrize("field", ["grpc", "control", "metrics"])
def test_a_port_without_a_host_is_refused_in_words(field: str) -> None:
    with pytest.raises(ValidationError, match=r"need HOST:PORT, such as 127\.0\.0\.1:50051; 0\.0\.0\.0 stands for all"):
        Settings.model_validate({field: ":50051"})


def test_connections_live_five_minutes_and_may_ping_every_ten_seconds() -> None:
    settings = Settings()

    assert (settings.max_connection_age, settings.max_connection_age_grace, settings.min_ping_interval) == (300, 0, 10)
    assert Settings.model_validate({"max_connection_age": "90s"}).max_connection_age == 90


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:50051", "0.0.0.0:65535", "[::1]:8002", "[::]:0"])
def test_an_address_is_a_host_and_a_port_and_port_0_takes_a_free_one(address: str) -> None:
    assert Settings(grpc=address, metrics=address, insecure=True).grpc == address


@pytest.mark.parametrize(
    "address",
    ["", "50051", ":50051", "localhost", "localhost:", "localhost:http", "::1:8002", "a b:1", "h:123456", "h:1\n"],
)
@pytest.mark.parametrize("field", ["grpc", "metrics"])
def test_what_is_no_address_is_refused(field: str, address: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Settings.model_validate({field: address})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("provider", "tpu"),
        ("optimise", "everything"),
        ("share_port", "perhaps"),
        ("provider", "CUDA"),
        ("max_in_flight", 0),
        ("max_in_flight", -1),
        ("max_in_flight", "many"),
        ("max_image_bytes", 1023),
        ("reload_every_s", 0),
        ("reload_every_s", -1),
        ("reload_every_s", "nan"),
        ("grace_s", -0.1),
        ("grace_s", "nan"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_and_the_setting_is_named(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        Settings.model_validate({field: value})


def test_a_value_from_the_environment_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_MAX_IN_FLIGHT", "0")

    with pytest.raises(ValidationError, match="max_in_flight"):
        Settings()


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_inflight"):
        Settings.model_validate({"max_inflight": 3})


@pytest.mark.parametrize("provider", ["auto", "cuda", "cpu"])
def test_each_provider_can_be_asked_for(provider: ProviderChoice) -> None:
    assert Settings(provider=provider).provider == provider


def test_settings_do_not_change() -> None:
    settings = Settings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.max_in_flight = 3  # type: ignore[misc]  # that it cannot be done is what is tested


@pytest.mark.parametrize("flag", ["grpc", "control"])
@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.1.2.3", "example.com"])  # noqa: S104 - that it is refused is the test
def test_plaintext_leaves_this_machine_only_if_somebody_says_so(flag: str, host: str, tmp_path: Path) -> None:
    address = {flag: f"{host}:1"}
    with pytest.raises(ValidationError, match=rf"--{flag} .*--insecure"):
        Settings(**address)  # type: ignore[arg-type]  # mypy cannot see which field
    assert Settings(**address, insecure=True).insecure  # type: ignore[arg-type]  # as above
    assert Settings(**address, tls_cert=tmp_path, tls_key=tmp_path)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize("given", [{"tls_cert"}, {"tls_key"}, {"tls_client_ca"}, {"tls_client_ca", "tls_key"}])
def test_tls_needs_a_certificate_and_its_key(given: set[str]) -> None:
    with pytest.raises(ValidationError, match="--tls-cert"):
        Settings(**dict.fromkeys(given, Path("file")))  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5m", 90), ("6h", 21600), ("2d", 172800), ("45", 45)])
def test_a_period_is_told_in_seconds_minutes_hours_or_days(text: str, seconds: float) -> None:
    assert Settings(retrain_every=text).retrain_every == seconds


@pytest.mark.parametrize("text", ["often", "6 weeks", "-1h", ""])
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="such as 6h"):
        Settings(retrain_every=text)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"plan": "2x1"}, "need LANESxTHREADSxBATCH"),
        ({"plan": "9999x1x1"}, r"--plan 9999x1x1: 9999 runs at once .* more than the \d+ CPU"),
        ({"plan": "1x2x1", "cpus": 1}, r"--plan 1x2x1: .* more than the 1 CPU\(s\) that there are \(--cpus\)"),
        ({"cpus": 100_000}, r"cpus\n.*this process may run on \d+ only"),
        ({"cpus": -1}, "cpus"),
    ],
)
def test_a_plan_and_cpus_that_this_machine_does_not_have_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings(**given)


def test_lanes_of_a_gpu_need_no_cpus() -> None:
    assert Settings(plan="9999x1x32", provider="cuda").plan == "9999x1x32"
