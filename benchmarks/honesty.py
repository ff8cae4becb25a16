"""Measure what a model knows beyond its own test set: near copies left out, another source, altered and painted scans.

In the repository's root:  python benchmarks/honesty.py --model models/brain-mri-v2 --data LABELLED --training TRAINING
                               --external LABELLED_ELSEWHERE --boxes BOXES.csv --boxes-root ROOT --output out/honesty

No Ray: one process scores all scans in batches. Writes OUTPUT.json (all numbers, machine, versions, command) and OUTPUT.md.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import honesty_results
import machine
import numpy as np
import recorded
import tyro
from corruptions import CORRUPTIONS, Change, filtered, only_box, painted_out
from honesty_scans import Judge, Scans, apart, listed, sample

from mribatch.errors import InputError, MribatchError
from mribatch.sources.lesions import lesion_boxes
from mribatch.stores import uris

log = logging.getLogger("honesty")


@dataclass(frozen=True, kw_only=True)
class HonestyConfig:
    """What to measure. Tests whose data are not given are left out, and the table says so."""

    model: str
    """Model directory."""

    data: str
    """Held-back labelled scans of the training scans' source: class folders or a manifest."""

    training: str | None = None
    """The scans the model was trained on, to tell near copies of them from other scans of --data."""

    external: str | None = None
    """Labelled scans of another source: class folders or a manifest."""

    boxes: str | None = None
    """CSV with the columns scan, x0, y0, x1, y1: the tumour's box in scans of --data, in shares of width and height."""

    boxes_root: str = "."
    """Folder that the column scan of --boxes starts from."""

    no_tumour: str = "notumor"
    """The class of scans without a tumour."""

    altered_scans: int = 192
    """Scans for CLAHE and for the table of corruptions, the same number of each class as far as there are."""

    lesions: int = 150
    """Scans for the tests with boxes."""

    side: int = 224
    """Side in pixels at which scans are altered, before they are resized for the model."""

    batch_size: int = 32
    """Scans per forward pass."""

    seed: int = 0
    """Decides which scans are drawn and how they are altered."""

    beside: str | None = None
    """JSON of an earlier measurement, such as that of the model in use, to compare with."""

    output: str = "out/honesty"
    """Path of the results without extension."""

    record: bool = False
    """Write the figures into model.json and the card of the model."""


def main(argv: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        print(honesty(tyro.cli(HonestyConfig, args=words, description=__doc__), words))
    except MribatchError as err:
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    return 0


def honesty(config: HonestyConfig, words: Sequence[str]) -> str:
    """Measure everything, write both files and return the Markdown. words: the command line, for the record.

    Raises ModelError, InputError and StorageError for a model, scans or files that are missing or do not fit.
    """
    start, earlier = time.monotonic(), None if config.beside is None else json.loads(uris.read(config.beside))
    judge = Judge(config.model, config.side, config.batch_size, config.no_tumour, config.seed)
    data = listed(config.data, judge.labels)
    sets = dict(_sets(config, judge, data))
    drawn = sample(data, config.altered_scans, config.seed)
    sets["CLAHE"] = judge.measured("CLAHE", drawn, filtered)
    sets |= _lesions(config, judge, data)
    facts = {
        "model": {"name": Path(config.model).name, "digest": judge.digest, "image_side_px": judge.side_px},
        "command": recorded.portable("honesty", words),
        **machine.facts(),
        "sets": sets,
        "corruptions": _corrupted(judge, drawn),
    }
    facts["seconds"] = round(time.monotonic() - start)
    if config.record:
        recorded.record(config.model, honesty={name: facts[name] for name in ("command", "sets", "corruptions")})
    return honesty_results.write(config.output, facts, earlier)


def _sets(config: HonestyConfig, judge: Judge, data: Scans) -> list[tuple[str, dict[str, Any]]]:
    """Measure the scans as they are."""
    results = [("held back", judge.measured("held back", data))]
    if config.training is not None:
        log.info("looking for near copies of training scans …")
        distinct = apart(data, config.training, config.seed)
        results.append(("held back, no near copies", judge.measured("held back, no near copies", distinct)))
    if config.external is not None:
        results.append(("another source", judge.measured("another source", listed(config.external, judge.labels))))
    return results


def _lesions(config: HonestyConfig, judge: Judge, data: Scans) -> dict[str, dict[str, Any]]:
    """Measure scans without their lesion, and lesions without their scan."""
    if config.boxes is None:
        return {}
    boxes = lesion_boxes(config.boxes, config.boxes_root)
    boxed = data.where([uri in boxes for uri in data.uris])
    if not len(boxed.uris):
        raise InputError(
            f"none of the scans of --data is in {config.boxes}: check --boxes-root, got {config.boxes_root}"
        )
    drawn = sample(boxed, config.lesions, config.seed)

    def alter(how: Callable[[Any, Any], Any]) -> list[Change]:
        def with_box(box: Any) -> Change:
            return lambda grey, _: how(grey, box)

        return [with_box(boxes[uri]) for uri in drawn.uris]

    return {
        name: judge.measured(name, drawn, alter(how))
        for name, how in (("lesion painted out", painted_out), ("only the lesion's box", only_box))
    }


def _corrupted(judge: Judge, drawn: Scans) -> dict[str, list[dict[str, Any]]]:
    """Measure each kind at its two strengths, after the scans as they are."""
    results = {"none": [judge.measured("no corruption", drawn, lambda grey, _: grey)]}
    for kind, strengths in CORRUPTIONS.items():
        results[kind] = [judge.measured(f"{kind} {n}", drawn, change) for n, change in enumerate(strengths, 1)]
    return results


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    sys.exit(main())
