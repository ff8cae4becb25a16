"""Sum up what a scoring run did: for the screen, for its record in `_runs/`, and as an exit code."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mribatch import child
from mribatch.commands.screen import Block, Shown, Table, duration
from mribatch.predictions import ledger
from mribatch.predictions.ledger import Plan, Receipt
from mribatch.predictions.lock import Fence
from mribatch.settings.score import ScoreConfig

__all__ = ["TOO_MANY_REJECTS", "Scored", "WrittenParts", "failure_lines", "record", "sum_up"]

TOO_MANY_REJECTS = 3
_SHOWN = 3  # failed scans on the screen, for each cause; the record has all of them


@dataclass(frozen=True, kw_only=True)
class WrittenParts:
    """What came of the parts of a run; of a run without work, nothing."""

    receipts: Sequence[Receipt] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)  # by node ID
    ready_at: float | None = None  # of time.monotonic: the first model was loaded
    engine: Mapping[str, str | None] = field(default_factory=dict)  # its name and version, as on the driver's machine

    @property
    def progress(self) -> tuple[int, int]:
        """How many scans were scored, skipped or failed, and rejected."""
        others = sum(done.scored + sum(done.skipped.values()) + len(done.failed) for done in self.receipts)
        return others, sum(sum(done.rejected.values()) for done in self.receipts)

    def and_then(self, later: "WrittenParts") -> "WrittenParts":
        """Return what came of this and of what was done after it."""
        return WrittenParts(
            receipts=[*self.receipts, *later.receipts],
            addresses={**self.addresses, **later.addresses},
            ready_at=later.ready_at if self.ready_at is None else self.ready_at,
            engine=later.engine,
        )


@dataclass(frozen=True, kw_only=True)
class Scored(Shown):
    """What a run did. Its record holds the same."""

    run_id: str
    output: str
    digest: str
    listed: int
    done: int
    planned: int
    scored: int  # scans with a prediction of at least one frame
    by_class: dict[str, int]  # frames
    referred: dict[str, int] | None = None  # frames for review, by reason; None for a model without referral
    rejected: dict[str, int]
    skipped: dict[str, int] = field(default_factory=dict)
    failed: int
    failures: dict[str, tuple[str, ...]]  # scans that failed, by cause
    left: int
    parts: tuple[str, ...]
    seconds: float
    max_reject_rate: float
    startup_s: float | None = None  # until the first batch was scored; None without one

    @property
    def exit_code(self) -> int:
        return TOO_MANY_REJECTS if self._lost > self.max_reject_rate * self._wanted else 0

    @property
    def _lost(self) -> int:
        return sum(self.rejected.values()) + self.failed

    @property
    def _wanted(self) -> int:
        return self.planned - sum(self.skipped.values())

    @property
    def waiting(self) -> int:
        """Listed scans that are neither done nor failed: beyond --limit, or not started in time."""
        return self.listed - self.done - self.planned + self.left

    def blocks(self) -> list[Block]:
        """Return the run's counts, its failed scans, and where the predictions are."""
        if not self.planned:
            return [f"nothing to do: all {self.listed:,} scans have a row by model {self.digest} in {self.output}"]
        frames = sum(self.by_class.values())
        failed = {cause: len(scans) for cause, scans in self.failures.items()}
        rows = [
            *_counted("scored", self.scored, self.by_class if frames == self.scored else {}),
            *(_counted("frames scored", frames, self.by_class) if frames != self.scored else ()),
            *_counted_referrals(self.referred),
            *_counted("rejected", sum(self.rejected.values()), self.rejected),
            *(_counted("skipped", sum(self.skipped.values()), self.skipped) if self.skipped else ()),
            *_counted("failed, to be retried", self.failed, failed),
            *_counted("left for the next run", self.waiting),
            *_counted("done before", self.done),
        ]
        return [Table(rows), *failure_lines(self.failures), *self._alarm(), self._speed()]

    def _alarm(self) -> list[str]:
        if not self.exit_code:
            return []
        counts = f"{self._lost:,} of {self._wanted:,} scans could not be scored"
        return [f"warning: {counts}, more than --max-reject-rate {self.max_reject_rate:g} allows"]

    def _speed(self) -> str:
        scans = self.planned - self.left - self.failed
        startup = f", {duration(self.startup_s)} of them start-up" if self.startup_s is not None else ""
        folder = ledger.model_folder(self.output, self.digest)
        return f"{scans:,} scans in {duration(self.seconds)}{startup}. Predictions: {folder}"


