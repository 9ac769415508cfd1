"""Settings of the server: command line over environment (``REGRAFT_<NAME>``) over default."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from regraft.auth import is_loopback, is_socket
from regraft.image.limits import DEFAULT_LIMITS
from regraft.label_rules import LabelPolicy
from regraft.logs import LogFormat, LogLevel
from regraft.machine import allowed_cpus, cpu_budget
from regraft.model.session import Arena, CudaOptions, ProviderChoice
from regraft.stores.models import GateMode
from serving.inference.execution_plan import Goal, read_plan
from serving.inference.picture_memory import DEFAULT_BYTES

_HOST_AND_PORT: Final = re.compile(r"([^\s:]+|\[[0-9a-fA-F:]+\]):(\d{1,5})")

_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")


def _check_host_and_port(address: str) -> str:
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None:
        raise ValueError("need HOST:PORT, such as 127.0.0.1:50051; 0.0.0.0 stands for all of this machine's addresses")
    if int(match[2]) > 65535:
        raise ValueError("the port must be 0 to 65535")
    return address


def _check_listener(address: str) -> str:
    if not is_socket(address):
        return _check_host_and_port(address)
    path = address.removeprefix("unix:")
    if not path or "\0" in path or len(os.fsencode(path)) > _LONGEST_SOCKET_BYTES:
        raise ValueError(f"need unix:PATH, where the path has at most {_LONGEST_SOCKET_BYTES} bytes")
    return address


def _split(names: object) -> object:
    """Split what the environment gives: ``REGRAFT_NAMES=flowers,ants``."""
    return tuple(filter(None, names.split(","))) if isinstance(names, str) else names


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin}: need SCHEME://HOST or SCHEME://HOST:PORT, as browsers send it")
    return origins


def _check_cpus(count: int) -> int:
    if count > (most := allowed_cpus()):
        raise ValueError(f"this process may run on {most} only")
    return count


def _check_plan(text: str) -> str:
    if text:
        read_plan(text)
    return text


def _seconds(period: object) -> object:
    """Return the seconds of a text such as 6h."""
    if not isinstance(period, str):
        return period
    match = re.fullmatch(r"([0-9.]+)\s*([smhd]?)", period.strip())
    if match is None:
        raise ValueError("need a number and s, m, h or d, such as 6h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


Address = Annotated[str, AfterValidator(_check_host_and_port)]
Listener = Annotated[str, AfterValidator(_check_listener)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_check_origins)]
Seconds = Annotated[float, BeforeValidator(_seconds)]
_LONGEST_SOCKET_BYTES: Final = 107
"""What Linux has room for."""


def _section(name: str) -> Callable[..., Any]:
    """Return a maker of fields of a section of the help."""

    def field(default: Any, description: str, **limits: Any) -> Any:  # noqa: ANN401 - as `Field`
        return Field(default=default, description=description, json_schema_extra={"section": name}, **limits)

    return field


_setting: Final = _section("Options")
_address: Final = _section("Addresses and callers")
_label: Final = _section("Labelled pictures")
_run: Final = _section("Execution")
_version: Final = _section("New versions")
_log: Final = _section("Logs and metrics")
_limit: Final = _section("Limits")


class Settings(BaseSettings):
    """Settings of a server, with units in their names.

    Each has a flag of ``regraft serve``, made from its description.
    """

    model_config = SettingsConfigDict(env_prefix="REGRAFT_", frozen=True)

    store: Path = _setting(Path("models"), "The model store.")
    backbones: Path | None = _setting(
        None, "A folder with files of `regraft backbones export`, which the store gets at the start."
    )
    names: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = _setting(
        (), "A model to serve, may be repeated; all if none. In the environment with commas between."
    )

    grpc: Listener = _address(
        "127.0.0.1:50051", "HOST:PORT to answer on, where port 0 takes a free one; or `unix:PATH` of a socket."
    )
    control: Listener | None = _address(None, "Likewise of Retraining and Models, which then do not answer on `grpc`.")
    http: Address | None = _address(
        None,
        "HOST:PORT for HTTP too: every RPC by POST (Connect: JSON or protobuf), and plain URLs for curl and browsers. "
        "With `control`, only what answers on `grpc` does here. Needs the extra `http`.",
    )
    http_origin: Origins = _address(
        (), "An origin whose web pages may ask over HTTP, as in https://label.example.com, may be repeated; else none."
    )
    metrics: Address = _address(
        "127.0.0.1:8002", "HOST:PORT for Prometheus and probes (`/healthz`, `/readyz`). Plain HTTP."
    )
    share_port: bool = _address(False, "Whether other servers may answer on the same gRPC port (SO_REUSEPORT).")
    tls_cert: Path | None = _address(None, "PEM certificate of the server, and the chain above it; no TLS without.")
    tls_key: Path | None = _address(None, "PEM private key of the certificate.")
    tls_client_ca: Path | None = _address(None, "PEM certificates that every client's must go back to (mTLS).")
    insecure: bool = _address(False, "Whether plaintext may leave this machine.")
    callers: Path | None = _address(None, "The file that says who may call, as which role; everybody without it.")

    examples: str = _label("", "Labelled pictures: a folder, or a URL for fsspec; `.examples` in the store if empty.")
    database: str = _label("", "URL of the examples' database; SQLite inside the examples store if empty.")
    labels: LabelPolicy = _label("open", "`open` takes examples of new classes, `closed` only of known labels.")
    labels_per_hour: int = _label(0, "How many labels one caller may set within an hour; any number if 0.", ge=0)
    pool_most: int = _label(
        10_000, "How many pictures without labels a model may have; one more is refused, and none dropped.", ge=0
    )
    pool_bytes: int = _label(4 * 2**30, "How many bytes of the disk they may take, likewise.", ge=0)
    trash_days: float = _label(30.0, "How many days a deleted model stays in the trash, with its pictures.", ge=0)
    keep_requests: float = _label(0.0, "Share of the served pictures that is kept for `regraft suggest`.", ge=0, le=1)
    keep_requests_most: int = _label(10_000, "How many served pictures are kept; the oldest are dropped.", ge=1)
    keep_requests_bytes: int = _label(2**30, "How many bytes of the disk kept pictures may take.", ge=1)

    thumbnails_mb: int = _label(
        256, "Megabytes of thumbnails kept in the cache folder; those unused for longest are dropped. None if 0.", ge=0
    )

    provider: ProviderChoice = _run("auto", "`auto` takes CUDA where it works; `cuda` is not ready without it.")
    cuda_device: int = _run(0, "Number of the GPU, of those in `CUDA_VISIBLE_DEVICES`; of retrains too.", ge=0)
    cuda_tf32: bool = _run(
        False,
        "Whether CUDA may multiply in TF32, which GPUs since Ampere do faster. It costs exactness: embeddings are off "
        "by 0.2 to 0.8 % of their largest value, probabilities and novelty differ a little from those that a version "
        "was judged by, and since nothing is learned from such embeddings, a retrain makes its own.",
    )
    cuda_memory_mb: int = _run(
        0, "Megabytes of GPU memory for the session of a backbone, weights and batches; any if 0.", ge=0
    )
    cuda_arena: Arena = _run(
        "power-of-two",
        "`power-of-two` makes room for twice as much each time that the GPU memory of a session does not suffice, "
        "`as-requested` for just what is needed, which leaves more of the GPU to others and takes longer.",
    )
    cuda_heads_mb: int = _run(
        1024,
        "How many megabytes heads may take on the GPU beside a session. Those used last are there, any other is "
        "copied when it is asked; of 1,000 labels and embeddings of 1,280 numbers each takes 10.",
        ge=1,
    )
    optimise: Goal = _run(
        "throughput", "The aim of the execution plan: `throughput`, or `latency` of a single request."
    )
    cpus: Annotated[int, AfterValidator(_check_cpus)] = _run(
        0,
        "How many CPUs all lanes share, of however many backbones; those that affinity and the cgroup's quota leave "
        "if 0. Retrains have no more either.",
        ge=0,
    )
    plan: Annotated[str, AfterValidator(_check_plan)] = _run(
        "",
        "LANESxTHREADSxBATCH, as `regraft plan` prints it, for every backbone, instead of measuring: so many runs at "
        "once, of so many threads each, of at most so many pictures. Where it is measured and rounds disagree, as "
        "beside other work, that is logged, not kept, and done again at the next start; until then, for throughput, "
        "each CPU has a lane.",
    )

    reload_every_s: float = _version(0.5, "Seconds between two looks at the store for a new champion.", gt=0)
    gate: GateMode = _version(
        GateMode.AUTO, "`auto`: what the gate blessed goes live. `manual`: it waits for Promote. `off`: anyhow."
    )
    retrain_every: Seconds = _version(
        0.0, "Retrain so often (90s, 6h, 2d), where `min_new` labels came; never if 0.", ge=0
    )
    min_new: int = _version(1, "How many new labels make a scheduled retrain worth while.", ge=1)
    retrain_minutes: float = _version(60.0, "The most minutes that a retrain may take.", gt=0)
    train_minutes: float = _version(1440.0, "The most minutes that a training job (`Train`) may take.", gt=0)
    retrain_cpus: int = _version(
        0, "CPUs of a retrain or training; all that the server has if 0. It makes way for requests.", ge=0
    )
    retrain_memory_mb: int = _version(
        0,
        "How many megabytes of memory a retrain or training may have to itself, of which Python and its libraries take "
        "about 90, and torch some hundreds; any if 0, and where there is no /proc.",
        ge=0,
    )
    bake: Seconds = _version(
        300.0,
        "How long a new champion is on trial (90s, 5m): should it fail requests, be much less sure or drift much more "
        "than the one before, the server goes back by itself; never if 0.",
        ge=0,
    )
    drift_window: int = _version(1000, "How many answers drift is told from.", ge=100, le=100_000)
    drift_window_s: float = _version(3600.0, "Age in seconds of the oldest answer that drift is told from.", gt=0)

    log_format: LogFormat = _log("text", "`text`, or `json` with one object a line; of retrains too.")
    log_level: LogLevel = _log(
        "info", "The least that is logged: `debug` (callers' faults too), `info`, `warning` or `error`."
    )
    otlp: Annotated[str, StringConstraints(pattern=r"^(https?://\S+)?$")] = _log(
        "", "URL of an OpenTelemetry collector (gRPC), as `http://127.0.0.1:4317`; none if empty."
    )
    triton_metrics: bool = _log(False, "Whether the metrics have Triton's names too (`nv_inference_*`).")
    metrics_labels: int = _log(
        100, "Labels of a model with series of their own in the metrics; all others count as `other`.", ge=1
    )

    max_in_flight: int = _limit(
        256,
        "Pictures admitted at once; one more is answered RESOURCE_EXHAUSTED. Callers have equal shares, and all "
        "streams together a quarter.",
        ge=1,
    )
    max_image_bytes: int = _limit(
        DEFAULT_LIMITS.max_bytes, "Bytes of the largest encoded picture; of commands that train too.", ge=1024
    )
    max_image_pixels: int = _limit(
        DEFAULT_LIMITS.max_pixels, "Pixels of the largest decoded picture; of commands that train too.", ge=1024
    )
    picture_memory_mb: int = _limit(
        DEFAULT_BYTES // 2**20,
        "Megabytes that pictures may take at once, encoded and decoded, of requests and labels together, beside 8 for "
        "every thread that decodes: about sixty photographs of 12 megapixels. One that never fits is refused by its "
        "header: WebP of 8,000 x 8,000 pixels takes 1,300.",
        ge=16,
    )
    max_streams: int = _limit(
        100, "Calls in flight on a connection; more wait in the client, or are UNAVAILABLE.", ge=1
    )
    read_timeout: Seconds = _limit(
        10.0,
        "How long the message of a request may take to come (10s, 1m) when it is read: slow lines need more for large "
        "pictures. Streams may pause for as long as they like.",
        gt=0,
    )
    max_connections: int = _limit(16_384, "Connections to each gRPC port; one more is closed at once.", ge=1)
    max_connection_age: Seconds = _limit(
        300.0,
        "How long a connection lives (90s, 5m) before its client is asked to make another, which may lead to a server "
        "that was added meanwhile; calls in flight go on. For ever if 0.",
        ge=0,
    )
    max_connection_age_grace: Seconds = _limit(
        0.0, "How long calls go on when their connection is to end; to their end if 0.", ge=0
    )
    min_ping_interval: Seconds = _limit(
        10.0, "Least time between two pings of a client; who does more is disconnected.", ge=0
    )
    grace_s: float = _limit(20.0, "Seconds that requests in flight may take to finish when the server stops.", ge=0)

    @model_validator(mode="after")
    def _check_that_plan_fits(self) -> Self:
        if self.plan and self.provider != "cuda":
            plan, cpus = read_plan(self.plan), self.cpus or cpu_budget()
            if plan.lanes * plan.threads > cpus:
                raise ValueError(
                    f"--plan {self.plan}: {plan.lanes} runs at once of {plan.threads} thread(s) each are more than the "
                    f"{cpus} CPU(s) that there are (--cpus); on a GPU, say --provider cuda"
                )
        return self

    @property
    def cuda(self) -> CudaOptions:
        """The CUDA options of sessions."""
        return CudaOptions(
            device=self.cuda_device,
            memory_bytes=self.cuda_memory_mb * 2**20,
            arena=self.cuda_arena,
            tf32=self.cuda_tf32,
            heads_bytes=self.cuda_heads_mb * 2**20,
        )

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("--tls-cert and --tls-key: one needs the other")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("--tls-client-ca: needs --tls-cert and --tls-key")
        if not (self.tls_cert or self.insecure):
            for flag, address in (("--grpc", self.grpc), ("--control", self.control), ("--http", self.http)):
                if address and not is_loopback(address):
                    raise ValueError(
                        f"{flag} {address}: others could read and change what goes over the network: "
                        "give --tls-cert and --tls-key, or say --insecure"
                    )
        return self
