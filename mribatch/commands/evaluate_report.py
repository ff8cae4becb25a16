"""Write an evaluation's files: metrics.json, classification_report.txt, the figures and report.html."""

import json
import logging
from collections.abc import Mapping
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from mribatch import schema
from mribatch.causes import cause
from mribatch.commands.evaluated import GALLERY_SCANS
from mribatch.commands.overlays import MapSettings, explained_apart
from mribatch.commands.pictures import small_pictures
from mribatch.errors import RunFailed
from mribatch.models.format import Model
from mribatch.models.pointing import pointing_of
from mribatch.reports import figures
from mribatch.reports.evaluation import Evaluation, Mistake, apart_line, evaluation_page
from mribatch.reports.explanation import pictured
from mribatch.reports.gallery import Shown
from mribatch.scans.decode import frames
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.settings.explain import METHODS
from mribatch.statistics import metrics
from mribatch.statistics.metrics import Scores
from mribatch.statistics.pointing import Verdict, verdict_of
from mribatch.stores import uris

__all__ = ["copies_note", "write"]

log = logging.getLogger("mribatch.evaluate")

_MAPS = 8  # of mistakes, on the page
_SCANS = "scans"  # the figure with pictures of scans
_PICTURES = 60  # of mistakes, half a megabyte
_FILES = {
    "metrics.json": "all figures of this page",
    "classification_report.txt": "precision, recall and F1 as text",
    **dict.fromkeys(("confusion_matrix.png", "roc.png", "precision_recall.png", "reliability.png"), "a figure"),
}


def write(config: EvaluateConfig, model: Model, scores: Scores, rows: pa.Table, numbers: Mapping[str, Any]) -> str:
    """Write all files of an evaluation, the page last, and return the page's URI. rows: the scans of `scores`."""
    pictures = _pictures(model, scores, rows)
    unscored = *numbers["rejected"].values(), *numbers["skipped"].values(), numbers["failed"]
    page = evaluation_page(
        Evaluation(
            title=f"Evaluation of model {model.digest}",
            model=_facts(config, model, numbers),
            counts={
                "scans": len(rows) + sum(unscored),
                "ok": numbers["scans"],
                "rejected": numbers["rejected"],
                "skipped": numbers["skipped"],
                "failed": numbers["failed"],
            },
            numbers=numbers,
            evidence=numbers["evidence"],
            mistakes=_mistakes(scores, rows),
            files=_FILES | {f"predictions/model={model.digest}/": "a row for each scan, as Parquet"},
            maps=_maps(config, model, scores, rows),
            figures=dict(figure for name, figure in pictures.items() if name != _SCANS),
            scans=pictures[_SCANS],
        )
    )
    folder = uris.absolute(config.output)
    uris.put(uris.join(folder, "metrics.json"), json.dumps(numbers, indent=1).encode())
    uris.put(uris.join(folder, "classification_report.txt"), metrics.classification_report(scores).encode())
    for name, (_, png) in pictures.items():
        uris.put(uris.join(folder, f"{name}.png"), png)
    place = uris.join(folder, "report.html")
    uris.put(place, page.encode())
    return place


def copies_note(config: EvaluateConfig) -> str:
    """Say what was done about scans that the model may have memorized."""
    if config.apart_from:
        return "scans with the bytes of one in --apart-from were left out, near copies were not"
    return "this evaluation left out neither copies nor near copies"


def _facts(config: EvaluateConfig, model: Model, numbers: Mapping[str, Any]) -> dict[str, object]:
    facts: dict[str, object] = {
        "model": config.model,
        "digest": model.digest,
        "kind": model.kind,
        "image side": f"{model.image_spec.side_px} px",
        "labels": ", ".join(model.labels),
        "data": config.data,
        "copies of training scans": copies_note(config),
        "fingerprint of the scans": numbers["content_sha256"][:12],
        "date": numbers["created_at"],
        "command": config.command("jobs/evaluate.py"),
        "mribatch": numbers["mribatch"],
    }
    return facts | ({"left out": apart_line(numbers["apart_from"])} if numbers["apart_from"] else {})


