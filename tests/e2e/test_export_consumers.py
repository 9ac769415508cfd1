"""Runtimes that know nothing of Regraft ask exported files, by the code of their README, and agree with the server."""

import functools
import http.server
import io
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from regraft.image.decode import decode_crop
from regraft.model.artifact import IMAGE, read
from regraft.stores.models import MODEL_FILE, ModelStore
from tests import REPOSITORY
from tests.live_server import LiveServer
from tests.tiny import SPEC, picture
from tests.training.float_versions import LABELS, NAME, photos, publish_float
from training.export.export import export_version
from training.export.formats.openvino_ir import require_openvino

CONSUMERS = REPOSITORY / "tests/consumers"
RUNTIMES = CONSUMERS / "node_modules"
HEADERS = CONSUMERS / "onnxruntime_headers"
OLDEST = CONSUMERS.parents[1] / ".onnxruntime-1.17"
LIBRARY = RUNTIMES / "onnxruntime-node/bin/napi-v6/linux/x64"
PICTURES = 10

Answers = list[dict[str, float]]
"""By label, for each picture."""


def jpeg(number: int) -> bytes:
    """Return a photograph of one colour with a good deal of another in it, so that no answer is sure."""
    first, second = (
        Image.open(io.BytesIO(picture(LABELS[(number + more) % len(LABELS)], 50 + number))) for more in (0, 1)
    )
    mixed = Image.blend(first, second, 0.3 + 0.015 * number)
    buffer = io.BytesIO()
    mixed.resize((60, 44), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    folder = tmp_path_factory.mktemp("consumers")
    photos(folder / "photos")
    store = ModelStore(folder / "models")
    publish_float(store)
    return store


@pytest.fixture(scope="module")
def served(store: ModelStore) -> Answers:
    """What the server says to ten pictures."""
    with LiveServer(store) as server:
        answers = [server.client.classify(jpeg(number), name=NAME, top_k=len(LABELS)) for number in range(PICTURES)]
    return [{entry.label: entry.probability for entry in answer.predictions} for answer in answers]


@pytest.fixture(scope="module")
def exported(store: ModelStore) -> Callable[[str], Path]:
    """A function that exports a format once, with ten photographs beside the model."""

    @functools.cache
    def export(to: str) -> Path:
        folder = store.root.parent / to
        made = export_version(store, NAME, to, folder, data=folder.parent / "photos", examples=str(folder / "none"))
        for number in range(PICTURES):
            (folder / f"{number}.jpg").write_bytes(jpeg(number))
        return made.model

    return export


def code(folder: Path, language: str) -> str:
    """Return the code in a language that the README of an export shows."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return str(block)


def needs(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def needs_files(path: Path) -> None:
    if not path.exists():
        pytest.skip(f"{path} is missing: make consumers")


def run(*command: str | Path, folder: Path | None = None, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def agree(found: Answers, served: Answers, within: float) -> None:
    """Check that all labels of all pictures have the same place, and about the same probability."""
    assert len(found) == len(served) == PICTURES
    for ours, theirs in zip(served, found, strict=True):
        assert max(ours, key=lambda label: ours[label]) == max(theirs, key=lambda label: theirs[label])
        assert theirs == pytest.approx(ours, abs=within)


@pytest.mark.parametrize(("to", "within"), [("onnx", 1e-4), ("ort", 1e-4), ("fp16", 0.01), ("int8", 0.1)])
def test_onnxruntime_node_agrees_with_the_server(
    to: str, within: float, exported: Callable[[str], Path], served: Answers
) -> None:
    node = needs("node")
    needs_files(RUNTIMES / "onnxruntime-node")
    model = exported(to)
    crops = []
    for number in range(PICTURES):
        crops.append(model.with_name(f"{number}.rgb"))
        crops[-1].write_bytes(decode_crop(jpeg(number), SPEC).tobytes())

    answers = json.loads(run(node, CONSUMERS / "in_node.mjs", model, str(SPEC.crop_px), *crops))

    agree(answers, served, within)


@pytest.mark.parametrize(("to", "within"), [("model.onnx", 1e-4), ("onnx", 1e-4), ("fp16", 0.01), ("int8", 0.1)])
def test_the_oldest_onnxruntime_that_the_readme_names_agrees_with_the_server(
    to: str, within: float, store: ModelStore, exported: Callable[[str], Path], served: Answers, tmp_path: Path
) -> None:
    """The file of the store itself, and exports."""
    needs_files(OLDEST / "onnxruntime")
    model = store.folder(NAME, 1) / MODEL_FILE if to == MODEL_FILE else exported(to)
    crops = []
    for number in range(PICTURES):
        crops.append(tmp_path / f"{number}.rgb")
        crops[-1].write_bytes(decode_crop(jpeg(number), SPEC).tobytes())

    # Without the packages of this environment, whose numpy is too new for it.
    program = (sys.executable, "-S", CONSUMERS / "in_python.py")
    said = json.loads(run(*program, model, str(SPEC.crop_px), *crops, environment={"PYTHONPATH": str(OLDEST)}))

    assert said["version"].startswith("1.17.")
    agree([dict(zip(LABELS, shares, strict=True)) for shares in said["probabilities"]], served, within)


@pytest.mark.parametrize("to", ["onnx", "int8"])
def test_a_page_in_chromium_agrees_with_the_server(to: str, exported: Callable[[str], Path], served: Answers) -> None:
    node, chromium = needs("node"), needs("chromium")
    needs_files(RUNTIMES / "onnxruntime-web")
    folder = exported(to).parent
    (folder / "classify.js").write_text(code(folder, "javascript"))
    shutil.copy(CONSUMERS / "page.html", folder)
    (folder / "onnxruntime-web").symlink_to(RUNTIMES / "onnxruntime-web" / "dist")
    screenshot = folder / "page.png"
    pictures = [f"{number}.jpg" for number in range(PICTURES)]

    with web_server(folder) as address:
        page = f"{address}/page.html"
        answers = json.loads(run(node, CONSUMERS / "in_browser.mjs", chromium, page, screenshot, *pictures))

    agree(answers, served, 0.1)
    with Image.open(screenshot) as shown:
        assert shown.size == (410, 560)


def test_a_program_in_cpp_agrees_with_the_server(exported: Callable[[str], Path], served: Answers) -> None:
    compiler = needs("g++")
    needs_files(HEADERS)
    needs_files(LIBRARY)
    folder = exported("onnx").parent
    (folder / "classify.cpp").write_text(code(folder, "cpp"))
    flags = ["-std=c++17", "-Wall", "-Werror", f"-I{HEADERS}"]
    library = [str(LIBRARY / "libonnxruntime.so.1"), f"-Wl,-rpath,{LIBRARY}"]
    run(compiler, *flags, "classify.cpp", *library, "-o", "classify", folder=folder)
    answers: Answers = []
    for number in range(PICTURES):
        with Image.open(folder / f"{number}.jpg") as photo:
            photo.save(folder / "photo.ppm")
        lines = run(folder / "classify", folder=folder).splitlines()
        answers.append({label: float(share) for label, share in (line.rsplit(" ", 1) for line in lines)})

    agree(answers, served, 0.02)


@pytest.mark.parametrize("to", ["onnx", "ort", "mobile", "openvino"])
def test_the_python_of_the_readme_agrees_with_the_server(
    to: str, exported: Callable[[str], Path], served: Answers
) -> None:
    folder = exported(to).parent
    ten = (
        "import os, shutil\nfor number in range({}):\n    shutil.copy(f'{{number}}.jpg', 'photo.jpg')\n{}    print()\n"
    )
    script = ten.format(PICTURES, "".join(f"    {line}\n" for line in code(folder, "python").splitlines()))

    printed = run(sys.executable, "-c", script, folder=folder).split("\n\n")[:PICTURES]

    shares = [[line.rsplit(" ", 1) for line in block.splitlines()] for block in printed]
    agree([{label: float(share) for label, share in block} for block in shares], served, 0.05)


def test_openvino_has_no_input_for_another_head(store: ModelStore) -> None:
    """docs/export.md says so: what it is fed is an error, not passed over."""
    version = read(store.folder(NAME, 1) / MODEL_FILE)
    core = require_openvino().Core()
    network = core.compile_model(core.read_model(store.folder(NAME, 1) / MODEL_FILE), "CPU")

    assert [port.get_any_name() for port in network.inputs] == [IMAGE]
    with pytest.raises(RuntimeError, match="Port for tensor name head"):
        network({IMAGE: decode_crop(jpeg(0), SPEC)[None], **version.head.feed()})


def test_the_python_of_a_triton_folder_asks_our_own_server(
    store: ModelStore, exported: Callable[[str], Path], served: Answers
) -> None:
    folder = exported("triton").parents[2]
    (folder / "photo.jpg").write_bytes(jpeg(0))
    with LiveServer(store) as server:
        script = code(folder, "python").replace("localhost:8001", server.target)
        lines = run(sys.executable, "-c", script, folder=folder).splitlines()

    found = {label: float(share) for label, share in (line.rsplit(" ", 1) for line in lines)}
    assert found == pytest.approx(served[0], abs=0.05)


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *_: object) -> None:
        """Keep the tests' output to the tests."""
