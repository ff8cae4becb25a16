"""Explain frames of scans: decode them, compute their maps, and draw each map over its scan.

`explained` loads TensorFlow, so it runs in a process that does nothing else: that of `explain`, or one of its own.
"""

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mribatch.cluster.decoding import decode_blocks
from mribatch.cluster.session import quiet_stderr
from mribatch.commands.screen import progress
from mribatch.errors import RunFailed
from mribatch.models import directory
from mribatch.models.format import Model
from mribatch.models.pointing import pointing_of
from mribatch.reports.explanation import Explanation
from mribatch.reports.overlays import fitted, overlay
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.schema import PLAN
from mribatch.settings.explain import Method
from mribatch.statistics.pointing import Verdict, peak_of, verdict_of
from mribatch.stores import uris

if TYPE_CHECKING:
    from mribatch.models.saliency import Maps

__all__ = ["MapSettings", "explained", "explained_apart"]

log = logging.getLogger("mribatch.explain")

_SHOWN = ImageSpec(side_px=352)  # longer side of a picture: two of them fit beside each other on a page
_KNOWN = ("scan_uri", "scan_version", "frame", "status", "reason", "detail", "width_px", "height_px")

Row = dict[str, Any]
Wanted = Mapping[tuple[str, str], Sequence[int]]
"""Scans by URI and version, each with the frames to explain: the middle one if there are none."""


@dataclass(frozen=True, kw_only=True)
class MapSettings:
    """How maps are computed, and which are shown: those of classes whose maps point, or all if show_unproven."""

    method: Method
    show_unproven: bool = False
    reading: Reading = field(default_factory=Reading)


def explained_apart(model: Model, wanted: Wanted, settings: MapSettings, pays: bool) -> list[Explanation]:
    """Return `explained`, computed in a process of its own: this one loads no TensorFlow.

    pays: whether the reader pays for requests to S3. Raises RunFailed, too, if that process dies.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_explained_paying, model, wanted, settings, pays).result()
        except BrokenProcessPool as err:
            raise RunFailed("the process that explains scans died, probably for lack of memory: free some") from err


def _explained_paying(model: Model, wanted: Wanted, settings: MapSettings, pays: bool) -> list[Explanation]:
    with uris.paying(pays):
        return explained(directory.open_model(model.uri, model.digest), wanted, settings)


def explained(model: Model, wanted: Wanted, settings: MapSettings) -> list[Explanation]:
    """Return an explanation of each wanted frame, in the order of the scans.

    A scan that cannot be read has one with the reason; a file of several frames without the wanted ones has none. Raises
    ModelError for a model that is no network, RunFailed for NaN.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    log.info("loading the model …")
    with quiet_stderr():
        from mribatch.models.saliency import explainer  # loads TensorFlow

        drawer = _Drawer(model, settings, explainer(model, settings.method))
    rows = _decoded(wanted, model.image_spec, settings.reading)
    readable = {row["scan_uri"] for row in rows if row["pixels"]}
    again = {(uri, version): frames for (uri, version), frames in wanted.items() if uri in readable}
    shown = {(row["scan_uri"], row["frame"]): row for row in _decoded(again, _SHOWN, settings.reading) if row["pixels"]}
    done: list[Explanation] = []
    with progress("explaining", len(rows), "frames") as bar:
        for row in rows:
            done.append(drawer.explanation(row, shown.get((row["scan_uri"], row["frame"]), row)))
            bar.advance()
    return done


def _decoded(wanted: Wanted, spec: ImageSpec, reading: Reading) -> list[Row]:
    """Return the decoded rows of the wanted frames, and of the scans that cannot be read, such as archives."""
    table = pa.table([list(names) for names in zip(*wanted, strict=True)] or [[], []], schema=PLAN)
    return [
        row
        for block in decode_blocks(table, spec=spec, reading=replace(reading, archives=False))
        for row in block.drop_columns(["decoder_peak_bytes"]).to_pylist()
        if _is_wanted(row, wanted[row["scan_uri"], row["scan_version"]])
    ]


def _is_wanted(row: Row, numbers: Sequence[int]) -> bool:
    frames = row["frames"] or 1
    return frames == 1 or row["frame"] in (numbers or [(frames - 1) // 2])


class _Drawer:
    """Explains decoded rows of frames."""

    def __init__(self, model: Model, settings: MapSettings, explain: "Callable[[NDArray[np.uint8]], Maps]") -> None:
        self._model, self._settings, self._explain = model, settings, explain
        self._pointing = pointing_of(model, settings.method)

    def explanation(self, row: Row, shown: Row) -> Explanation:
        """Return the explanation of a frame. shown: the same frame, decoded for the eye."""
        known = {name: row[name] for name in _KNOWN}
        if not row["pixels"]:
            return Explanation(**known)
        (probabilities,), (values,) = self._explain(_pixels(row)[None])
        if not np.isfinite(probabilities).all():
            raise RunFailed(f"model {self._model.digest} returns NaN or infinite probabilities: train it again")
        best = int(probabilities.argmax())
        verdict = verdict_of(self._pointing, self._model.labels[best])
        picture = fitted(_pixels(shown), row["width_px"], row["height_px"])
        is_shown = self._settings.show_unproven or verdict == Verdict.BEATS_CENTRE
        peak = peak_of(values) if is_shown else None
        return Explanation(
            **known,
            predicted_class=self._model.labels[best],
            confidence=float(probabilities[best]),
            verdict=verdict,
            peak=peak,
            picture=picture,
            overlay=overlay(picture, values, peak) if is_shown else None,
        )


def _pixels(row: Row) -> NDArray[np.uint8]:
    side_px = math.isqrt(len(row["pixels"]) // 3)
    return np.frombuffer(row["pixels"], np.uint8).reshape(side_px, side_px, 3)
