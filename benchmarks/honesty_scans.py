"""List, draw, decode and alter labelled scans, and judge a model on them without Ray."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import bare
import numpy as np
from corruptions import Change
from numpy.typing import NDArray
from PIL import Image

from mribatch.errors import InputError
from mribatch.models import directory
from mribatch.models.embedding import grey_thumbnails
from mribatch.models.predictor import Predictor
from mribatch.scans.limits import ImageSpec
from mribatch.sources.labels import labelled, training_scans
from mribatch.statistics.metrics import Scores, measure
from mribatch.statistics.near_copies import clusters, near_copies
from mribatch.statistics.thumbnails import SIDE_PX

__all__ = ["Judge", "Scans", "apart", "listed", "one_of_each_cluster", "sample"]

log = logging.getLogger("honesty")

SURE = 0.99  # confidence that few would question
_LINE_EVERY_S = 15.0
_THUMBNAIL = ImageSpec(side_px=SIDE_PX)


@dataclass(frozen=True, eq=False)
class Scans:
    """Labelled scans: URIs, and the number of each scan's class among the model's labels, (N,)."""

    uris: tuple[str, ...]
    truth: NDArray[np.int64]

    def where(self, chosen: Sequence[bool] | NDArray[np.bool_]) -> "Scans":
        """Return the scans for which `chosen` is true."""
        rows = np.flatnonzero(chosen)
        return Scans(tuple(self.uris[row] for row in rows), self.truth[rows])


def listed(uri: str, labels: Sequence[str]) -> Scans:
    """Return the labelled scans at a folder or in a manifest. Raises InputError for a class that the model lacks."""
    table = labelled(uri)
    names = table["label"].to_pylist()
    unknown = sorted(set(names) - set(labels))
    if unknown:
        raise InputError(
            f"{uri} has the classes {', '.join(unknown)}, the model has {', '.join(labels)}: leave them out"
        )
    return Scans(tuple(table["scan_uri"].to_pylist()), np.array([labels.index(name) for name in names], np.int64))


def sample(scans: Scans, count: int, seed: int) -> Scans:
    """Return at most `count` scans drawn at random, the same number of each class as far as there are."""
    order = np.random.default_rng(seed).permutation(len(scans.uris))
    place = np.empty(len(order), np.int64)  # of each scan among the drawn ones of its class
    for number in np.unique(scans.truth):
        own = order[scans.truth[order] == number]
        place[own] = np.arange(len(own))
    chosen = np.zeros(len(order), bool)
    chosen[np.lexsort((order, place))[:count]] = True
    return scans.where(chosen)


def apart(scans: Scans, training: str, seed: int) -> Scans:
    """Return the scans in whose cluster of near copies is no training scan. Raises InputError if none is left."""
    known = training_scans([training]).scans["scan_uri"].to_pylist()
    cluster = _clusters([*scans.uris, *known], seed)
    distinct = ~np.isin(cluster[: len(scans.uris)], cluster[len(scans.uris) :])
    if not distinct.any():
        raise InputError(f"all {len(distinct)} scans of --data are near copies of scans in {training}")
    return scans.where(distinct)


def one_of_each_cluster(scans: Scans, seed: int) -> Scans:
    """Return the first scan of each cluster of near copies."""
    firsts = np.unique(_clusters(scans.uris, seed), return_index=True)[1]
    return scans.where(np.isin(np.arange(len(scans.uris)), firsts))


def _clusters(uris: Sequence[str], seed: int) -> NDArray[np.int64]:
    """Return the number of each scan's cluster of near copies."""
    thumbnails = [grey_thumbnails(bare.pixels([uri], _THUMBNAIL), SIDE_PX)[0] for uri in uris]
    copies = near_copies(np.stack(thumbnails), [picture.tobytes().hex() for picture in thumbnails], seed=seed)
    return clusters(len(thumbnails), copies.first, copies.second)


