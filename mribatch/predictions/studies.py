"""Sum up rows by series and by study: counts, probabilities, and runs of suspicious slices.

Rows may come in any order; the tables are the same. Nothing here loops over rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mribatch import schema
from mribatch.errors import InputError
from mribatch.predictions.series import ENTITIES, MEMBERSHIP, entities, ranks
from mribatch.schema import Status
from mribatch.statistics.stacks import Stacks, highest_rows, is_in_middle, measure_stacks

__all__ = ["COLUMNS", "Rule", "series_and_studies"]

COLUMNS = (
    *(*MEMBERSHIP, "frame", "kind", "modality", "plane", "slice_mm", "instance_key", "content_sha256"),
    *("reading", "model_digest", "scored_at"),
)
"""The columns of rows that are needed, besides the p_<label>."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What makes a slice suspicious: that it is not of the healthy class with more than a probability.

    kth: which of the highest probabilities the columns kth_… hold.
    """

    healthy_class: str
    threshold: float = 0.5
    kth: int = 3


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows that have a study, in an order that depends on their contents alone. Texts are not copied."""

    table: pa.Table
    order: Ints  # of the rows in the table

    def ranks(self, name: str) -> Ints:
        return ranks(self.table[name])[self.order]

    def numbers(self, name: str) -> NDArray[Any]:
        return np.asarray(self.table[name].to_numpy())[self.order]

    def is_valid(self, name: str) -> Bools:
        return np.asarray(self.table[name].is_valid().to_numpy(), bool)[self.order]

    def taken(self, column: pa.ChunkedArray, index: Ints) -> pa.Array:
        """Return the values of some rows, null for -1."""
        rows = pa.array(self.order[index], mask=index < 0)
        return column.take(rows).combine_chunks()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Slices:
    """What is known of each row."""

    rows: _Rows
    study: Ints  # its number
    part: Ints  # number of the series within all studies; rows without a series share one in their study
    is_in_series: Bools
    is_counted: Bools  # not a duplicate
    is_scored: Bools  # by the newest model and reading, and counted
    recency: Ints  # higher for rows that were scored later
    suspicion: Floats  # NaN unless scored
    is_suspicious: Bools
    is_placed: Bools  # has a position in a series, and is counted
    is_middle: Bools
    stacks: Stacks
    part_of_stack: Ints
    probabilities: dict[str, Floats]  # by label, NaN unless scored


def series_and_studies(rows: pa.Table, rule: Rule) -> tuple[pa.Table, pa.Table]:
    """Return a row for each series and one for each study, ordered by their keys.

    rows: the newest rows, from `with_series`, with COLUMNS and the p_<label>; those without a study count nowhere.
    Raises InputError if the model has no class of the rule's name.
    """
    slices = _slices(rows, rule)
    number = np.cumsum(_is_first(slices.part) & slices.is_in_series) - 1
    series = _Level(slices, np.where(slices.is_in_series, number, -1))
    studies = _Level(slices, slices.study)
    first = {name: series.text(name) for name in ("series_key", "study_key", "patient_key")}
    named = series.entities(ENTITIES)
    table = pa.table(first | named | series.columns(rule), metadata=_metadata(rule))
    first = {name: studies.text(name) for name in ("study_key", "patient_key")}
    counted = {
        "series": np.bincount(slices.study[_is_first(slices.part) & slices.is_in_series], minlength=studies.count)
    }
    named = studies.entities(ENTITIES[:2])
    return table, pa.table(first | named | counted | studies.columns(rule), metadata=_metadata(rule))


def _metadata(rule: Rule) -> dict[str, str]:
    values = {"healthy_class": rule.healthy_class, "threshold": str(rule.threshold), "kth": str(rule.kth)}
    return {f"mribatch.{name}": value for name, value in values.items()}


# Rows


def _slices(table: pa.Table, rule: Rule) -> _Slices:
    rows = _Rows(table, _order(table))
    study, series = rows.ranks("study_key"), rows.ranks("series_key")
    study, part = _numbered(study), _numbered(study, series)
    is_in_series, is_ok, recency = series >= 0, _equal(rows, Status.OK), _recency(rows)
    is_current = is_ok & _is_newest(rows.ranks("model_digest"), study, is_ok, recency)
    is_current &= _is_newest(rows.ranks("reading"), part, is_ok, recency)
    is_counted = _is_first_copy(rows, part, is_ok, is_current)
    is_scored = is_current & is_counted
    probabilities = _probabilities(rows, is_scored)
    suspicion = _suspicion(rows, probabilities, is_scored, rule)
    is_suspicious = suspicion > rule.threshold
    mm = rows.numbers("slice_mm")
    is_placed = is_in_series & is_counted & ~np.isnan(mm)
    stack = _numbered(part[is_placed], rows.ranks("plane")[is_placed])
    count = int(stack.max(initial=-1)) + 1
    is_middle = np.zeros(len(study), bool)
    is_middle[is_placed] = is_in_middle(stack, mm[is_placed], count)
    return _Slices(
        rows=rows,
        study=study,
        part=part,
        is_in_series=is_in_series,
        is_counted=is_counted,
        is_scored=is_scored,
        recency=recency,
        suspicion=suspicion,
        is_suspicious=is_suspicious,
        is_placed=is_placed,
        is_middle=is_middle,
        stacks=measure_stacks(stack, mm[is_placed], is_suspicious[is_placed], count),
        part_of_stack=part[is_placed][_is_first(stack)],
        probabilities=probabilities,
    )


