"""Evaluate: labelled scans → the same scoring as everywhere → metrics, figures and a report."""

import json
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from mribatch import schema
from mribatch.causes import cause
from mribatch.commands.classes import shown
from mribatch.commands.paying import paying
from mribatch.commands.score import TOO_MANY_REJECTS, Scored, failure_lines, score_listing
from mribatch.errors import InputError
from mribatch.models import directory, lookup
from mribatch.models.format import Model
from mribatch.predictions import ledger
from mribatch.reports import figures
from mribatch.reports.evaluation import Evaluation, Mistake, evaluation_page
from mribatch.scans.decode import decode
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.settings.score import ScoreConfig
from mribatch.sources.labels import training_scans
from mribatch.sources.listing import content_digests
from mribatch.statistics import metrics
from mribatch.statistics.metrics import Scores
from mribatch.stores import uris

__all__ = ["Evaluated", "evaluate", "evaluate_scans"]

log = logging.getLogger("mribatch.evaluate")

GALLERY_SCANS = 24  # what a page holds


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What a model was found to be worth, and where to read it."""

    scored: Scored
    numbers: dict[str, Any]
    report: str
    predictions: str
    rows: pa.Table
    rejected: dict[str, int]
    copies: str
    max_reject_rate: float

    @property
    def exit_code(self) -> int:
        lost = self.rows.num_rows - self.numbers["scans"] + self.scored.failed
        return TOO_MANY_REJECTS if lost > self.max_reject_rate * (self.rows.num_rows + self.scored.failed) else 0

    def table(self) -> str:
        """The result on a screen; scan by scan where they fit on it."""
        low, high = self.numbers["accuracy_95"]
        lines = [_line(row) for row in self.rows.to_pylist()] if self.rows.num_rows <= GALLERY_SCANS else []
        per_class = self.numbers["per_class"]
        lines += ["", f"{'class':<14} {'scans':>7} {'precision':>10} {'recall':>8} {'F1':>8}"]
        lines += [
            f"{label:<14} {m['support']:>7} {m['precision']:>10.4f} {m['recall']:>8.4f} {m['f1']:>8.4f}"
            for label, m in per_class.items()
        ]
        lines += [
            "",
            f"accuracy {self.numbers['accuracy']:.4f} (95% interval {low:.4f}…{high:.4f}) on {self.numbers['scans']} scans",
            f"balanced accuracy {self.numbers['balanced_accuracy']:.4f} · mean confidence "
            f"{self.numbers['mean_confidence']:.4f}",
        ]
        absent = [label for label, m in per_class.items() if not m["support"]]
        if absent:
            lines += [f"no scans of {', '.join(absent)}: balanced accuracy is over the other classes"]
        lines += [f"copies of training scans: {self.copies}"]
        if self.numbers["apart_from"]:
            lines += [_apart_line(self.numbers["apart_from"])]
        if self.rejected:
            lines += ["rejected: " + ", ".join(f"{count} {reason}" for reason, count in sorted(self.rejected.items()))]
        if self.scored.failed:
            lines += [f"failed, to be tried again: {self.scored.failed}"]
        lines += failure_lines(self.scored.failures)
        return "\n".join([*lines, f"predictions  {self.predictions}", f"report       {self.report}"]).lstrip("\n")


@paying
def evaluate(config: EvaluateConfig) -> Evaluated:
    """Score the labelled scans at config.data (its test split, where it has one) and write what came out.

    Scans that config.output has predictions of already are not scored again. Raises InputError for labels that the
    model does not know, and everything that `score` raises.
    """
    model = directory.load_model(lookup.locate(config.model))
    return evaluate_scans(config, model, shown(config.data, exclude=config.exclude, outputs=(config.output,)))


def evaluate_scans(config: EvaluateConfig, model: Model, labelled: pa.Table) -> Evaluated:
    """Evaluate config.model, as it was read, on the labelled scans (schema LABELLED) of config.data. See `evaluate`."""
    table = _testing(labelled, model, config)
    known = _known(config)
    scoring = ScoreConfig(
        model=config.model, input=(config.data,), output=uris.join(config.output, "predictions"),
        batch_size=config.batch_size, max_reject_rate=config.max_reject_rate,
    )  # fmt: skip
    scored = score_listing(scoring, model, table.select(schema.PLAN.names))
    rows, apart = _apart(_with_truth(ledger.predictions(scored.output, model.digest), table), known, config)
    good = rows.filter(pc.equal(rows["status"], schema.Status.OK))
    if not good.num_rows:
        why = f" ({'; '.join(failure_lines(scored.failures))})" if scored.failures else ""
        raise InputError(f"none of the {rows.num_rows + scored.failed} scans in {config.data} could be scored{why}: "
                         f"see their reasons in {scored.output}")  # fmt: skip
    scores = _scores(good, model)
    rejected = {r["values"]: r["counts"] for r in rows["reason"].drop_null().value_counts().to_pylist()}
    numbers = metrics.measure(scores) | {"model_digest": model.digest, "rejected": rejected, "failed": scored.failed,
                                         "left_out": apart["left_out"] if apart else 0, "apart_from": apart}  # fmt: skip
    report = _write(config, model, scores, good, numbers)
    return Evaluated(
        scored=scored, numbers=numbers, report=report, rows=rows, rejected=rejected, copies=_copies(config),
        predictions=ledger.model_folder(scored.output, model.digest), max_reject_rate=config.max_reject_rate,
    )  # fmt: skip


def _testing(table: pa.Table, model: Model, config: EvaluateConfig) -> pa.Table:
    splits = table["split"].to_pylist()
    if "test" in splits:
        table = table.filter(pc.equal(table["split"], "test"))
    elif "training" in splits:
        log.warning("warning: %s has training scans but no test scans, and a model that learnt from them looks better than it "
                    "is: name scans that it has never seen", config.data)  # fmt: skip
    log.info("evaluating %s of %s scans", f"{table.num_rows:,}", f"{len(splits):,}")
    unknown = sorted(set(table["label"].to_pylist()) - set(model.labels))
    if unknown:
        raise InputError(f"the data has classes that the model does not know: {', '.join(unknown)}; it knows "
                         f"{', '.join(model.labels)}: rename or remove those folders, or train on them")  # fmt: skip
    return table


def _with_truth(predictions: pa.Table, table: pa.Table) -> pa.Table:
    """The rows of the labelled scans with their label; rows of other scans or older versions are left out."""
    return predictions.join(
        table.select([*schema.PLAN.names, "label"]), keys=schema.PLAN.names, join_type="inner"
    ).sort_by("scan_uri")


@dataclass(frozen=True)
class _Known:
    """The content of the scans at --apart-from, and their counts."""

    contents: frozenset[str]
    scans: int
    test_scans: int


def _known(config: EvaluateConfig) -> _Known | None:
    """Read the scans at config.apart_from, before anything is scored; None where nothing is to be left out."""
    if not config.apart_from:
        return None
    training = training_scans(config.apart_from)
    log.info("reading the %s scans at --apart-from", f"{training.scans.num_rows:,}")
    return _Known(frozenset(content_digests(training.scans)), training.scans.num_rows, training.test_scans)


def _apart(rows: pa.Table, known: _Known | None, config: EvaluateConfig) -> tuple[pa.Table, dict[str, int] | None]:
    """Return the rows without copies of known scans, and what --apart-from did, for metrics.json."""
    if known is None:
        return rows, None
    left = rows.filter(pc.invert(pc.is_in(rows["content_sha256"], pa.array(sorted(known.contents), pa.string()))))
    if not left.num_rows:
        raise InputError(
            f"all {rows.num_rows} scans in {config.data} stand in --apart-from too: nothing is left to evaluate; name the "
            "training scans alone in --apart-from, or other scans in --data"
        )
    return left, {"scans": known.scans, "test_scans_ignored": known.test_scans, "evaluated": rows.num_rows,
                  "left_out": rows.num_rows - left.num_rows}  # fmt: skip


def _apart_line(apart: dict[str, int]) -> str:
    ignored = f" (not its {apart['test_scans_ignored']:,} test scans)" if apart["test_scans_ignored"] else ""
    return (f"--apart-from: {apart['scans']:,} scans read{ignored}, {apart['left_out']:,} of the {apart['evaluated']:,} evaluated "
            "scans are copies of them and were left out")  # fmt: skip


def _scores(rows: pa.Table, model: Model) -> Scores:
    probabilities = np.stack([rows[schema.probability_column(label)].to_numpy() for label in model.labels], axis=1)
    probabilities = probabilities.astype(np.float64)
    return Scores(
        labels=model.labels,
        truth=np.asarray(pc.index_in(rows["label"], pa.array(model.labels)).to_numpy(), np.int64),
        probabilities=probabilities / probabilities.sum(axis=1, keepdims=True),  # float32 sums to 1 but for 1e-7
    )


def _write(config: EvaluateConfig, model: Model, scores: Scores, rows: pa.Table, numbers: dict[str, Any]) -> str:
    """metrics.json, classification_report.txt, the figures and report.html, the report last. Its URI."""
    pictures = {
        "confusion_matrix": (
            "Confusion matrix: true classes in rows, predicted ones in columns",
            figures.confusion_matrix(scores),
        ),
        "roc": ("ROC curves, one class against the rest", figures.roc_curves(scores)),
        "reliability": ("How often the model is right at each confidence", figures.reliability(scores)),
        "scans": ("Scans with their probabilities, the worst mistakes first", _gallery(scores, rows, model)),
    }
    history = _history(model)
    if history is not None:
        pictures["training_curves"] = (
            "Training and validation, epoch by epoch",
            figures.training_curves(history, _kept_epoch(model)),
        )
    out = config.output
    uris.put(uris.join(out, "metrics.json"), json.dumps(numbers, indent=1).encode())
    uris.put(uris.join(out, "classification_report.txt"), metrics.classification_report(scores).encode())
    for name, (_, png) in pictures.items():
        uris.put(uris.join(out, f"{name}.png"), png)
    page = evaluation_page(
        Evaluation(
            title=f"Evaluation of model {model.digest}",
            model=_facts(config, model) | ({"left out": _apart_line(numbers["apart_from"])} if numbers["apart_from"] else {}),
            counts={"scans": numbers["scans"] + sum(numbers["rejected"].values()) + numbers["failed"], "ok": numbers["scans"],
                    "rejected": numbers["rejected"], "failed": numbers["failed"]},
            numbers=numbers,
            mistakes=_mistakes(scores, rows),
            figures=dict(pictures.values()),
        )
    )  # fmt: skip
    place = uris.join(uris.absolute(out), "report.html")
    uris.put(place, page.encode())
    return place


def _facts(config: EvaluateConfig, model: Model) -> dict[str, object]:
    return {"model": config.model, "digest": model.digest, "kind": model.kind, "image side": f"{model.image_spec.side_px} px",
            "labels": ", ".join(model.labels), "data": config.data, "copies of training scans": _copies(config)}  # fmt: skip


def _copies(config: EvaluateConfig) -> str:
    """What the figures say about scans that the model may have learnt by heart."""
    if config.apart_from:
        return "scans with the bytes of one in --apart-from were left out, near copies were not"
    return "this evaluation left out neither copies nor near copies"


def _mistakes(scores: Scores, rows: pa.Table) -> list[Mistake]:
    predicted = scores.probabilities.argmax(axis=1)
    wrong = [i for i in metrics.worst_first(scores, limit=len(scores.truth)) if predicted[i] != scores.truth[i]]
    return [
        Mistake(scan_uri=rows["scan_uri"][i].as_py(), truth=scores.labels[scores.truth[i]],
                predicted=scores.labels[predicted[i]], confidence=float(scores.probabilities[i].max()))
        for i in wrong
    ]  # fmt: skip


def _gallery(scores: Scores, rows: pa.Table, model: Model) -> bytes:
    entries = []
    for i in metrics.worst_first(scores, limit=GALLERY_SCANS):
        image = _image(rows["scan_uri"][i].as_py(), rows["scan_version"][i].as_py(), model)
        if image is not None:
            entries.append(
                figures.ScanEntry(
                    image=image,
                    truth=scores.labels[scores.truth[i]],
                    probabilities=tuple(scores.probabilities[i].tolist()),
                )
            )
    return figures.scan_page(entries, model.labels)


def _image(uri: str, version: str, model: Model) -> Any:
    """A scan's pixels, or None where it can be read or decoded no more: the gallery does without it."""
    try:
        return decode(uris.read_version(uri, version), model.image_spec)[0].pixels
    except Exception as err:
        log.warning("a scan cannot be shown in the gallery any more (%s)", cause(err))
        return None


def _history(model: Model) -> pa.Table | None:
    """The training's history, where the model directory has one."""
    if "history.parquet" not in uris.names(model.uri):
        return None
    return pyarrow.parquet.read_table(pa.BufferReader(uris.read(uris.join(model.uri, "history.parquet"))))


def _kept_epoch(model: Model) -> int | None:
    """The epoch whose weights are the model's, from 1."""
    epoch = model.facts.get("training", {}).get("epoch")
    return None if epoch is None else int(epoch)


def _line(row: dict[str, Any]) -> str:
    name = row["scan_uri"].rpartition("/")[2]
    if row["status"] != schema.Status.OK:
        return f"{name:<24} {row['label']:<12} rejected: {row['reason']}"
    mark = "" if row["predicted_class"] == row["label"] else "  WRONG"
    return f"{name:<24} {row['label']:<12} {row['predicted_class']:<12} {row['confidence']:>7.4f}{mark}"
