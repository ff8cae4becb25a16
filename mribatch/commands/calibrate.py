"""Calibrate: labelled scans → split as for training → temperature and referral → a new model directory."""

import pyarrow as pa

from mribatch.cluster.nodes import check_seen
from mribatch.cluster.session import session
from mribatch.commands.calibrated import Calibrated, calibrate_model, check_scans
from mribatch.commands.classes import list_labelled
from mribatch.commands.groups import given_clusters
from mribatch.commands.paying import paying
from mribatch.commands.train_scans import grouped_scans
from mribatch.errors import ConfigError, ModelError
from mribatch.models import directory, lookup
from mribatch.models.format import check_original
from mribatch.settings.calibrate import CalibrateConfig
from mribatch.sources.labels import check_known
from mribatch.stores import uris
from mribatch.training import splits

__all__ = ["Calibrated", "calibrate"]


@paying
def calibrate(config: CalibrateConfig) -> Calibrated:
    """Write config.output: the network of config.model, with a temperature and referral fitted on config.data.

    Raises InputError for labels that the model does not know and for scans that are too few or of one class, ModelError for
    a classical model, ConfigError for an output that holds a model.
    """
    model = directory.load_model(lookup.locate(config.model))
    if model.is_classical:
        raise ModelError(f"{config.model} is a classical model, and only networks can be calibrated: name a network")
    check_original(model, "calibrate")
    if "model.json" in uris.names(config.output):
        raise ConfigError(f"{config.output} holds a model already: name a folder that does not exist")
    table = list_labelled(config.data, exclude=config.exclude, outputs=(config.output,))
    check_known(table, model.labels)
    given = given_clusters(config)
    with uris.probe(config.output) as mark, session():
        first = table.slice(0, 1).to_pylist()[0]
        check_seen({first["scan_uri"]: first["scan_version"], uris.join(model.uri, "model.json"): None, mark: None})
        scans = grouped_scans(config, table, given)
        split = splits.by_content(scans, validation_fraction=config.validation_fraction, seed=config.seed)
        scans = scans.append_column("group", pa.array(splits.content_groups(scans), pa.int64()))
        train, validation = (scans.take(pa.array(rows, pa.int64())) for rows in (split.train, split.validation))
        check_scans(validation)
        return calibrate_model(
            model,
            config.output,
            train,
            validation,
            false_referrals=config.false_referrals,
            batch_size=config.batch_size,
            max_reject_rate=config.max_reject_rate,
            seed=config.seed,
        )
