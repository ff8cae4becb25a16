"""Write what statistics of patients are worth as one self-contained HTML page, and as rows for a screen."""

from collections.abc import Mapping
from typing import Any

from mribatch.reports.rendering import proportion, render

__all__ = ["finding_lines", "patients_page", "statistic_rows"]


def patients_page(numbers: Mapping[str, Any], facts: Mapping[str, object]) -> str:
    """Return the page as HTML text, to be written as UTF-8. Every text is escaped.

    numbers: what patients.json holds. facts: further facts by name, shown as they are.
    """
    settings = ("model_digest", "healthy_class", "threshold", "kth")
    return render(
        "patients.html",
        title=f"Evaluation by patient of model {numbers['model_digest']}",
        numbers=numbers,
        findings=[
            (name, finding_lines(name, result), statistic_rows(result)) for name, result in numbers["findings"].items()
        ],
        facts=dict(facts) | {name.replace("_", " "): numbers[name] for name in settings},
    )


def finding_lines(name: str, finding: Mapping[str, Any]) -> list[str]:
    """Return how many patients have a finding, which statistic would be chosen, and what that choice is worth."""
    if "not_measured" in finding:
        return [f"{name}: not measured: {finding['not_measured']}"]
    patients, choice = finding["patients"], finding["choice"]
    lines = [
        f"{name}: {patients['ill']:,} patients with it, {patients['others']:,} without",
        f"would choose {finding['chosen']}, {_rule(finding['statistics'][finding['chosen']]['threshold'])}; "
        f"choosing on other patients: sensitivity {proportion(choice['sensitivity'])}, specificity {proportion(choice['specificity'])}",
    ]
    if len(choice["in_folds"]) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in choice["in_folds"].items())
        lines.append(f"the choice depends on the patients: of {finding['folds']} parts, {counts}")
    return lines + [f"{key}: not measured: {why}" for key, why in finding["not_measured_statistics"].items()]


def statistic_rows(finding: Mapping[str, Any]) -> list[list[str]]:
    """Return name, AUROC, threshold, sensitivity and specificity of each statistic."""
    return [
        [
            name,
            f"{row['auroc']:.3f}",
            _threshold(row["threshold"]),
            proportion(row["sensitivity"]),
            proportion(row["specificity"]),
        ]
        for name, row in finding.get("statistics", {}).items()
    ]


def _threshold(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _rule(threshold: float | None) -> str:
    return "which calls no patient ill" if threshold is None else f"ill from {threshold:.4g} on"
