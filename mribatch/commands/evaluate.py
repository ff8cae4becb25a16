"""Evaluate: labelled scans → the same scoring as everywhere → metrics, figures and a report."""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mribatch import schema
from mribatch.commands import evaluate_report
from mribatch.commands.classes import list_labelled
from mribatch.commands.evaluated import Evaluated
from mribatch.commands.paying import paying
from mribatch.commands.score import score_listing
from mribatch.commands.scored import Scored, failure_lines
from mribatch.errors import InputError
from mribatch.models import directory, lookup
from mribatch.models.format import Model
from mribatch.predictions import ledger
from mribatch.predictions.files import file_uris
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.settings.score import ScoreConfig
from mribatch.sources.labels import TrainingScans, training_scans
from mribatch.sources.listing import content_digests
from mribatch.statistics import metrics
from mribatch.statistics.metrics import Scores
from mribatch.stores import uris

__all__ = ["Evaluated", "evaluate", "evaluate_scans"]

log = logging.getLogger("mribatch.evaluate")

_NO_TEST_SCANS = (
    "warning: %s has training scans but no test scans; a model looks better than it is on scans that it was trained on: "
    "use scans that it has never seen"
)


@paying
def evaluate(config: EvaluateConfig) -> Evaluated:
    """Score the labelled scans at config.data (its test split, if it has one) and write a report on the result.

    Scans that have predictions in config.output are not scored again. Raises InputError for labels that the model does
    not know, and everything that `score` raises.
    """
    model = directory.load_model(lookup.locate(config.model))
    return evaluate_scans(config, model, list_labelled(config.data, exclude=config.exclude, outputs=(config.output,)))


def evaluate_scans(config: EvaluateConfig, model: Model, labelled: pa.Table) -> Evaluated:
    """Evaluate config.model, given as read, on the labelled scans (schema LABELLED) of config.data. See `evaluate`."""
    table = _test_scans(labelled, model, config)
    known = training_scans(config.apart_from) if config.apart_from else None
    known_bytes: set[str] = set()
    if known:
        log.info("reading the %s scans at --apart-from …", f"{known.scans.num_rows:,}")
        known_bytes = content_digests(known.scans)  # before anything is scored
    scored = _score(config, model, table)
    rows = _with_labels(ledger.predictions(scored.output, model.digest), table)
    kept = _without_copies(rows, known_bytes, config) if known else rows
    good = kept.filter(pc.equal(kept["status"], schema.Status.OK))
    if not good.num_rows:
        raise _nothing_scored(config, scored, kept)
    scores = _scores(good, model)
    rejected, skipped = (_reasons(kept, status) for status in (schema.Status.REJECTED, schema.Status.SKIPPED))
    numbers = metrics.measure(scores) | {
        "model_digest": model.digest,
        "rejected": rejected,
        "skipped": skipped,
        "failed": scored.failed,
        "left_out": rows.num_rows - kept.num_rows,
        "apart_from": _apart_numbers(known, rows, kept) if known else None,
    }
    return Evaluated(
        scored=scored,
        numbers=numbers,
        report=evaluate_report.write(config, model, scores, good, numbers),
        rows=kept,
        rejected=rejected,
        skipped=skipped,
        copies=evaluate_report.copies_note(config),
        predictions=ledger.model_folder(scored.output, model.digest),
        max_reject_rate=config.max_reject_rate,
    )


def _test_scans(table: pa.Table, model: Model, config: EvaluateConfig) -> pa.Table:
    """Return the scans to evaluate: the test split if there is one. Raises InputError for unknown labels."""
    splits = table["split"].to_pylist()
    if "test" in splits:
        table = table.filter(pc.equal(table["split"], "test"))
    elif "training" in splits:
        log.warning(_NO_TEST_SCANS, config.data)
    log.info("evaluating %s of %s scans", f"{table.num_rows:,}", f"{len(splits):,}")
    unknown = sorted(set(table["label"].to_pylist()) - set(model.labels))
    if unknown:
        raise InputError(
            f"the data has classes that the model does not know: {', '.join(unknown)}; it knows {', '.join(model.labels)}: "
            "rename or remove those folders, or train on them"
        )
    return table


def _score(config: EvaluateConfig, model: Model, table: pa.Table) -> Scored:
    scoring = ScoreConfig(
        model=config.model,
        input=(config.data,),
        output=uris.join(config.output, "predictions"),
        batch_size=config.batch_size,
        max_reject_rate=config.max_reject_rate,
        identifiers="none",
    )
    scored = score_listing(scoring, model, table.select(schema.PLAN.names))
    log.info("drawing the report …")
    return scored


def _with_labels(predictions: pa.Table, table: pa.Table) -> pa.Table:
    """Return the rows of the labelled files with their label, without those of other files or older versions.

    Each frame, and each member of an archive, counts with the file's label.
    """
    labels = table.select([*schema.PLAN.names, "label"]).rename_columns(["file", "scan_version", "label"])
    rows = predictions.append_column("file", file_uris(predictions))
    rows = rows.join(labels, keys=["file", "scan_version"], join_type="inner").drop_columns(["file"])
    return rows.sort_by([("scan_uri", "ascending"), ("frame", "ascending")])


def _reasons(rows: pa.Table, status: schema.Status) -> dict[str, int]:
    counts = rows.filter(pc.equal(rows["status"], status))["reason"].value_counts().to_pylist()
    return {count["values"]: count["counts"] for count in counts}


def _without_copies(rows: pa.Table, known_bytes: set[str], config: EvaluateConfig) -> pa.Table:
    """Return the rows of scans whose bytes are not those of a known scan. Raises InputError if none is left."""
    copies = pc.is_in(rows["content_sha256"], pa.array(sorted(known_bytes), pa.string()))
    kept = rows.filter(pc.invert(copies))
    if not kept.num_rows:
        raise InputError(
            f"all {rows.num_rows} scans in {config.data} are in --apart-from too: nothing is left to evaluate; name the "
            "training scans alone in --apart-from, or other scans in --data"
        )
    return kept


def _apart_numbers(known: TrainingScans, rows: pa.Table, kept: pa.Table) -> dict[str, int]:
    return {
        "scans": known.scans.num_rows,
        "test_scans_ignored": known.test_scans,
        "evaluated": rows.num_rows,
        "left_out": rows.num_rows - kept.num_rows,
    }


def _nothing_scored(config: EvaluateConfig, scored: Scored, rows: pa.Table) -> InputError:
    causes = f" ({'; '.join(failure_lines(scored.failures))})" if scored.failures else ""
    return InputError(
        f"none of the {rows.num_rows + scored.failed} scans in {config.data} could be scored{causes}: see their reasons in "
        f"{scored.output}"
    )


def _scores(rows: pa.Table, model: Model) -> Scores:
    columns = [rows[schema.probability_column(label)].to_numpy() for label in model.labels]
    probabilities = np.stack(columns, axis=1).astype(np.float64)
    return Scores(
        labels=model.labels,
        truth=np.asarray(pc.index_in(rows["label"], pa.array(model.labels)).to_numpy(), np.int64),
        probabilities=probabilities / probabilities.sum(axis=1, keepdims=True),  # float32 sums to 1 within 1e-7
    )
