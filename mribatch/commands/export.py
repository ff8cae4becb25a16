"""Export: calibration scans → the network in int8 or bf16 → compared with the one before → a model directory of its own."""

import hashlib
import logging
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version

import pyarrow as pa

from mribatch.cluster import streaming
from mribatch.cluster.exporting import compared_answers, export_copy, rates_of
from mribatch.cluster.nodes import check_seen
from mribatch.cluster.session import session
from mribatch.commands.exported import Compared, Exported, check_loss, compared
from mribatch.commands.exported_scans import Scans, chosen_scans
from mribatch.commands.paying import paying
from mribatch.commands.screen import progress
from mribatch.errors import ConfigError, InputError, ModelError
from mribatch.models import directory, lookup
from mribatch.models.embedding import pixels_of
from mribatch.models.exported_card import exported_card
from mribatch.models.exporting import Copy, Rates
from mribatch.models.format import MEASUREMENTS, Model, check_original
from mribatch.models.quantization import check_installed
from mribatch.settings.export import LEAST_SCANS, ExportConfig
from mribatch.stores import uris
from mribatch.version import __version__

__all__ = ["export"]

log = logging.getLogger("mribatch.export")

_TIMED_SCANS = 32  # enough for every core; a round takes about a second


@paying
def export(config: ExportConfig) -> Exported:
    """Write config.model in config.precision as the model config.output.

    Raises InputError for too few scans and for a lower accuracy on the labelled ones, in which case nothing is written;
    ModelError for a model that is no network or was exported; ConfigError for a missing package and for a CPU without bf16.
    """
    config = replace(config, output=uris.absolute(config.output))
    model = directory.load_model(lookup.locate(config.model))
    _check(config, model)
    scans = chosen_scans(config, model)
    uris.check_writable(config.output)
    with session():
        first = scans.calibration.slice(0, 1).to_pylist()[0]
        check_seen({uris.join(model.uri, "model.json"): None, first["scan_uri"]: first["scan_version"]})
        calibration = _read(config, model, scans.calibration)
        pixels = pixels_of(calibration, model.image_spec.side_px)
        log.info("computing model %s in %s …", model.digest, config.precision)
        copy = export_copy(model, config.precision, pixels)
        result = _compared(config, model, copy, scans)
        log.info("measuring both …")
        rates = rates_of(copy, pixels[:_TIMED_SCANS])
    return Exported(model=_write(config, model, copy, calibration, result, rates))


def _check(config: ExportConfig, model: Model) -> None:
    if model.is_classical:
        raise ModelError(
            f"{config.model} is a classical model, which has no other precision: name a network with --model"
        )
    check_original(model, "export")
    if "model.json" in uris.names(config.output):
        raise ConfigError(f"{config.output} holds a model already: name a folder that does not exist")
    if config.precision == "int8":
        check_installed()


def _read(config: ExportConfig, model: Model, scans: pa.Table) -> pa.Table:
    log.info("reading %s calibration scans …", f"{scans.num_rows:,}")
    with progress("reading", scans.num_rows, "scans") as bar:
        rows = streaming.readable(streaming.decoded(scans, model.image_spec), config.max_reject_rate, bar.advance)
    if rows.num_rows < LEAST_SCANS:
        raise InputError(
            f"{rows.num_rows} scans can be read in {config.calibration}, at least {LEAST_SCANS} are needed to calibrate on: "
            "add scans"
        )
    return rows


def _compared(config: ExportConfig, model: Model, copy: Copy, scans: Scans) -> Compared:
    """Return how both models do on the same scans. Raises InputError for a larger loss than is allowed."""
    table = scans.compared
    log.info("comparing on %s scans …", f"{table.num_rows:,}")
    with progress("comparing", table.num_rows, "scans") as bar:
        answers = compared_answers(table, model, copy, config.batch_size)
        rows = streaming.readable(answers, config.max_reject_rate, bar.advance)
    if not rows.num_rows:
        raise InputError(f"none of the {table.num_rows} scans to compare on can be read: repair or replace them")
    used = scans.calibration["scan_uri"] if config.precision == "int8" else pa.array([], pa.string())
    result = compared(rows, used)
    check_loss(result, config.max_loss)
    return result


def _write(
    config: ExportConfig, model: Model, copy: Copy, calibration: pa.Table, result: Compared, rates: Rates
) -> Model:
    digests = sorted(calibration["pixels_sha256"].to_pylist())
    libraries = ("openvino", "nncf", "numpy") if config.precision == "int8" else ("openvino", "numpy")
    facts = {name: value for name, value in model.facts.items() if name not in {"digest", *MEASUREMENTS}} | {
        "precision": config.precision,
        "exported": {
            "from": model.digest,
            "scans": calibration.num_rows,
            "content_sha256": hashlib.sha256("".join(digests).encode()).hexdigest(),
            "compared": result.as_dict(),
            "rates": rates._asdict(),
        },
        "libraries": {"mribatch": __version__} | {name: version(name) for name in libraries},
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return directory.save_exported(model, config.output, copy.files, facts, exported_card(facts))
