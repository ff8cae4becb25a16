"""Turn the rows of a site's scans into an acceptance: its numbers, verdict and reasons, as acceptance.json and a page."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mribatch import schema
from mribatch.commands.required_acceptance import FILE
from mribatch.commands.rows import class_numbers, reasons, scores_of
from mribatch.models.corrupted import PLAIN
from mribatch.models.format import Model
from mribatch.reports.acceptance import acceptance_page, sentence
from mribatch.scans.corruptions import CORRUPTIONS, STRENGTHS
from mribatch.schema import Status
from mribatch.settings.site import AcceptConfig
from mribatch.sources.labels import data_fingerprint
from mribatch.statistics import metrics
from mribatch.statistics.acceptance import Measured, Thresholds, balanced_accuracy, checks, rates, too_few, verdict
from mribatch.statistics.metrics import Scores
from mribatch.statistics.stability import Answers, Truth, stability
from mribatch.stores import uris
from mribatch.version import __version__

__all__ = ["Site", "acceptance_of", "write"]

_NOT_JUDGED = "not judged: no labels"
_HEALTHY = "notumor"  # the class without a finding in the public data set
_REFERRED = "review"


@dataclass(frozen=True, kw_only=True)
class Site:
    """The rows of a site's scans as scored, with the column `label` if they are labelled.

    failed: scans without a row. apart: what --apart-from left out, as metrics.json says it; None without that flag.
    """

    rows: pa.Table
    failed: int
    is_labelled: bool
    apart: Mapping[str, int] | None = None

    @cached_property
    def distinct(self) -> pa.Table:
        """The scored rows; of files with the same bytes, those of the first."""
        good = self.rows.filter(pc.equal(self.rows["status"], Status.OK))
        good = good.sort_by([("scan_uri", "ascending"), ("frame", "ascending")])
        keys = zip(good["content_sha256"].to_pylist(), good["frame"].to_pylist(), strict=True)
        firsts = {key: row for row, key in reversed([*enumerate(keys)])}
        return good.take(pa.array(sorted(firsts.values()), pa.int64()))

    @property
    def listed(self) -> int:
        """Rows and failed scans."""
        return int(self.rows.num_rows) + self.failed

    def drawn(self, scans: int, seed: int) -> pa.Table:
        """Return at most so many of the files of one frame, spread evenly over the labels, as a listing with labels."""
        is_single = pc.equal(pc.fill_null(self.distinct["frames"], 1), 1)
        single = self.distinct.filter(pc.and_(is_single, pc.is_null(self.distinct["container"])))
        order = np.random.default_rng(seed).permutation(single.num_rows)
        rank_of: dict[str, int] = {}
        labels = single["label"].to_pylist() if self.is_labelled else [""] * single.num_rows
        ranks = np.empty(len(order), np.int64)
        for row in order:
            ranks[row] = rank_of[labels[row]] = rank_of.get(labels[row], -1) + 1
        chosen = order[np.argsort(ranks[order], kind="stable")][:scans]
        columns = [*schema.PLAN.names, *(["label"] if self.is_labelled else [])]
        return single.select(columns).take(pa.array(np.sort(chosen)))


def acceptance_of(config: AcceptConfig, model: Model, site: Site, altered: pa.Table) -> dict[str, Any]:
    """Return what acceptance.json holds. altered: predictions for some of the scans under every corruption, may be empty."""
    rows, healthy = site.distinct, _healthy(config, model)
    scores = scores_of(rows, model.labels) if site.is_labelled else None
    numbers: dict[str, Any] = {
        "model": config.model,
        "model_digest": model.digest,
        "labels": list(model.labels),
        "healthy_class": healthy,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "mribatch": __version__,
        "settings": config.as_dict(),
        "data": _data(site, rows),
        "predicted": _counts(rows["predicted_class"], model),
        "mean_confidence": float(np.mean(rows["confidence"].to_numpy())),
        "referral": _referral(rows, scores),
        "corruptions": [*_stabilities(altered, model, healthy, config, scores)],
    }
    return numbers | (_unjudged() if scores is None else _judged(config, scores, healthy, numbers))


def _healthy(config: AcceptConfig, model: Model) -> str | None:
    return config.healthy_class or (_HEALTHY if _HEALTHY in model.labels else None)


def _counts(column: pa.ChunkedArray, model: Model) -> dict[str, int]:
    counts = {row["values"]: row["counts"] for row in column.value_counts().to_pylist()}
    return {label: counts.get(label, 0) for label in model.labels}


def _data(site: Site, rows: pa.Table) -> dict[str, Any]:
    labels = rows["label"].to_pylist() if site.is_labelled else [""] * rows.num_rows
    scored = site.rows.filter(pc.equal(site.rows["status"], Status.OK)).num_rows
    return {
        "scans": rows.num_rows,
        "copies": scored - rows.num_rows,
        "rejected": reasons(site.rows, Status.REJECTED),
        "skipped": reasons(site.rows, Status.SKIPPED),
        "failed": site.failed,
        "apart_from": site.apart,
        "content_sha256": data_fingerprint(rows["content_sha256"].to_pylist(), labels),
    }


# Referral and corruptions


def _referred(rows: pa.Table) -> NDArray[np.bool_] | None:
    """Return which rows are referred to a person; None for a model that refers nothing."""
    if "referral" not in rows.column_names or rows["referral"].null_count == rows.num_rows:
        return None
    return np.asarray(pc.fill_null(pc.equal(rows["referral"], _REFERRED), False), np.bool_)


def _referral(rows: pa.Table, scores: Scores | None) -> dict[str, Any] | None:
    referred = _referred(rows)
    if referred is None:
        return None
    numbers: dict[str, Any] = {"scans": int(referred.sum()), "share": float(referred.mean()), "reasons": {}}
    if "referral_reason" in rows.column_names:
        counts = rows["referral_reason"].drop_null().value_counts().to_pylist()
        numbers["reasons"] = {count["values"]: count["counts"] for count in counts}
    if scores is not None:
        wrong = ~scores.correct
        numbers |= {
            "wrong": int(wrong.sum()),
            "wrong_referred": int((wrong & referred).sum()),
            "accuracy_of_others": float(scores.correct[~referred].mean()) if (~referred).any() else None,
        }
    return numbers


def _stabilities(
    altered: pa.Table, model: Model, healthy: str | None, config: AcceptConfig, scores: Scores | None
) -> Iterator[dict[str, Any]]:
    """Yield the effect of each corruption and strength."""
    if not altered.num_rows:
        return
    plain = _variant(altered, PLAIN, 0)
    truth = None
    if scores is not None:
        enough = [k for k, count in enumerate(scores.confusion.sum(axis=1)) if count >= config.min_scans]
        place = None if healthy is None else model.labels.index(healthy)
        truth = Truth(classes=class_numbers(plain["label"], model.labels), counted=enough, healthy=place)
    for kind, corruption in CORRUPTIONS.items():
        for strength in STRENGTHS:
            effect = stability(_answers(plain, model), _answers(_variant(altered, kind, strength), model), truth)
            value = {"value": corruption.values[strength - 1], "unit": corruption.unit}
            yield {"corruption": kind, "strength": strength, **value, **effect}


def _variant(altered: pa.Table, kind: str, strength: int) -> pa.Table:
    chosen = pc.and_(pc.equal(altered["corruption"], kind), pc.equal(altered["strength"], strength))
    return altered.filter(chosen).sort_by("scan_uri")


def _answers(rows: pa.Table, model: Model) -> Answers:
    confidence = np.asarray(rows["confidence"], np.float64)
    return Answers(
        predicted=class_numbers(rows["predicted_class"], model.labels), confidence=confidence, referred=_referred(rows)
    )


# The verdict


def _unjudged() -> dict[str, Any]:
    return {
        "verdict": _NOT_JUDGED,
        "reasons": ["the scans have no labels: whether an answer is right was not measured"],
        "missing": [],
        "checks": [],
        "per_class": None,
        "balanced_accuracy": None,
        "calibration": None,
    }


def _judged(config: AcceptConfig, scores: Scores, healthy: str | None, numbers: Mapping[str, Any]) -> dict[str, Any]:
    thresholds = Thresholds(**{field.name: getattr(config, field.name) for field in fields(Thresholds)})
    measured = _measured(thresholds, scores, healthy, numbers)
    made, few = checks(measured, thresholds), too_few(measured, thresholds)
    missing = [f"{count} of {thresholds.min_scans} scans of {label}" for label, count in few.items()]
    if not numbers["corruptions"]:
        missing.append("no scan of one frame that could be altered")
    failed = [sentence(check) for check in made if not check.holds]
    return {
        "verdict": verdict(made, is_complete=not missing),
        "reasons": [*failed, *(f"not enough scans: {lack}" for lack in missing)],
        "missing": missing,
        "checks": [asdict(check) | {"holds": check.holds, "undecided": check.is_undecided} for check in made],
        "per_class": {label: _per_class(row) for label, row in measured.rates.items()},
        "balanced_accuracy": measured.balanced_accuracy,
        "calibration": _calibration(scores),
    }


def _per_class(row: Any) -> dict[str, Any]:
    return {name: rate.as_dict() for name, rate in row._asdict().items()}


def _measured(thresholds: Thresholds, scores: Scores, healthy: str | None, numbers: Mapping[str, Any]) -> Measured:
    data, counts = numbers["data"], scores.confusion.sum(axis=1)
    enough = [k for k, count in enumerate(counts) if count >= thresholds.min_scans]
    lost = sum(data["rejected"].values()) + data["failed"]
    mild = {row["corruption"]: row["loss"] for row in numbers["corruptions"] if row["strength"] == STRENGTHS[0]}
    return Measured(
        scans=len(scores.truth),
        rates=rates(scores),
        healthy=healthy,
        balanced_accuracy=balanced_accuracy(scores.truth, scores.predicted, enough),
        calibration_error=metrics.expected_calibration_error(scores.confidence, scores.correct),
        reject_rate=lost / (len(scores.truth) + data["copies"] + lost),
        losses={kind: loss for kind, loss in mild.items() if loss is not None},
        referral_rate=None if numbers["referral"] is None else numbers["referral"]["share"],
    )


def _calibration(scores: Scores) -> dict[str, Any]:
    bins = metrics.calibration_bins(scores.confidence, scores.correct)
    edges = np.linspace(0, 1, len(bins.scans) + 1)
    return {
        "expected_calibration_error": metrics.expected_calibration_error(scores.confidence, scores.correct),
        "accuracy": float(scores.correct.mean()),
        "bins": [
            {"from": low, "to": high, "scans": int(count), "confidence": float(mean), "accuracy": float(share)}
            for low, high, count, mean, share in zip(edges[:-1].tolist(), edges[1:].tolist(), *bins, strict=True)
            if count
        ],
    }


def write(config: AcceptConfig, acceptance: Mapping[str, Any]) -> str:
    """Write acceptance.html and acceptance.json, the latter last, and return the page's URI."""
    page = uris.join(config.output, "acceptance.html")
    uris.put(page, acceptance_page(acceptance, config.command("jobs/accept.py")).encode())
    uris.put(uris.join(config.output, FILE), json.dumps(acceptance, indent=1).encode())
    return page
