"""Turn rounds into medians and ratios, and write them as a JSON file and a Markdown table."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from material import shown
from measures import Round

from mribatch.settings.score import ScoreConfig
from mribatch.settings.train import TrainConfig

__all__ = ["commands", "settings", "summary", "write"]


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings, without the folders of this machine."""
    return {name: shown(value) if isinstance(value, str) else value for name, value in config.items()}


def commands(scoring: ScoreConfig, training: TrainConfig, bare_seconds: float) -> dict[str, str]:
    """Return the commands that were run, with placeholders for the temporary folders."""
    seconds = f" --seconds {bare_seconds:g}"
    scoring = dataclasses.replace(scoring, model=shown(scoring.model))
    return {
        "function": dataclasses.replace(scoring, output="JSON").command("benchmarks/bare_score.py") + seconds,
        "scoring": scoring.command("jobs/score.py"),
        "step": dataclasses.replace(training, output="JSON").command("benchmarks/bare_train.py") + seconds,
        "training": training.command("jobs/train.py"),
    }


def summary(
    bare: Sequence[Round], pipeline: Sequence[Round], step: Sequence[Round], loop: Sequence[Round]
) -> dict[str, Any]:
    """Return medians with their range, ratios, and the rounds that they were computed from."""
    steady, command = _column(pipeline, "scans_per_s"), _column(pipeline, "command_scans_per_s")
    function, bare_step = _column(bare, "scans_per_s"), _column(step, "scans_per_s")
    epochs = [rate for trained in loop for rate in trained["epoch_scans_per_s"][1:]]
    return {
        "scans_per_s": {
            "function": _spread(function),
            "pipeline_steady": _spread(steady),
            "whole_command": _spread(command),
            "training_step": _spread(bare_step),
            "training_loop": _spread(epochs),
        },
        "ratios": {
            "pipeline_steady_to_function": _spread(_ratios(steady, function)),
            "whole_command_to_function": _spread(_ratios(command, function)),
            "training_loop_to_step": _spread(_ratios(_column(loop, "scans_per_s"), bare_step)),
        },
        "scoring_start_s": _spread(_column(pipeline, "first_row_s")),
        "scoring_end_s": _spread([r["wall_s"] - r["last_row_s"] for r in pipeline]),
        "rounds": {"function": list(bare), "scoring": list(pipeline), "step": list(step), "training": list(loop)},
    }


def write(output: str, result: dict[str, Any]) -> str:
    """Write both files and return the Markdown."""
    text = _markdown(result, Path(output).name)
    Path(f"{output}.json").write_text(json.dumps(result, indent=1) + "\n")
    Path(f"{output}.md").write_text(text)
    return text


def _column(rounds: Sequence[Round], name: str) -> list[float]:
    return [float(measured[name]) for measured in rounds]


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": round(median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def _ratios(job: Sequence[float], bare: Sequence[float]) -> list[float]:
    """Return the ratio of each round of a job to the mean of the bare rounds just before and just after it."""
    return [rate / ((before + after) / 2) for rate, before, after in zip(job, bare, bare[1:], strict=False)]


_ROWS = (
    ("scoring: engine alone", "function", None),
    ("scoring: pipeline, steady", "pipeline_steady", "pipeline_steady_to_function"),
    ("scoring: whole command, with start-up", "whole_command", "whole_command_to_function"),
    ("training: step alone", "training_step", None),
    ("training: loop, after its first epoch", "training_loop", "training_loop_to_step"),
)


def _markdown(result: dict[str, Any], name: str) -> str:
    rates, ratios = result["scans_per_s"], result["ratios"]
    lines = ["# Benchmark", "", "| | scans/s, median (min–max) | share of the bare rate |", "|---|---|---|"]
    for title, rate, ratio in _ROWS:
        lines.append(f"| {title} | {_range(rates[rate], 1)} | {_range(ratios[ratio], 2) if ratio else '1'} |")
    start, end = _range(result["scoring_start_s"], 0), _range(result["scoring_end_s"], 0)
    lines += ["", f"Start of the scoring command to its first scored batch: {start} s; last batch to its end: {end} s."]
    return "\n".join([*lines, "", _method(result), "", _place(result, name), ""])


def _method(result: dict[str, Any]) -> str:
    settings, scans, rounds = result["settings"], result["scans"], result["rounds"]
    return (
        f"Method: one process at a time, alternating (function, scoring, function, …; step, training, step, …), "
        f"{len(rounds['scoring'])} × `jobs/score.py` with {settings['model']} on {scans['scored']}, "
        f"{settings['batch_size']} per batch, and {len(rounds['training'])} × `jobs/train.py` ({settings['backbone']} from "
        f"random weights, {settings['image_side']} px, {settings['train_batch_size']} per step, {settings['epochs']} epochs) "
        f"on {scans['trained_on']}. Bare: the same computation on preloaded batches for {settings['bare_seconds']:g} s, with "
        "the default threads of the engine and memory of glibc (a worker of a job gives each core its own scans to score, and "
        "keeps freed memory while it trains). Steady: from the end of the first batch to the end of the last, by "
        "`scored_at`. Loop: `train_scans_per_s` of `history.parquet`, from the start of an epoch; its first batches are "
        "fetched before, while the last checkpoint is written. Each ratio is to the mean of the bare rounds before and after."
    )


def _place(result: dict[str, Any], name: str) -> str:
    machine, versions = result["machine"], ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    commit = (result["git_commit"] or "unknown")[:12] + (" with changes" if result["uncommitted_changes"] else "")
    return (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {result['rounds']['function'][0]['gpus']} GPUs, "
        f"{machine['memory_gib']:g} GiB, {machine['os']}, load {result['load_before']:g} before; {versions}; "
        f"commit {commit}; {result['started_at'][:10]}, {result['seconds'] / 60:.0f} minutes. "
        f"All rounds and commands: `{name}.json`."
    )


def _range(spread: dict[str, float], digits: int) -> str:
    middle, low, high = (f"{spread[key]:.{digits}f}" for key in ("median", "min", "max"))
    return middle if low == high else f"{middle} ({low}–{high})"
