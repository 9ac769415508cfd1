"""Server process, top to bottom: build, start, serve, stop."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from grpc_health.v1 import health, health_pb2

from regraft.files import cache_folder
from regraft.image.limits import ImageLimits
from regraft.machine import trim_heap
from regraft.model.session import only_device, require_onnxruntime
from regraft.oip import inference_pb2, inference_pb2_grpc
from regraft.stores.backbone_file import bring_backbones
from regraft.stores.backbones import BackboneStore
from regraft.stores.examples import open_examples
from regraft.stores.images import Bounds
from regraft.stores.jobs import JobKind
from regraft.stores.models import ModelStore
from regraft.v1 import (
    classifier_pb2,
    classifier_pb2_grpc,
    examples_pb2,
    examples_pb2_grpc,
    exports_pb2,
    exports_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    pictures_pb2,
    pictures_pb2_grpc,
    reports_pb2,
    reports_pb2_grpc,
    retraining_pb2,
    retraining_pb2_grpc,
)
from serving.backbones.addable import AddableBackbones
from serving.backbones.listing import BackboneList
from serving.backbones.picture_times import PictureTimes
from serving.exports import Exports
from serving.inference.classifier import Classifier
from serving.inference.engine import open_engine
from serving.inference.execution_plan import read_plan
from serving.inference.picture_memory import PATIENT_PART
from serving.inference.registry import ModelRegistry
from serving.inference.shares import Shares
from serving.insight.explainer import Explainer
from serving.lifecycle.changes import ModelChanges
from serving.retraining.add_examples import ExampleIntake, IntakeRules
from serving.retraining.decoders import Decoders
from serving.retraining.embedder import BackgroundEmbedder
from serving.retraining.example_counts import count_examples
from serving.retraining.jobs import JobRunner
from serving.retraining.predictor import ExamplePredictor
from serving.retraining.previews import Previews
from serving.retraining.request_sampler import RequestSampler
from serving.retraining.schedule import RetrainSchedule
from serving.retraining.thumbnails import ThumbnailCache, Thumbnails
from serving.rollout.observer import Observer
from serving.rollout.rollback import AutomaticRollback
from serving.rpc.classifier import ClassifierService
from serving.rpc.examples import ExamplesService
from serving.rpc.interceptor import RpcInterceptor
from serving.rpc.labelled.changes import LabelWrites
from serving.rpc.labelled.insight import Insights
from serving.rpc.labelled.lists import ExampleLists
from serving.rpc.models import ModelsService
from serving.rpc.open_inference.service import InferenceService
from serving.rpc.open_inference.triton_metrics import triton_metrics
from serving.rpc.pictures import PicturesService
from serving.rpc.ports.port import GrpcPort
from serving.rpc.retraining import RetrainingService
from serving.rpc.security.guard import Guard
from serving.rpc.security.roles import Callers
from serving.rpc.versions.exports import ExportsService
from serving.rpc.versions.reports import ReportsService
from serving.settings import Settings
from serving.supervisor import Backoff, Supervisor, do_all
from serving.telemetry.gpu_memory import gpu_memory_reader
from serving.telemetry.http_port import MetricsPort
from serving.telemetry.metrics import Metrics
from serving.telemetry.tracing import Tracing
from serving.threads import Threads

if TYPE_CHECKING:
    from serving.http.methods import Registry
    from serving.http.port import HttpPort

log = logging.getLogger("regraft.server")

CLASSIFICATION: Final = (
    classifier_pb2.DESCRIPTOR.services_by_name["Classifier"].full_name,
    inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name,
)
PICTURES: Final = (
    f"/{CLASSIFICATION[0]}/Classify",
    f"/{CLASSIFICATION[0]}/BatchClassify",
    f"/{CLASSIFICATION[1]}/ModelInfer",
)
"""Methods whose one message is pictures."""
CONTROL: Final = (
    retraining_pb2.DESCRIPTOR.services_by_name["Retraining"].full_name,
    examples_pb2.DESCRIPTOR.services_by_name["Examples"].full_name,
    pictures_pb2.DESCRIPTOR.services_by_name["Pictures"].full_name,
    models_pb2.DESCRIPTOR.services_by_name["Models"].full_name,
    reports_pb2.DESCRIPTOR.services_by_name["Reports"].full_name,
    exports_pb2.DESCRIPTOR.services_by_name["Exports"].full_name,
)
_CLOSING_PATIENCE_S: Final = 5.0
_KILL_AFTER_S: Final = 30.0
"""Beyond a retrain's own time limit."""
_TRIM_BYTES: Final = 64 * 2**20
"""Free memory from which on the C library gives it back, which takes milliseconds."""
_DATABASE_PATIENCE_S: Final = 2.0
"""A start waits no longer for it."""
_COUNT_EVERY_S: Final = 15.0
"""As often as Prometheus usually asks."""
_MAX_PAUSE_FACTOR: Final = 60
"""The longest pause of a background task that fails, in periods of the store's watcher."""
_OTHERS_FACTOR: Final = 20
"""The period of looks for other processes' work, likewise: each asks a database."""

