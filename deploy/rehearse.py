"""Builds and runs a target of the Dockerfile where there is no Docker: `python deploy/rehearse.py serve --work /tmp/r`.

Every RUN and COPY is carried out, in a Debian root that debootstrap makes in place of the base image (the same release,
the same minor version of Python). What comes out is run as Docker would with `--read-only --tmpfs /tmp`: the file
system read-only, the user of the image, its own PID 1, network of its own, /models and /data as volumes. Then its
HEALTHCHECK must succeed and SIGTERM must end it with exit code 0. Needs root and debootstrap, on Debian.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
STANDS_IN = "python3,python3-venv,python3-pip,python-is-python3,ca-certificates"
START_S = 120


@dataclass(frozen=True)
class Stage:
    """A stage of the Dockerfile; the fields below `steps` are inherited."""

    parent: str
    steps: tuple[tuple[str, str], ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    workdir: str = "/"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()


def read_stages(dockerfile: str) -> dict[str, Stage]:
    """Return the stages of a Dockerfile by name; as much of the language as ours uses."""
    text = re.sub(r"\\\n", " ", "".join(line for line in dockerfile.splitlines(keepends=True) if line[0] != "#"))
    stages: dict[str, Stage] = {}
    name = ""
    for keyword, rest in re.findall(r"^([A-Z]+)\s+(.*)$", text, flags=re.MULTILINE):
        if keyword == "FROM":
            parent, _, name = rest.split()
            inherited = stages.get(parent, Stage(parent))
            stages[name] = replace(inherited, parent=parent, steps=())
            continue
        if keyword in ("ARG", "VOLUME", "EXPOSE"):
            continue
        stage = stages[name]
        if keyword == "ENV":
            pairs = dict(word.split("=", 1) for word in shlex.split(rest))
            known = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **stage.env}
            pairs = {key: value.replace("$PATH", known["PATH"]) for key, value in pairs.items()}
            stages[name] = replace(stage, env={**stage.env, **pairs})
        elif keyword in ("RUN", "COPY"):
            stages[name] = replace(stage, steps=(*stage.steps, (keyword, rest)))
        elif keyword == "HEALTHCHECK":
            stages[name] = replace(stage, healthcheck=tuple(json.loads(rest[rest.index("[") :])))
        else:
            value = tuple(json.loads(rest)) if rest.startswith("[") else rest
            where = {"USER": "user", "WORKDIR": "workdir", "ENTRYPOINT": "entrypoint", "CMD": "command"}[keyword]
            stages[name] = replace(stage, **{where: value})
    return stages


class Builder:
    """Makes the root of each stage under ``work``, once."""

    def __init__(self, stages: dict[str, Stage], work: Path) -> None:
        """Build ``stages``."""
        self.stages = stages
        self.work = work

    def root(self, name: str) -> Path:
        """Return the root of a stage, and build it first if it is not there."""
        root = self.work / name.partition(":")[0]
        if (self.work / f"{root.name}.built").exists():
            return root
        shutil.rmtree(root, ignore_errors=True)
        if name not in self.stages:
            self._bootstrap(name, root)
        else:
            stage = self.stages[name]
            subprocess.run(["cp", "--archive", self.root(stage.parent), root], check=True)
            for keyword, rest in stage.steps:
                print(f"[{name}] {keyword} {rest[:100]}", file=sys.stderr, flush=True)
                if keyword == "RUN":
                    self._run(stage, root, rest)
                else:
                    self._copy(root, rest)
        (self.work / f"{root.name}.built").touch()
        return root

    def _bootstrap(self, image: str, root: Path) -> None:
        release = image.rpartition("-")[2]
        print(f"debootstrap {release}, for {image}", file=sys.stderr, flush=True)
        command = ["debootstrap", "--variant=minbase", f"--include={STANDS_IN}", release, root]
        subprocess.run(command, check=True, stdout=sys.stderr)
        # How this machine reaches its packages; a builder's network would be there already.
        for path in ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf"):
            if Path(path).exists():
                shutil.copy(path, root / path[1:])

    def _run(self, stage: Stage, root: Path, script: str) -> None:
        ours = {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "http", "HTTP"))}
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **ours, **stage.env}
        subprocess.run(["chroot", root, "sh", "-ec", script], env=env, check=True, stdout=sys.stderr)

    def _copy(self, root: Path, arguments: str) -> None:
        source = REPOSITORY
        *froms, target = arguments.split()
        if froms[0].startswith("--from="):
            source = self.root(froms.pop(0).removeprefix("--from="))
        place = root / target.lstrip("/")
        for name in froms:
            path = source / name.lstrip("/")
            if path.is_dir():
                shutil.copytree(path, place, symlinks=True, dirs_exist_ok=True)
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, place)


def megabytes(folder: Path) -> float:
    """Return what a folder takes, in 10^6 bytes."""
    done = subprocess.run(["du", "--summarize", "--bytes", folder], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0]) / 1e6


class Container:
    """Runs a stage in namespaces of its own."""

    def __init__(self, stage: Stage, root: Path, volumes: Path) -> None:
        """Start it as `docker run` does, with its own command."""
        for name in ("models", "data"):
            (volumes / name).mkdir(parents=True, exist_ok=True)
        subprocess.run(["chown", "--recursive", "10001:10001", volumes], check=True)
        self.stage = stage
        self._root = root
        mounts = [
            f"mount --bind {root} {root}",
            f"mount --bind {volumes}/models {root}/models",
            f"mount --bind {volumes}/data {root}/data",
            f"mount -t proc proc {root}/proc",
            f"mount -t tmpfs tmpfs {root}/tmp",
            f"mount --bind /dev {root}/dev",
            f"mount -t tmpfs tmpfs {root}/dev/shm",
            f"mount -o remount,bind,ro {root}",
            "ip link set lo up",
        ]
        arguments = shlex.join((*stage.entrypoint, *stage.command))
        inner = " && ".join((*mounts, f"exec {self._entered(arguments)}"))
        namespaces = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child"]
        self.process = subprocess.Popen([*namespaces, "sh", "-ec", inner], start_new_session=True)

    def _entered(self, command: str) -> str:
        env = shlex.join(f"{key}={value}" for key, value in self.stage.env.items())
        script = f"cd {self.stage.workdir} && exec {command}"
        return f"chroot --userspec={self.stage.user} {self._root} /usr/bin/env -i {env} sh -ec {shlex.quote(script)}"

    def pid_1(self) -> int:
        """Return the process that is PID 1 inside, as the host numbers it, once it is there."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        while not children.read_text():
            time.sleep(0.05)
        return int(children.read_text().split()[0])

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside it, as `docker exec` does."""
        entered = self._entered(shlex.join(command))
        inside = ["nsenter", "--target", str(self.pid_1()), "--mount", "--pid", "--net", "sh", "-ec", entered]
        return subprocess.run(inside, capture_output=True, text=True, check=False)


def serve(container: Container) -> dict[str, object]:
    """Wait until the server is healthy, look at it from inside, and stop it."""
    began_s = time.monotonic()
    while (health := container.execute(*container.stage.healthcheck)).returncode:
        if container.process.poll() is not None or time.monotonic() - began_s > START_S:
            sys.exit(f"it never became healthy: {health.stdout}{health.stderr}")
        time.sleep(0.5)
    healthy_s = time.monotonic() - began_s
    places = ("/", "/opt/regraft", "/models", "/data", "/tmp")
    writes = {place: container.execute("touch", f"{place}/file").returncode == 0 for place in places}
    classified = container.execute("regraft", "classify", "/data/picture.png", "--json")
    labelled = container.execute("regraft", "label", "/data/picture.png", "--label", "crimson", "--json")
    retrained = container.execute("regraft", "retrain", "--wait", "--json")
    backbones = json.loads(container.execute("regraft", "backbones", "list", "--json").stdout or "[]")
    who = container.execute("id", "-u").stdout.strip()
    os.kill(container.pid_1(), signal.SIGTERM)
    return {
        "healthy_after_s": round(healthy_s, 1),
        "can_write": writes,
        "user": who,
        "backbones": [backbone["name"] for backbone in backbones],
        "classified": classified.returncode == 0,
        "labelled": labelled.returncode == 0,
        "retrain_job": json.loads(retrained.stdout or "{}").get("message", retrained.stderr),
        "exit_code": container.process.wait(timeout=60),
    }


def main() -> None:
    """Rehearse one target, and print what came of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=("serve", "serve-gpu", "train"))
    parser.add_argument("--work", type=Path, required=True, help="where the roots are made, and kept for the next time")
    arguments = parser.parse_args()
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    [python] = re.findall(r"^ARG PYTHON=(\S+)", dockerfile, flags=re.MULTILINE)
    stages = read_stages(dockerfile.replace("${PYTHON}", python))
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    root = Builder(stages, work).root(arguments.target)
    report: dict[str, object] = {"target": arguments.target, "packages_mb": round(megabytes(root / "opt/regraft"))}
    stage = stages[arguments.target]
    volumes = work / f"{arguments.target}-volumes"
    sys.path.insert(0, str(REPOSITORY))
    from regraft.stores.models import ModelStore  # noqa: PLC0415 - found only now
    from tests.tiny import picture, publish_tiny  # noqa: PLC0415 - likewise

    if arguments.target == "train":
        for label in ("red", "blue"):
            (volumes / "data" / "photos" / label).mkdir(parents=True, exist_ok=True)
            for number in range(10):
                (volumes / f"data/photos/{label}/{number}.png").write_bytes(picture(label, number))
        command = ("train", "/data/photos", "--name", "rehearsal")
        container = Container(replace(stage, command=command), root, volumes)
        report["exit_code"] = container.process.wait(timeout=300)
        report["versions"] = ModelStore(volumes / "models").versions("rehearsal")
    else:
        store = ModelStore(volumes / "models")
        if not store.names():
            publish_tiny(store)
        # The working directory has a package of somebody else's, named as one of ours.
        (volumes / "data" / "training").mkdir(parents=True, exist_ok=True)
        (volumes / "data" / "training" / "__init__.py").write_text("raise SystemExit('the training of somebody else')")
        (volumes / "data" / "picture.png").write_bytes(picture("red"))
        report |= serve(Container(stage, root, volumes))
    print(json.dumps(report))
    done = report["exit_code"] == 0 and all(report.get(what, True) for what in ("classified", "labelled", "backbones"))
    sys.exit(not done or "could not start" in str(report.get("retrain_job")))


if __name__ == "__main__":
    main()
