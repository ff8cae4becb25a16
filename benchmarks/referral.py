"""Measure what a model's referral catches: foreign pictures, other sources, turned and disturbed scans.

    python benchmarks/referral.py --model MODEL --data LABELLED --groups near_copies.csv --foreign foreign.csv \
        --external external.csv --cache /tmp/features --output out

LABELLED has Training/ and Testing/. near_copies.csv has scan (below LABELLED) and group; testing scans whose group has no
training scan are held back. foreign.csv has uri and kind, external.csv uri and label, both relative to their folder. A model
without referral gets one here: fitted on training scans, its thresholds on one half of the held-back groups, measured on the
other half, and the other way round. Features are computed once and cached. Writes referral.json and referral.md.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import numpy as np
import recorded
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from sklearn.metrics import roc_auc_score

from mribatch.models import directory
from mribatch.models.card_measures import referral_goals, referral_table
from mribatch.models.engine import Engine
from mribatch.models.format import Model
from mribatch.models.referral import stored_detector
from mribatch.scans.decode import frames
from mribatch.settings.calibrate import FALSE_REFERRALS
from mribatch.statistics import calibration
from mribatch.statistics.referral import Detector, Features, fit_detector, with_thresholds

Pixels = NDArray[np.uint8]
_BATCH = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What the network computed for some pictures. truth: class numbers, -1 where no class is right."""

    logits: NDArray[np.float32]
    features: Features
    truth: NDArray[np.int64]

    def rows(self, chosen: NDArray[Any]) -> "Measured":
        """Return some of the rows."""
        features = Features(*(values[chosen] for values in self.features))
        return Measured(logits=self.logits[chosen], features=features, truth=self.truth[chosen])


class Network:
    """Compute pictures once, and keep what came of them in a folder."""

    def __init__(self, model: Model, cache: Path) -> None:
        self.model, self._cache = model, cache
        self._engine: Engine | None = None

    def measured(
        self,
        name: str,
        places: Sequence[Path],
        labels: Sequence[str] | Sequence[None],
        change: Callable[[Pixels], Pixels],
    ) -> Measured:
        """Return what the network computes for these files, changed; those that cannot be decoded are left out."""
        place = self._cache / f"{self.model.digest}-{name}-{len(places)}.npz"
        if not place.exists():
            np.savez(place, allow_pickle=False, **self._computed(places, labels, change))
        with np.load(place) as arrays:
            features = Features(arrays["intermediate"], arrays["penultimate"])
            return Measured(logits=arrays["logits"], features=features, truth=arrays["truth"])

    def _computed(
        self, places: Sequence[Path], labels: Sequence[str] | Sequence[None], change: Callable[[Pixels], Pixels]
    ) -> dict[str, NDArray[Any]]:
        from mribatch.models.tensorflow_engine import TensorFlowEngine

        engine = self._engine = self._engine or TensorFlowEngine(self.model, with_layers=True)
        pictures = [next(iter(frames(place.read_bytes(), self.model.image_spec))).pixels for place in places]
        kept = [(row, picture) for row, picture in enumerate(pictures) if picture is not None]
        names = {label: number for number, label in enumerate(self.model.labels)}
        outputs = []
        for start in range(0, len(kept), _BATCH):
            batch = np.stack([picture for _, picture in kept[start : start + _BATCH]])
            outputs.append(engine(change(batch)))
        return {
            "logits": np.concatenate([output.logits for output in outputs]),
            "intermediate": np.concatenate([output.layers.intermediate for output in outputs if output.layers]),
            "penultimate": np.concatenate([output.layers.penultimate for output in outputs if output.layers]),
            "truth": np.array([names.get(labels[row] or "", -1) for row, _ in kept], np.int64),
        }


def each(change: Callable[[Image.Image], Image.Image]) -> Callable[[Pixels], Pixels]:
    """Return a function of batches from one of pictures."""
    return lambda batch: np.stack([np.asarray(change(Image.fromarray(one))) for one in batch])


def brighter(factor: float) -> Callable[[Pixels], Pixels]:
    """Return a function that multiplies grey levels."""
    return lambda batch: (batch * factor).clip(0, 255).astype(np.uint8)


