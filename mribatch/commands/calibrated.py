"""Fit the temperature and the referral of a model on its training and validation scans, and write both beside it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mribatch.cluster.layers import layers_of
from mribatch.commands.rows import class_numbers
from mribatch.commands.screen import Block, Shown, Table
from mribatch.errors import InputError
from mribatch.models import card, directory
from mribatch.models.format import MEASUREMENTS, Model
from mribatch.models.referral import packed
from mribatch.schema import PLAN
from mribatch.statistics import calibration
from mribatch.statistics.referral import REASONS, fit_detector, with_thresholds

__all__ = ["LEAST_SCANS", "Calibrated", "calibrate_model", "calibration_numbers", "check_scans"]

log = logging.getLogger("mribatch.calibrate")

LEAST_SCANS = 100  # validation scans
_REFERENCE_SCANS = 2000  # training scans that are looked at


@dataclass(frozen=True, kw_only=True)
class Calibrated(Shown):
    """A calibrated model, and how well its confidences and thresholds fit."""

    model: Model
    exit_code: int = 0

    @property
    def numbers(self) -> Mapping[str, Any]:
        """What model.json says of the calibration."""
        numbers: Mapping[str, Any] = self.model.facts["calibration"]
        return numbers

    def blocks(self) -> list[Block]:
        """Return the calibration before and after, the referrals by reason, and where the model is."""
        numbers, floor = self.numbers, self.numbers["noise_floor"]
        measures = {"loss": "loss", "adaptive_calibration_error": "adaptive calibration error", "brier": "Brier score"}
        rows = [
            (name, *(f"{numbers[side][key]:.4f}" for side in ("before", "after"))) for key, name in measures.items()
        ]
        referred = ", ".join(f"{share:.1%} {reason}" for reason, share in numbers["referred_by_reason"].items())
        return [
            Table(rows, ("validation scans", "before", "after")),
            f"by chance alone, {numbers['scans']:,} scans show an error of {floor['mean']:.4f} (95% below {floor['high']:.4f})",
            f"temperature {self.model.temperature}, fitted on all; 'after' is each half with the temperature of the other",
            f"for review: {numbers['referred']:.1%} of the validation scans ({referred or 'none'})",
            f"{self.model.uri} · model {self.model.digest}",
        ]


def calibrate_model(
    model: Model,
    uri: str,
    train: pa.Table,
    validation: pa.Table,
    *,
    false_referrals: float,
    batch_size: int,
    max_reject_rate: float,
    seed: int,
) -> Calibrated:
    """Write a calibrated model directory at a URI, which may be the model's own, within a session.

    train, validation: scans with the columns of PLAN, `label` and `group` (near copies have one number). Raises InputError
    for scans that are too few or of one class.
    """
    check_scans(validation)
    chosen = np.sort(np.random.default_rng(seed).permutation(train.num_rows)[:_REFERENCE_SCANS])
    log.info("looking at %s training scans and %s validation scans …", f"{len(chosen):,}", f"{validation.num_rows:,}")
    reference = layers_of(_listing(train.take(chosen)), model, batch_size, max_reject_rate)
    held = layers_of(_listing(validation), model, batch_size, max_reject_rate)
    truth = class_numbers(held.scans["label"], model.labels)
    groups = np.asarray(held.scans["group"].to_numpy(), np.int64)
    temperature = calibration.fit_temperature(held.logits, truth)
    confidence = calibration.calibrated(held.logits, temperature).max(axis=1)
    fitted = fit_detector(reference.features, seed)
    fitted = with_thresholds(fitted, held.features, confidence, false_referrals)
    reasons = fitted.verdicts(held.features, confidence).reasons
    numbers = calibration_numbers(held.logits, truth, groups) | {
        "false_referrals": false_referrals,
        "referred": float(np.mean([reason is not None for reason in reasons])),
        "referred_by_reason": _shares(reasons),
        "training_scans": len(reference.scans),
    }
    dropped = MEASUREMENTS - {"metrics", "healthy"}  # the classes stay as they are
    facts = {key: value for key, value in model.facts.items() if key not in dropped}
    facts |= {"temperature": temperature, "calibration": numbers}
    return Calibrated(model=directory.save_calibrated(uri, model, packed(fitted), facts, card.model_card(facts)))


def check_scans(validation: pa.Table) -> None:
    """Raise InputError for validation scans that are too few to calibrate on, or of one class."""
    labels = set(validation["label"].to_pylist())
    if validation.num_rows < LEAST_SCANS or len(labels) < 2:
        raise InputError(
            f"calibration needs {LEAST_SCANS} or more validation scans of two or more classes, got {validation.num_rows} of "
            f"{len(labels)}: add scans, or take a larger share of them for validation"
        )


def calibration_numbers(
    logits: NDArray[np.float32], truth: NDArray[np.int64], groups: NDArray[np.int64]
) -> dict[str, Any]:
    """Return loss, adaptive calibration error and Brier score before and after, as JSON; each half is held back once."""
    sides = {"before": calibration.calibrated(logits, 1.0), "after": calibration.cross_fitted(logits, truth, groups)}
    floor = calibration.noise_floor(sides["after"].max(axis=1))
    return {
        "scans": len(truth),
        **{side: _measured(shares, truth) for side, shares in sides.items()},
        "noise_floor": floor._asdict(),
    }


def _measured(shares: NDArray[np.float64], truth: NDArray[np.int64]) -> dict[str, float]:
    correct = shares.argmax(axis=1) == truth
    return {
        "loss": calibration.negative_log_likelihood(np.log(shares.clip(1e-12)), truth),
        "adaptive_calibration_error": calibration.adaptive_calibration_error(shares.max(axis=1), correct),
        "brier": calibration.brier_score(shares, truth),
    }


def _listing(scans: pa.Table) -> pa.Table:
    return scans.select([*PLAN.names, "label", "group"])


def _shares(reasons: NDArray[np.object_]) -> dict[str, float]:
    return {reason: float(np.mean(reasons == reason)) for reason in REASONS if (reasons == reason).any()}
