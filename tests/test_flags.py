"""Messages name flags of the command that was typed: the strings of all modules that a command uses are checked."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mribatch.errors import ConfigError
from mribatch.settings.audit import AuditConfig
from mribatch.settings.calibrate import CalibrateConfig
from mribatch.settings.compare import BaselinesConfig
from mribatch.settings.evaluate import EvaluateConfig, PromoteConfig
from mribatch.settings.explain import ExplainConfig
from mribatch.settings.export import ExportConfig
from mribatch.settings.inspect import InspectConfig
from mribatch.settings.score import CompactConfig, NightlyConfig, ScoreConfig
from mribatch.settings.site import AcceptConfig, AdaptConfig
from mribatch.settings.studies import StudiesConfig
from mribatch.settings.train import TrainConfig
from tests.architecture import ROOT, imports

COMMANDS = {
    "train": (TrainConfig, "train"),
    "evaluate": (EvaluateConfig, "evaluate"),
    "score": (ScoreConfig, "score"),
    "nightly": (NightlyConfig, "nightly"),
    "promote": (PromoteConfig, "promote"),
    "compact": (CompactConfig, "compact"),
    "baselines": (BaselinesConfig, "compare"),
    "inspect": (InspectConfig, "inspect"),
    "studies": (StudiesConfig, "studies"),
    "audit": (AuditConfig, "audit"),
    "calibrate": (CalibrateConfig, "calibrate"),
    "accept": (AcceptConfig, "accept"),
    "adapt": (AdaptConfig, "adapt"),
    "explain": (ExplainConfig, "explain"),
    "export": (ExportConfig, "export"),
}

# Flags in messages of shared modules, and why commands without the flag never reach that message.
UNREACHABLE = {
    ("mribatch.training.classical", "--classes"): "only fitting, which is what baselines does",
    ("mribatch.cluster.decoding", "--max-reject-rate"): "explain has a row for each scan that cannot be read",
    ("mribatch.cluster.nodes", "--workers"): "only training with a number of workers, which baselines does not pass",
    ("mribatch.commands.evaluate", "--apart-from"): "promote evaluates with apart_from=()",
    ("mribatch.commands.evaluate_report", "--apart-from"): "promote evaluates with apart_from=()",
    ("mribatch.commands.evaluated", "--apart-from"): "promote evaluates with apart_from=()",
    **{
        ("mribatch.commands.evaluate_evidence", flag): "promote and accept judge models beside nothing"
        for flag in ("--training", "--groups", "--other-source", "--apart-from")
    },
    ("mribatch.predictions.studies", "--healthy-class"): "promote judges slices",
    ("mribatch.commands.evaluate_patients", "--healthy-class"): "promote judges slices",
    ("mribatch.commands.evaluate_patients", "--level"): "promote and accept judge slices",
    ("mribatch.sources.clusters", "--groups"): "promote reads no groups",
    ("mribatch.training.splits", "--paper-protocol"): "evaluate and promote split nothing",
    ("mribatch.models.engine", "--engine"): "only score, nightly and evaluate name an engine",
    ("mribatch.models.embedding", "--model"): "only audit embeds scans",
    ("mribatch.commands.train_scans", "--allow-leaks"): "baselines trains on scans without splits",
    ("mribatch.commands.train", "--allow-leaks"): "baselines leaves it at its default",
    ("mribatch.commands.train", "--start-from"): "baselines trains with start_from=None",
    ("mribatch.commands.train", "--backbone-weights"): "so the weights are never left unused beside it",
    ("mribatch.commands.train", "--validation-fraction"): "baselines leaves it at its default",
    ("mribatch.sources.label_names", "--classes"): "only baselines names classes",
    ("mribatch.sources.labels", "--exclude"): "compact lists no scans",
    ("mribatch.sources.listing", "--exclude"): "compact lists no scans",
    ("mribatch.stores.disk", "--exclude"): "compact lists no scans",
    ("mribatch.commands.reading", "--identifiers"): "evaluate scores with identifiers=none, or with the default key",
    ("mribatch.commands.reading", "--identifier-key"): "evaluate scores with identifiers=none, or with the default key",
    ("mribatch.commands.night_summary", "--limit"): "compact only takes the lock of nights",
}

NOT_MESSAGES = (
    "mribatch.reports.",  # style sheets have variables such as --ink
    "mribatch.models.card",  # commands to run with the model
    "mribatch.models.exported_card",  # so
    "mribatch.models.recipe",  # the flags of recorded commands
    "mribatch.settings.",  # held by the tests below
    "mribatch.commands.cli",  # an example for each command, held by tests/unit/test_cli.py
)
OF_ALL_COMMANDS = {"--help", "--no-"}

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
OTHER_PROGRAM = re.compile(r"`(?:ray|make|mribatch|python) [^`]*`")


def flags_of(settings: type) -> set[str]:
    names = [field.name.replace("_", "-") for field in dataclasses.fields(settings)]
    return {f"--{name}" for name in names} | {f"--no-{name}" for name in names} | OF_ALL_COMMANDS


def strings(tree: ast.AST) -> Iterator[str]:
    """Yield all strings of a module except its docstrings; values in f-strings become a space."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else " " for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | inner:
            yield node.value