def recompressed(picture: Image.Image) -> Image.Image:
    """Return a picture after JPEG compression at quality 8."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=8)
    return Image.open(buffer).convert("RGB")


def noisy(batch: Pixels) -> Pixels:
    """Return pictures with Gaussian noise of 40 grey levels."""
    noise = np.random.default_rng(1).normal(0, 40, (*batch.shape[:3], 1))
    return (batch + noise).clip(0, 255).astype(np.uint8)


def rician(batch: Pixels) -> Pixels:
    """Return pictures with Rician noise of 40 grey levels."""
    real, imaginary = np.random.default_rng(1).normal(0, 40, (2, *batch.shape[:3], 1))
    noisy_batch: Pixels = np.sqrt((batch + real) ** 2 + imaginary**2).clip(0, 255).astype(np.uint8)
    return noisy_batch


MILD: Mapping[str, Callable[[Pixels], Pixels]] = {
    "15% darker": brighter(0.85),
    "15% brighter": brighter(1.15),
    "shifted by 4%": lambda batch: np.roll(batch, (9, 7), axis=(1, 2)),
}
CORRUPTED: Mapping[str, Callable[[Pixels], Pixels]] = {
    "turned by 90°": lambda batch: np.rot90(batch, axes=(1, 2)),
    "turned by 180°": lambda batch: np.rot90(batch, 2, axes=(1, 2)),
    "Gaussian noise": noisy,
    "Rician noise": rician,
    "blurred": each(lambda picture: picture.filter(ImageFilter.GaussianBlur(4))),
    "28 pixels wide": each(lambda picture: picture.resize((28, 28)).resize(picture.size, Image.Resampling.BICUBIC)),
    "inverted": lambda batch: 255 - batch,
    "gamma 2.2": lambda batch: (255 * (batch / 255) ** 2.2).astype(np.uint8),
    "JPEG at 8": each(recompressed),
}


def judged(detector: Detector, temperature: float, measured: Measured) -> dict[str, NDArray[Any]]:
    """Return arrays by name: `review`, `right` and the `ood_score` of each picture."""
    shares = calibration.calibrated(measured.logits, temperature)
    verdicts = detector.verdicts(measured.features, shares.max(axis=1))
    review = np.array([reason is not None for reason in verdicts.reasons])
    return {"review": review, "right": shares.argmax(axis=1) == measured.truth, "ood_score": verdicts.ood_score}


def row_of(name: str, parts: Iterable[Mapping[str, NDArray[Any]]], usual: NDArray[Any]) -> dict[str, Any]:
    """Return the figures of a kind of pictures. usual: the scores of held-back scans, for the AUROC."""
    joined = {key: np.concatenate([part[key] for part in parts]) for key in ("review", "right", "ood_score")}
    review, right, score = joined.values()
    wrong = ~right
    truth = np.r_[np.zeros(len(usual)), np.ones(len(score))]
    return {
        "kind": name,
        "pictures": len(review),
        "referred": float(review.mean()),
        "right": float(right.mean()),
        "right_or_referred": float((right | review).mean()),
        "wrong": int(wrong.sum()),
        "wrong_referred": float(review[wrong].mean()) if wrong.any() else None,
        "auroc": float(roc_auc_score(truth, np.r_[usual, score])),
    }


def table_of(path: Path, column: str) -> list[tuple[Path, str]]:
    """Return the files and a column of a CSV whose uri is relative to its folder."""
    with path.open() as lines:
        return [(path.parent / row["uri"], row[column]) for row in csv.DictReader(lines)]


def scans_of(data: Path, groups: Path) -> tuple[list[tuple[Path, str, int]], list[tuple[Path, str, int]]]:
    """Return training scans, and testing scans without a near copy among them, with label and group."""
    with groups.open() as lines:
        rows = [(row["scan"], int(row["group"])) for row in csv.DictReader(lines)]
    trained = {group for scan, group in rows if scan.startswith("Training/")}
    all_of = [(data / scan, scan.split("/")[1], group) for scan, group in sorted(rows)]
    train = [row for row, (scan, _) in zip(all_of, sorted(rows), strict=True) if scan.startswith("Training/")]
    return train, [row for row in all_of if row[2] not in trained]


def detectors_of(
    network: Network, train: Sequence[tuple[Path, str, int]], held: Measured, groups: Sequence[int], share: float
) -> list[tuple[Detector, float, NDArray[np.bool_]]]:
    """Return detectors and temperatures with the held-back scans that each may be measured on."""
    if network.model.has_referral:
        everything = np.ones(len(groups), bool)
        return [(stored_detector(network.model), network.model.temperature or 1.0, everything)]
    chosen = [train[row] for row in np.random.default_rng(0).permutation(len(train))[:900]]
    places, labels = [place for place, *_ in chosen], [label for _, label, _ in chosen]
    reference = network.measured("train", places, labels, np.asarray)
    fitted = fit_detector(reference.features)
    odd = np.unique(groups, return_inverse=True)[1] % 2 == 1
    halves = []
    for half in (odd, ~odd):
        part = held.rows(~half)
        temperature = calibration.fit_temperature(part.logits, part.truth)
        confidence = calibration.calibrated(part.logits, temperature).max(axis=1)
        halves.append((with_thresholds(fitted, part.features, confidence, share), temperature, half))
    return halves


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    network = Network(directory.load_model(str(arguments.model)), arguments.cache)
    train, apart = scans_of(arguments.data, arguments.groups)
    places, labels, groups = [scan[0] for scan in apart], [scan[1] for scan in apart], [scan[2] for scan in apart]
    held = network.measured("held", places, labels, np.asarray)
    detectors = detectors_of(network, train, held, groups, arguments.share)
    own = [judged(detector, temperature, held.rows(half)) for detector, temperature, half in detectors]
    usual = np.concatenate([part["ood_score"] for part in own])

    def row(name: str, measured: Measured) -> dict[str, Any]:
        return row_of(name, [judged(one, temperature, measured) for one, temperature, _ in detectors], usual)

    rows = [row_of("held-back scans", own, usual)]
    sample = np.random.default_rng(0).permutation(len(places))[: arguments.disturbed]
    for name, change in {**MILD, **CORRUPTED}.items():
        chosen = [places[k] for k in sample], [labels[k] for k in sample]
        rows.append(row(name, network.measured(name.replace(" ", "-"), *chosen, change)))
    foreign = table_of(arguments.foreign, "kind")
    kinds = {
        kind: [place for place, own_kind in foreign if own_kind == kind] for kind in sorted(dict(foreign).values())
    }
    for kind, files in kinds.items():
        rows.append(
            row(f"foreign: {kind}", network.measured(f"foreign-{kind}", files, [None] * len(files), np.asarray))
        )
    other = table_of(arguments.external, "label")
    rows.append(
        row(
            "another source",
            network.measured("external", [one for one, _ in other], [label for _, label in other], np.asarray),
        )
    )
    return {
        "model": network.model.digest,
        "stored": network.model.has_referral,
        "share": arguments.share,
        "kinds": rows,
    }


def page_of(facts: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = [
        f"# What the referral of model {facts['model']} catches",
        "",
        f"`{facts['command']}` on {facts['machine']['cpu']}",
        "",
        *referral_table(facts["kinds"]),
        "",
        *referral_goals(facts["kinds"]),
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure and write both files."""
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "data", "groups", "foreign", "external", "cache", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument(
        "--share", type=float, default=FALSE_REFERRALS, help="of false referrals, for a model without referral"
    )
    parser.add_argument("--disturbed", type=int, default=149, help="held-back scans to disturb")
    parser.add_argument("--record", action="store_true", help="write the figures into the card and model.json")
    arguments = parser.parse_args()
    for folder in (arguments.cache, arguments.output):
        folder.mkdir(parents=True, exist_ok=True)
    facts = measure(arguments) | machine.facts() | {"command": recorded.portable("referral", sys.argv[1:])}
    (arguments.output / "referral.json").write_text(json.dumps(facts, indent=1))
    (arguments.output / "referral.md").write_text(page_of(facts))
    if arguments.record:
        recorded.record(str(arguments.model), referred={name: facts[name] for name in ("command", "kinds")})
    print(page_of(facts))


if __name__ == "__main__":
    main()
