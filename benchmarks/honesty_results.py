"""Write what was measured of a model's honesty as JSON and as Markdown tables, beside an earlier measurement if given."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from corruptions import NOISES

from mribatch.errors import InputError

__all__ = ["write"]


class Goal(NamedTuple):
    """A figure to reach in one of the tests."""

    test: str
    figure: str
    at_least: float | None = None
    at_most: float | None = None

    def line(self, sets: Mapping[str, Any]) -> str:
        """Return the goal and whether it is reached, as a line of a list."""
        asked = f"at least {self.at_least:.0%}" if self.at_least is not None else f"at most {self.at_most:.0%}"
        title = f"{self.test}, {self.figure.replace('_', ' ')} {asked}"
        if self.test not in sets:
            return f"- {title}: not measured"
        value = sets[self.test][self.figure]
        reached = value >= self.at_least if self.at_least is not None else value <= self.at_most
        return f"- {title}: {'reached' if reached else '**not reached**'}, {value:.1%}"


GOALS = (
    Goal("held back, no near copies", "accuracy", at_least=0.98),
    Goal("another source", "balanced_accuracy", at_least=0.60),
    Goal("another source", "tumours_called_tumour", at_least=0.70),
    Goal("CLAHE", "accuracy", at_least=0.95),
    Goal("lesion painted out", "accuracy", at_most=0.50),
)
"""What a model should reach before it is believed. Right answers without the lesion come from something else."""

_TESTS = (
    "held back",
    "held back, no near copies",
    "another source",
    "CLAHE",
    "lesion painted out",
    "only the lesion's box",
)
_STRENGTHS = ("weak", "strong")


def write(path: str, facts: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> str:
    """Write PATH.json and PATH.md, creating their folder; return the Markdown.

    earlier: facts of another model. Raises InputError if they are of other scans.
    """
    if earlier is not None and _scans(earlier) != _scans(facts):
        raise InputError(
            f"the earlier measurement has {_scans(earlier)} altered scans, this one {_scans(facts)}: repeat it with the same "
            "--data, --altered-scans and --seed"
        )
    markdown = _markdown(facts, earlier)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(f"{path}.json").write_text(json.dumps(facts, indent=1) + "\n")
    Path(f"{path}.md").write_text(markdown)
    return markdown


def _scans(facts: Mapping[str, Any]) -> int:
    return int(facts["corruptions"]["none"][0]["scans"])


def _markdown(facts: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> str:
    model, host = facts["model"], facts["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    lines = [
        f"# What {model['name']} ({model['digest']}, {model['image_side_px']} px) knows",
        "",
        *_tests(facts["sets"]),
        "",
        *(goal.line(facts["sets"]) for goal in GOALS),
        _noise_line(facts["corruptions"]),
        "",
        *_corruptions(facts["corruptions"], earlier),
        "",
        f"`{facts['command']}`",
        "",
        f"{host['cpu']}, {host['cores']} cores, {host['memory_gib']} GiB, {host['os']}; {versions}; commit "
        f"{str(facts['git_commit'])[:12]}; {facts['seconds'] / 60:.0f} minutes.",
    ]
    return "\n".join(lines) + "\n"


def _tests(sets: Mapping[str, Any]) -> Iterator[str]:
    yield "| test | scans | right (95% interval) | balanced | right by class | tumours called a tumour | mean confidence |"
    yield "|---|---|---|---|---|---|---|"
    for test in _TESTS:
        if test not in sets:
            yield f"| {test} | not measured | | | | | |"
            continue
        row = sets[test]
        low, high = row["accuracy_95"]
        classes = ", ".join(f"{label} {share:.0%}" for label, share in row["recall"].items())
        tumours = "no tumours" if row["tumours_called_tumour"] is None else f"{row['tumours_called_tumour']:.1%}"
        yield (
            f"| {test} | {row['scans']} | {row['accuracy']:.1%} ({low:.1%}–{high:.1%}) | {row['balanced_accuracy']:.1%} | "
            f"{classes} | {tumours} | {row['mean_confidence']:.2f} |"
        )


def _noise_line(corruptions: Mapping[str, Any]) -> str:
    missed = sum(row["tumours_surely_missed"] for kind in NOISES for row in corruptions[kind])
    tumours = sum(row["tumours"] for kind in NOISES for row in corruptions[kind])
    verdict = "**not reached**" if missed else "reached"
    return f"- noise never turns a tumour into no tumour at > 0.99: {verdict}, {missed} of {tumours}"


def _corruptions(corruptions: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> Iterator[str]:
    name = None if earlier is None else f"{earlier['model']['name']} ({earlier['model']['digest']})"
    yield "| corruption | right | mean confidence | tumours missed at > 0.99 |" + (
        f" {name}: right | |" if name else ""
    )
    yield "|---|---|---|---|" + ("---|---|" if name else "")
    worse = 0
    for kind, rows in corruptions.items():
        for number, row in enumerate(rows):
            strength = f", {_STRENGTHS[number]}" if len(rows) > 1 else ""
            line = (
                f"| {kind}{strength} | {row['accuracy']:.1%} | {row['mean_confidence']:.2f} | "
                f"{row['tumours_surely_missed']} of {row['tumours']} |"
            )
            if earlier is not None:
                before = earlier["corruptions"][kind][number]["accuracy"]
                worse += row["accuracy"] < before
                line += f" {before:.1%} | {'**worse**' if row['accuracy'] < before else ''} |"
            yield line
    if name:
        yield ""
        yield f"Rows worse than with {name}: {worse} of {sum(map(len, corruptions.values()))}."