def _counted(name: str, count: int, parts: Mapping[str, int] | None = None) -> Iterator[tuple[str, str]]:
    yield name, f"{count:,}"
    yield from ((f"  {part}", f"{number:,}") for part, number in sorted((parts or {}).items()))


def _counted_referrals(referred: Mapping[str, int] | None) -> Iterator[tuple[str, str]]:
    return iter(()) if referred is None else _counted("for review", sum(referred.values()), referred)


def failure_lines(failures: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a line for each cause that names some of the scans that failed."""
    return [
        f"failed: {cause}: {', '.join(scans[:_SHOWN])}{' …' if len(scans) > _SHOWN else ''}"
        for cause, scans in sorted(failures.items())
    ]


def sum_up(
    config: ScoreConfig,
    plan: Plan,
    receipts: Sequence[Receipt],
    fence: Fence,
    seconds: float,
    startup_s: float | None,
    *,
    refers: bool = False,
) -> Scored:
    """Return what the receipts of a run's parts add up to. refers: the model says which scans are for review."""
    failures: dict[str, list[str]] = {}
    for uri, cause in sorted(_failed(receipts).items()):
        failures.setdefault(cause or "unknown", []).append(uri)
    return Scored(
        run_id=fence.run_id,
        output=fence.output,
        digest=fence.digest,
        listed=plan.listed,
        done=plan.done,
        planned=plan.todo.num_rows,
        scored=sum(receipt.scored for receipt in receipts),
        by_class=_added(receipt.by_class for receipt in receipts),
        referred=_added(receipt.referred for receipt in receipts) if refers else None,
        skipped=_added(receipt.skipped for receipt in receipts),
        rejected=_added(receipt.rejected for receipt in receipts),
        failed=sum(map(len, failures.values())),
        failures={cause: tuple(scans) for cause, scans in failures.items()},
        left=sum(len(receipt.left) for receipt in receipts),
        parts=tuple(receipt.part for receipt in receipts if receipt.part),
        seconds=seconds,
        startup_s=startup_s,
        max_reject_rate=config.max_reject_rate,
    )


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def record(
    config: ScoreConfig, scored: Scored, receipts: Sequence[Receipt], nodes: Mapping[str, str], started_at: datetime
) -> dict[str, Any]:
    """Return the run's record, which holds all that is known of it. nodes: addresses by node ID."""
    by_node = _added(receipt.by_node for receipt in receipts)
    return {
        "run_id": scored.run_id,
        "model_digest": scored.digest,
        "config": config.as_dict(),
        "started_at": started_at.isoformat(),
        "ended_at": datetime.now(UTC).isoformat(),
        "seconds": round(scored.seconds, 3),
        "plan": {"listed": scored.listed, "done": scored.done, "planned": scored.planned},
        "counts": {
            "ok": scored.scored,
            "rejected": sum(scored.rejected.values()),
            "skipped": sum(scored.skipped.values()),
            "failed": scored.failed,
            "left": scored.left,
        },
        "by_class": scored.by_class,
        "referred_by_reason": scored.referred,
        "rejected_by_reason": scored.rejected,
        "skipped_by_reason": scored.skipped,
        "failed_by_cause": {cause: len(scans) for cause, scans in scored.failures.items()},
        "failed": [{"scan_uri": uri, "detail": detail} for uri, detail in _failed(receipts).items()],
        "parts": [{"name": receipt.part, "rows": receipt.rows} for receipt in receipts if receipt.part],
        "nodes": [{"id": node, "address": nodes.get(node), "scans": scans} for node, scans in sorted(by_node.items())],
        "peak_memory_bytes": _peak_bytes(receipts),
    }


def _failed(receipts: Sequence[Receipt]) -> dict[str, str]:
    """Return the cause of each failed file, once: members of an archive may have failed in several writes."""
    return dict(failed for receipt in receipts for failed in receipt.failed)


def _peak_bytes(receipts: Sequence[Receipt]) -> dict[str, int]:
    peaks = {"driver": child.peak_bytes()}
    for receipt in receipts:
        for role, size in sorted(receipt.peak_bytes.items()):
            peaks[role] = max(peaks.get(role, 0), size)
    return peaks
