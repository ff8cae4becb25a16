"""The scans of a training: decoded, put into groups of near copies and patients, split, and recorded in the model."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from mribatch.cluster import streaming
from mribatch.cluster.thumbnails import Thumbnails, thumbnails_of
from mribatch.commands.groups import Grouping, grouped
from mribatch.commands.screen import progress
from mribatch.errors import InputError
from mribatch.models import directory, trained_on
from mribatch.settings.train import TrainConfig
from mribatch.sources.labels import LABELLED
from mribatch.training import splits

__all__ = ["grouped_scans", "recorded", "split_of"]

log = logging.getLogger("mribatch.train")

_PAIRS_SHOWN = 3  # of a leak, in the message that refuses it


class LabelledSettings(Grouping, Protocol):
    """Settings of a command that reads labelled scans and splits them by groups."""

    @property
    def max_reject_rate(self) -> float: ...


def grouped_scans(
    config: LabelledSettings, table: pa.Table, given: Mapping[str, int] | None, kept: str | None = None
) -> pa.Table:
    """Decode the scans of a table (schema LABELLED); return the readable ones with their digests and `cluster`.

    given: from `given_clusters`. kept: where the clusters are kept for the next run, or None. Raises InputError if too many
    scans cannot be read, if a class has none that can, or if --groups lacks some.
    """
    decoded = _decoded(config, table)
    scans = decoded.scans.select([*LABELLED.names, "content_sha256", "pixels_sha256"])
    return grouped(config, scans, given, kept, lambda: decoded)


def _decoded(config: LabelledSettings, table: pa.Table) -> Thumbnails:
    log.info("reading all scans …")
    with progress("reading", table.num_rows, "scans") as bar:
        decoded = thumbnails_of(table, advance=bar.advance)
    streaming.accepted(pa.concat_tables([decoded.scans, decoded.unreadable]), config.max_reject_rate)
    lost = sorted(set(table["label"].to_pylist()) - set(decoded.scans["label"].to_pylist()))
    if lost:
        raise InputError(f"no scan of {', '.join(lost)} can be read: repair them, or leave the class out of --data")
    return decoded


def split_of(config: TrainConfig, scans: pa.Table) -> splits.TrainingSplit:
    """Return the split of the scans. Raises InputError for one that leaks, without --allow-leaks, or lacks a class."""
    conflicts = splits.conflicts(scans)
    if conflicts:
        log.warning("%d different images are in more than one class", conflicts)
    if config.paper_protocol:
        return splits.of_paper(scans, seed=config.seed)
    leaking = splits.published_leaks(scans)
    if leaking and not config.allow_leaks:
        raise InputError(_leak_message(config, scans, leaking))
    return splits.by_content(
        scans, validation_fraction=config.validation_fraction, seed=config.seed, keep_leaks=config.allow_leaks
    )


def _leak_message(config: TrainConfig, scans: pa.Table, leaking: Sequence[splits.Leak]) -> str:
    """Return how much leaks, a few pairs, and what to do. The pairs are named by their URIs only."""
    names = scans["scan_uri"].to_pylist()
    counts = " and ".join(f"{len(leak.pairs):,} of {leak.scans:,} {leak.side} scans" for leak in leaking)
    pairs = [pair for leak in leaking for pair in leak.pairs][:_PAIRS_SHOWN]
    examples = "; ".join(f"{names[row]} and {names[other]}" for row, other in pairs)
    return (
        f"the splits of {config.data} leak: {counts} are near copies of scans of an earlier split, or of the same patients, "
        f"such as {examples}. Name the training scans alone in --data, remove the leaking scans, or pass --allow-leaks to "
        "train on the splits as published"
    )


def recorded(config: TrainConfig, scans: pa.Table, split: splits.TrainingSplit) -> dict[str, Any]:
    """Write which scans the model was trained on, with those of the model that it started from; return what model.json says.

    complete: false if the model that it started from has no such record.
    """
    contents = scans["content_sha256"].to_pylist()
    sides = {side: [contents[row] for row in rows] for side, rows in split.sides().items() if side != "test"}
    earlier = None if config.start_from is None else trained_on.read(directory.open_model(config.start_from))
    entry = trained_on.write(config.output, sides | {"earlier": sorted(earlier or ())})
    return entry | {"complete": config.start_from is None or earlier is not None}
