import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.cli.serving.serve import FLAG_NAMES
from serving.settings import Settings

# Arguments and flags of every command: `--flag=default`, `!` where it must be given, `...` where it may be repeated,
# `@` its environment variable.
SERVER = (
    "--target=127.0.0.1:50051@REGRAFT_TARGET --token=@REGRAFT_TOKEN --tls-ca=@REGRAFT_TLS_CA "
    "--tls-cert=@REGRAFT_CLIENT_CERT --tls-key=@REGRAFT_CLIENT_KEY --insecure@REGRAFT_INSECURE "
)
COMMANDS = {
    "serve": (
        "--store= --backbones= --grpc= --control= --http= --http-origin=... --metrics= --tls-cert= --tls-key= "
        "--tls-client-ca= --insecure --provider= --cuda-tf32 --cuda-device= --optimise= --cpus= --plan= --name=... "
        "--callers= --triton-metrics --otlp= --share-port --examples= --database= --keep-requests= --labels= "
        "--labels-per-hour= --gate= --retrain-every= --min-new= --bake= --log-format= --log-level= --json"
    ),
    "plan": (
        "MODEL --store=models@REGRAFT_STORE --provider=auto --cuda-tf32 --cuda-device= --optimise=throughput "
        "--cpus= --fresh --json"
    ),
    "train": (
        "DATA --name= --store=models@REGRAFT_STORE --backbone=efficientnet_lite0 --weights=default "
        "--image-px= --resize= --like= --strategy=probe --precision=fp32 --target-error= --seed=0 --cv=0 "
        "--tensorboard/--no-tensorboard=True --mlflow= --balance=auto --views=0 --extra= --extra-class=... "
        "--extra-weighting --group-by= --init=head --freeze= --epochs= --batch= --accumulate= --optimizer= "
        "--lr= --head-lr= --layer-decay= --weight-decay= --label-smoothing= --mixup= --cutmix= --augment=full "
        "--no-augment --mirror/--no-mirror --patience= --resume --keep-state/--no-keep-state=True "
        "--publish=better --max-minutes=30 --gate=auto --examples=@REGRAFT_EXAMPLES --database=@REGRAFT_DATABASE "
        "--keep-pictures/--no-keep-pictures=True --json"
    ),
    "backbones networks": "[PATTERN] --measure --json",
    "backbones add": (
        "NETWORK --weights=default --precision=fp32 --data= --image-px= --store=models@REGRAFT_STORE --json"
    ),
    "backbones list": SERVER + "--store= --addable --json",
    "backbones export": "BACKBONE FILE --store=models@REGRAFT_STORE --json",
    "backbones import": "FILE --store=models@REGRAFT_STORE --json",
    "backbones remove": "BACKBONE --store=models@REGRAFT_STORE --json",
    "classify": SERVER + "IMAGES... --name= --file= --store=models@REGRAFT_STORE --top-k=5 --json",
    "compare": (
        "DATA... --backbones=! --strategies=probe --shares=all --seeds=1 --seed=0 --out= --resume "
        "--weights=default --epochs= --batch= --optimizer= --lr= --head-lr= --freeze= --init=head --publish= "
        "--store=models@REGRAFT_STORE --name= --gate=auto --examples=@REGRAFT_EXAMPLES --database=@REGRAFT_DATABASE "
        "--keep-pictures/--no-keep-pictures=True --json"
    ),
    "evaluate": (
        "MODELS... DATA --split=auto --group-by= --name=... --store=models@REGRAFT_STORE --report= "
        "--token=@REGRAFT_TOKEN --tls-ca=@REGRAFT_TLS_CA --tls-cert=@REGRAFT_CLIENT_CERT "
        "--tls-key=@REGRAFT_CLIENT_KEY --insecure@REGRAFT_INSECURE --json"
    ),
    "look": "DATA --group-by= --backbone= --weights=default --sheet= --json",
    "bench": SERVER
    + (
        "IMAGES... --name= --concurrency= --rate= --arrivals=poisson --seed=0 --duration=10 --warm-up=1 "
        "--deadline-ms=30000 --json"
    ),
    "label": SERVER + "[PATH] --label= --request= --sha256= --source=regraft_label --name= --json",
    "suggest": SERVER + "--count=20 --save= --name= --json",
    "export": (
        "MODEL --to=! --out=! --data= --cpu= --max-drop=1.3 --store=models@REGRAFT_STORE "
        "--examples=@REGRAFT_EXAMPLES --json"
    ),
    "import": (
        "--name=! [FILE] --store=models@REGRAFT_STORE --backbone= --labels= --data= --head= --weights=default "
        "--calibrate --keep-state/--no-keep-state=True --mean= --std= --image-px= --resize= --resize-px= "
        "--interpolation= --gate=auto --examples=@REGRAFT_EXAMPLES --database=@REGRAFT_DATABASE "
        "--keep-pictures/--no-keep-pictures=True --json"
    ),
    "explain": SERVER + "PICTURE --label= --save= --name= --json",
    "preview": SERVER + "--name= --json",
    "retrain": SERVER
    + (
        "--name= --wait --gate= --max-drop= --max-class-drop= --max-slice-drop= --min-accuracy= "
        "--min-class-recall= --max-suspects= --min-slice-accuracy= --key= --json"
    ),
    "jobs": SERVER + "[JOB_ID] --name= --cancel --json",
    "token": "--models= NAME --role=classify --json",
    "health": SERVER + "--service= --timeout=5 --json",
    "verify": "VERSION --store=models@REGRAFT_STORE --json",
    "refresh": (
        "DATA --name=! --store=models@REGRAFT_STORE --examples=@REGRAFT_EXAMPLES --database=@REGRAFT_DATABASE "
        "--backbone= --weights= --image-px= --resize= --strategy=probe --precision= --target-error= "
        "--group-by= --views=0 --augment=full --no-augment --mirror/--no-mirror "
        "--keep-state/--no-keep-state=True --seed=0 --gate=auto --max-drop= --max-class-drop= "
        "--max-slice-drop= --min-accuracy= --min-class-recall= --max-suspects= --min-slice-accuracy= "
        "--keep-pictures/--no-keep-pictures=True --json"
    ),
    "upgrade": (
        "[STORE]=models@REGRAFT_STORE --check --data= --examples=@REGRAFT_EXAMPLES "
        "--database=@REGRAFT_DATABASE --gate=auto --json"
    ),
    "demo": "[DATA] --folder=demo-run --json",
    "models quantise": "MODEL --data=! --store=models@REGRAFT_STORE --examples=@REGRAFT_EXAMPLES --promote --json",
    "models diff": "FIRST SECOND --store=models@REGRAFT_STORE --json",
    "models list": SERVER + "--deleted --json",
    "models create": SERVER + "NAME --backbone= --label=... --closed --why= --json",
    "models delete": SERVER + "NAME --why= --json",
    "models restore": SERVER + "NAME --why= --json",
    "models show": SERVER + "[NAME] --json",
    "models promote": SERVER + "VERSION --name= --why= --expected= --json",
    "models rollback": SERVER + "--name= --why= --expected= --json",
    "models train": SERVER
    + (
        "--name= --backbone= --strategy= --precision= --epochs= --wait --gate= --max-drop= --max-class-drop= "
        "--max-slice-drop= --min-accuracy= --min-class-recall= --max-suspects= --min-slice-accuracy= --key= --json"
    ),
    "models shadow": SERVER + "[VERSION] --off --name= --why= --json",
    "models report": SERVER + "[VERSION] --out=report.html --name= --json",
    "models export": SERVER + "OUT --version= --to=onnx --cpu= --max-drop= --name= --json",
    "models confusion": SERVER + "[VERSION] --mistakes --label= --answer= --pictures=20 --name= --json",
    "pictures add": SERVER + "PATHS... --source= --name= --json",
    "pictures list": SERVER + "--name= --json",
    "pictures remove": SERVER + "SHA256... --name= --json",
    "examples list": SERVER
    + (
        "--label= --split= --source= --annotator= --outcome= --suspected --quarantined --since= --order=hash --most=0 "
        "--predictions --name= --json"
    ),
    "examples show": SERVER + "SHA256 --name= --json",
    "examples relabel": SERVER + "SHA256 LABEL --name= --json",
    "examples remove": SERVER + "SHA256... --why= --name= --json",
    "examples release": SERVER + "SHA256... --name= --json",
    "examples neighbours": SERVER + "PICTURE --count=10 --name= --json",
    "examples map": SERVER + "--name= --json",
    "examples curve": SERVER + "--name= --json",
    "examples relabel-many": SERVER + "LABEL HASHES --name= --json",
    "examples remove-many": SERVER + "HASHES --why= --name= --json",
    "examples restore": SERVER + "HASHES --name= --json",
    "examples rename": SERVER + "LABEL NEW_LABEL --merge --why= --name= --json",
    "examples remove-label": SERVER + "LABEL --why= --name= --json",
    "examples export": SERVER + "FOLDER --label= --name= --json",
}


