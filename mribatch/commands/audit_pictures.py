"""The scans that an audit's page shows beside its claims, decoded again at a size that can be looked at."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mribatch.cluster.decoding import decode_table
from mribatch.cluster.thumbnails import Thumbnails
from mribatch.commands.audit_findings import Findings
from mribatch.models.embedding import grey_thumbnails
from mribatch.reports.audit import AuditPage
from mribatch.reports.gallery import Shown, scan_name, shown
from mribatch.scans.limits import ImageSpec
from mribatch.schema import PLAN, Status
from mribatch.settings.audit import AuditConfig
from mribatch.statistics.near_copies import KINDS
from mribatch.statistics.thumbnails import ORIENTATIONS
from mribatch.version import __version__

__all__ = ["page_of"]

_SIDE_PX = 112  # two beside each other fit a phone
_PAIRS_OF_KIND = 6
_LEAKS = 6
_CONFLICTS = 12
_SUSPECTS = 24
_FILES = {
    "audit.json": "all figures of this page",
    "pairs.parquet": "every pair of near copies",
    "clusters.parquet": "the cluster of each scan: train, evaluate and baselines can read it",
    "suspects.parquet": "labels that are likely wrong",
}


def page_of(config: AuditConfig, decoded: Thumbnails, results: Findings) -> AuditPage:
    """Return the page of an audit with its pictures. Scans that cannot be read again are shown as thumbnails."""
    rng = np.random.default_rng(config.seed)
    pairs = {
        kind: _drawn(np.flatnonzero(results.copies.kind == number), _PAIRS_OF_KIND, rng)
        for number, kind in enumerate(KINDS)
    }
    leaking = _leaking_pairs(decoded, results, rng)
    conflicts = results.conflicts[:_CONFLICTS]
    doubtful = results.suspects.rows[:_SUSPECTS]
    chosen = np.concatenate([*pairs.values(), leaking, conflicts])
    rows = {*results.copies.first[chosen].tolist(), *results.copies.second[chosen].tolist(), *doubtful.tolist()}
    gallery = _Gallery(decoded, results, sorted(rows))
    return AuditPage(
        title=f"Audit of {config.data}",
        facts=_facts(config, decoded, results),
        numbers=results.numbers,
        pairs={kind: gallery.pairs(numbers) for kind, numbers in pairs.items()},
        leaking=gallery.pairs(leaking),
        conflicts=gallery.pairs(conflicts),
        suspects=gallery.suspects(len(doubtful)),
        means=gallery.means(),
        files=_FILES,
    )


def _drawn(numbers: NDArray[np.int64], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.permutation(numbers)[:most])


def _leaking_pairs(decoded: Thumbnails, results: Findings, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return some pairs with one scan among the training scans and one in another split."""
    training = np.array([split in ("training", None) for split in decoded.scans["split"].to_pylist()])
    across = np.flatnonzero(training[results.copies.first] != training[results.copies.second])
    return _drawn(across, _LEAKS, rng)


def _facts(config: AuditConfig, decoded: Thumbnails, results: Findings) -> dict[str, object]:
    return {
        "data": config.data,
        "scans": f"{decoded.scans.num_rows:,} read, {decoded.unreadable.num_rows:,} not",
        "command": config.command("jobs/audit.py"),
        "features for wrong labels": results.numbers["suspects"]["features"],
        "mribatch": __version__,
    }


class _Gallery:
    """Pictures of some rows, and captions that say what is known of them."""

    def __init__(self, decoded: Thumbnails, results: Findings, rows: Sequence[int]) -> None:
        self._decoded, self._results = decoded, results
        self._pictures = _decoded_again(decoded, rows)

    def pairs(self, numbers: Iterable[int]) -> list[Shown]:
        copies, entries = self._results.copies, []
        for number in numbers:
            orientation = ORIENTATIONS[copies.orientation[number]]
            how = f"{KINDS[copies.kind[number]]}{'' if orientation == 'upright' else f', {orientation}'}"
            caption = f"{how}, correlation {copies.correlation[number]:.3f}"
            entries.append(shown(caption, *(self._scan(int(side[number])) for side in (copies.first, copies.second))))
        return entries

    def suspects(self, most: int) -> list[Shown]:
        doubtful, labels = self._results.suspects, self._results.labels
        return [
            shown(
                f"labelled {self._decoded.scans['label'][int(row)].as_py()} ({own:.0%}), looks like {labels[other]} ({likely:.0%})",
                self._scan(int(row)),
            )
            for row, other, own, likely in list(zip(*doubtful, strict=True))[:most]
        ]

    def means(self) -> list[Shown]:
        labels = np.array(self._decoded.scans["label"].to_pylist())
        means = {label: self._decoded.pictures[labels == label].mean(axis=0) for label in self._results.labels}
        return [shown(label, ("mean of all scans", _enlarged(mean.astype(np.uint8)))) for label, mean in means.items()]

    def _scan(self, row: int) -> tuple[str, NDArray[np.uint8]]:
        uri, frame = (self._decoded.scans[name][row].as_py() for name in ("scan_uri", "frame"))
        return scan_name(uri, frame), self._pictures[row]


def _decoded_again(decoded: Thumbnails, rows: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
    """Return rows by number at a size that can be looked at."""
    wanted = decoded.scans.select([*PLAN.names, "frame"]).take(pa.array(rows, pa.int64()))
    read = decode_table(wanted.select(PLAN.names).combine_chunks(), spec=ImageSpec(side_px=_SIDE_PX))
    keys = zip(read["scan_uri"].to_pylist(), read["frame"].to_pylist(), read["status"], read["pixels"], strict=True)
    pictures = {
        (uri, frame): grey_thumbnails(
            np.frombuffer(pixels.as_py(), np.uint8).reshape(1, _SIDE_PX, _SIDE_PX, 3), _SIDE_PX
        )[0]
        for uri, frame, status, pixels in keys
        if status.as_py() == Status.OK
    }
    names = zip(wanted["scan_uri"].to_pylist(), wanted["frame"].to_pylist(), strict=True)
    return {
        row: pictures[name] if name in pictures else _enlarged(decoded.pictures[row])
        for row, name in zip(rows, names, strict=True)
    }


def _enlarged(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return picture.repeat(2, axis=0).repeat(2, axis=1)
