"""Adapt: unlabelled scans of a site → batch statistics → a model directory of its own, unless labelled scans get worse."""

import hashlib
import logging
import tempfile
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mribatch.cluster import streaming
from mribatch.cluster.adapting import adapt_model, paired_answers
from mribatch.cluster.nodes import check_seen
from mribatch.cluster.session import session
from mribatch.commands.classes import list_labelled
from mribatch.commands.paying import paying
from mribatch.commands.rows import class_numbers
from mribatch.commands.screen import Block, Shown, Table, progress
from mribatch.errors import ConfigError, InputError, ModelError
from mribatch.models import directory, lookup
from mribatch.models.adaptation import AdaptedWeights, Statistics
from mribatch.models.adapted_card import adapted_card
from mribatch.models.embedding import pixels_of
from mribatch.models.format import MEASUREMENTS, Model, check_original
from mribatch.settings.site import LEAST_SCANS, AdaptConfig
from mribatch.sources.labels import evaluation_scans
from mribatch.sources.listing import list_scans
from mribatch.statistics import metrics
from mribatch.statistics.acceptance import balanced_accuracy
from mribatch.stores import uris
from mribatch.version import __version__

__all__ = ["Adapted", "BeforeAndAfter", "adapt"]

log = logging.getLogger("mribatch.adapt")

_LIBRARIES = ("tensorflow", "keras", "numpy")


@paying
def adapt(config: AdaptConfig) -> "Adapted":
    """Write config.model with the batch-normalization statistics of the scans at config.input as the model config.output.

    Raises InputError for too few scans and for a lower balanced accuracy on config.data, in which case nothing is written;
    ModelError for a model without batch normalization; and what `score` raises.
    """
    config = replace(config, output=uris.absolute(config.output))
    model = directory.load_model(lookup.locate(config.model))
    _check(config, model)
    scans = _drawn(config)
    labelled = _labelled(config, model)
    uris.check_writable(config.output)
    with session():
        first = scans.slice(0, 1).to_pylist()[0]
        check_seen({uris.join(model.uri, "model.json"): None, first["scan_uri"]: first["scan_version"]})
        chosen = _different(_read(config, model, scans), config)
        log.info("estimating the statistics of %d scans …", chosen.num_rows)
        result = adapt_model(model, pixels_of(chosen, model.image_spec.side_px), config.batch_size)
        duel = None if labelled is None else _compared(config, model, labelled, result.statistics)
    if duel is not None and duel.is_worse:
        raise InputError(f"nothing was written: {duel.sentence}: {_REMEDY}")
    return Adapted(
        model=_write(config, model, chosen, result, duel), source=model.digest, scans=chosen.num_rows, duel=duel
    )


_REMEDY = "keep the model as it is, or adapt to scans that are more like those of --data, with the same classes"


@dataclass(frozen=True, kw_only=True)
class BeforeAndAfter:
    """A model and its adapted copy on the same labelled scans. before, after: balanced accuracies."""

    scans: int
    before: float
    after: float
    before_right: int
    after_right: int
    only_before: int
    only_after: int
    p_value: float  # exact McNemar test

    @property
    def is_worse(self) -> bool:
        """Whether the balanced accuracy is lower after adapting, by however little."""
        return self.after < self.before

    @property
    def sentence(self) -> str:
        """Say what became of the balanced accuracy."""
        return f"balanced accuracy {self.before:.4f} before, {self.after:.4f} after, on {self.scans:,} labelled scans"


@dataclass(frozen=True, kw_only=True)
class Adapted(Shown):
    """An adapted model, and how it compares with the one that it comes from."""

    model: Model
    source: str
    scans: int
    duel: BeforeAndAfter | None
    exit_code: int = 0

    def blocks(self) -> list[Block]:
        """Return the comparison, if labelled scans were given, and where the model is."""
        place = f"{self.model.uri} · model {self.model.digest}, from {self.source}, statistics of {self.scans:,} scans"
        duel = self.duel
        if duel is None:
            return ["warning: without --data, nothing tells whether the model became better or worse", place]
        rows = [
            ("balanced accuracy", f"{duel.before:.4f}", f"{duel.after:.4f}"),
            (f"right of {duel.scans:,}", f"{duel.before_right:,}", f"{duel.after_right:,}"),
            ("only this one is right", f"{duel.only_before:,}", f"{duel.only_after:,}"),
        ]
        return [Table(rows, ("", "before", "after")), f"p = {duel.p_value:.2g} (exact McNemar test)", place]


