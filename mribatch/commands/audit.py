"""Audit: labelled scans → thumbnails → near copies, leaks, wrong labels, shortcuts → Parquet tables and a page."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mribatch.cluster.nodes import check_seen
from mribatch.cluster.session import session
from mribatch.cluster.thumbnails import thumbnails_of
from mribatch.commands.audit_findings import Findings, findings
from mribatch.commands.audit_pictures import page_of
from mribatch.commands.classes import list_labelled
from mribatch.commands.paying import paying
from mribatch.commands.scored import TOO_MANY_REJECTS
from mribatch.commands.screen import Block, Shown, Table, progress
from mribatch.errors import InputError
from mribatch.models import directory, lookup
from mribatch.reports.audit import audit_page
from mribatch.reports.rendering import interval
from mribatch.settings.audit import AuditConfig
from mribatch.statistics.shares import percent
from mribatch.stores import uris

__all__ = ["Audited", "audit"]

log = logging.getLogger("mribatch.audit")


@dataclass(frozen=True, kw_only=True)
class Audited(Shown):
    """The numbers of audit.json, and where the page is."""

    numbers: Mapping[str, Any]
    report: str
    max_reject_rate: float

    @property
    def exit_code(self) -> int:
        unread = sum(self.numbers["unreadable"].values())
        return TOO_MANY_REJECTS if unread > self.max_reject_rate * (self.numbers["scans"] + unread) else 0

    def blocks(self) -> list[Block]:
        """Return the counts of copies, leaks and doubtful labels, and what shallow views reveal of the class."""
        numbers = self.numbers
        probes = [_probe_row(probe) for probe in numbers["probes"]]
        unread = ", ".join(f"{count:,} {reason}" for reason, count in numbers["unreadable"].items())
        return [
            f"{numbers['scans']:,} scans are {numbers['distinct_pictures']:,} distinct pictures "
            f"(largest cluster {numbers['largest_cluster']:,})",
            "pairs: " + ", ".join(f"{count:,} {kind}" for kind, count in numbers["pairs"].items()),
            *map(_leak_line, numbers["leaks"]),
            f"pictures under two labels: {numbers['two_labels']['pictures']:,}",
            f"labels that look wrong: {numbers['suspects']['count']:,}",
            "",
            Table(probes, ("class predicted from", "balanced accuracy", "95% interval", "chance")),
            *([f"not read: {unread}"] if unread else []),
            f"report  {self.report}",
        ]


def _leak_line(leak: Mapping[str, Any]) -> str:
    counts = f"{leak['leaking']:,} of {leak['scans']:,} scans"
    return f"{leak['split']}: {counts} have a near copy among the training scans"


def _probe_row(probe: Mapping[str, Any]) -> tuple[str, ...]:
    accuracy, chance = percent(probe["balanced_accuracy"]), percent(probe["chance"])
    return probe["name"], accuracy, interval(probe["interval"]), chance


@paying
def audit(config: AuditConfig) -> Audited:
    """Audit the labelled scans at config.data and write the findings to config.output.

    Writes pairs.parquet, clusters.parquet (scan_uri, cluster: groups for splits), suspects.parquet, audit.json and
    audit.html, the page last. Raises InputError for labels that do not fit and where no scan can be read, ModelError for
    config.model.
    """
    config = replace(config, output=uris.absolute(config.output))
    table = list_labelled(config.data, exclude=config.exclude, outputs=(config.output,))
    model = directory.load_model(lookup.locate(config.model)) if config.model else None
    with uris.probe(config.output) as probe, session():
        check_seen({table["scan_uri"][0].as_py(): table["scan_version"][0].as_py(), probe: None})
        log.info("reading %s scans …", f"{table.num_rows:,}")
        with progress("reading", table.num_rows, "scans") as bar:
            decoded = thumbnails_of(table, model, config.batch_size, bar.advance)
    if not decoded.scans.num_rows:
        raise InputError(f"none of the {table.num_rows} scans in {config.data} can be read: repair or replace them")
    results = findings(decoded, model, config.seed)
    _write(config, results)
    report = uris.join(config.output, "audit.html")
    uris.put(report, audit_page(page_of(config, decoded, results)).encode())
    return Audited(numbers=results.numbers, report=report, max_reject_rate=config.max_reject_rate)


def _write(config: AuditConfig, results: Findings) -> None:
    for name, table in results.tables.items():
        data = pa.BufferOutputStream()
        pq.write_table(table, data)
        uris.put(uris.join(config.output, f"{name}.parquet"), data.getvalue().to_pybytes())
    facts = {"settings": config.as_dict(), **results.numbers}
    uris.put(uris.join(config.output, "audit.json"), json.dumps(facts, indent=1).encode())