def _order(table: pa.Table) -> Ints:
    """Return the rows that have a study: by study, series, plane, position and URI."""
    keys = [ranks(table[name]) for name in ("frame", "scan_uri")]
    keys += [table["slice_mm"].to_numpy(), *(ranks(table[name]) for name in ("plane", "series_key", "study_key"))]
    order = np.lexsort(keys)
    return order[keys[-1][order] >= 0]


def _numbered(*keys: Ints) -> Ints:
    """Return the numbers from 0 of groups of rows that are ordered by these keys."""
    return np.cumsum(_is_first(*keys)) - 1


def _is_first(*keys: Ints) -> Bools:
    """Return for each row whether one of the keys differs from that of the row before."""
    changes = np.logical_or.reduce([np.diff(key) != 0 for key in keys])
    return np.r_[True, changes] if len(keys[0]) else np.zeros(0, bool)


def _equal(rows: _Rows, status: str) -> Bools:
    return np.asarray(pc.equal(rows.table["status"], status).to_numpy(), bool)[rows.order]


def _recency(rows: _Rows) -> Ints:
    """Return the place of each row by the time of scoring, and then by model and reading."""
    at = rows.table["scored_at"].cast(pa.int64()).to_numpy()[rows.order]
    place = np.empty(len(at), np.int64)
    place[np.lexsort((rows.ranks("reading"), rows.ranks("model_digest"), at))] = np.arange(len(at))
    return place


def _newest_rows(group: Ints, is_ok: Bools, recency: Ints) -> Ints:
    """Return the row of each group, 0 … n, that was scored last; of those with a prediction if there are any."""
    order = np.lexsort((recency, is_ok, group))
    return order[np.r_[_is_first(group[order])[1:], True]] if len(order) else order


def _is_newest(values: Ints, group: Ints, is_ok: Bools, recency: Ints) -> Bools:
    """Return for each row whether it has the value of the row of its group that was scored last."""
    return np.asarray(values == values[_newest_rows(group, is_ok, recency)][group], bool)


def _is_first_copy(rows: _Rows, part: Ints, is_ok: Bools, is_current: Bools) -> Bools:
    """Return for each row whether it counts, of the copies of one slice: one that was scored last, then the first URI.

    Copies have one instance_key, or without it the same bytes.
    """
    table = rows.table
    identity = ranks(pc.coalesce(table["instance_key"], table["content_sha256"], table["scan_uri"]))[rows.order]
    frame, place = rows.numbers("frame"), np.arange(len(part))
    order = np.lexsort((place, ~is_current, ~is_ok, frame, identity, part))
    kept = np.zeros(len(part), bool)
    kept[order[_is_first(part[order], identity[order], frame[order])]] = True
    return kept


def _probabilities(rows: _Rows, is_scored: Bools) -> dict[str, Floats]:
    prefix = schema.probability_column("")
    names = sorted(name for name in rows.table.column_names if name.startswith(prefix))
    columns = {name.removeprefix(prefix): rows.numbers(name).astype(np.float64) for name in names}
    return {label: np.where(is_scored, values, np.nan) for label, values in columns.items()}


def _suspicion(rows: _Rows, probabilities: dict[str, Floats], is_scored: Bools, rule: Rule) -> Floats:
    healthy = probabilities.get(rule.healthy_class, np.full(len(is_scored), np.nan))
    unknown = is_scored & np.isnan(healthy)
    if unknown.any():
        first = int(unknown.argmax())
        labels = [label for label, values in probabilities.items() if not np.isnan(values[first])]
        raise InputError(
            f"model {rows.table['model_digest'][rows.order[first]]} has no class {rule.healthy_class}, but {', '.join(labels)}: name the "
            "class of a healthy brain with --healthy-class"
        )
    return 1 - healthy


# Series and studies