# Before Ray starts


def _check(config: AdaptConfig, model: Model) -> None:
    if model.is_classical:
        raise ModelError(
            f"{config.model} is a classical model, which has no batch statistics: name a network with --model"
        )
    check_original(model, "adapt")
    if uris.absolute(config.output) == model.uri:
        raise ConfigError(f"--output is the directory of the model itself, {config.output}: choose another one")


def _drawn(config: AdaptConfig) -> pa.Table:
    """Return at most config.limit scans of the input, drawn by the seed. Raises InputError for fewer than LEAST_SCANS."""
    listing = list_scans(config.input, config.exclude)
    if listing.num_rows < LEAST_SCANS:
        raise _too_few(listing.num_rows, config)
    rows = np.random.default_rng(config.seed).permutation(listing.num_rows)[: config.limit]
    return listing.take(pa.array(np.sort(rows)))


def _too_few(scans: int, config: AdaptConfig) -> InputError:
    return InputError(
        f"{scans} different scans can be read in {', '.join(config.input)}, at least {LEAST_SCANS} are needed: with fewer, a "
        "few scans decide the statistics; add scans of the same site"
    )


def _labelled(config: AdaptConfig, model: Model) -> pa.Table | None:
    if config.data is None:
        return None
    return evaluation_scans(list_labelled(config.data, outputs=(config.output,)), model.labels)


# On the cluster


def _read(config: AdaptConfig, model: Model, scans: pa.Table) -> pa.Table:
    log.info("reading %s scans …", f"{scans.num_rows:,}")
    with progress("reading", scans.num_rows, "scans") as bar:
        return streaming.readable(streaming.decoded(scans, model.image_spec), config.max_reject_rate, bar.advance)


def _different(scans: pa.Table, config: AdaptConfig) -> pa.Table:
    """Return the scans with different pixels, in an order drawn by the seed. Raises InputError for too few."""
    firsts = {digest: row for row, digest in reversed([*enumerate(scans["pixels_sha256"].to_pylist())])}
    if len(firsts) < LEAST_SCANS:
        raise _too_few(len(firsts), config)
    rows = np.random.default_rng(config.seed).permutation(sorted(firsts.values()))
    return scans.take(pa.array(rows))


def _compared(config: AdaptConfig, model: Model, table: pa.Table, statistics: Statistics) -> BeforeAndAfter:
    log.info("comparing on %s labelled scans …", f"{table.num_rows:,}")
    with progress("comparing", table.num_rows, "scans") as bar:
        answers = paired_answers(table, model, statistics, config.batch_size)
        rows = streaming.readable(answers, config.max_reject_rate, bar.advance)
    if not rows.num_rows:
        raise InputError(f"none of the {table.num_rows} scans in {config.data} can be read: repair or replace them")
    truth, before, after = (class_numbers(rows[name], model.labels) for name in ("label", "before", "after"))
    right, then_right = before == truth, after == truth
    lost, won = int((right & ~then_right).sum()), int((then_right & ~right).sum())
    classes = range(len(model.labels))
    return BeforeAndAfter(
        scans=rows.num_rows,
        before=balanced_accuracy(truth, before, classes) or 0.0,
        after=balanced_accuracy(truth, after, classes) or 0.0,
        before_right=int(right.sum()),
        after_right=int(then_right.sum()),
        only_before=lost,
        only_after=won,
        p_value=metrics.mcnemar(lost, won),
    )


# The model


def _write(
    config: AdaptConfig, model: Model, chosen: pa.Table, result: AdaptedWeights, duel: BeforeAndAfter | None
) -> Model:
    digests = sorted(chosen["pixels_sha256"].to_pylist())
    how: dict[str, Any] = {
        "from": model.digest,
        "scans": chosen.num_rows,
        "layers": len(result.statistics.means),
        "batch_scans": config.batch_size,
        "seed": config.seed,
        "content_sha256": hashlib.sha256("".join(digests).encode()).hexdigest(),
        "labelled": None if duel is None else asdict(duel),
        "before": model.facts.get("adapted"),
    }
    facts = {name: value for name, value in model.facts.items() if name not in {"digest", *MEASUREMENTS}} | {
        "adapted": how,
        "libraries": {"mribatch": __version__} | {name: version(name) for name in _LIBRARIES},
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapted.weights.h5"
        path.write_bytes(result.weights)
        return directory.save_changed(model, config.output, path, facts, adapted_card(facts))
