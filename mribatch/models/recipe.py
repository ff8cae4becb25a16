"""Rewrite command lines so that others can repeat them: placeholders replace local paths, and trainings form a chain."""

import shlex
from collections.abc import Mapping, Sequence

__all__ = ["chain", "meanings", "portable"]

_PLACEHOLDERS = {
    "--data": "LABELLED",
    "--groups": "CLUSTERS",
    "--output": "OUTPUT",
    "--start-from": "START",
    "--backbone-weights": "WEIGHTS",
    "--lesion-boxes": "BOXES",
    "--xception-weights": "XCEPTION_WEIGHTS",
    "--resnet50v2-weights": "RESNET50V2_WEIGHTS",
}
_LEFT_OUT = ("--storage", "--run-name", "--other-source")  # these change no weights
_NO_FILES = ("imagenet", "none")
_SPLITS = ("train", "training")

_MEANINGS = {
    "LABELLED": "the folder of the labelled scans, with the fingerprint below",
    "LABELLED.csv": "a manifest of the labelled scans (uri, label)",
    "LABELLED/Training": "the folder `Training` in it",
    "CLUSTERS": "the clusters.parquet that `mribatch audit` writes for these scans",
    "OUTPUT": "the model directory to write",
    "START": "the model directory to start from",
    "BOXES": "a CSV with the boxes of lesions (scan, x0, y0, x1, y1)",
    "WEIGHTS": "a Keras weights file of the backbone without its top",
    "XCEPTION_WEIGHTS": "a Keras weights file of Xception without its top",
    "RESNET50V2_WEIGHTS": "a Keras weights file of ResNet50V2 without its top",
}


def portable(command: str) -> str:
    """Return a command of jobs/ with placeholders for local paths and without the flags that change no results."""
    words = shlex.split(command)
    kept: list[str] = []
    position = 0
    while position < len(words):
        flag, value = words[position], words[position + 1] if position + 1 < len(words) else ""
        unused = flag in _LEFT_OUT or (flag == "--backbone-weights" and "--start-from" in words)
        if unused or flag in _PLACEHOLDERS:
            kept += [] if unused else [flag, _placeholder(flag, value)]
            position += 2
        else:
            kept.append(flag)
            position += 1
    return shlex.join(kept)


def chain(commands: Sequence[str]) -> list[str]:
    """Return training commands with matching paths: each training starts from the model of the previous one.

    An empty command stands for a training that was not recorded: it is left out, and the next one starts from START.
    """
    stages = [portable(command) for command in commands if command]
    for number in range(len(stages)):
        if number < len(stages) - 1:
            stages[number] = _with(stages[number], "--output", f"models/stage-{number + 1}")
        if number:
            stages[number] = _with(stages[number], "--start-from", f"models/stage-{number}")
    return stages


def meanings(commands: Sequence[str]) -> Mapping[str, str]:
    """Return the placeholders in these commands and what they stand for."""
    used = {word for command in commands for word in shlex.split(command)}
    return {name: meaning for name, meaning in _MEANINGS.items() if name in used}


def _placeholder(flag: str, value: str) -> str:
    name = _PLACEHOLDERS[flag]
    if value in _NO_FILES:
        return value
    if flag != "--data":
        return name
    last = value.rstrip("/").rpartition("/")[2]
    if last.lower().endswith((".csv", ".parquet")):
        return f"{name}.csv"
    return f"{name}/Training" if last.lower() in _SPLITS else name


def _with(command: str, flag: str, value: str) -> str:
    words = shlex.split(command)
    if flag in words:
        words[words.index(flag) + 1] = value
    return shlex.join(words)
