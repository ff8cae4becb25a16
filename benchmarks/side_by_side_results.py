"""Turn the runs of a comparison into medians and ratios, and write them as a JSON file and Markdown tables."""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from contenders import HELP, MRIBATCH, NOTHING, RERUN
from results import settings

__all__ = ["settings", "write"]


def write(output: str, result: dict[str, Any]) -> str:
    """Write both files and return the Markdown. The medians of each size are added to the result."""
    for size in result["sizes"]:
        size["median"] = medians(size["runs"])
    text = _markdown(result, Path(output).name)
    Path(f"{output}.json").write_text(json.dumps(result, indent=1) + "\n")
    Path(f"{output}.md").write_text(text)
    return text


def medians(runs: Iterable[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the medians of each command's runs, and its times as multiples of mribatch's."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for ran in runs:
        by_name.setdefault(ran["name"], []).append(ran)
    keys = ("wall_s", "cpu_s", "first_row_s")
    middle = {
        name: {key: round(median(ran[key] for ran in rans), 2) for key in keys if key in rans[0]}
        for name, rans in by_name.items()
    }
    ours = middle[MRIBATCH]
    for times in middle.values():
        times |= {f"{key[:-2]}_ratio": round(times[key] / ours[key], 2) for key in keys if key in times}
    return middle


def _markdown(result: dict[str, Any], name: str) -> str:
    lines = ["# mribatch and its peers, side by side", ""]
    for size in result["sizes"]:
        lines += [f"## {size['count']} scans", "", *_table(size), "", *_facts(size), ""]
    lines += ["## What the peers read", "", *_peers(result), ""]
    return "\n".join([*lines, _method(result), "", _place(result, name), ""])


def _table(size: dict[str, Any]) -> Iterable[str]:
    yield "| | CPU-seconds | × mribatch | seconds | × mribatch | to the first prediction, s |"
    yield "|---|---|---|---|---|---|"
    for name, times in size["median"].items():
        if name not in (RERUN, HELP):
            first = f"{times['first_row_s']:.1f}"
            yield (
                f"| {name} | {times['cpu_s']:.1f} | {times['cpu_ratio']:.2f} | {times['wall_s']:.1f} | "
                f"{times['wall_ratio']:.2f} | {first} |"
            )


def _facts(size: dict[str, Any]) -> Iterable[str]:
    times = size["median"]
    if NOTHING.name in times:
        later = times[MRIBATCH]["first_row_s"] - times[NOTHING.name]["first_row_s"]
        yield f"First prediction: {later:+.1f} s against the job of Ray Data that computes nothing.\n"
    yield (
        f"Nothing to do: {times[RERUN]['cpu_s']:.2f} CPU-seconds, {times[RERUN]['wall_s']:.1f} s. `--help`: {times[HELP]['cpu_s']:.2f} "
        f"CPU-seconds, {times[HELP]['wall_s']:.1f} s."
    )
    for name, reason in size["failed"].items():
        yield f"\n{name} failed: {reason}"
    loads = [ran["load_before"] for ran in size["runs"]]
    yield f"\n{size['scans']}; load before each run: {min(loads)} to {max(loads)}."


def _peers(result: dict[str, Any]) -> Iterable[str]:
    yield "| | versions | pixels | probabilities, largest difference | other class |"
    yield "|---|---|---|---|---|"
    largest = {name: size for size in result["sizes"] for name in size["agreement"]}  # that each was run on
    for name, size in largest.items():
        facts, agrees = result["peers"][name], size["agreement"][name]
        pixels = f"differ by {facts['mean_grey_levels']:.2f} grey levels on average"
        if facts["identical"] == facts["scans"]:
            pixels = "identical"
        versions = ", ".join(f"{library} {version}" for library, version in facts["versions"].items())
        yield (
            f"| {name} | {versions} | {pixels} | {agrees['largest_difference']:.5f} | {agrees['changed_classes']} of "
            f"{size['count']} |"
        )
    for name, library in result["not_installed"].items():
        yield f"\n{name} was left out: {library} is not installed. See benchmarks/peers/requirements.txt."


def _method(result: dict[str, Any]) -> str:
    return (
        f"Method: one command at a time; rounds: {result['settings']['rounds']}, every second one in the opposite order; "
        "medians. CPU-seconds are those of all processes of a command, Ray's included. First prediction: from the start of the "
        "command to the moment at which its first batch is computed. Network and weights are those of the model directory; peers do not calibrate, so their probabilities are calibrated for the comparison. "
        "Pillow, TensorFlow and Daft decode and resize in different ways, so pixels and probabilities differ."
    )


def _place(result: dict[str, Any], name: str) -> str:
    machine, versions = result["machine"], ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    commit = (result["git_commit"] or "unknown")[:12] + (" with changes" if result["uncommitted_changes"] else "")
    return (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB, {machine['os']}; {versions}; "
        f"commit {commit}; {result['started_at'][:10]}. All runs: `{name}.json`."
    )
