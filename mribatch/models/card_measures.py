"""Write the tables of a model card on what a model knows beyond its test set, and on what its referral catches."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["honesty_goals", "honesty_section", "honesty_table", "referral_goals", "referral_section", "referral_table"]

_TESTS = (
    "held back",
    "held back, no near copies",
    "another source",
    "CLAHE",
    "lesion painted out",
    "only the lesion's box",
)
_NOISES = ("Gaussian noise", "Rician noise")
_MILD = ("15% darker", "15% brighter", "shifted by 4%")
_TURNED = ("turned by 90°", "turned by 180°")
_FEWEST = 10  # pictures of a kind from which its share is a goal of its own


class Goal(NamedTuple):
    """A figure to reach in one of the tests."""

    test: str
    figure: str
    at_least: float | None = None
    at_most: float | None = None

    def line(self, value: float | None) -> str:
        """Return the goal and whether it is reached, as a line of a list; None was not measured."""
        asked = f"at least {self.at_least:.0%}" if self.at_least is not None else f"at most {self.at_most:.0%}"
        title = f"- {self.test}, {self.figure.replace('_', ' ')} {asked}"
        if value is None:
            return f"{title}: not measured"
        is_reached = value >= self.at_least if self.at_least is not None else value <= (self.at_most or 0)
        return f"{title}: {'reached' if is_reached else '**not reached**'}, {value:.1%}"


_HONESTY = (
    Goal("held back, no near copies", "accuracy", at_least=0.98),
    Goal("another source", "balanced_accuracy", at_least=0.60),
    Goal("another source", "tumours_called_tumour", at_least=0.70),
    Goal("CLAHE", "accuracy", at_least=0.95),
    Goal("lesion painted out", "accuracy", at_most=0.50),
)
"""What a model should reach before it is believed. Right answers without the lesion come from something else."""


def honesty_goals(sets: Mapping[str, Any], corruptions: Mapping[str, Any]) -> list[str]:
    """Return the lines of a list: each goal, and whether it is reached."""
    missed = sum(row["tumours_surely_missed"] for kind in _NOISES for row in corruptions[kind])
    tumours = sum(row["tumours"] for kind in _NOISES for row in corruptions[kind])
    verdict = "**not reached**" if missed else "reached"
    return [
        *(goal.line(sets[goal.test][goal.figure] if goal.test in sets else None) for goal in _HONESTY),
        f"- noise never turns a tumour into no tumour at > 0.99: {verdict}, {missed} of {tumours}",
    ]


def honesty_table(sets: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table, a row for each test; sets: the figures of each test that was made."""
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


def honesty_section(facts: Mapping[str, Any]) -> str:
    """Return the section on what the model knows, from `honesty` in its model.json; nothing where it is missing."""
    numbers = facts.get("honesty")
    if numbers is None:
        return ""
    corruptions = numbers["corruptions"]
    none, *altered = corruptions.items()
    lines = [
        "## What it knows",
        "",
        "Held-back scans with and without near copies of training scans, another source, filtered scans, scans whose lesion is",
        "painted out (a right answer then comes from something else than the lesion), and the lesion alone:",
        "",
        *honesty_table(numbers["sets"]),
        "",
        "What a model should reach before it is believed:",
        "",
        *honesty_goals(numbers["sets"], corruptions),
        "",
        f"Right answers to {none[1][0]['scans']} held-back scans when they are altered "
        f"({none[1][0]['accuracy']:.1%} when they are not):",
        "",
        "| alteration | weak | strong |",
        "|---|---|---|",
        *(f"| {kind} | " + " | ".join(f"{row['accuracy']:.1%}" for row in rows) + " |" for kind, rows in altered),
        "",
        "```",
        numbers["command"],
        "```",
    ]
    return "\n".join(["", *lines, ""])


def referral_table(kinds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table of what is referred, a row for each kind of pictures."""
    lines = [
        "| kind | pictures | referred | right | right or referred | wrong answers referred | AUROC |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in kinds:
        caught = "–" if row["wrong_referred"] is None else f"{row['wrong_referred']:.1%} of {row['wrong']}"
        shares = " | ".join(f"{row[key]:.1%}" for key in ("referred", "right", "right_or_referred"))
        lines.append(f"| {row['kind']} | {row['pictures']} | {shares} | {caught} | {row['auroc']:.3f} |")
    return lines


def referral_goals(kinds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a list: what a referral should catch, and whether it does."""
    by_name = {row["kind"]: row for row in kinds}
    foreign = [row for row in kinds if row["kind"].startswith("foreign: ")]
    least = min((row["referred"] for row in foreign if row["pictures"] >= _FEWEST), default=None)
    disturbed = [row for row in kinds[1:] if row not in foreign and row["kind"] not in (*_MILD, "another source")]
    wrong = sum(row["wrong"] for row in disturbed)
    caught = sum((row["wrong_referred"] or 0) * row["wrong"] for row in disturbed)
    return [
        Goal("held-back scans", "referred", at_most=0.08).line(by_name["held-back scans"]["referred"]),
        Goal("foreign pictures", "referred", at_least=0.97).line(_mean(foreign, "referred")),
        Goal(f"each kind of {_FEWEST} or more foreign pictures", "referred", at_least=0.85).line(least),
        Goal("turned by 90° or 180°", "right_or_referred", at_least=0.85).line(
            _mean([by_name[name] for name in _TURNED if name in by_name], "right_or_referred")
        ),
        Goal("wrong answers to disturbed scans", "referred", at_least=0.90).line(caught / wrong if wrong else None),
        Goal("mildly darker, brighter or shifted scans", "referred", at_most=0.10).line(
            max((by_name[name]["referred"] for name in _MILD if name in by_name), default=None)
        ),
    ]


def referral_section(facts: Mapping[str, Any]) -> str:
    """Return the section on what the referral catches, from `referred` in model.json; nothing where it is missing."""
    numbers = facts.get("referred")
    if numbers is None:
        return ""
    lines = [
        "## What the referral catches",
        "",
        *referral_table(numbers["kinds"]),
        "",
        "What a referral should catch:",
        "",
        *referral_goals(numbers["kinds"]),
        "",
        "```",
        numbers["command"],
        "```",
    ]
    return "\n".join(["", *lines, ""])


def _mean(rows: Sequence[Mapping[str, Any]], share: str) -> float | None:
    """Return the share of all pictures of several kinds, None of no pictures."""
    pictures = sum(row["pictures"] for row in rows)
    return sum(row[share] * row["pictures"] for row in rows) / pictures if pictures else None