class Judge:
    """A model, and what it makes of scans as they are or altered. Raises ModelError if it cannot be loaded.

    side_px: at which scans are altered, before they are resized for the model.
    """

    def __init__(self, model: str, side_px: int, batch_scans: int, no_tumour: str, seed: int) -> None:
        facts = directory.load_model(model)
        self.labels, self.digest, self.side_px = facts.labels, facts.digest, facts.image_spec.side_px
        if no_tumour not in self.labels:
            raise InputError(f"--no-tumour must be one of {', '.join(self.labels)}, got {no_tumour}")
        self._no_tumour = self.labels.index(no_tumour)
        self._predictor = Predictor(facts.uri)
        self._altered_px, self._batch_scans, self._seed = side_px, batch_scans, seed

    def measured(self, name: str, scans: Scans, change: Change | Sequence[Change] | None = None) -> dict[str, Any]:
        """Return what the model makes of scans: as they are, or after a change, one for all or one for each."""
        start, last = time.monotonic(), time.monotonic()
        parts: list[NDArray[np.float32]] = []
        for done, pixels in self._batches(scans, change):
            parts.append(self._predictor.probabilities(pixels))
            if time.monotonic() - last > _LINE_EVERY_S and done < len(scans.uris):
                last = time.monotonic()
                log.info("%s · %d of %d scans", name, done, len(scans.uris))
        probabilities = np.concatenate(parts).astype(np.float64)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        result = self._summary(Scores(labels=self.labels, truth=scans.truth, probabilities=probabilities))
        log.info(
            "%s · %d scans · %.1f%% · %.0f s", name, len(scans.uris), 100 * result["accuracy"], time.monotonic() - start
        )
        return result

    def _batches(
        self, scans: Scans, change: Change | Sequence[Change] | None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield how many scans are done after a batch, and its pixels at the model's side."""
        spec = ImageSpec(side_px=self.side_px if change is None else self._altered_px)
        for at in range(0, len(scans.uris), self._batch_scans):
            numbers = range(at, min(at + self._batch_scans, len(scans.uris)))
            pixels = bare.pixels((scans.uris[number] for number in numbers), spec)
            if change is not None:
                changes = [change[number] if isinstance(change, Sequence) else change for number in numbers]
                pixels = np.stack([self._altered(*each) for each in zip(pixels, changes, numbers, strict=True)])
            yield numbers.stop, pixels

    def _altered(self, scan: NDArray[np.uint8], change: Change, number: int) -> NDArray[np.uint8]:
        grey = change(np.asarray(Image.fromarray(scan).convert("L")), np.random.default_rng((self._seed, number)))
        image = Image.fromarray(np.ascontiguousarray(grey))
        if grey.shape[0] != self.side_px:
            image = image.resize((self.side_px, self.side_px), Image.Resampling.BICUBIC)
        return np.asarray(image.convert("RGB"))

    def _summary(self, scores: Scores) -> dict[str, Any]:
        """Return the figures of one test, ready for JSON; those on tumours are None without any."""
        numbers = measure(scores)
        missed = scores.predicted[scores.truth != self._no_tumour] == self._no_tumour
        sure_missed = missed & (scores.confidence[scores.truth != self._no_tumour] > SURE)
        wrong = ~scores.correct
        return {
            "scans": numbers["scans"],
            "accuracy": numbers["accuracy"],
            "accuracy_95": numbers["accuracy_95"],
            "balanced_accuracy": numbers["balanced_accuracy"],
            "mean_confidence": numbers["mean_confidence"],
            "recall": {label: row["recall"] for label, row in numbers["per_class"].items() if row["support"]},
            "tumours": len(missed),
            "tumours_called_tumour": float(1 - missed.mean()) if len(missed) else None,
            "tumours_surely_missed": int(sure_missed.sum()),
            "wrong_and_sure": float((scores.confidence[wrong] > SURE).mean()) if wrong.any() else None,
        }