def commands(group: Any, path: str = "") -> Iterator[tuple[str, set[str]]]:  # noqa: ANN401 - typer has no public type for it
    """Yield each command below a group, with its arguments and flags as above."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} ")
        else:
            context = command.make_context(name, [], resilient_parsing=True)
            yield path + name, {described(parameter) for parameter in command.get_params(context)}


def described(parameter: Any) -> str:  # noqa: ANN401 - likewise
    default = "" if parameter.default is None or parameter.default is False else parameter.default
    text = f"{default:g}" if isinstance(default, float) else str(default).replace(" ", "_")
    many = "..." if getattr(parameter, "multiple", False) or parameter.nargs == -1 else ""
    environment = f"@{parameter.envvar}" if parameter.envvar else ""
    if parameter.param_type_name == "argument":
        name = parameter.name.upper() + many
        return (name if parameter.required else f"[{name}]") + (f"={text}" if text else "") + environment
    name = "/".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.is_flag:
        return name + (f"={text}" if text else "") + environment
    return f"{name}={text}{many}{'!' if parameter.required else ''}{environment}"


@pytest.fixture(scope="module")
def today() -> dict[str, set[str]]:
    return dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_that_there_ever_was_is_still_there(command: str, today: dict[str, set[str]]) -> None:
    assert set(COMMANDS[command].split()) - today[command] == set()


def test_every_setting_of_the_server_is_a_flag(today: dict[str, set[str]]) -> None:
    flags = {f"--{FLAG_NAMES.get(field, field)}".replace("_", "-") for field in Settings.model_fields}

    assert flags <= {flag.partition("=")[0] for flag in today["serve"]}


@pytest.mark.parametrize("command", ["train", "refresh", "compare"])
def test_the_help_of_a_training_needs_no_library_that_only_the_training_needs(command: str) -> None:
    """Its flags are made from settings.

    Importing one of these libraries takes longer than all the rest.
    """
    spared = ("scipy", "sqlalchemy", "onnxruntime", "torch")
    without = f"import sys\nsys.modules.update(dict.fromkeys({spared}))\nfrom regraft.__main__ import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", without, command, "--help"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [[], ["serve"], ["train"], ["classify"], ["models", "shadow"]])
def test_yes_no_flags_take_no_value_in_the_help(command: list[str]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"}).stdout

    assert "--help" in shown
    assert "<bool>" not in shown


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("regraft tr", ["train"]),
        ("regraft serve --cuda-t", ["--cuda-tf32"]),
        ("regraft train --strategy ", ["probe", "finetune", "scratch", "auto"]),
    ],
)
def test_a_shell_completes_commands_flags_and_choices(typed: str, completed: list[str]) -> None:
    asked = {"_REGRAFT_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}

    done = CliRunner().invoke(app, [], prog_name="regraft", env=asked)

    assert done.stdout.split() == completed
