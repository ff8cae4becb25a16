"""Pages of every kind, made from numbers alone and as full as real ones, to be opened in a browser."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mribatch.commands.night_trends import night_names, trends
from mribatch.reports import figures
from mribatch.reports.audit import AuditPage, audit_page
from mribatch.reports.comparison import comparison_page
from mribatch.reports.evaluation import Evaluation, Mistake, evaluation_page
from mribatch.reports.gallery import shown
from mribatch.reports.index import Index, Run, index_page
from mribatch.reports.night import Night, Referred, Work, night_page
from mribatch.reports.rendering import Picture, picture, png
from mribatch.statistics import breakdown, metrics
from mribatch.statistics.metrics import Scores
from tests.unit.test_comparison import contender
from tests.unit.test_explanation_page import explanation
from tests.unit.test_explanation_page import page as explanation_page
from tests.unit.test_night_page import STARTED, change, comparison, reject, tally
from tests.unit.test_site_page import page as acceptance_page

LABELS = ("glioma", "meningioma", "notumor", "pituitary")
DIGEST = "1d0d0ebde5d4"
SCAN = "s3://radiology-archive/2026/11/series-{:04d}/slice-0042.dcm"


def scan(side_px: int = 96) -> NDArray[np.uint8]:
    """Return the grey picture of a bright disc with a darker one inside."""
    y, x = np.mgrid[-1 : 1 : side_px * 1j, -1 : 1 : side_px * 1j]
    disc, hole = x**2 + y**2 < 0.7, (x - 0.2) ** 2 + y**2 < 0.05
    return np.where(disc, np.where(hole, 90, 150), 0).astype(np.uint8)


def small() -> Picture:
    return picture("", png(scan()))


def scores(scans: int = 400) -> Scores:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, scans)
    logits = rng.normal(0, 1, (scans, 4)) + 3.5 * np.eye(4)[truth]
    shares = np.exp(2 * logits)
    return Scores(labels=LABELS, truth=truth, probabilities=shares / shares.sum(axis=1, keepdims=True))


def evaluation() -> str:
    given = scores()
    scans = len(given.truth)
    sites = ["Scanner A 1.5 T" if n % 3 else "Scanner B 3 T" for n in range(scans)]
    numbers: dict[str, Any] = metrics.measure(given) | {
        "rates": breakdown.class_rates(given),
        "precision_recall": breakdown.operating_points(given),
        "patients": breakdown.patients(given, [f"p{given.truth[n]}-{n % 40}" for n in range(scans)]),
        "subgroups": breakdown.subgroups(
            given, {"scanner": sites, "sex": ["f" if n % 2 else "m" for n in range(scans)]}
        ),
    }
    measured = metrics.measure(given)
    counted = {
        label: {"right": row["support"] - 3, "scans": row["support"]} for label, row in measured["per_class"].items()
    }
    everywhere = measured | {"about": "All scans.", "per_class": counted, "right": int(given.correct.sum())}
    wrong = [int(n) for n in np.flatnonzero(~given.correct)]
    entries = [
        figures.ScanEntry(
            image=np.repeat(scan()[..., None], 3, axis=2),
            truth=LABELS[given.truth[n]],
            probabilities=tuple(given.probabilities[n].tolist()),
        )
        for n in wrong[:12]
    ]
    return evaluation_page(
        Evaluation(
            title=f"Evaluation of model {DIGEST}",
            model={
                "model": "models/brain-mri-v2",
                "digest": DIGEST,
                "command": "python jobs/evaluate.py --data scans.csv",
            },
            counts={
                "scans": scans + 5,
                "ok": scans,
                "rejected": {"truncated": 2},
                "skipped": {"localizer": 2},
                "failed": 1,
            },
            numbers=numbers,
            evidence={
                "published": everywhere,
                "groups_apart": everywhere,
                "other_source": {"not_measured": "pass --other-source"},
            },
            mistakes=[
                Mistake(
                    scan_uri=SCAN.format(n),
                    truth=LABELS[given.truth[n]],
                    predicted=LABELS[given.predicted[n]],
                    confidence=float(given.confidence[n]),
                    picture=small(),
                )
                for n in wrong
            ],
            maps=[shown("glioma (97.1%), labelled notumor", ("slice-0042", scan(352)), ("its map", scan(352)))],
            figures={
                "Precision and recall at every threshold": figures.precision_recall_curves(given),
                "ROC curves, one class against the rest": figures.roc_curves(given),
            },
            scans=("Scans with their probabilities, the worst mistakes first", figures.scan_page(entries, LABELS)),
            files={"metrics.json": "all figures of this page", f"predictions/model={DIGEST}/": "a row for each scan"},
        )
    )


def nights(count: int = 14) -> list[dict[str, Any]]:
    """Return facts of nights, one of them without scans and one without referrals."""
    rng, facts = np.random.default_rng(1), []
    for night in range(count):
        scanned = 0 if night == 5 else int(rng.integers(800, 1500))
        by_class = rng.multinomial(scanned, (0.2, 0.15, 0.55, 0.1)).tolist()
        facts.append(
            {
                "run_id": f"{datetime(2026, 6, 1, 20, tzinfo=UTC) + timedelta(days=night):%Y%m%dT%H%M%SZ}-0123ab",
                "scored": scanned,
                "skipped": 3,
                "rejected": int(rng.integers(0, 9)),
                "failed": int(rng.integers(0, 3)),
                "seconds": 60.0 + scanned / 12,
                "by_class": dict(zip(LABELS, by_class, strict=True)),
                "confidence": rng.multinomial(scanned, (0.01, 0.02, 0.02, 0.03, 0.04, 0.08, 0.2, 0.3, 0.3)).tolist(),
                "referrals": None
                if night == 2
                else {"auto": scanned, "foreign": 9, "unlike_training": 20, "unsure": 30},
            }
        )
    return facts


def night() -> str:
    reasons = ("for review: unlike_training", "was notumor before the scan changed", "among the least sure")
    works = [
        Work(
            scan_uri=SCAN.format(n),
            scan_version="1",
            frame=n % 2,
            why=reasons[n % 3],
            predicted_class=LABELS[n % 4],
            confidence=0.4 + n / 40,
        )
        for n in range(24)
    ]
    return night_page(
        Night(
            title="Night of 2026-06-12",
            run_id="20260612T200004Z-0123ab",
            model="models/brain-mri-v2",
            model_digest=DIGEST,
            started=STARTED,
            ended=STARTED + timedelta(minutes=2, seconds=14.3),
            alarms=["90 of 1,345 scans were rejected or failed, more than 5%."],
            advice=["Look at the reasons and names below. Many scans with one reason point at their source."],
            tally=tally(left_over=7),
            classes=comparison([500, 400, 900, 200], [260, 240, 500, 90], LABELS),
            confidence=comparison([100, 900], [400, 100], ("0 to 0.999", "0.999 to 1")),
            referrals=comparison([900, 10, 40, 50], [90, 1, 4, 5], ("auto", "foreign", "unlike_training", "unsure")),
            worklist=works,
            nights=night_names(nights()),
            trends=trends(nights()),
            referred=[
                Referred(scan_uri=work.scan_uri, referral_reason="foreign", predicted_class="notumor", confidence=0.99)
                for work in works
            ],
            changes=[change(n) for n in range(9)],
            rejects=[reject(n) for n in range(9)],
            skips={"localizer": 34, "functional": 2},
            failures={"access denied": [SCAN.format(n) for n in range(9)]},
            facts={"Output": "s3://b/out", "Input": ("s3://b/a", "s3://b/c")},
        ),
        {(work.scan_uri, work.frame): small() for work in works[:20]},
        {"nightly.json": "all of this page, and the lists in full"},
    )


def models_compared() -> str:
    rng, titles = np.random.default_rng(2), ("Xception", "ResNet50V2", "SVM on frozen features", "k nearest neighbours")
    contenders = []
    for title, sharp in zip(titles, (4.0, 3.5, 2.5, 1.5), strict=True):
        splits = []
        for _ in range(3):
            truth = np.arange(200) % 4
            shares = np.exp(rng.normal(0, 1, (200, 4)) + sharp * np.eye(4)[truth])
            splits.append(Scores(labels=LABELS, truth=truth, probabilities=shares / shares.sum(axis=1, keepdims=True)))
        contenders.append(contender(title, *splits, copies=80))
    facts = {"splits": "3, 80% for training", "command": "python jobs/baselines.py --data scans --output out"}
    return comparison_page(contenders, facts, {"comparison.parquet": "a row for each model and split"})


def audit() -> str:
    pair = shown("altered, correlation 0.987", ("a.jpg", scan(112)), ("b.jpg", scan(112)))
    kinds = {"copy": 300, "mirrored": 40, "altered": 120, "neighbour": 2900}
    probe = {"name": "border, 1/32 of the side", "balanced_accuracy": 0.61, "interval": [0.58, 0.64], "chance": 0.25}
    classes = {
        "scans": 1500,
        "distinct_pictures": 900,
        "sizes": 12,
        "most_frequent_size": "512 × 512",
        "mean_brightness": 48.2,
        "dark_share": 0.41,
        "border_brightness": 3.1,
        "median_bytes": 21_500.0,
    }
    numbers: dict[str, Any] = {
        "scans": 6363,
        "classes": dict.fromkeys(LABELS, classes),
        "labels": list(LABELS),
        "distinct_pictures": 3302,
        "largest_cluster": 31,
        "byte_copies": 297,
        "pairs": kinds,
        "thresholds": {"near": 0.9},
        "leaks": [{"split": "test", "scans": 655, "leaking": 506, "by_kind": {**kinds, "through": 4}}],
        "shared_patients": 3,
        "two_labels": {"pictures": 7, "pairs": 9, "neighbours": 2},
        "suspects": {"count": 88, "features": "thumbnails", "accuracy": 0.87},
        "probes": [probe | {"recall_in_order": [0.5, 0.61234567, None, 0.9]}],
        "unreadable": {"truncated": 3},
    }
    return audit_page(
        AuditPage(
            title="Audit of s3://radiology-archive/labelled",
            facts={"command": "python jobs/audit.py --data labelled --output out"},
            numbers=numbers,
            pairs={"copy": [pair] * 3, "mirrored": [pair] * 3, "altered": [pair] * 2, "neighbour": [pair]},
            leaking=[pair] * 3,
            conflicts=[pair] * 2,
            suspects=[shown("labelled glioma (3%), looks like notumor (95%)", ("c.jpg", scan(112)))] * 4,
            means=[shown(label, ("mean of all scans", scan(112))) for label in LABELS],
        )
    )


def index() -> str:
    runs = [
        Run(
            run_id=facts["run_id"],
            started=datetime.strptime(facts["run_id"][:16], "%Y%m%dT%H%M%SZ"),
            model_digest=DIGEST,
            planned=facts["scored"],
            scored=facts["scored"],
            rejected=facts["rejected"],
            skipped=facts["skipped"],
            failed=facts["failed"],
            left=0,
            for_review=59,
            seconds=facts["seconds"],
            page=f"../_nights/{facts['run_id']}/nightly.html",
        )
        for facts in reversed(nights())
    ]
    return index_page(Index(runs=runs, nights=night_names(nights()), trends=trends(nights())))


def explanations() -> str:
    pair = {"picture": np.stack([scan(352)] * 3, -1), "overlay": np.stack([scan(352)] * 3, -1)}
    return explanation_page(*[explanation(**pair)] * 3)


PAGES: Mapping[str, Callable[[], str]] = {
    "evaluation": evaluation,
    "night": night,
    "comparison": models_compared,
    "audit": audit,
    "acceptance": acceptance_page,
    "explanation": explanations,
    "index": index,
}
"""Every kind of page, by name."""
