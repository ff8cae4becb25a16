"""Write what was measured of a model's honesty as JSON and as Markdown tables, beside an earlier measurement if given."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mribatch.errors import InputError
from mribatch.models.card_measures import honesty_goals, honesty_table

__all__ = ["write"]


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
        *honesty_table(facts["sets"]),
        "",
        *honesty_goals(facts["sets"], facts["corruptions"]),
        "",
        *_corruptions(facts["corruptions"], earlier),
        "",
        f"`{facts['command']}`",
        "",
        f"{host['cpu']}, {host['cores']} cores, {host['memory_gib']} GiB, {host['os']}; {versions}; commit "
        f"{str(facts['git_commit'])[:12]}; {facts['seconds'] / 60:.0f} minutes.",
    ]
    return "\n".join(lines) + "\n"


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