class _Level:
    """The slices in groups: of a series or of a study each."""

    def __init__(self, slices: _Slices, group: Ints) -> None:
        """group: (N,) the number of each slice's group, ascending; -1 for none."""
        self._slices, self._group = slices, group
        self.count = int(group.max(initial=-1)) + 1

    def columns(self, rule: Rule) -> dict[str, pa.Array]:
        """Return all columns but the names of the groups."""
        return {
            **self._counts(),
            **self._suspicious(),
            **self._runs(),
            **self._highest("suspicion", self._slices.suspicion, rule.kth),
            **self._labels(rule.kth),
            **self._most_suspicious(),
            **self._last_scored(),
        }

    def text(self, name: str) -> pa.Array:
        """Return the first value of each group that is not null."""
        rows = self._slices.rows
        valid = np.flatnonzero((self._group >= 0) & rows.is_valid(name))
        group, first = np.unique(self._group[valid], return_index=True)
        index = np.full(self.count, -1, np.int64)
        index[group] = valid[first]
        return rows.taken(rows.table[name], index)

    def entities(self, names: tuple[str, ...]) -> dict[str, pa.Array]:
        """Return what paths say of the groups."""
        known = entities(self.text("scan_uri"), self.text("container"))
        return {name: known[name] for name in names}

    def _number(self, mask: Bools) -> Ints:
        return np.bincount(self._group[mask & (self._group >= 0)], minlength=self.count)

    def _counts(self) -> dict[str, pa.Array]:
        slices = self._slices
        status = {str(name): _equal(slices.rows, name) for name in (Status.OK, Status.SKIPPED, Status.REJECTED)}
        counts = {"slices": self._number(slices.is_counted)}
        counts |= {name: self._number(mask & slices.is_counted) for name, mask in status.items()}
        counts["outdated"] = self._number(status[Status.OK] & slices.is_counted & ~slices.is_scored)
        counts["duplicates"] = self._number(~slices.is_counted)
        return {**counts, "kinds": self._kinds()}

    def _kinds(self) -> pa.Array:
        """Return the number of slices of each kind, or format where there is no kind, as maps."""
        rows = self._slices.rows
        names = pc.coalesce(rows.table["kind"], rows.table["format"], pa.scalar("unknown"))
        counted = np.flatnonzero(self._slices.is_counted & (self._group >= 0))
        kind, group = ranks(names)[rows.order][counted], self._group[counted]
        pairs, first, counts = np.unique(np.stack([group, kind]), axis=1, return_index=True, return_counts=True)
        offsets = np.searchsorted(pairs[0], np.arange(self.count + 1))
        keys = rows.taken(names, counted[first])
        return pa.MapArray.from_arrays(pa.array(offsets, pa.int32()), keys, pa.array(counts, pa.int64()))

    def _suspicious(self) -> dict[str, pa.Array]:
        slices = self._slices
        suspicious, scored = self._number(slices.is_suspicious), self._number(slices.is_scored)
        middle = (
            self._number(slices.is_suspicious & slices.is_middle),
            self._number(slices.is_scored & slices.is_middle),
        )
        return {
            "suspicious": suspicious,
            "suspicious_fraction": _ratio(suspicious, scored),
            "suspicious_fraction_middle": _ratio(*middle),
        }

    def _runs(self) -> dict[str, pa.Array]:
        """Return the longest runs and the missing positions; null for a group without positions."""
        slices = self._slices
        group = self._group[np.searchsorted(slices.part, slices.part_of_stack)]
        longest, gap, longest_mm = np.zeros(self.count, np.int64), np.zeros(self.count, np.int64), np.zeros(self.count)
        np.maximum.at(longest, group, slices.stacks.longest_run)
        np.maximum.at(longest_mm, group, slices.stacks.longest_run_mm)
        np.add.at(gap, group, slices.stacks.gap)
        no_position = self._number(slices.is_placed) == 0
        no_length = no_position | ((longest > 0) & (longest_mm == 0))
        return {
            "longest_run": pa.array(longest, mask=no_position),
            "longest_run_mm": pa.array(longest_mm, mask=no_length),
            "gap": pa.array(gap, mask=no_position),
        }

    def _highest(self, name: str, values: Floats, kth: int) -> dict[str, pa.Array]:
        """Return mean, maximum and k-th highest of the scored slices; null where there are not so many."""
        values = np.where(self._group >= 0, values, np.nan)
        known = ~np.isnan(values)
        total = np.bincount(self._group[known], values[known], minlength=self.count)
        highest = (highest_rows(self._group, values, self.count, k) for k in (1, kth))
        maximum, k_highest = (pa.array(values[row], mask=row < 0) for row in highest)
        return {f"mean_{name}": _ratio(total, self._number(known)), f"max_{name}": maximum, f"kth_{name}": k_highest}

    def _labels(self, kth: int) -> dict[str, pa.Array]:
        columns: dict[str, pa.Array] = {}
        for label, values in self._slices.probabilities.items():
            columns |= self._highest(schema.probability_column(label), values, kth)
        return columns

    def _most_suspicious(self) -> dict[str, pa.Array]:
        rows, values = self._slices.rows, np.where(self._group >= 0, self._slices.suspicion, np.nan)
        row = highest_rows(self._group, values, self.count)
        names = {"most_suspicious_uri": "scan_uri", "most_suspicious_frame": "frame"}
        return {column: rows.taken(rows.table[name], row) for column, name in names.items()}

    def _last_scored(self) -> dict[str, pa.Array]:
        """Return model, reading and time of the slice that was scored last."""
        slices, inside = self._slices, np.flatnonzero(self._group >= 0)
        row = inside[_newest_rows(self._group[inside], slices.is_scored[inside], slices.recency[inside])]
        return {
            name: slices.rows.taken(slices.rows.table[name], row) for name in ("model_digest", "reading", "scored_at")
        }


def _ratio(part: NDArray[np.generic], total: Ints) -> pa.Array:
    """Return shares, null where there is nothing to share."""
    return pa.array(np.asarray(part, np.float64) / np.maximum(total, 1), mask=total == 0)
