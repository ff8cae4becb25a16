"""Studies: the newest rows of an output → series and studies → two tables in the output."""

import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from mribatch.commands.paying import paying
from mribatch.commands.reading import identifier_secret
from mribatch.commands.screen import Block, Shown, Table
from mribatch.errors import InputError
from mribatch.predictions import history, ledger, parts
from mribatch.predictions.series import with_series
from mribatch.predictions.studies import COLUMNS, Rule, series_and_studies
from mribatch.scans.dicom.identity import Identifiers
from mribatch.schema import probability_column
from mribatch.settings.studies import StudiesConfig
from mribatch.sources import manifest
from mribatch.stores import uris

__all__ = ["Studied", "studies"]

log = logging.getLogger("mribatch.studies")

_NEWEST = ("scan_version", "reason")  # decide, besides COLUMNS, which row of a scan is the newest


@paying
def studies(config: StudiesConfig) -> "Studied":
    """Write the tables of series and of studies into config.output, each replaced as one file.

    Raises StorageMissing, InputError if there are no predictions or the model has no class config.healthy_class, and
    what reading a manifest raises.
    """
    output = uris.absolute(config.output)
    ledger.check_output(output)
    patients = _patients(config)
    log.info("reading the predictions in %s …", output)
    rows = with_series(_newest_rows(output), patients)
    log.info("summing up %s rows …", f"{rows.num_rows:,}")
    rule = Rule(healthy_class=config.healthy_class, threshold=config.threshold, kth=config.kth)
    series, summed = series_and_studies(rows, rule)
    return Studied(
        rows=rows.num_rows,
        without_study=rows["study_key"].null_count,
        series=series,
        studies=summed,
        places=(_write(output, "series", series), _write(output, "studies", summed)),
        threshold=config.threshold,
    )


@dataclass(frozen=True, kw_only=True)
class Studied(Shown):
    """The tables of series and studies, and where they are."""

    rows: int
    without_study: int  # rows
    series: pa.Table
    studies: pa.Table
    places: tuple[str, str]
    threshold: float
    exit_code: int = 0

    def blocks(self) -> list[Block]:
        """Return how much there is, and in how many series and studies something is suspicious."""
        levels = (("series", self.series), ("studies", self.studies))
        alone = (
            f"{self.without_study:,} rows belong to no study: pictures without a series, and files that were not read"
        )
        return [
            f"{self.rows:,} rows",
            *([alone] if self.without_study else []),
            Table([_level_row(*level) for level in levels], ("", *_HEAD)),
            f"suspicious: slices whose probability of not being healthy is above {self.threshold}",
            "no study is given a class: `mribatch evaluate --level study` measures which column is worth something",
            *self.places,
        ]


_HEAD = ("", "slices", "scored", "duplicates", "missing", "with a suspicious slice", "with two in a row")


def _level_row(name: str, table: pa.Table) -> tuple[str, ...]:
    scored = pc.sum(pc.subtract(table["ok"], table["outdated"]))
    sums = [pc.sum(table["slices"]), scored, pc.sum(table["duplicates"]), pc.sum(table["gap"])]
    runs = [pc.sum(pc.greater(table["suspicious"], 0)), pc.sum(pc.greater(table["longest_run"], 1))]
    return name, f"{table.num_rows:,}", *(f"{value.as_py() or 0:,}" for value in (*sums, *runs))


def _newest_rows(output: str) -> pa.Table:
    tables = [
        ledger.predictions(output, digest, [*COLUMNS, *_NEWEST, *map(probability_column, parts.labels(output, digest))])
        for digest in ledger.digests(output)
    ]
    if not any(table.num_rows for table in tables):
        raise InputError(f"no predictions in {output}: its runs have written no row yet")
    rows = history.newest(pa.concat_tables(tables, promote_options="default"), history.last_listing(output))
    return rows.drop_columns(list(_NEWEST))


def _patients(config: StudiesConfig) -> Mapping[str, str]:
    """Return the key of the patient of each file that a manifest names. Raises InputError if it has no patient."""
    if config.manifest is None:
        return {}
    named = [(uri, patient) for uri, _, _, patient in manifest.named_scans(config.manifest) if patient]
    if not named:
        raise InputError(f"the manifest {config.manifest} has no patient_id: fill this column, or leave out --manifest")
    is_keyed = config.identifiers == "keyed"
    secret = identifier_secret(config.identifier_key, config.output) if is_keyed else b""
    identifiers = Identifiers(mode=config.identifiers, secret=secret)
    return {uri: key for uri, patient in named if (key := identifiers.key_of(patient.encode()))}


def _write(output: str, name: str, table: pa.Table) -> str:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    place = uris.join(output, f"_{name}", f"{name}.parquet")
    uris.put(place, buffer.getvalue())
    return place
