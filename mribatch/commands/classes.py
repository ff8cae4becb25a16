"""Show the classes of labelled scans with their counts before work begins, and warn of odd ones."""

import logging
import re
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from mribatch.sources.labels import labelled

__all__ = ["list_labelled"]

log = logging.getLogger("mribatch.classes")

_SPLITS = ("training", "validation", "test", None)
_FEW_SCANS = 5  # of which a split by content may leave a side without any
_FEW_SHARE = 0.01  # of the largest class
_CLASSES_SHOWN = 40  # lines on a screen
_NAMES_SHOWN = 5
_ODD = re.compile(
    "answers|archive|backups?|bak|checkpoints|evaluation|figures|logs?|misc|models?|new folder|old|out|outputs?|predictions|"
    "promotion|results?|temp|tmp|trash|unsorted|untitled folder|work|[_@#$].*",
    re.DOTALL,
)


def list_labelled(
    uri: str, *, classes: Sequence[str] = (), exclude: Sequence[str] = (), outputs: Sequence[str] = ()
) -> pa.Table:
    """Read labelled scans, log their classes with the counts of each split, and warn of odd ones. Raises as `labelled`."""
    log.info("listing %s …", uri)
    table = labelled(uri, classes=classes, exclude=exclude, outputs=outputs)
    counts = Counter(zip(table["label"].to_pylist(), table["split"].to_pylist(), strict=True))
    log.info("%s", "\n".join(_lines(uri, counts)))
    for warning in _warnings(counts):
        log.warning("%s", warning)
    return table


def _lines(uri: str, counts: Counter[tuple[str, str | None]]) -> list[str]:
    labels = sorted({label for label, _ in counts})
    splits = [split for split in _SPLITS if any(counts[label, split] for label in labels)]
    rows = [(label, [counts[label, split] for split in splits]) for label in labels[:_CLASSES_SHOWN]]
    width = max(len("class"), *(len(label) for label, _ in rows))
    heads = [split or ("scans" if len(splits) == 1 else "no split") for split in splits]
    lines = [f"{counts.total():,} labelled scans of {len(labels)} classes in {uri}"]
    lines += ["  ".join([f"  {'class':<{width}}", *(f"{head:>10}" for head in heads)])]
    lines += ["  ".join([f"  {label:<{width}}", *(f"{number:>10,}" for number in numbers)]) for label, numbers in rows]
    return lines + [f"  … and {len(labels) - _CLASSES_SHOWN} more classes"] * (len(labels) > _CLASSES_SHOWN)


def _warnings(counts: Counter[tuple[str, str | None]]) -> list[str]:
    """Return a line for everything that may be intended, but usually is a mistake."""
    totals: Counter[str] = Counter()
    for (label, _), number in counts.items():
        totals[label] += number
    largest = max(totals.values())
    small = [label for label in sorted(totals) if totals[label] < max(_FEW_SCANS, _FEW_SHARE * largest)]
    odd = [label for label in sorted(totals) if _ODD.fullmatch(label.casefold())]
    warnings = []
    if small:
        named = ", ".join(f"{label} ({totals[label]:,})" for label in small[:_NAMES_SHOWN])
        more = f" and {len(small) - _NAMES_SHOWN} more" if len(small) > _NAMES_SHOWN else ""
        few = f"very few scans of {named}{more}, but {largest:,} of the largest class"
        warnings.append(f"warning: {few}: are these classes?")
    if odd:
        names = ", ".join(odd[:_NAMES_SHOWN])
        warnings.append(f"warning: is {names} a class? If not, move the folder out, or use a manifest")
    return warnings
