"""What an audit concludes from thumbnails and labels: numbers for audit.json, and tables."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mribatch.cluster.thumbnails import Thumbnails
from mribatch.commands.rows import class_numbers
from mribatch.models.format import Model
from mribatch.statistics import label_errors, near_copies, shortcuts
from mribatch.statistics.label_errors import Suspects
from mribatch.statistics.leakage import Leak, leaks, two_labels
from mribatch.statistics.near_copies import KINDS, Copies
from mribatch.statistics.thumbnails import ORIENTATIONS
from mribatch.stores import uris
from mribatch.version import __version__

__all__ = ["Findings", "findings"]

log = logging.getLogger("mribatch.audit")

_NEIGHBOUR = KINDS.index("neighbour")


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """What an audit concludes. Row numbers are those of `Thumbnails`.

    numbers: for audit.json. tables: by file name. conflicts: numbers of pairs with two labels.
    """

    numbers: dict[str, Any]
    tables: Mapping[str, pa.Table]
    labels: tuple[str, ...]
    copies: Copies
    leaks: list[Leak]
    conflicts: NDArray[np.int64]
    suspects: Suspects


def findings(decoded: Thumbnails, model: Model | None, seed: int) -> Findings:
    """Compare all scans with one another and with their labels."""
    scans = decoded.scans
    labels = tuple(sorted(set(scans["label"].to_pylist())))
    truth = class_numbers(scans["label"], labels)
    contents = scans["pixels_sha256"].to_pylist()
    log.info("looking for near copies")
    copies = near_copies.near_copies(decoded.pictures, contents, seed=seed)
    clusters = near_copies.clusters(len(contents), *_links(scans, copies))
    log.info("looking for wrong labels and shortcuts")
    probabilities = label_errors.out_of_fold(_features(decoded, seed), truth, len(labels), clusters, seed)
    doubtful = label_errors.suspects(probabilities, truth, clusters)
    leaking = leaks(scans["split"].to_pylist(), contents, clusters, copies)
    conflicts = two_labels(truth, copies)
    predicted = probabilities.argmax(axis=1)
    numbers = {
        "version": __version__,
        "scans": len(contents),
        "unreadable": dict(Counter(decoded.unreadable["reason"].to_pylist())),
        "labels": list(labels),
        "distinct_pictures": int(clusters.max()) + 1,
        "largest_cluster": int(np.bincount(clusters).max()),
        "byte_copies": len(contents) - len(set(scans["content_sha256"].to_pylist())),
        "pairs": {kind: int((copies.kind == number).sum()) for number, kind in enumerate(KINDS)},
        "thresholds": {"near": near_copies.NEAR, "same": near_copies.SAME, "same_aligned": near_copies.SAME_ALIGNED},
        "leaks": [{name: value for name, value in asdict(leak).items() if name != "rows"} for leak in leaking],
        "shared_patients": _shared_patients(scans),
        "two_labels": _conflict_counts(conflicts, copies, clusters),
        "suspects": {
            "count": len(doubtful.rows),
            "features": "thumbnails" if model is None else f"features of model {model.digest}",
            "accuracy": float((predicted == truth).mean()),
        },
        "probes": _probes(decoded, truth, labels, clusters, predicted, seed),
        "classes": {label: _class_facts(decoded, truth == k, clusters) for k, label in enumerate(labels)},
    }
    return Findings(
        numbers=numbers,
        tables={
            "pairs": _pair_table(scans, copies),
            "clusters": scans.select(["scan_uri", "frame", "label", "split", "content_sha256"]).append_column(
                "cluster", pa.array(clusters)
            ),
            "suspects": _suspect_table(scans, labels, doubtful),
        },
        labels=labels,
        copies=copies,
        leaks=leaking,
        conflicts=conflicts,
        suspects=doubtful,
    )


def _links(scans: pa.Table, copies: Copies) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of near copies, and those of frames that follow one another in a file."""
    names = scans["scan_uri"].to_numpy(zero_copy_only=False)
    later = np.flatnonzero(names[1:] == names[:-1]) + 1
    return np.r_[copies.first, later - 1], np.r_[copies.second, later]


def _features(decoded: Thumbnails, seed: int) -> NDArray[np.float32]:
    if decoded.features is not None:
        return label_errors.components(decoded.features, seed)
    return label_errors.thumbnail_features(decoded.pictures, seed)


