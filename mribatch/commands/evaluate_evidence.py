"""Judge a model three times: on all scans as published, on those apart from its training scans, and on another source."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mribatch import schema
from mribatch.commands.groups import clusters_of, compared, with_clusters
from mribatch.commands.rows import scores_of
from mribatch.models import card, trained_on
from mribatch.models.format import Model
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.sources import clusters
from mribatch.sources.labels import TrainingScans, training_scans
from mribatch.sources.listing import with_digests
from mribatch.statistics import metrics
from mribatch.stores import uris
from mribatch.training.splits import content_groups

__all__ = ["Beside", "Known", "digested", "evidence", "known_scans"]

log = logging.getLogger("mribatch.evaluate")

_COLUMNS = [*schema.PLAN.names, "patient_id", "content_sha256"]
_NO_TRAINING = "pass --training URI, the scans that the model was trained on"
_NO_OTHER = "pass --other-source URI, labelled scans from elsewhere"


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """The scans that a model was trained on. source: what names them.

    scans: scan_uri and scan_version (both null for scans known by their digest only), patient_id, content_sha256.
    clusters: of --groups, by the SHA-256 of scans; None if near copies are to be looked for.
    blind: how many of the model's training scans are not at hand, so that near copies of them are not recognized.
    """

    source: str
    scans: pa.Table
    clusters: Mapping[str, int] | None
    blind: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Beside:
    """What evaluated scans are judged beside. other: labelled scans of another source."""

    known: Known | None
    other: pa.Table | None


def digested(names: tuple[str, ...]) -> TrainingScans | None:
    """Return the scans that --apart-from or --training names, with their `content_sha256`; None if it names none."""
    if not names:
        return None
    named = training_scans(names)
    log.info("reading the %s scans at %s …", f"{named.scans.num_rows:,}", ", ".join(names))
    return replace(named, scans=with_digests(named.scans))


def known_scans(config: EvaluateConfig, model: Model, labelled: pa.Table, apart: TrainingScans | None) -> Known | None:
    """Return the scans that the model was trained on, as far as flags, the data's splits and the model name them.

    apart: the scans of --apart-from, which stand for the training scans without --training. Raises InputError for --groups
    that no audit wrote, ModelError for a damaged record in the model.
    """
    given = None if config.groups is None else clusters.read(config.groups)
    record = trained_on.read(model)
    named = digested(config.training) or apart
    own = labelled.filter(pc.is_in(labelled["split"], pa.array(["training", "validation"])))
    if named is not None:
        source, scans = ", ".join(config.training or config.apart_from), named.scans
    elif own.num_rows:
        log.info("reading the %s training scans in %s …", f"{own.num_rows:,}", config.data)
        source = f"the training scans in {config.data}"
        scans = with_digests(own.select([*schema.PLAN.names, "patient_id"]))
    elif record and given is not None:
        source, scans = "the record of the model", _only_digests(frozenset())
    else:
        return None
    known = Known(source=source, scans=_texts(scans), clusters=given)
    return known if record is None else _completed(known, model, record)


def _completed(known: Known, model: Model, record: frozenset[str]) -> Known:
    """Add the scans that only the model's own record has, and warn of near copies that cannot be recognized."""
    absent = record - set(known.scans["content_sha256"].to_pylist())
    blind = absent - (known.clusters or {}).keys()
    if blind:
        message = "warning: %s of the model's %s training scans are not at hand: near copies of them are not recognized"
        log.warning(message, f"{len(blind):,}", f"{len(record):,}")
    if not model.facts["training"]["scans"]["complete"]:
        log.warning("warning: the scans that the model's first stage was trained on are not recorded in it")
    return replace(known, scans=pa.concat_tables([known.scans, _only_digests(absent)]), blind=len(blind))


def _only_digests(contents: frozenset[str]) -> pa.Table:
    empty = pa.nulls(len(contents), pa.string())
    return pa.table([empty, empty, empty, pa.array(sorted(contents), pa.string())], names=_COLUMNS)


