"""Broken pictures and broken messages by the hundred thousand: is each one refused, and does the server live?

``python -m benchmarks.fuzz``. Half of the inputs are pictures for `regraft.image.decode.decode_crop`; a decoder that
crashes takes this program along. The others are messages to every RPC of a real server. Both begin as something valid,
of which some bytes are then spoilt; the same seed spoils the same bytes.
"""

import argparse
import io
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.memory import MB, forget_peak, peak_bytes
from benchmarks.server_process import ServerProcess
from regraft.errors import InvalidImageError
from regraft.image.decode import decode_crop
from regraft.image.limits import ImageLimits
from regraft.image.spec import ImageSpec
from regraft.machine import cpu_budget
from regraft.oip import inference_pb2
from regraft.stores.models import ModelStore
from regraft.v1 import classifier_pb2, examples_pb2, models_pb2, retraining_pb2
from tests.tiny import picture, publish_tiny

MODULES = (classifier_pb2, examples_pb2, models_pb2, retraining_pb2, inference_pb2)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16")
SPEC = ImageSpec(resize="crop", resize_px=40, crop_px=32)
LIMITS = ImageLimits(max_bytes=2**20, max_pixels=10**6)
TIMEOUT_S = 30.0
DEPTH = 3
SERVERS_FAULT = ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED")


@dataclass
class Spoiler:
    """Makes broken bytes of whole ones."""

    random: np.random.Generator

    def spoil(self, data: bytes) -> bytes:
        """Flip, overwrite, cut out, repeat or insert bytes, one to eight times; one input in a hundred stays whole."""
        changed = bytearray(data)
        for _ in range(int(self.random.integers(1, 9)) if self.random.random() > 0.01 else 0):
            self._change(changed)
        return bytes(changed)

    def _change(self, data: bytearray) -> None:
        begin, length = int(self.random.integers(0, len(data) + 1)), int(self.random.geometric(0.1))
        part = data[begin : begin + length]
        match self.random.integers(0, 6):
            case 0 if part:
                data[begin] ^= 1 << int(self.random.integers(0, 8))
            case 1:
                data[begin : begin + length] = self.random.bytes(length)
            case 2:
                data[begin : begin + length] = bytes([int(self.random.choice([0, 0x7F, 0x80, 0xFF]))]) * len(part)
            case 3:
                del data[begin : begin + length]
            case 4:
                data[begin:begin] = part * int(self.random.integers(1, 50))
            case _:
                del data[begin:]


def whole_pictures() -> list[bytes]:
    """Return a picture of every format in every mode that it has."""
    rgb = Image.open(io.BytesIO(picture("red", side_px=48)))
    files = []
    for mode in MODES:
        for kind in FORMATS:
            file = io.BytesIO()
            try:
                rgb.convert("L").convert("I;16").save(file, kind) if mode == "I;16" else rgb.convert(mode).save(
                    file, kind
                )
            except (OSError, ValueError, KeyError):  # no such mode in this format
                continue
            files.append(file.getvalue())
    return files


@dataclass
class Dearest:
    """Highest seconds and memory of any input, in all and a byte."""

    seconds: float = 0.0
    megabytes: float = 0.0
    seconds_a_byte: float = 0.0
    megabytes_a_byte: float = 0.0

    @contextmanager
    def watch(self, size_bytes: int) -> Iterator[None]:
        """Measure the block, which decodes so many bytes."""
        forget_peak()
        before, began_s = peak_bytes(), time.perf_counter()
        try:
            yield
        finally:
            seconds, megabytes = time.perf_counter() - began_s, (peak_bytes() - before) / MB
            self.seconds, self.megabytes = max(self.seconds, seconds), max(self.megabytes, megabytes)
            self.seconds_a_byte = max(self.seconds_a_byte, seconds / max(1, size_bytes))
            self.megabytes_a_byte = max(self.megabytes_a_byte, megabytes / max(1, size_bytes))

    def said(self) -> str:
        """Say it in a line."""
        return (
            f"{self.seconds:.3f} s, {1e6 * self.seconds_a_byte:.0f} us a byte; "
            f"{self.megabytes:.1f} MB, {1e3 * self.megabytes_a_byte:.1f} kB a byte"
        )


def fuzz_pictures(count: int, spoiler: Spoiler, dearest: Dearest) -> Counter[str]:
    """Decode broken pictures, and count what became of them; anything but a crop or a refusal is raised."""
    files, outcomes = whole_pictures(), Counter[str]()
    for number in track(range(count), "pictures", console=Console(stderr=True)):
        data = spoiler.spoil(files[number % len(files)])
        try:
            with dearest.watch(len(data)):
                crop = decode_crop(data, SPEC, LIMITS)
        except InvalidImageError:
            outcomes["refused"] += 1
        else:
            assert crop.shape == (32, 32, 3), data
            outcomes["a crop"] += 1
    return outcomes