def flags_in(tree: ast.AST) -> set[str]:
    return {flag for text in strings(tree) for flag in FLAG.findall(OTHER_PROGRAM.sub("", text))}


def source_of(module: str) -> str | None:
    place = ROOT / module.replace(".", "/")
    path = next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.exists()), None)
    return None if path is None else path.read_text()


def modules_of(command: str) -> set[str]:
    """Return the modules that a command imports at any time. `mribatch` itself is left out: it names all commands."""
    waiting, visited = [f"mribatch.commands.{command}", "mribatch.commands.cli"], {"mribatch"}
    while waiting:
        module = waiting.pop()
        source = source_of(module)
        if module in visited or source is None:
            continue
        visited.add(module)
        waiting += [target for target, _ in imports(source) if target.startswith("mribatch.")]
    return visited


@pytest.mark.parametrize("command", COMMANDS)
def test_messages_of_a_command_name_only_its_own_flags(command: str) -> None:
    settings, module = COMMANDS[command]
    own, foreign = flags_of(settings), set()
    reached = modules_of(module)
    assert len(reached) > 10
    for name in reached:
        if name.startswith(NOT_MESSAGES):
            continue
        named = flags_in(ast.parse(source_of(name) or ""))
        foreign |= {(name, flag) for flag in named - own if (name, flag) not in UNREACHABLE}
    assert foreign == set(), f"jobs/{command}.py has no such flags: take the flag from the caller (`Settings.flags`)"


@pytest.mark.parametrize("command", COMMANDS)
def test_settings_name_only_flags_of_their_own_command(command: str) -> None:
    settings, _ = COMMANDS[command]
    tree = ast.parse(Path(inspect.getfile(settings)).read_text())
    (cls,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == settings.__name__)
    assert flags_in(cls) <= flags_of(settings)


def test_training_within_a_comparison_names_the_flags_of_the_comparison() -> None:
    baselines = BaselinesConfig(data="d", output="o")
    for backbone in ("xception", "resnet50v2", "cnn"):
        training = baselines.training(backbone, data="d", output="o")
        named = {flag for field in dataclasses.fields(TrainConfig) if (flag := training.flags(field.name))}
        assert named - {"--cnn-weights"} <= flags_of(BaselinesConfig)
    assert baselines.training("xception", data="d", output="o").flags("backbone_weights") == "--xception-weights"
    assert baselines.training("cnn", data="d", output="o").flags("batch_size", "workers") == "--batch-size"
    alone = TrainConfig(data="d", output="o")
    assert alone.flags("batch_size", "workers") == "--batch-size or --workers"


@pytest.mark.parametrize(
    ("flag", "setting", "value"), [("--deep-epochs", "deep_epochs", 0), ("--deep-image-side", "deep_image_side", 40)]
)
def test_an_impossible_training_is_refused_under_the_flag_of_the_comparison(
    flag: str, setting: str, value: int
) -> None:
    with pytest.raises(ConfigError, match=f"{flag} must be .*, got {value}"):
        BaselinesConfig(data="d", output="o", **{setting: value})  # type: ignore[arg-type]
