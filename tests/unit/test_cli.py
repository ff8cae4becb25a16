"""The command line: what `mribatch` and jobs/*.py print and return before a command runs. No Ray, no model."""

import dataclasses
import importlib
import re
import resource
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from mribatch.__main__ import main
from mribatch.commands import cli
from mribatch.commands.cli import COMMANDS, parse, run, run_command
from mribatch.commands.screen import Shown
from mribatch.errors import ConfigError
from mribatch.settings.base import Settings
from mribatch.settings.flags import GROUPS, Flag, options
from mribatch.version import __version__

ROOT = Path(__file__).parent.parent.parent
PLACES = {
    "accept": ["--model", "m", "--data", "d", "--output", "o"],
    "adapt": ["--model", "m", "--input", "i", "--output", "o"],
    "audit": ["--data", "d", "--output", "o"],
    "calibrate": ["--model", "m", "--data", "d", "--output", "o"],
    "inspect": ["--input", "i"],
    "train": ["--data", "d", "--output", "o"],
    "evaluate": ["--model", "m", "--data", "d", "--output", "o"],
    "export": ["--model", "m", "--precision", "int8", "--calibration", "c", "--output", "o"],
    "explain": ["--model", "m", "--input", "i", "--output", "o"],
    "score": ["--model", "m", "--input", "i", "--output", "o"],
    "nightly": ["--model", "m", "--input", "i", "--output", "o"],
    "promote": ["--models", "m", "--candidate", "c", "--data", "d", "--output", "o"],
    "compact": ["--output", "o"],
    "studies": ["--output", "o"],
    "baselines": ["--data", "d", "--output", "o"],
}

Screen = Callable[..., tuple[int, str, str]]


@pytest.fixture
def screen(capsys: pytest.CaptureFixture[str]) -> Screen:
    """Run `mribatch` with some words in this process: its exit code, stdout and stderr."""

    def screen(*words: str) -> tuple[int, str, str]:
        return run(words), *capsys.readouterr()

    return screen


def settings_of(name: str) -> type[Settings]:
    module, _, kind = COMMANDS[name].settings.partition(":")
    settings: type[Settings] = getattr(sys.modules.get(module) or __import__(module, fromlist=[kind]), kind)
    return settings


def test_help_lists_every_command_with_one_line(screen: Screen) -> None:
    code, out, err = screen("--help")
    assert (code, err) == (0, "")
    assert {line.split()[0] for line in out.splitlines() if line.startswith("  ") and "mribatch" not in line} == {
        *PLACES
    }
    assert all(f"{command.summary}\n" in out for command in COMMANDS.values())


def test_the_version_is_printed(screen: Screen) -> None:
    assert screen("--version") == (0, f"mribatch {__version__}\n", "")


@pytest.mark.parametrize(("word", "suggestion"), [("scroe", "score"), ("Train", "train"), ("baseline", "baselines")])
def test_an_unknown_command_ends_with_2_and_a_suggestion(screen: Screen, word: str, suggestion: str) -> None:
    code, out, err = screen(word, "--model", "m")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"error: no command {word}: did you mean {suggestion}?",
        "mribatch --help lists all commands",
    ]
    with pytest.raises(ConfigError, match=f"did you mean {suggestion}"):
        parse(word, [])


def test_no_command_at_all_ends_with_2(screen: Screen) -> None:
    assert screen()[0] == 2


@pytest.mark.parametrize("name", PLACES)
def test_help_explains_every_flag_with_its_real_default_and_ends_with_an_example(screen: Screen, name: str) -> None:
    code, out, err = screen(name, "--help")
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    for option in options(settings_of(name)):
        assert f"{option.flag} {option.value}".strip() in text
        assert " ".join(option.help.split()) in text
        assert re.search(r"\. (Required|Default: \S.*)\.$|… (Required|Default: .*)\.$", option.help), option.help
    assert "None" not in text
    assert max(map(len, out.splitlines())) <= 120
    *_, heading, example = out.rstrip().splitlines()
    assert heading == "Example:"
    program, command, *words = example.split()
    assert (program, command) == ("mribatch", name)
    parse(name, words)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_returns_what_a_terminal_can_show(name: str) -> None:
    module, _, function = COMMANDS[name].function.partition(":")
    home = importlib.import_module(module)
    outcome = get_type_hints(getattr(home, function))["return"]
    kinds = get_args(outcome) or (outcome,)
    assert all(issubclass(kind, Shown) for kind in kinds)


@pytest.mark.parametrize("name", PLACES)
def test_every_setting_has_a_group_and_a_text_below_it(name: str) -> None:
    settings = settings_of(name)
    hints = get_type_hints(settings, include_extras=True)
    for field in dataclasses.fields(settings):
        assert any(isinstance(note, Flag) for note in getattr(hints[field.name], "__metadata__", ())), field.name
    for option in options(settings):
        assert option.group in GROUPS
        assert len(option.help.split()) > 4, f"{option.flag} is not explained"
        assert option.value or option.is_switch, f"{option.flag} does not say what its value is"


