"""Keep what a benchmark measured of a model in its model.json and its card, with a command that names no folder of this machine."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mribatch.models import directory
from mribatch.models.card import model_card
from mribatch.models.format import check_original

__all__ = ["portable", "record"]


def record(uri: str, **measured: Any) -> None:
    """Write figures into model.json and the card, by their keys there. The digest does not change.

    Raises ModelError for a model that `mribatch export` wrote: its card has no place for them.
    """
    model = directory.load_model(uri)
    check_original(model, "measure")
    facts = model.facts | measured
    directory.redescribe(model, facts, model_card(facts))


def portable(script: str, words: Sequence[str]) -> str:
    """Return the command of a script below benchmarks/, with the last part of each absolute path."""
    named = [Path(word).name if word.startswith("/") else word for word in words]
    return shlex.join(["python", f"benchmarks/{script}.py", *named])
