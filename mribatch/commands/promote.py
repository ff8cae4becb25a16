"""Promote: evaluate a candidate and the current model on the same scans → the better one → the file CURRENT."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from mribatch import schema
from mribatch.commands.classes import list_labelled
from mribatch.commands.evaluate import evaluate_scans
from mribatch.commands.paying import paying
from mribatch.commands.screen import Block, Shown, Table
from mribatch.errors import InputError, ModelError
from mribatch.models import directory
from mribatch.models.directory import CURRENT
from mribatch.models.format import Model
from mribatch.predictions.lock import new_run_id
from mribatch.schema import Status
from mribatch.settings.evaluate import EvaluateConfig, PromoteConfig
from mribatch.settings.suggestions import did_you_mean
from mribatch.statistics import metrics
from mribatch.stores import uris

__all__ = ["PairedResult", "Promotion", "promote"]

REFUSED = 1
_RECORDS = "_promotions"


@paying
def promote(config: PromoteConfig) -> "Promotion":
    """Make config.candidate the current model of config.models if it is right on at least as many scans of config.data.

    To roll back, promote an older model: its rows are still there. Raises ModelError, InputError, and what `evaluate`
    raises.
    """
    candidate = _candidate(config)
    uris.check_writable(config.models)
    current = directory.load_model(config.models) if CURRENT in uris.names(config.models, CURRENT) else None
    duel = None
    if current is not None and current.digest != candidate.digest:
        _check_labels(candidate, current)
        table = _labelled(config)
        duel = _paired(_rows(config, candidate, table), _rows(config, current, table))
    elif current is None:
        _rows(config, candidate, _labelled(config))  # proves that it can score, and writes its report
    worse = duel is not None and duel.worse
    promotion = Promotion(
        candidate=config.candidate,
        candidate_digest=candidate.digest,
        current=None if current is None else _name(current),
        current_digest=None if current is None else current.digest,
        duel=duel,
        promoted=not worse or config.force,
        forced=worse and config.force,
    )
    if promotion.current != config.candidate:
        _record(config, promotion)
    return promotion


@dataclass(frozen=True, kw_only=True)
class PairedResult:
    """Two models on the scans that both of them scored."""

    scans: int
    candidate_right: int
    current_right: int
    only_candidate_right: int
    only_current_right: int
    p_value: float  # exact McNemar test: the chance of a difference this large between two equally good models

    @property
    def worse(self) -> bool:
        return self.candidate_right < self.current_right


@dataclass(frozen=True, kw_only=True)
class Promotion(Shown):
    """The comparison of two models, and whether the candidate is the current model now."""

    candidate: str
    candidate_digest: str
    current: str | None
    current_digest: str | None
    duel: PairedResult | None  # None without a current model, or if the candidate is it
    promoted: bool
    forced: bool

    @property
    def exit_code(self) -> int:
        return 0 if self.promoted else REFUSED

    def blocks(self) -> list[Block]:
        """Return the comparison and the verdict."""
        if self.current == self.candidate:
            return [f"{self.candidate} is the current model already"]
        verdict = f"{self.candidate} is the current model now" + (", by force" if self.forced else "")
        if not self.promoted:
            verdict = f"refused: {self.current} stays the current model; --force promotes a worse one"
        return [*self._comparison(), verdict]

    def _comparison(self) -> list[Block]:
        if self.current is None:
            return ["there was no current model to compare it with"]
        if self.duel is None:
            return [f"it was not compared with {self.current}: both are model {self.candidate_digest}"]
        duel, scans = self.duel, f"{self.duel.scans:,}"
        rows = [
            (self.candidate, f"{duel.candidate_right:,}", scans, f"{duel.only_candidate_right:,}"),
            (self.current, f"{duel.current_right:,}", scans, f"{duel.only_current_right:,}"),
        ]
        return [
            Table(rows, ("model", "right", "of", "only this one right")),
            f"p = {duel.p_value:.3g} (exact McNemar test): the chance of a difference this large between two equally good models",
        ]


def _candidate(config: PromoteConfig) -> Model:
    known = [name for name in uris.folders(config.models) if not name.startswith("_")]
    if config.candidate not in known:
        raise ModelError(
            f"no model directory {config.candidate} in {config.models}, which has {', '.join(known) or 'none'}: correct "
            f"--candidate or --models{did_you_mean(config.candidate, known)}"
        )
    return directory.load_model(uris.join(config.models, config.candidate))


def _name(model: Model) -> str:
    return model.uri.rstrip("/").rpartition("/")[2]


def _check_labels(candidate: Model, current: Model) -> None:
    if set(candidate.labels) != set(current.labels):
        raise ModelError(
            f"the candidate knows {', '.join(candidate.labels)}, the current model {', '.join(current.labels)}: models of one "
            "folder have the same labels; correct --candidate, or move it to a folder of its own and name that in --models"
        )


def _labelled(config: PromoteConfig) -> pa.Table:
    return list_labelled(config.data, exclude=config.exclude, outputs=(config.output,))


def _rows(config: PromoteConfig, model: Model, labelled: pa.Table) -> pa.Table:
    """Return the scored rows of the labelled scans, with their label. Raises InputError if too many could not be scored."""
    evaluation = EvaluateConfig(
        model=model.uri,
        data=config.data,
        exclude=config.exclude,
        output=uris.join(config.output, _name(model)),
        batch_size=config.batch_size,
        max_reject_rate=config.max_reject_rate,
    )
    evaluated = evaluate_scans(evaluation, model, labelled)
    if evaluated.exit_code:
        raise InputError(
            f"{_name(model)} rejected or failed more scans in {config.data} than --max-reject-rate "
            f"{config.max_reject_rate:g} allows, so nothing was promoted: see {evaluated.predictions}, then repair the scans "
            "or raise the rate"
        )
    return evaluated.rows.filter(pc.equal(evaluated.rows["status"], Status.OK))


def _paired(candidate: pa.Table, current: pa.Table) -> PairedResult:
    keys = list(schema.KEY)
    columns = [*keys, "label", "predicted_class"]
    both = candidate.select(columns).join(
        current.select([*keys, "predicted_class"]), keys=keys, join_type="inner", right_suffix="_current"
    )
    right = pc.equal(both["predicted_class"], both["label"])
    was_right = pc.equal(both["predicted_class_current"], both["label"])
    won = pc.sum(pc.and_(right, pc.invert(was_right))).as_py() or 0
    lost = pc.sum(pc.and_(was_right, pc.invert(right))).as_py() or 0
    return PairedResult(
        scans=both.num_rows,
        candidate_right=pc.sum(right).as_py() or 0,
        current_right=pc.sum(was_right).as_py() or 0,
        only_candidate_right=won,
        only_current_right=lost,
        p_value=metrics.mcnemar(won, lost),
    )


def _record(config: PromoteConfig, promotion: Promotion) -> None:
    """Write the record first, then CURRENT, so that a current model always has a record that says why."""
    facts = asdict(promotion) | {"data": config.data, "at": datetime.now(UTC).isoformat()}
    uris.put(uris.join(config.models, _RECORDS, f"{new_run_id()}.json"), json.dumps(facts, indent=1).encode())
    if promotion.promoted:
        uris.put(uris.join(config.models, CURRENT), f"{config.candidate}\n".encode())
