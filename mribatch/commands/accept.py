"""Accept: scans of a site → the same scoring as everywhere → rates, calibration, corruptions → a verdict, JSON and a page."""

import logging
from dataclasses import replace

import numpy as np
import pyarrow as pa

from mribatch.cluster.corrupting import VARIANTS, corrupted_predictions
from mribatch.cluster.nodes import check_seen
from mribatch.cluster.session import session
from mribatch.commands.acceptance import Site, acceptance_of, write
from mribatch.commands.accepted import Accepted
from mribatch.commands.classes import list_labelled
from mribatch.commands.evaluate import evaluate_scans
from mribatch.commands.evaluate_evidence import digested
from mribatch.commands.paying import paying
from mribatch.commands.score import score_listing
from mribatch.commands.screen import progress
from mribatch.errors import InputError
from mribatch.models import directory, lookup
from mribatch.models.format import Model
from mribatch.predictions import ledger
from mribatch.predictions.files import of_listing
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.settings.score import ScoreConfig
from mribatch.settings.site import AcceptConfig
from mribatch.sources.labels import TrainingScans
from mribatch.sources.listing import list_scans
from mribatch.stores import uris

__all__ = ["accept"]

log = logging.getLogger("mribatch.accept")


@paying
def accept(config: AcceptConfig) -> Accepted:
    """Measure config.model on scans of a site, judge it, and write acceptance.json and acceptance.html to config.output.

    Raises InputError for labels that the model does not know and if no scan can be scored, and what `score` raises.
    """
    config = replace(config, output=uris.absolute(config.output))
    model = directory.load_model(lookup.locate(config.model))
    if config.healthy_class is not None and config.healthy_class not in model.labels:
        raise InputError(f"--healthy-class must be one of {', '.join(model.labels)}, got {config.healthy_class}")
    listing, apart = _listed(config), digested(config.apart_from)
    with session():
        is_labelled = config.data is not None
        site = _evaluated(config, model, listing, apart) if is_labelled else _scored(config, model, listing)
        if not site.distinct.num_rows:
            raise InputError(
                f"none of {site.listed} scans could be scored: see their reasons in {config.output}/predictions"
            )
        altered = _corrupted(config, model, site)
    acceptance = acceptance_of(config, model, site, altered)
    return Accepted(acceptance=acceptance, page=write(config, acceptance), output=config.output)


def _listed(config: AcceptConfig) -> pa.Table:
    """Return the labelled scans (schema LABELLED), or the drawn ones of those without labels (schema PLAN)."""
    if config.data is not None:
        return list_labelled(config.data, exclude=config.exclude, outputs=(config.output,))
    listing = list_scans(config.input, config.exclude)
    drawn = np.random.default_rng(config.seed).permutation(listing.num_rows)[: config.limit]
    return listing.take(pa.array(np.sort(drawn)))


def _evaluated(config: AcceptConfig, model: Model, labelled: pa.Table, apart: TrainingScans | None) -> Site:
    """Evaluate the model on labelled scans; the evaluation's report is written beside the acceptance."""
    evaluation = EvaluateConfig(
        model=config.model,
        data=str(config.data),
        exclude=config.exclude,
        apart_from=config.apart_from,
        output=config.output,
        batch_size=config.batch_size,
        max_reject_rate=config.max_reject_rate,
    )
    done = evaluate_scans(evaluation, model, labelled, apart)
    return Site(rows=done.rows, failed=done.scored.failed, is_labelled=True, apart=done.numbers["apart_from"])


def _scored(config: AcceptConfig, model: Model, listing: pa.Table) -> Site:
    scoring = ScoreConfig(
        model=config.model,
        input=config.input,
        output=uris.join(config.output, "predictions"),
        batch_size=config.batch_size,
        max_reject_rate=config.max_reject_rate,
        identifiers="none",
    )
    scored = score_listing(scoring, model, listing)
    rows = of_listing(ledger.predictions(scored.output, model.digest), listing)
    return Site(rows=rows, failed=scored.failed, is_labelled=False)


def _corrupted(config: AcceptConfig, model: Model, site: Site) -> pa.Table:
    """Return the predictions for some scans as they are and altered, with labels if there are any."""
    drawn = site.drawn(config.corruption_scans, config.seed)
    if not drawn.num_rows:
        return drawn
    log.info("altering %d scans in %d ways …", drawn.num_rows, VARIANTS - 1)
    first = drawn.slice(0, 1).to_pylist()[0]
    check_seen({first["scan_uri"]: first["scan_version"]})
    with progress("altering", drawn.num_rows * VARIANTS, "predictions") as bar:
        return corrupted_predictions(drawn, model, bar.advance)