SERVICES: Final = (*CLASSIFICATION, *CONTROL)
PROCESS: Final = "process"
"""The service of liveness probes: SERVING until the stop, whether a model answers or not, unless a task keeps dying."""


@dataclass(frozen=True)
class Ready:
    """Ports and models of a server that is ready."""

    grpc_port: int
    control_port: int
    metrics_port: int
    models: list[str]
    http_port: int | None = None


class Server:
    """One server: `start`, then `stop`; or `run` for both with signals between."""

    def __init__(self, settings: Settings) -> None:
        """Build every part, without opening stores or ports."""
        require_onnxruntime()
        self.settings = settings
        self.metrics = Metrics(settings.metrics_labels)
        self._threads = Threads(settings.cpus)
        self._store = ModelStore(settings.store)
        self._examples = open_examples(settings.store, settings.examples, settings.database, is_opened=False)
        limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
        plans = cache_folder() / "plans"
        self.models = ModelRegistry(
            self._store,
            partial(
                open_engine,
                provider=settings.provider,
                goal=settings.optimise,
                plans=plans,
                cuda=settings.cuda,
                cpus=settings.cpus,
                plan=read_plan(settings.plan) if settings.plan else None,
            ),
            max_queue=settings.max_in_flight,
            metrics=self.metrics,
            threads=self._threads,
            limits=limits,
            only=settings.names,
            cpus=settings.cpus,
        )
        self._observer = Observer(
            self.models, self.metrics, window=settings.drift_window, window_s=settings.drift_window_s
        )
        bounds = Bounds(settings.keep_requests_most, settings.keep_requests_bytes)
        self._sampler = RequestSampler(
            self._examples.requests, settings.keep_requests, bounds, self.metrics, self._threads
        )
        self._memory = Shares(settings.picture_memory_mb * 2**20, PATIENT_PART)
        self._classifier = Classifier(
            self.models,
            max_in_flight=settings.max_in_flight,
            metrics=self.metrics,
            memory=self._memory,
            on_answer=self._observer.record,
            keep=self._sampler.offer if settings.keep_requests else None,
        )
        if settings.triton_metrics:
            self.metrics.watch(partial(triton_metrics, self.models, self.metrics))
        if read_gpus := gpu_memory_reader():
            self.metrics.watch(read_gpus)
        self._rollback = AutomaticRollback(
            self.models, self._observer, self.metrics, self._follow_now, bake_s=settings.bake
        )
        self._predictor = ExamplePredictor(self.models, self._examples)
        self._embedder = BackgroundEmbedder(self.models, self._examples, self._predictor.wake)
        self._intake = ExampleIntake(
            self.models,
            self._examples,
            Decoders(self._threads.pictures, limits),
            self._embedder.offer,
            IntakeRules(settings.labels, settings.labels_per_hour, Bounds(settings.pool_most, settings.pool_bytes)),
            self._memory,
        )
        arguments = ["--store", str(settings.store)]
        arguments += [*(["--examples", settings.examples] if settings.examples else []), *_limits_of_retrains(settings)]
        environment = {
            "REGRAFT_LOG_FORMAT": settings.log_format,
            "REGRAFT_LOG_LEVEL": settings.log_level,
            "CUDA_VISIBLE_DEVICES": only_device(settings.cuda_device),
        }
        minutes = {JobKind.RETRAIN: settings.retrain_minutes, JobKind.TRAIN: settings.train_minutes}
        self._jobs = JobRunner(
            self._store,
            self._examples,
            arguments,
            self.metrics,
            self._threads,
            self._follow_now,
            database=settings.database,
            limits=limits,
            environment=environment,
            kind_arguments={kind: ["--minutes", str(most)] for kind, most in minutes.items()},
            limits_s={kind: 60 * most + _KILL_AFTER_S for kind, most in minutes.items()},
        )
        self._changes = ModelChanges(
            self.models,
            self._examples,
            self._jobs.cancel,
            self.metrics,
            policy=settings.labels,
            trash_days=settings.trash_days,
        )
        self._previews = Previews(
            arguments, self._threads, database=settings.database, limits=limits, environment=environment
        )
        self._exports = Exports(arguments, self._threads.looks, limits=limits, environment=environment)
        self._schedule = RetrainSchedule(
            self.models,
            self._examples,
            self._jobs,
            self._changes.first_versions,
            every_s=settings.retrain_every,
            min_new=settings.min_new,
            gate=settings.gate,
        )
        self._picture_times = PictureTimes(
            BackboneStore(settings.store),
            self._threads,
            self.models.cpus,
            provider=settings.provider,
            plans=plans,
            cuda=settings.cuda,
        )
        self._addable = AddableBackbones(self._threads)
        self._backbones = BackboneList(BackboneStore(settings.store), self._picture_times, self._addable, self._threads)
        self._callers = Callers(settings.callers) if settings.callers else None
        self._tracing = Tracing(settings.otlp) if settings.otlp else None
        self._health = health.aio.HealthServicer()
        guard = Guard(self._callers)
        capacities = dict.fromkeys(PICTURES, self._classifier)

        def interceptor() -> RpcInterceptor:
            return RpcInterceptor(self.metrics, guard, self._tracing, capacities, settings.read_timeout)

        self._port = self._control_port = GrpcPort("--grpc", settings.grpc, settings, interceptor())
        if settings.control:
            self._control_port = GrpcPort("--control", settings.control, settings, interceptor())
        self._http = _http_port(settings.http, settings, interceptor()) if settings.http else None
        self._add_services()
        self._metrics_port: MetricsPort | None = None
        self._is_stopping = self._can_begin = False
        often_s = settings.reload_every_s
        self._background = Supervisor(self.metrics, self._set_health, Backoff(often_s, _MAX_PAUSE_FACTOR * often_s))

    @property
    def _ports(self) -> "set[GrpcPort | HttpPort]":
        ports: set[GrpcPort | HttpPort] = {self._port, self._control_port}
        return ports | {self._http} if self._http else ports

    async def start(self) -> Ready:
        """Open the ports and load the champions.

        A model store or a database that is away ends no start: both are asked again in the background.

        Raises:
            OperatorError: a port is taken; the text names the flag.
        """
        await self._set_health()
        if self._control_port is self._port:
            grpc_port = control_port = await self._port.open(SERVICES, self._health)
        else:
            grpc_port = await self._port.open(CLASSIFICATION, self._health)
            control_port = await self._control_port.open(CONTROL, self._health)
        metrics, liveness_problem = self.metrics.application(), self._background.liveness_problem
        probes = {"healthz": liveness_problem, "readyz": self._readiness_problem}
        http_port = await self._http.open(probes) if self._http else None
        self._metrics_port = MetricsPort(self.settings.metrics, metrics, self._readiness_problem, liveness_problem)
        models_are_loaded, examples_are_open = self._begin_background()
        await models_are_loaded.wait()
        with suppress(TimeoutError):  # one that does not answer holds nothing up; one that does is ready when we are
            async with asyncio.timeout(_DATABASE_PATIENCE_S):
                await examples_are_open.wait()
        ready = Ready(grpc_port, control_port, self._metrics_port.number, self.models.names(), http_port)
        http = "" if http_port is None else f" HTTP on port {http_port},"
        log.info(
            "gRPC on port %d,%s metrics on port %d, models: %s",
            grpc_port,
            http,
            ready.metrics_port,
            ready.models or "none",
        )
        return ready

    async def stop(self) -> int:
        """Drain the ports, cut calls after the grace time, and end every part.

        Each is ended whatever another one raises; the first error is raised when all have.

        Returns:
            The number of calls that were cut.
        """
        log.info("stopping: up to %g s for what is in flight", self.settings.grace_s)
        self._is_stopping = True
        cut = 0

        async def drain() -> None:
            nonlocal cut
            cut = sum(await asyncio.gather(*(port.drain(self.settings.grace_s) for port in self._ports)))
            await asyncio.gather(*(port.close(cut) for port in self._ports))

        await do_all(
            [
                self._health.enter_graceful_shutdown,
                drain,
                self._background.stop,
                self._jobs.close,
                self._previews.close,
                _as_step(self.models.close),
                _as_step(self._addable.close),
                self._close_examples,
                *(
                    partial(self._threads.pictures.run, part.close)
                    for part in (self._tracing, self._metrics_port)
                    if part
                ),
                _as_step(self._threads.close),
            ]
        )
        log.log(logging.WARNING if cut else logging.INFO, "stopped; %d call(s) cut", cut)
        return cut

    async def _close_examples(self) -> None:
        """Close the database, unless that hangs too."""
        try:
            async with asyncio.timeout(_CLOSING_PATIENCE_S):
                await self._threads.writes.run(self._examples.close)
        except TimeoutError:
            log.warning("the database is left as it is: it could not be closed within %g s", _CLOSING_PATIENCE_S)

    async def run(self, announce: Callable[[Ready], None]) -> int:
        """Serve until SIGTERM or SIGINT, reload at SIGHUP; return the number of calls cut."""
        serving = asyncio.create_task(self._serve(announce))
        for number in (signal.SIGTERM, signal.SIGINT):  # heeded while models are loaded, too
            asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload_soon)
        try:
            await asyncio.wait([serving])
            if not serving.cancelled():
                await serving  # and raise what kept it from starting
        finally:
            serving.cancel()
            cut = await self.stop()
        return cut

    async def _serve(self, announce: Callable[[Ready], None]) -> None:
        announce(await self.start())
        await asyncio.Event().wait()

    def reload(self) -> None:
        """Read the file of callers and the TLS files again.

        Each is logged, and one that is bad changes nothing. It reads files: not on the event loop.
        """
        if not (self._callers or self.settings.tls_cert):
            log.info("SIGHUP: there is neither --callers nor --tls-cert to read again")
        if self._callers:
            self._callers.reload()
        for port in self._ports:
            port.reload()

    def _reload_soon(self) -> None:
        self._background.start("read callers and certificates again", partial(self._threads.store.run, self.reload))

    def _add_services(self) -> None:
        server: Registry = self._port.server
        control: Registry = self._control_port.server
        if self._http:
            is_one = control is server
            server = self._http.methods.beside(server)
            control = server if is_one else control
        classifier_pb2_grpc.add_ClassifierServicer_to_server(
            ClassifierService(self._classifier, self._changes.first_versions), server
        )
        inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            InferenceService(self.models, self._classifier, self.metrics), server
        )
        models_pb2_grpc.add_ModelsServicer_to_server(
            ModelsService(
                self.models,
                self._examples,
                self._observer,
                self._rollback,
                self._backbones,
                self._embedder.wake,
                self._changes,
            ),
            control,
        )
        retraining = RetrainingService(
            models=self.models,
            examples=self._examples,
            intake=self._intake,
            runner=self._jobs,
            first_versions=self._changes.first_versions,
            previews=self._previews,
            metrics=self.metrics,
            gate=self.settings.gate,
        )
        retraining_pb2_grpc.add_RetrainingServicer_to_server(retraining, control)
        insights = Insights(self.models, self._examples, self._previews, Explainer(self.models, self._memory))
        cache = ThumbnailCache(cache_folder() / "thumbnails", self.settings.thumbnails_mb * 2**20)
        thumbnails = Thumbnails(self._examples, cache, self._threads, self.models.limits, self.metrics, self._memory)
        lists = ExampleLists(self.models, self._examples, thumbnails)
        writes = LabelWrites(self.models, self._examples, self._intake, self._predictor)
        examples = ExamplesService(
            self.models, self._examples, self._intake, lists, writes, insights, self._predictor.wake
        )
        examples_pb2_grpc.add_ExamplesServicer_to_server(examples, control)
        reports_pb2_grpc.add_ReportsServicer_to_server(ReportsService(self.models), control)
        exports_pb2_grpc.add_ExportsServicer_to_server(ExportsService(self.models, self._exports), control)
        pictures = PicturesService(self.models, self._examples, self._intake, self.metrics)
        pictures_pb2_grpc.add_PicturesServicer_to_server(pictures, control)

    def _begin_background(self) -> tuple[asyncio.Event, asyncio.Event]:
        """Start the background tasks.

        Returns:
            Events of the first attempt to read the model store, and to open the examples.
        """
        often_s, tasks = self.settings.reload_every_s, self._background
        looked = tasks.repeat("follow the model store", self._refresh, often_s)
        tasks.repeat("give memory back", self._give_memory_back, often_s)
        tasks.repeat("look at the answers", self._observer.look, often_s)
        if self.settings.backbones:
            bring = partial(bring_backbones, BackboneStore(self.settings.store), self.settings.backbones)
            tasks.start("bring backbones", partial(self._threads.store.run, bring))
        tasks.repeat("measure backbones", partial(self._measure_backbones, looked), _OTHERS_FACTOR * often_s)
        if self.settings.bake:
            tasks.repeat("judge new champions", self._rollback.look, often_s)
        return looked, tasks.start("open the examples", self._open_examples)

    async def _open_examples(self) -> None:
        """Open the database, then start the tasks that need it."""
        await self._threads.database.run(self._examples.open)
        await self._jobs.resume()
        often_s, tasks = self.settings.reload_every_s, self._background
        tasks.start("keep requests", self._sampler.run)
        tasks.start("embed examples", partial(self._embedder.run, _OTHERS_FACTOR * often_s))
        tasks.repeat("predict examples", self._predictor.look, often_s)
        tasks.start("take up retrain jobs", partial(self._jobs.run, _OTHERS_FACTOR * often_s))
        counting = partial(count_examples, self.models, self._examples, self.metrics)
        tasks.repeat("count examples", counting, _COUNT_EVERY_S)
        tasks.repeat("empty the trash", self._changes.tidy_up, _COUNT_EVERY_S)
        if self.settings.retrain_every:
            tasks.repeat("start retrains that are due", self._schedule.look, self._schedule.look_every_s)

    async def _measure_backbones(self, models_are_loaded: asyncio.Event) -> None:
        """Measure a backbone, after those of the models.

        Nothing shall disturb the measurements of their plans.
        """
        await models_are_loaded.wait()
        await self._picture_times.look()

    async def _give_memory_back(self) -> None:
        if self._memory.peak - 4 * self._memory.taken > _TRIM_BYTES:
            self._memory.peak = self._memory.taken
            await self._threads.pictures.run(trim_heap)

    async def _follow_now(self) -> None:
        """Follow the store at once after a change; an error fails no job."""
        try:
            await self._refresh()
        except Exception as error:
            log.warning("the model store is followed later", exc_info=error)

    async def _refresh(self) -> None:
        if self._callers:
            await self._threads.store.run(self._callers.refresh)
        if self._http:
            await self._threads.store.run(self._http.refresh)
        await self.models.refresh()
        backbones = BackboneStore(self._store.root)
        self._can_begin = not self.models.names_held() and bool(await self._threads.store.run(backbones.list))
        await self._set_health()

    def _readiness_problem(self) -> str:
        """Return an empty text while the server is ready.

        Then a model answers, takes its first examples or can begin, and the server does not stop.
        """
        if self._is_stopping:
            return "the server is stopping"
        is_ready = self.models.names_held() or (self._can_begin and not self.models.stored.names())
        return "" if is_ready else "no model answers: `regraft models list` says why"

    async def _set_health(self) -> None:
        is_ready = not self._readiness_problem()
        is_well = dict.fromkeys(("", *CONTROL), is_ready)
        is_well |= dict.fromkeys(CLASSIFICATION, is_ready and bool(self.models.names()))
        is_well[PROCESS] = not self._background.liveness_problem()
        for service, well in is_well.items():
            status = health_pb2.HealthCheckResponse.SERVING if well else health_pb2.HealthCheckResponse.NOT_SERVING
            await self._health.set(service, status)


def _http_port(address: str, settings: Settings, interceptor: RpcInterceptor) -> "HttpPort":
    from serving.http.port import HttpPort  # noqa: PLC0415 - optional, and a server without --http spares it

    return HttpPort(address, settings, interceptor)


def _limits_of_retrains(settings: Settings) -> list[str]:
    most_cpus, most_mb = settings.retrain_cpus or settings.cpus, settings.retrain_memory_mb
    return ["--cpus", str(most_cpus), "--memory-mb", str(most_mb)]


def _as_step(end: Callable[[], object]) -> Callable[[], Awaitable[None]]:
    async def step() -> None:
        end()

    return step
