"""Rounds → medians and ratios → a JSON file and a Markdown table. No measuring."""

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
    """All settings, without this machine's folders."""
    return {name: shown(value) if isinstance(value, str) else value
            for name, value in config.items()}  # fmt: skip


def commands(scoring: ScoreConfig, training: TrainConfig, bare_seconds: float) -> dict[str, str]:
    """What was run, with names in place of the temporary folders."""
    told, seconds = dataclasses.replace(scoring, model=shown(scoring.model)), f" --seconds {bare_seconds:g}"
    return {
        "function": dataclasses.replace(told, output="JSON").command("benchmarks/bare_score.py") + seconds,
        "scoring": told.command("jobs/score.py"),
        "step": dataclasses.replace(training, output="JSON").command("benchmarks/bare_train.py") + seconds,
        "training": training.command("jobs/train.py"),
    }


def summary(
    bare: Sequence[Round], pipeline: Sequence[Round], step: Sequence[Round], loop: Sequence[Round]
) -> dict[str, Any]:
    """Medians with their range, ratios, and the rounds they come from."""
    steady, whole = _column(pipeline, "scans_per_s"), _column(pipeline, "command_scans_per_s")
    alone, learning = _column(bare, "scans_per_s"), _column(step, "scans_per_s")
    epochs = [rate for trained in loop for rate in trained["epoch_scans_per_s"][1:]]
    return {
        "scans_per_s": {
            "function": _spread(alone),
            "pipeline_steady": _spread(steady),
            "whole_command": _spread(whole),
            "training_step": _spread(learning),
            "training_loop": _spread(epochs),
        },
        "ratios": {
            "pipeline_steady_to_function": _spread(_beside(steady, alone)),
            "whole_command_to_function": _spread(_beside(whole, alone)),
            "training_loop_to_step": _spread(_beside(_column(loop, "scans_per_s"), learning)),
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


def _beside(whole: Sequence[float], alone: Sequence[float]) -> list[float]:
    """Each round of a job over the mean of the bare rounds just before and just after it."""
    return [rate / ((before + after) / 2) for rate, before, after in zip(whole, alone, alone[1:], strict=False)]


_ROWS = (
    ("scoring: frozen function alone", "function", None),
    ("scoring: pipeline, steady", "pipeline_steady", "pipeline_steady_to_function"),
    ("scoring: whole command, start included", "whole_command", "whole_command_to_function"),
    ("training: step alone", "training_step", None),
    ("training: loop, after its first epoch", "training_loop", "training_loop_to_step"),
)


def _markdown(result: dict[str, Any], name: str) -> str:
    rates, ratios = result["scans_per_s"], result["ratios"]
    table = [f"| {title} | {_told(rates[rate], 1)} | {_told(ratios[ratio], 2) if ratio else '1'} |"
             for title, rate, ratio in _ROWS]  # fmt: skip
    return "\n".join(
        [
            "# Benchmark",
            "",
            "| | scans/s, median (min–max) | of the bare rate |",
            "|---|---|---|",
            *table,
            "",
            f"Start of the scoring command until its first scored batch: {_told(result['scoring_start_s'], 0)} s; "
            f"its end after the last one: {_told(result['scoring_end_s'], 0)} s.",
            "",
            _how(result),
            "",
            _where(result, name),
            "",
        ]
    )


def _how(result: dict[str, Any]) -> str:
    told, scans, rounds = result["settings"], result["scans"], result["rounds"]
    return (
        f"How: one process at a time, in turns (function, scoring, function, …; step, training, step, …), "
        f"{len(rounds['scoring'])} × `jobs/score.py` with {told['model']} over {scans['scored']}, "
        f"{told['batch_size']} per batch, and {len(rounds['training'])} × `jobs/train.py` ({told['backbone']} from "
        f"random weights, {told['image_side']} px, {told['train_batch_size']} per step, {told['epochs']} epochs) on "
        f"{scans['trained_on']}. Bare: the same computation on preloaded batches for {told['bare_seconds']:g} s, "
        "with TensorFlow's threads and glibc's memory as they are by themselves (a job's worker gives each core its own scans to "
        "score, and keeps freed memory while it trains). "
        "Steady: from the end of the first batch to the end of the last, by `scored_at`. Loop: `train_scans_per_s` of "
        "`history.parquet`, from an epoch's beginning; its first batches are fetched before that, while the last checkpoint is written. "
        "Each ratio is taken to the mean of the bare rounds before and after."
    )


def _where(result: dict[str, Any], name: str) -> str:
    machine, versions = result["machine"], ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    commit = (result["git_commit"] or "unknown")[:12] + (" with changes" if result["uncommitted_changes"] else "")
    return (
        f"Where: {machine['cpu']}, {machine['cores']} cores, {result['rounds']['function'][0]['gpus']} GPUs, "
        f"{machine['memory_gib']:g} GiB, {machine['os']}, load {result['load_before']:g} before; {versions}; "
        f"commit {commit}; {result['started_at'][:10]}, {result['seconds'] / 60:.0f} minutes. "
        f"All rounds and commands: `{name}.json`."
    )


def _told(spread: dict[str, float], digits: int) -> str:
    middle, low, high = (f"{spread[key]:.{digits}f}" for key in ("median", "min", "max"))
    return middle if low == high else f"{middle} ({low}–{high})"
