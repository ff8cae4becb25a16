"""Train: labelled scans → split by content → Ray Train → model directory, history and curves."""

import hashlib
import io
import json
import logging
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig

from mribatch.cluster import decoding
from mribatch.cluster.decoding import readable
from mribatch.cluster.nodes import check_seen, trainers, working_nodes
from mribatch.cluster.progress import lines
from mribatch.cluster.session import quiet_stderr, session
from mribatch.commands.classes import shown
from mribatch.commands.paying import paying
from mribatch.errors import ConfigError, InputError, ModelError, RunFailed, StorageMissing
from mribatch.models import card, directory, pretrained, recipe
from mribatch.models.format import Model
from mribatch.reports import figures
from mribatch.scans.limits import ImageSpec
from mribatch.settings.train import TrainConfig
from mribatch.sources.labels import LABELLED
from mribatch.stores import uris
from mribatch.training import fit, splits
from mribatch.version import __version__

if TYPE_CHECKING:
    from ray.train.tensorflow import TensorflowTrainer

__all__ = ["Trained", "train"]

log = logging.getLogger("mribatch.train")

_LIBRARIES = ("ray", "tensorflow", "keras", "numpy", "pillow", "pyarrow")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model that was trained, and how it did."""

    model: Model
    history: pa.Table
    exit_code: int = 0

    def table(self) -> str:
        epoch, metrics = self.model.facts["training"]["epoch"], self.model.facts["metrics"]
        return (f"{self.model.uri} · model {self.model.digest} · epoch {epoch} · validation accuracy "
                f"{metrics['val_accuracy']:.4f} · loss {metrics['val_loss']:.4f} (same source, near copies not set aside)")  # fmt: skip


@paying
def train(config: TrainConfig) -> Trained:
    """Fit a classifier on the labelled scans of config.data and write the model directory config.output.

    A run with the same settings, or run name, goes on from its last checkpoint. Raises InputError, ModelError, StorageError
    and ConfigError for what cannot be read, written or seen by all nodes, RunFailed (a rerun goes on).
    """
    table = shown(config.data, exclude=config.exclude, outputs=(config.output, _checkpoints(config)[0]))
    _warn_of_unused(config, table)
    spec, weights, start = ImageSpec(side_px=config.sides[0]), _backbone_weights(config), _start(config, table)
    _check_writable(config)
    with session():
        _check_seen(config, table, weights, start)
        surveyed = _survey(table, spec, config.max_reject_rate)
        split = _split(surveyed, config)
        labels = tuple(sorted(set(surveyed["label"].to_pylist())))
        number, share = trainers(working_nodes(), config.workers)
        workers = ScalingConfig(num_workers=number, use_gpu="GPU" in share, resources_per_worker=share)
        data = _data_facts(config, surveyed, split, table.num_rows - surveyed.num_rows)
        log.info(
            "training on %d scans, validating on %d, %d workers",
            len(split.train),
            len(split.validation),
            number,
        )
        with lines() as progress:
            run = fit.TrainingRun(
                config=config,
                labels=labels,
                backbone_weights=weights,
                start_from=start,
                fingerprint=_fingerprint(config, data),
                training=_examples(surveyed, split.train, labels),
                validation=_examples(surveyed, split.validation, labels),
                decode=decoding.decoded,
                decoder_cores=decoding.DECODER_CORES,
                lines=progress,
            )
            result = _trainer(run, workers).fit()
        if result.checkpoint is None:
            raise RunFailed("training ended without a checkpoint: look for the first error above and run it again")
        with result.checkpoint.as_directory() as folder:
            return _publish(config, Path(folder), labels, data)


def _warn_of_unused(config: TrainConfig, table: pa.Table) -> None:
    """Log the flags that do nothing on these scans or beside other flags."""
    if config.changed("validation_fraction") and "validation" in table["split"].to_pylist():
        log.warning("warning: --validation-fraction is not used: %s names its validation scans", config.data)
    if config.start_from is not None and config.backbone_weights is not None:
        log.warning("warning: --backbone-weights is not used: --start-from brings all weights")


def _backbone_weights(config: TrainConfig) -> str:
    """Workers run in folders of their own: a file is named in full, and checked before anything starts."""
    weights = str(config.backbone_weights)
    if weights in ("imagenet", "none") or config.start_from:
        return weights
    pretrained.read_weights(weights, config.backbone)
    return uris.absolute(weights)


def _start(config: TrainConfig, table: pa.Table) -> str | None:
    """The model to start from, checked to fit."""
    if config.start_from is None:
        return None
    model, labels = directory.load_model(config.start_from), sorted(set(table["label"].to_pylist()))
    if model.is_classical or (model.backbone, list(model.labels)) != (config.backbone, labels):
        raise ModelError(f"--start-from is a {model.kind} for {', '.join(model.labels)}; the data and flags ask for a "
                         f"{config.backbone} for {', '.join(labels)}: make them agree, or leave --start-from out")  # fmt: skip
    return model.uri


def _check_writable(config: TrainConfig) -> None:
    """What is written when an epoch or the training is over is tried before the first one begins."""
    for folder in (config.output, _checkpoints(config)[0]):
        uris.check_writable(folder)


def _check_seen(config: TrainConfig, table: pa.Table, weights: str, start: str | None) -> None:
    """Every node that works must see the scans, what the first weights come from, and where checkpoints go."""
    first = table.slice(0, 1).to_pylist()[0]
    files: dict[str, str | None] = {first["scan_uri"]: first["scan_version"]}
    if start is not None:
        files[uris.join(start, "model.json")] = None
    elif weights not in ("imagenet", "none"):
        files[weights] = None
    with uris.probe(_checkpoints(config)[0]) as mark:
        check_seen(files | {mark: None})


def _survey(table: pa.Table, spec: ImageSpec, max_reject_rate: float) -> pa.Table:
    """Return the readable scans with their `pixels_sha256`. Raises InputError where a class has none."""
    rows = decoding.decoded(table, spec).drop_columns(["pixels", "decoder_peak_bytes"])
    surveyed = readable(rows, max_reject_rate).select([*LABELLED.names, "pixels_sha256"])
    lost = sorted(set(table["label"].to_pylist()) - set(surveyed["label"].to_pylist()))
    if lost:
        raise InputError(f"no scan of {', '.join(lost)} can be read: repair them, or leave the class out of --data")
    return surveyed


def _split(surveyed: pa.Table, config: TrainConfig) -> splits.TrainingSplit:
    conflicts = splits.conflicts(surveyed)
    if conflicts:
        log.warning("%d different images stand in more than one class", conflicts)
    if config.paper_protocol:
        return splits.of_paper(surveyed, seed=config.seed)
    return splits.by_content(surveyed, validation_fraction=config.validation_fraction, seed=config.seed)


def _examples(table: pa.Table, rows: list[int], labels: tuple[str, ...]) -> pa.Table:
    """What a `Feed` needs of some scans: where they are, and `class_number`."""
    chosen = table.select(["scan_uri", "scan_version", "label"]).take(pa.array(rows, pa.int64()))
    numbers = pc.index_in(chosen["label"], pa.array(labels)).cast(pa.int64())
    return chosen.drop_columns(["label"]).append_column("class_number", numbers)


def _trainer(run: fit.TrainingRun, workers: ScalingConfig) -> "TensorflowTrainer":
    with quiet_stderr():
        from ray.train.tensorflow import TensorflowTrainer  # loads TensorFlow, so only now

    storage, name = _checkpoints(run.config)
    _check_same_run(uris.join(storage, name), run.fingerprint, run.config.flags("run_name"))
    filesystem, path = uris.filesystem(storage)
    return TensorflowTrainer(
        fit.train_loop,
        train_loop_config={"run": run},
        scaling_config=workers,
        run_config=RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=2),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )


def _checkpoints(config: TrainConfig) -> tuple[str, str]:
    """Where checkpoints are stored, and the name of the run there."""
    storage = config.storage or uris.join(uris.parent(config.output), "_training")
    return storage, config.run_name or f"train-{config.fingerprint()}"


def _check_same_run(folder: str, fingerprint: str, flag: str) -> None:
    """A run goes on only with the settings and scans that it began with. Raises ConfigError."""
    for name in [name for name in uris.folders(folder) if name.startswith("checkpoint_")]:
        try:
            state = json.loads(uris.read(uris.join(folder, name, "state.json")))
        except StorageMissing:
            continue  # a checkpoint that a crash left half-written; Ray passes over it too
        if state["fingerprint"] != fingerprint:
            raise ConfigError(f"the run in {folder} has other settings or other scans: choose another {flag}, "
                              "or repeat the first command")  # fmt: skip


def _data_facts(config: TrainConfig, surveyed: pa.Table, split: splits.TrainingSplit, rejected: int) -> dict[str, Any]:
    content = hashlib.sha256("".join(sorted(
        f"{row['label']}{row['pixels_sha256']}" for row in surveyed.select(["label", "pixels_sha256"]).to_pylist()
    )).encode())  # fmt: skip
    return {
        "scans": surveyed.num_rows,
        "different_images": len(set(surveyed["pixels_sha256"].to_pylist())),
        "rejected": rejected,
        "by_label": {r["values"]: r["counts"] for r in surveyed["label"].value_counts().to_pylist()},
        "content_sha256": content.hexdigest(),
        "split": {"protocol": "paper" if config.paper_protocol else "by content", "seed": config.seed,
                  "train": len(split.train), "validation": len(split.validation), "test": len(split.test),
                  "set_aside": split.set_aside},
    }  # fmt: skip


def _fingerprint(config: TrainConfig, data: dict[str, Any]) -> str:
    """Of all that a checkpoint must agree with; not of where things are stored."""
    settings = config.as_dict()
    for name in ("data", "exclude", "output", "storage", "run_name", "workers", "keep", "backbone_weights", "start_from",
                 "requester_pays"):  # fmt: skip
        del settings[name]
    if config.start_from is not None:
        settings["started_from"] = directory.open_model(config.start_from).digest
    return hashlib.sha256(json.dumps([settings, data], sort_keys=True).encode()).hexdigest()


def _lineage(config: TrainConfig) -> list[dict[str, str]]:
    """The models that this one goes on from, the nearest first: their digests and the commands that trained them."""
    if config.start_from is None:
        return []
    model = directory.open_model(config.start_from)
    training = model.facts.get("training", {})
    before = [{"digest": model.digest, "command": training.get("command", "")}, *training.get("started_from", [])]
    return [one | {"command": recipe.portable(one["command"])} for one in before]


def _publish(config: TrainConfig, checkpoint: Path, labels: tuple[str, ...], data: dict[str, Any]) -> Trained:
    """Write the model directory from the last checkpoint: the best epoch's weights, and how they came about."""
    state = fit.read_state(checkpoint)
    history = pa.Table.from_pylist(state.history)
    epoch = state.best_epoch if config.keep == "best" else state.epoch
    kept = state.history[epoch - 1]
    facts = {
        "labels": list(labels),
        "backbone": config.backbone,
        "image_side_px": config.sides[0],
        "training": {"command": recipe.portable(config.command("jobs/train.py")), "data": data, "kept": config.keep, "epoch": epoch,
                     "epochs": state.epoch, "hours": sum(r["seconds"] for r in state.history) / 3600,
                     "started_from": _lineage(config)},
        "metrics": {name: kept[name] for name in kept if name.startswith("val_") and math.isfinite(kept[name])},
        "libraries": {"mribatch": __version__} | {name: version(name) for name in _LIBRARIES},
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    model = directory.save(config.output, checkpoint / f"{config.keep}.weights.h5", facts, card.model_card(facts))
    parquet = io.BytesIO()
    pyarrow.parquet.write_table(history, parquet)
    uris.put(uris.join(config.output, "history.parquet"), parquet.getvalue())
    uris.put(uris.join(config.output, "curves.png"), figures.training_curves(history, epoch))
    return Trained(model=model, history=history)
