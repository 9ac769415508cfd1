"""Settings of the server: command line over environment (``REGRAFT_<NAME>``) over default."""

import os
import re
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from regraft.auth import is_loopback, is_socket
from regraft.image.limits import DEFAULT_LIMITS
from regraft.logs import LogFormat, LogLevel
from regraft.machine import allowed_cpus, cpu_budget
from regraft.model.session import Arena, CudaOptions, ProviderChoice
from regraft.stores.models import GateMode
from serving.inference.execution_plan import Goal, read_plan
from serving.inference.picture_memory import DEFAULT_BYTES
from serving.retraining.add_examples import LabelPolicy

_HOST_AND_PORT: Final = re.compile(r"([^\s:]+|\[[0-9a-fA-F:]+\]):(\d{1,5})")


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
Seconds = Annotated[float, BeforeValidator(_seconds)]
_LONGEST_SOCKET_BYTES: Final = 107
"""What Linux has room for."""


class Settings(BaseSettings):
    """Settings of a server, with units in their names.

    Attributes:
        store: the model store.
        examples: where labelled pictures are kept: a folder, or a URL for fsspec; `.examples` in the
            model store if empty.
        database: URL of the examples' database; SQLite inside the examples store if empty.
        keep_requests: the share of served pictures, 0 to 1, that are kept for `regraft suggest`.
        keep_requests_most: how many are kept; the oldest are dropped.
        keep_requests_bytes: how much of the disk they may take.
        labels: ``open`` takes examples of new classes, ``closed`` only labels that the model knows.
        labels_per_hour: how many labels one caller may set within an hour; 0 is any number.
        grpc: host and port to answer on, where port 0 takes a free one; or ``unix:PATH`` of a socket.
        control: likewise for the services Retraining and Models, which then do not answer on ``grpc``.
        metrics: host and port for Prometheus, and for probes (``/healthz``, ``/readyz``). Plain HTTP.
        tls_cert: PEM certificate of the server, and the chain above it; without it there is no TLS.
        tls_key: PEM, its private key.
        tls_client_ca: PEM certificates that every client's must go back to; without it none is asked for.
        insecure: whether plaintext may leave this machine.
        callers: the file that says who may call, as which role; without it, everybody may call everything.
        triton_metrics: whether the metrics are there under Triton's names too (``nv_inference_*``).
        metrics_labels: how many labels of a model have series of their own in the metrics, the first that it gives; all
            others are counted as ``other``.
        otlp: URL of an OpenTelemetry collector that takes spans over gRPC, as ``http://127.0.0.1:4317``; none if empty.
        share_port: whether other servers may answer on the same gRPC port (SO_REUSEPORT).
        names: the models to serve; all of the store if empty. In the environment with commas between.
        provider: ``auto`` takes CUDA where it works, ``cuda`` refuses to be ready without it, ``cpu`` does not try.
        cuda_tf32: whether CUDA may multiply in TF32, which GPUs since Ampere do faster. It costs exactness: embeddings
            are off by 0.2 to 0.8 % of their largest value, probabilities and novelty differ a little from those that a
            version was judged by, and since nothing is learned from such embeddings, a retrain makes its own.
        cuda_device: number of the GPU, of those that ``CUDA_VISIBLE_DEVICES`` leaves; retrains use it too. One server
            uses one GPU.
        cuda_memory_mb: how many megabytes of its memory the session of a backbone may take, for weights and whatever a
            batch needs; any if 0.
        cuda_arena: ``power-of-two`` makes room for twice as much each time that this memory does not suffice,
            ``as-requested`` for just what is needed, which leaves more of the GPU to others and takes longer.
        cuda_heads_mb: how many megabytes heads may take on the GPU beside a session. Those used last are there, any
            other is copied when it is asked; of 1,000 labels and embeddings of 1,280 numbers each takes 10.
        optimise: what the execution plan is chosen for: ``throughput``, or the ``latency`` of a single request.
        cpus: how many CPUs all lanes share, of however many backbones; those that affinity and the cgroup's quota leave
            if 0. Retrains have no more either.
        plan: LANESxTHREADSxBATCH, as ``regraft plan`` prints it, for every backbone, instead of measuring: so many runs
            at once, of so many threads each, of at most so many pictures. Where it is measured and rounds disagree, as
            beside other work, that is logged, not kept, and done again at the next start; until then, for throughput,
            each CPU has a lane.
        max_in_flight: pictures admitted at once; one more is answered RESOURCE_EXHAUSTED. Callers have equal shares,
            and all streams together a quarter.
        max_image_bytes: the largest encoded picture that is accepted; commands that train go by it too.
        max_image_pixels: the most pixels that a picture may have, decoded; likewise.
        picture_memory_mb: megabytes that pictures may take at once, encoded and decoded, of requests and labels
            together, beside 8 for every thread that decodes: about sixty photographs of 12 megapixels. One that never
            fits is refused by its header: WebP of 8,000 x 8,000 pixels takes 1,300.
        max_streams: calls that one connection may have in flight; more wait in the client, or are UNAVAILABLE.
        read_timeout: how long the message of a request may take to come (10s, 1m) when it is read: slow lines need more
            for large pictures. Streams may pause for as long as they like.
        max_connections: to each gRPC port; one more is closed at once.
        max_connection_age: how long a connection lives (90s, 5m) before its client is asked to make another, which may
            lead to a server that was added meanwhile; calls in flight go on. For ever if 0.
        max_connection_age_grace: how long they may go on; as long as they take if 0.
        min_ping_interval: clients may ping so often, in calls and between them; who does more is disconnected.
        reload_every_s: how often the store is looked at for a new champion.
        gate: whether a new head that the gate blessed goes live (``auto``) or waits for Promote (``manual``); with
            ``off`` it goes live whatever the gate says.
        retrain_every: retrain every so often (90s, 30m, 6h, 2d), where `min_new` labels came since; never if 0.
        min_new: how many labels make a scheduled retrain worth while.
        retrain_minutes: the longest that a retrain may take.
        retrain_cpus: how many CPUs it may use; all that the server has if 0. It makes way for requests either way.
        retrain_memory_mb: how many megabytes of memory it may have to itself, of which Python and its libraries take
            about 90; any if 0, and where there is no /proc.
        bake: how long a new champion is on trial (90s, 5m): should it fail requests, be much less sure or drift much
            more than the one before, the server goes back by itself; never if 0.
        drift_window: answers that drift is told from.
        drift_window_s: the age of the oldest of them.
        log_format: ``text``, or ``json`` with one object a line; of the server and of its retrains.
        log_level: the least that is logged: ``debug`` (calls that fail by their caller's fault too), ``info``,
            ``warning`` or ``error``.
        grace_s: how long requests in flight may take to finish when the server stops.
    """

    model_config = SettingsConfigDict(env_prefix="REGRAFT_", frozen=True)

    store: Path = Path("models")
    examples: str = ""
    database: str = ""
    keep_requests: float = Field(default=0.0, ge=0, le=1)
    keep_requests_most: int = Field(default=10_000, ge=1)
    keep_requests_bytes: int = Field(default=2**30, ge=1)
    labels: LabelPolicy = "open"
    labels_per_hour: int = Field(default=0, ge=0)
    grpc: Listener = "127.0.0.1:50051"
    control: Listener | None = None
    metrics: Address = "127.0.0.1:8002"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    insecure: bool = False
    callers: Path | None = None
    triton_metrics: bool = False
    metrics_labels: int = Field(default=100, ge=1)
    otlp: Annotated[str, StringConstraints(pattern=r"^(https?://\S+)?$")] = ""
    share_port: bool = False
    names: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ()
    provider: ProviderChoice = "auto"
    cuda_tf32: bool = False
    cuda_device: int = Field(default=0, ge=0)
    cuda_memory_mb: int = Field(default=0, ge=0)
    cuda_arena: Arena = "power-of-two"
    cuda_heads_mb: int = Field(default=1024, ge=1)
    optimise: Goal = "throughput"
    cpus: Annotated[int, AfterValidator(_check_cpus)] = Field(default=0, ge=0)
    plan: Annotated[str, AfterValidator(_check_plan)] = ""
    max_in_flight: int = Field(default=256, ge=1)
    max_image_bytes: int = Field(default=DEFAULT_LIMITS.max_bytes, ge=1024)
    max_image_pixels: int = Field(default=DEFAULT_LIMITS.max_pixels, ge=1024)
    picture_memory_mb: int = Field(default=DEFAULT_BYTES // 2**20, ge=16)
    max_streams: int = Field(default=100, ge=1)
    read_timeout: Seconds = Field(default=10.0, gt=0)
    max_connections: int = Field(default=16_384, ge=1)
    max_connection_age: Seconds = Field(default=300.0, ge=0)
    max_connection_age_grace: Seconds = Field(default=0.0, ge=0)
    min_ping_interval: Seconds = Field(default=10.0, ge=0)
    reload_every_s: float = Field(default=0.5, gt=0)
    gate: GateMode = GateMode.AUTO
    retrain_every: Seconds = Field(default=0.0, ge=0)
    min_new: int = Field(default=1, ge=1)
    retrain_minutes: float = Field(default=60.0, gt=0)
    retrain_cpus: int = Field(default=0, ge=0)
    retrain_memory_mb: int = Field(default=0, ge=0)
    bake: Seconds = Field(default=300.0, ge=0)
    drift_window: int = Field(default=1000, ge=100, le=100_000)
    drift_window_s: float = Field(default=3600.0, gt=0)
    log_format: LogFormat = "text"
    log_level: LogLevel = "info"
    grace_s: float = Field(default=20.0, ge=0)

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
            for flag, address in (("--grpc", self.grpc), ("--control", self.control)):
                if address and not is_loopback(address):
                    raise ValueError(
                        f"{flag} {address}: others could read and change what goes over the network: "
                        "give --tls-cert and --tls-key, or say --insecure"
                    )
        return self
