"""Evaluate: labelled scans → the same scoring as everywhere → metrics, figures and a report."""

import logging
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mribatch import schema
from mribatch.commands import evaluate_report
from mribatch.commands.classes import list_labelled
from mribatch.commands.evaluate_breakdown import breakdown_numbers
from mribatch.commands.evaluate_evidence import Beside, digested, evidence, known_scans
from mribatch.commands.evaluate_patients import check_patients, judged
from mribatch.commands.evaluate_trust import trust_numbers
from mribatch.commands.evaluated import Evaluated, Measured
from mribatch.commands.paying import paying
from mribatch.commands.rows import reasons, scores_of
from mribatch.commands.score import score_listing
from mribatch.commands.scored import Scored, failure_lines
from mribatch.errors import InputError
from mribatch.models import directory, lookup
from mribatch.models.format import Model
from mribatch.predictions import ledger
from mribatch.predictions.files import of_listing
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.settings.score import ScoreConfig
from mribatch.sources.labels import TrainingScans, check_known, evaluation_scans
from mribatch.statistics import metrics
from mribatch.stores import uris

__all__ = ["Evaluated", "evaluate", "evaluate_scans"]

log = logging.getLogger("mribatch.evaluate")

_NO_TEST_SCANS = (
    "warning: %s has training scans but no test scans; a model looks better than it is on scans that it was trained on: "
    "use scans that it has never seen"
)


@paying
def evaluate(config: EvaluateConfig) -> Measured:
    """Score the labelled scans at config.data (its test split, if it has one) and write a report on the result.

    Scans that have predictions in config.output are not scored again. At the level of studies, statistics of patients are
    judged, which needs a manifest with patient_id. Raises InputError for labels that the model does
    not know, and everything that `score` raises.
    """
    model = directory.load_model(lookup.locate(config.model))
    labelled = list_labelled(config.data, exclude=config.exclude, outputs=(config.output,))
    if config.level == "study":
        return _evaluate_patients(config, model, labelled)
    other = None if config.other_source is None else list_labelled(config.other_source, outputs=(config.output,))
    if other is not None:
        check_known(other, model.labels)
    apart = digested(config.apart_from)  # before anything is scored
    known = known_scans(config, model, labelled, apart)
    return evaluate_scans(config, model, labelled, apart, Beside(known=known, other=other))


def evaluate_scans(
    config: EvaluateConfig,
    model: Model,
    labelled: pa.Table,
    apart: TrainingScans | None = None,
    beside: Beside | None = None,
) -> Evaluated:
    """Evaluate config.model, given as read, on the labelled scans (schema LABELLED) of config.data. See `evaluate`.

    apart: the scans of --apart-from, from `digested`. beside: without it, the model is judged on all scans only.
    """
    table = _test_scans(labelled, model, config)
    scored = _score(config, model, table)
    rows = _with_labels(ledger.predictions(scored.output, model.digest), table)
    kept = _without_copies(rows, apart, config) if apart else rows
    good = _good(kept)
    if not good.num_rows:
        raise _nothing_scored(config, scored, kept)
    scores = scores_of(good, model.labels)
    rejected, skipped = (reasons(kept, status) for status in (schema.Status.REJECTED, schema.Status.SKIPPED))
    numbers = metrics.measure(scores) | {
        "model_digest": model.digest,
        "rejected": rejected,
        "skipped": skipped,
        "failed": scored.failed,
        "left_out": rows.num_rows - kept.num_rows,
        "apart_from": _apart_numbers(apart, rows, kept) if apart else None,
        "evidence": {} if beside is None else _evidence(config, model, _good(rows), beside),
        **trust_numbers(scores, good, model),
        **breakdown_numbers(config, scores, good),
    }
    log.info("drawing the report …")
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


def _evaluate_patients(config: EvaluateConfig, model: Model, labelled: pa.Table) -> Measured:
    table = _test_scans(labelled, model, config)
    check_patients(config, model.labels, table)  # before anything is scored
    scored = _score(config, model, table)
    rows = _with_labels(ledger.predictions(scored.output, model.digest), table)
    if not _good(rows).num_rows:
        raise _nothing_scored(config, scored, rows)
    return judged(config, model, scored, rows)


def _test_scans(table: pa.Table, model: Model, config: EvaluateConfig) -> pa.Table:
    """Return `evaluation_scans`, and warn if the data has training scans only."""
    chosen, splits = evaluation_scans(table, model.labels), set(table["split"].to_pylist())
    if "training" in splits and "test" not in splits:
        log.warning(_NO_TEST_SCANS, config.data)
    log.info("evaluating %s of %s scans", f"{chosen.num_rows:,}", f"{table.num_rows:,}")
    return chosen


def _score(config: EvaluateConfig, model: Model, table: pa.Table, data: str | None = None) -> Scored:
    scoring = ScoreConfig(
        model=config.model,
        input=(data or config.data,),
        output=uris.join(config.output, "predictions"),
        batch_size=config.batch_size,
        engine=config.engine,
        max_reject_rate=config.max_reject_rate,
        identifiers="keyed" if config.level == "study" else "none",  # slices of one series are known by its key
    )
    return score_listing(scoring, model, table.select(schema.PLAN.names))


def _evidence(config: EvaluateConfig, model: Model, rows: pa.Table, beside: Beside) -> dict[str, Any]:
    other = None if beside.other is None else _scored_elsewhere(config, model, beside.other)
    return evidence(config, model, rows, other, beside.known)


def _scored_elsewhere(config: EvaluateConfig, model: Model, table: pa.Table) -> pa.Table:
    """Score the scans of another source; return the rows with a prediction. Raises InputError if there are none."""
    scored = _score(config, model, table, config.other_source)
    rows = _with_labels(ledger.predictions(scored.output, model.digest), table)
    good = _good(rows)
    if good.num_rows < table.num_rows:
        log.warning(
            "warning: not all %d scans of the other source could be scored: %d could", table.num_rows, good.num_rows
        )
    if not good.num_rows:
        raise _nothing_scored(replace(config, data=str(config.other_source)), scored, rows)
    return good


def _good(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.equal(rows["status"], schema.Status.OK))


def _with_labels(predictions: pa.Table, table: pa.Table) -> pa.Table:
    """Return the rows of the labelled files with label and patient, without those of other files or older versions.

    Each frame, and each member of an archive, counts with the file's label.
    """
    rows = of_listing(predictions, table.select([*schema.PLAN.names, "label", "patient_id"]))
    return rows.sort_by([("scan_uri", "ascending"), ("frame", "ascending")])


def _without_copies(rows: pa.Table, apart: TrainingScans, config: EvaluateConfig) -> pa.Table:
    """Return the rows of scans whose bytes are not those of a known scan. Raises InputError if none is left."""
    copies = pc.is_in(rows["content_sha256"], apart.scans["content_sha256"].drop_null().combine_chunks())
    kept = rows.filter(pc.invert(copies))
    if rows.num_rows and not kept.num_rows:
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