def _pictures(model: Model, scores: Scores, rows: pa.Table) -> dict[str, tuple[str, bytes]]:
    """Return captions and PNG bytes by file name."""
    matrix, gallery = figures.confusion_matrix(scores), _gallery(scores, rows, model)
    pictures = {
        "confusion_matrix": ("Confusion matrix: true classes in rows, predicted ones in columns", matrix),
        "precision_recall": ("Precision and recall at every threshold", figures.precision_recall_curves(scores)),
        "roc": ("ROC curves, one class against the rest", figures.roc_curves(scores)),
        "reliability": ("How often the model is right at each confidence", figures.reliability(scores)),
        _SCANS: ("Scans with their probabilities, the worst mistakes first", gallery),
    }
    if "history.parquet" in uris.names(model.uri):
        history = uris.read(uris.join(model.uri, "history.parquet"))
        kept_epoch = model.facts.get("training", {}).get("epoch")
        curves = figures.training_curves(pyarrow.parquet.read_table(pa.BufferReader(history)), kept_epoch)
        pictures["training_curves"] = ("Training and validation, epoch by epoch", curves)
    return pictures


def _mistakes(scores: Scores, rows: pa.Table) -> list[Mistake]:
    wrong = [i for i in metrics.worst_first(scores, limit=len(scores.truth)) if not scores.correct[i]]
    mistaken = rows.take(pa.array(wrong, pa.int64()))
    keys = zip(mistaken["scan_uri"].to_pylist(), mistaken["frame"].to_pylist(), strict=True)
    pictures = small_pictures(mistaken, _PICTURES)
    return [
        Mistake(
            scan_uri=uri,
            truth=scores.labels[scores.truth[i]],
            predicted=scores.labels[scores.predicted[i]],
            confidence=float(scores.confidence[i]),
            picture=pictures.get((uri, frame)),
        )
        for i, (uri, frame) in zip(wrong, keys, strict=True)
    ]


def _maps(config: EvaluateConfig, model: Model, scores: Scores, rows: pa.Table) -> list[Shown]:
    """Return the worst mistakes with maps of their answers, of those classes whose maps point at lesions."""
    pointing, predicted = pointing_of(model, METHODS[0]), scores.predicted
    proven = [verdict_of(pointing, label) == Verdict.BEATS_CENTRE for label in scores.labels]
    worst = metrics.worst_first(scores, limit=len(scores.truth)) if any(proven) else []
    chosen = [i for i in worst if predicted[i] != scores.truth[i] and proven[predicted[i]]][:_MAPS]
    keys = [tuple(rows[name][i].as_py() for name in schema.KEY) for i in chosen]
    wanted = {(uri, version): [f for u, _, f in keys if u == uri] for uri, version, _ in keys}
    truths = {(uri, frame): scores.labels[scores.truth[i]] for i, (uri, _, frame) in zip(chosen, keys, strict=True)}
    try:
        done = explained_apart(model, wanted, MapSettings(method=METHODS[0]), config.requester_pays) if wanted else []
    except RunFailed as err:
        log.warning("warning: the page lacks maps: %s", err)
        done = []
    return [
        pictured(explanation, f", labelled {truths[explanation.scan_uri, explanation.frame]}")
        for explanation in done
        if explanation.picture is not None
    ]


def _gallery(scores: Scores, rows: pa.Table, model: Model) -> bytes:
    entries = []
    for i in metrics.worst_first(scores, limit=GALLERY_SCANS):
        uri, version, frame = (rows[name][i].as_py() for name in schema.KEY)
        image = None if rows["container"][i].is_valid else _image(uri, version, frame, model)
        if image is not None:
            probabilities = tuple(scores.probabilities[i].tolist())
            entry = figures.ScanEntry(image=image, truth=scores.labels[scores.truth[i]], probabilities=probabilities)
            entries.append(entry)
    return figures.scan_page(entries, model.labels)


def _image(uri: str, version: str, frame: int, model: Model) -> NDArray[Any] | None:
    """Return the pixels of a scan's frame; None, and a line in the log, if it can no longer be read or decoded."""
    try:
        scan = frames(uris.read_version(uri, version), model.image_spec)
        return next(islice(scan, frame, None)).pixels
    except Exception as err:
        log.warning("a scan can no longer be shown in the gallery (%s)", cause(err))
        return None