def test_the_help_of_a_job_shows_its_own_launch_commands(capsys: pytest.CaptureFixture[str]) -> None:
    code = run_command("score", "Score scans.\n\nOn this machine:  python jobs/score.py --model M\n", ["--help"])
    out = capsys.readouterr().out
    assert code == 0
    assert out.startswith("usage: python jobs/score.py --")
    assert out.rstrip().endswith("On this machine:  python jobs/score.py --model M")


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("score", ["--modle", "x"], "no flag --modle: did you mean --model?"),
        ("score", ["-model", "x"], "no flag -model: did you mean --model?"),
        ("score", ["--batch=3"], "no flag --batch"),
        ("promote", ["--model", "x"], "no flag --model: did you mean --models?"),
        ("nightly", ["--no-dryrun"], "no flag --no-dryrun: did you mean --no-dry-run?"),
        ("score", ["--zzz"], "no flag --zzz"),
        ("compact", ["old"], "unexpected word 'old': a value needs a flag before it"),
        ("score", ["--batch-size", "many"], "--batch-size must be a whole number, got 'many'"),
        ("score", ["--max-reject-rate", "5%"], "--max-reject-rate must be a number, got '5%'"),
        ("score", ["--batch-size", "0"], "--batch-size must be at least 1 and at most 65536, got 0"),
        ("train", ["--backbone", "xceptoin"], "got 'xceptoin': did you mean xception?"),
        ("train", ["--backbone", "Xception"], "got 'Xception': did you mean xception?"),
        ("train", ["--workers", "autom"], "--workers must be auto or a whole number, got 'autom': did you mean auto?"),
        ("train", ["--epoch-sides", "96", "big"], "--epoch-sides must be a whole number, got 'big'"),
        ("baselines", ["--models", "svm", "random-forest"], "did you mean random_forest?"),
        ("nightly", ["--timezone", "Europe/Pariss"], "got Europe/Pariss: did you mean Europe/Paris?"),
        ("nightly", ["--force-it"], "no flag --force-it"),
    ],
)
def test_a_wrong_word_ends_with_2_and_one_or_two_plain_lines(
    screen: Screen, name: str, words: list[str], message: str
) -> None:
    code, out, err = screen(name, *PLACES[name], *words)
    assert (code, out) == (2, "")
    first, *more = err.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert more in ([], [f"mribatch {name} --help lists all flags"])
    assert not set(err) & set("╭│╰─\x1b")
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(name, [*PLACES[name], *words])


def test_missing_flags_are_named_together(screen: Screen) -> None:
    code, _, err = screen("score", "--model", "m")
    assert code == 2
    assert err.splitlines() == ["error: missing --input, --output", "mribatch score --help shows an example"]


def test_a_flag_without_its_value_is_named(screen: Screen) -> None:
    code, _, err = screen("score", "--model", "--input", "a", "--output", "o")
    assert (code, err) == (2, "error: --model needs a value\n")
    code, _, err = screen("score", "--model", "m", "--input", "--output", "o")
    assert (code, err) == (2, "error: --input needs at least one value\n")


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (["--batch_size", "8", "--exclude=a", "--exclude", "b_c"], {"batch_size": 8, "exclude": ("a", "b_c")}),
        (["--limit", "5", "--limit=6"], {"limit": 6}),
        (["--requester-pays", "--max-reject-rate", "1"], {"requester_pays": True, "max_reject_rate": 1.0}),
        (["--requester-pays", "--no-requester-pays"], {}),
        (["--output", "a b=c"], {"output": "a b=c"}),
    ],
)
def test_flags_are_taken_as_they_are_spelled(words: list[str], changed: dict[str, Any]) -> None:
    config = parse("score", [*PLACES["score"], *words])
    assert config == dataclasses.replace(parse("score", PLACES["score"]), **changed)


def test_a_run_prints_the_table_and_returns_the_exit_code(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True)
    class Ended:
        output: str
        exit_code: int = 3

        def table(self) -> str:
            return f"all of {self.output}"

    imported = cli._imported
    function = COMMANDS["compact"].function
    monkeypatch.setattr(
        cli, "_imported", lambda place: (lambda config: Ended(config.output)) if place == function else imported(place)
    )
    code, out, _ = screen("compact", "--output", "o")
    assert (code, out) == (3, "all of o\n")


HEAVY = ("ray", "tensorflow", "keras", "pyarrow", "numpy", "boto3", "h5py", "matplotlib", "pandas", "rich")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["score", "--help"], ["train", "--modle"], ["nope"]])
def test_help_and_wrong_flags_load_no_library(words: list[str]) -> None:
    """Nothing to wait for: the modules of this package and the standard library alone."""
    program = (
        "import sys; from mribatch import __main__ as m; from mribatch.commands.cli import run; "
        f"run({words!r}); print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize("words", [["--help"], ["nightly", "--help"], ["score", "--modle", "x"], ["nope"]])
def test_the_command_runs_under_its_supervisor_and_takes_less_than_a_second_of_the_processor(words: list[str]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "mribatch", *words], capture_output=True, text=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == (0 if "--help" in words else 2)
    assert "Traceback" not in done.stderr
    assert after.ru_utime - before.ru_utime < 1.0


def test_a_reader_that_takes_one_line_only_changes_no_exit_code() -> None:
    command = f"{sys.executable} -m mribatch score --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_the_installed_command_is_the_module() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"mribatch": f"{main.__module__}:{main.__name__}"}