def _shared_patients(scans: pa.Table) -> int:
    """Return how many patients have scans in training and in another split."""
    sides: dict[str, set[str]] = {}
    for patient, split in zip(scans["patient_id"].to_pylist(), scans["split"].to_pylist(), strict=True):
        if patient is not None:
            sides.setdefault(patient, set()).add(split or "training")
    return sum(len(each) > 1 and "training" in each for each in sides.values())


def _conflict_counts(conflicts: NDArray[np.int64], copies: Copies, clusters: NDArray[np.int64]) -> dict[str, int]:
    same = conflicts[copies.kind[conflicts] != _NEIGHBOUR]
    return {
        "pictures": len(set(clusters[copies.first[same]].tolist())),
        "pairs": len(same),
        "neighbours": len(conflicts) - len(same),
    }


def _probes(
    decoded: Thumbnails,
    truth: NDArray[np.int64],
    labels: tuple[str, ...],
    clusters: NDArray[np.int64],
    predicted: NDArray[np.int64],
    seed: int,
) -> list[dict[str, Any]]:
    views: dict[str, NDArray[Any]] = {
        "thumbnail of 16 × 16": shortcuts.small_thumbnails(decoded.pictures),
        "border, 1/32 of the side": shortcuts.border_ring(decoded.pictures),
        "brightness, whole picture": shortcuts.intensities(decoded.pictures),
        "size, file size and format": _file_facts(decoded.scans),
    }
    probes = [shortcuts.probe(name, view, truth, labels, clusters, seed) for name, view in views.items()]
    name = f"{'thumbnail' if decoded.features is None else 'features of the model'}, not linear"
    probes.append(shortcuts.scored(name, predicted, truth, labels, clusters))
    return [
        {**asdict(probe), "tells": probe.tells, "recall_in_order": [probe.recall.get(label) for label in labels]}
        for probe in probes
    ]


def _bytes(scans: pa.Table) -> NDArray[np.float64]:
    keys = zip(scans["scan_uri"].to_pylist(), scans["scan_version"].to_pylist(), strict=True)
    return np.array([uris.size(uri, version) for uri, version in keys], np.float64)


def _file_facts(scans: pa.Table) -> NDArray[np.float64]:
    """Return logarithms of width, height, aspect, bytes and bytes a pixel, and which format it is."""
    width, height = (scans[name].to_numpy().astype(np.float64) for name in ("width_px", "height_px"))
    size = np.maximum(_bytes(scans), 1)
    formats = np.array(scans["format"].to_pylist())
    which = [formats == name for name in sorted(set(formats.tolist()))]
    return np.column_stack([*np.log([width, height, width / height, size, size / (width * height)]), *which])


def _class_facts(decoded: Thumbnails, mask: NDArray[np.bool_], clusters: NDArray[np.int64]) -> dict[str, Any]:
    scans, pictures = decoded.scans.filter(pa.array(mask)), decoded.pictures[mask]
    sizes = Counter(zip(scans["width_px"].to_pylist(), scans["height_px"].to_pylist(), strict=True))
    (width, height), _ = sizes.most_common(1)[0]
    return {
        "scans": scans.num_rows,
        "distinct_pictures": len(set(clusters[mask].tolist())),
        "sizes": len(sizes),
        "most_frequent_size": f"{width} × {height}",
        "formats": dict(Counter(scans["format"].to_pylist())),
        "mean_brightness": float(pictures.mean()),
        "dark_share": float((pictures <= shortcuts.DARK).mean()),
        "border_brightness": float(shortcuts.border_ring(pictures).mean()),
        "median_bytes": float(np.median(_bytes(scans))),
    }


def _pair_table(scans: pa.Table, copies: Copies) -> pa.Table:
    columns: dict[str, Any] = {}
    for name, prefix in (("first", ""), ("second", "other_")):
        rows = pa.array(getattr(copies, name))
        for column in ("scan_uri", "frame", "label", "split"):
            columns[prefix + column] = scans[column].take(rows)
    return pa.table(
        {
            **columns,
            "kind": pa.array(np.array(KINDS)[copies.kind]),
            "orientation": pa.array(np.array(ORIENTATIONS)[copies.orientation]),
            "correlation": pa.array(copies.correlation),
        }
    )


def _suspect_table(scans: pa.Table, labels: tuple[str, ...], doubtful: Suspects) -> pa.Table:
    rows = scans.select(["scan_uri", "frame", "label", "split"]).take(pa.array(doubtful.rows))
    for name, values in (
        ("suggested_label", np.array(labels, object)[doubtful.suggested]),
        ("p_label", doubtful.own),
        ("p_suggested_label", doubtful.other),
    ):
        rows = rows.append_column(name, pa.array(values))
    return rows