def evidence(
    config: EvaluateConfig, model: Model, rows: pa.Table, other: pa.Table | None, known: Known | None
) -> dict[str, Any]:
    """Return the figures by the keys of `card.RELATIONS`, ready for metrics.json.

    rows, other: the scored rows with `label` and `patient_id` of the evaluated scans and, if any, of another source.
    A set that was not measured has the key `not_measured` with what to do; one without scans has none right of none.
    """
    count = rows.num_rows
    judged = rows if other is None else pa.concat_tables([rows, other.select(rows.column_names)])
    apart = np.ones(judged.num_rows, bool) if known is None else _apart(config, known, judged)
    everything = _figures(model, rows, f"All scans evaluated in {config.data}.")
    groups: dict[str, Any] = {"not_measured": _NO_TRAINING}
    if known is not None:
        about = f"Those without a near copy or a patient in {known.source}."
        groups = _apart_figures(model, rows, apart[:count], about) | {"not_compared": known.blind}
    elsewhere: dict[str, Any] = {"not_measured": _NO_OTHER}
    if other is not None:
        elsewhere = _apart_figures(model, other, apart[count:], f"Scans in {config.other_source}.")
    return dict(zip(card.RELATIONS, (everything, groups, elsewhere), strict=True))


def _apart_figures(model: Model, rows: pa.Table, apart: NDArray[np.bool_], about: str) -> dict[str, Any]:
    kept = rows.filter(pa.array(apart))
    return _figures(model, kept, about) | {"left_out": rows.num_rows - kept.num_rows}


def _figures(model: Model, rows: pa.Table, about: str) -> dict[str, Any]:
    if not rows.num_rows:
        classes = {label: {"scans": 0, "right": 0} for label in model.labels}
        unknown = dict.fromkeys(("accuracy", "accuracy_95", "balanced_accuracy", "mean_confidence"))
        return {"about": about, "scans": 0, "right": 0, **unknown, "per_class": classes}
    numbers = metrics.measure(scores_of(rows, model.labels))
    return card.evidence_of(numbers, about) | {"accuracy": numbers["accuracy"]}


# Groups


def _apart(config: EvaluateConfig, known: Known, rows: pa.Table) -> NDArray[np.bool_]:
    """Return for each row whether its scan was compared, and shares no group with a training scan."""
    together = pa.concat_tables([_texts(known.scans), _texts(rows)]).combine_chunks()
    table = with_clusters(together, _clusters(config, known, rows, together))
    groups = np.array(content_groups(table))
    training = known.scans.num_rows
    clustered = np.asarray(table["cluster"].is_valid())[training:]
    if not clustered.all():
        message = "warning: %d scored scans could not be compared with the training scans; they count as near copies"
        log.warning(message, (~clustered).sum())
    apart: NDArray[np.bool_] = ~np.isin(groups[training:], groups[:training]) & clustered
    return apart


def _texts(table: pa.Table) -> pa.Table:
    return pa.table({name: table[name] for name in _COLUMNS})


def _clusters(config: EvaluateConfig, known: Known, rows: pa.Table, together: pa.Table) -> Mapping[str, int]:
    if known.clusters is not None:
        clusters.check_covered(known.clusters, rows, str(config.groups), config.data)
        _check_training(config, known.clusters, known)
        return known.clusters
    contents = together["content_sha256"].drop_null().to_pylist()
    here = together.filter(pc.is_valid(together["scan_uri"])).group_by(schema.PLAN.names).aggregate([])
    listing = pa.table(here.sort_by("scan_uri").columns, schema=schema.PLAN)
    return clusters_of(contents, uris.join(uris.absolute(config.output), clusters.FILE), lambda: compared(listing))


def _check_training(config: EvaluateConfig, given: Mapping[str, int], known: Known) -> None:
    """Raise InputError if --groups lacks more training scans than may be unreadable; warn if it lacks some."""
    here = known.scans.filter(pc.is_valid(known.scans["scan_uri"]))
    absent = sum(content not in given for content in here["content_sha256"].to_pylist())
    if absent > config.max_reject_rate * here.num_rows:
        clusters.check_covered(given, here, str(config.groups), known.source)
    elif absent:
        log.warning("warning: --groups lacks %d of %d training scans", absent, here.num_rows)