def methods() -> list[MethodDescriptor]:
    """Return every RPC of ours."""
    services = [service for module in MODULES for service in module.DESCRIPTOR.services_by_name.values()]
    return [method for service in services for method in service.methods]


def filled(kind: Any, random: np.random.Generator, depth: int = DEPTH) -> Message:  # noqa: ANN401 - a message's descriptor
    """Return a message of this kind in which every field has something that would do."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        value = _value(field, random, depth)
        if value is None:
            continue
        if field.message_type and not field.is_repeated:
            getattr(message, field.name).CopyFrom(value)
        elif field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    return message


def _value(field: FieldDescriptor, random: np.random.Generator, depth: int) -> Any:  # noqa: ANN401 - as the field's type
    if field.message_type:
        is_map = field.message_type.GetOptions().map_entry
        return filled(field.message_type, random, depth - 1) if depth and not is_map else None
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return picture("red", int(random.integers(0, 9)))
        return str(random.choice(["colours", "grey", "image", "BYTES", "AUTO", ""]))
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return float(random.choice([0.0, 0.5, 1e9]))
    return bool(random.integers(0, 2)) if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else int(random.integers(0, 3))


def fuzz_messages(count: int, spoiler: Spoiler, server: ServerProcess) -> Counter[str]:
    """Send broken messages to every RPC in turn, and count the statuses."""
    with grpc.insecure_channel(server.target) as channel, ThreadPoolExecutor(4 * cpu_budget()) as pool:
        calls = [(method, _call(channel, method)) for method in methods()]
        jobs = (
            (send, spoiler.spoil(filled(method.input_type, spoiler.random).SerializeToString()))
            for number in range(count)
            for method, send in [calls[number % len(calls)]]
        )
        answers = _bounded_map(pool, jobs)
        return Counter(track(answers, "messages", total=count, console=Console(stderr=True)))


def _bounded_map(pool: ThreadPoolExecutor, jobs: Iterable[tuple[Any, bytes]]) -> Iterable[str]:
    jobs = iter(jobs)
    while chunk := list(islice(jobs, 1000)):
        yield from pool.map(lambda job: _status(*job), chunk)


def _call(channel: grpc.Channel, method: MethodDescriptor) -> Any:  # noqa: ANN401 - grpc's callables are untyped
    path = f"/{method.containing_service.full_name}/{method.name}"
    kinds = {(False, False): "unary_unary", (False, True): "unary_stream", (True, True): "stream_stream"}
    return getattr(channel, kinds[method.client_streaming, method.server_streaming])(path), method


def _status(send: Any, message: bytes) -> str:  # noqa: ANN401 - as above
    call, method = send
    try:
        answer = call(iter([message]) if method.client_streaming else message, timeout=TIMEOUT_S)
        if method.server_streaming:
            list(answer)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def main() -> None:
    """Print what became of all inputs; exit with 1 if the server was at fault for one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="pictures and messages together")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    spoiler = Spoiler(np.random.default_rng(options.seed))
    table = Table("inputs", "what", "became", title=f"{options.inputs} broken inputs, seed {options.seed}")

    half = options.inputs // 2
    dearest = Dearest()
    outcomes = fuzz_pictures(half, spoiler, dearest)
    table.add_row(str(half), "pictures to decode_crop", _said(outcomes))
    table.add_row("", "the dearest of them", dearest.said())
    with tempfile.TemporaryDirectory() as folder:
        store = ModelStore(Path(folder))
        publish_tiny(store)
        with ServerProcess(store.root, range(cpu_budget())) as server:
            fuzz_messages(min(half, 2000), spoiler, server)
            before_mb = server.resident_mb()
            statuses = fuzz_messages(options.inputs - half, spoiler, server)
            after_mb = server.resident_mb()
    table.add_row(str(options.inputs - half), f"messages to {len(methods())} RPCs", _said(statuses))
    table.add_row("", "resident memory of the server", f"{before_mb:.0f} -> {after_mb:.0f} MB")
    Console().print(table)
    sys.exit(1 if any(statuses[code] for code in SERVERS_FAULT) else 0)


def _said(counts: Counter[str]) -> str:
    return ", ".join(f"{what} {count}" for what, count in counts.most_common())


if __name__ == "__main__":
    main()
