"""Train: labelled scans → split by groups of near copies → Ray Train → model directory, history and curves."""

import hashlib
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig

from mribatch.cluster import streaming
from mribatch.cluster.nodes import check_seen, trainers, working_nodes
from mribatch.cluster.progress import lines
from mribatch.cluster.session import session
from mribatch.cluster.trainer import Trainer
from mribatch.commands.calibrated import LEAST_SCANS, calibrate_model
from mribatch.commands.classes import list_labelled
from mribatch.commands.groups import given_clusters
from mribatch.commands.paying import paying
from mribatch.commands.screen import Block, Shown, progress
from mribatch.commands.train_scans import grouped_scans, recorded, split_of
from mribatch.errors import ConfigError, InputError, ModelError, RunFailed, StorageMissing
from mribatch.models import card, directory, pretrained, recipe
from mribatch.models.format import Model, check_original
from mribatch.reports import figures
from mribatch.settings.calibrate import FALSE_REFERRALS
from mribatch.settings.train import TrainConfig
from mribatch.sources import clusters
from mribatch.sources.lesions import Box, lesion_boxes
from mribatch.stores import uris
from mribatch.training import fit, splits
from mribatch.version import __version__

__all__ = ["Trained", "train"]

log = logging.getLogger("mribatch.train")

_LIBRARIES = ("ray", "tensorflow", "keras", "numpy", "pillow", "pyarrow")


@paying
def train(config: TrainConfig) -> "Trained":
    """Fit a classifier on the labelled scans of config.data and write the model directory config.output.

    A run with the same settings, or run name, resumes from its last checkpoint. Raises InputError, ModelError, StorageError
    and ConfigError for what cannot be read, written or seen by all nodes, RunFailed (a rerun resumes).
    """
    storage, _ = _checkpoints(config)
    table = list_labelled(config.data, exclude=config.exclude, outputs=(config.output, storage))
    _warn_of_unused(config, table)
    weights, start = _backbone_weights(config), _start_model(config, table)
    given, boxes = given_clusters(config), _boxes(config, table)
    for folder in (config.output, storage):  # before the first epoch, not after the last
        uris.check_writable(folder)
    with session():
        _check_nodes(config, table, weights, start)
        scans = grouped_scans(config, table, given, kept=uris.join(*_checkpoints(config), clusters.FILE))
        split = split_of(config, scans)
        labels = tuple(sorted(set(scans["label"].to_pylist())))
        data = _data_facts(config, scans, split, rejected=table.num_rows - scans.num_rows)
        workers = _workers(config, split)
        with _progress(config) as reporter:
            run = fit.TrainingRun(
                config=config,
                labels=labels,
                backbone_weights=weights,
                start_from=start,
                fingerprint=_fingerprint(config, data),
                training=_with_lesions(config, _examples(scans, split.train, labels), boxes),
                validation=_examples(scans, split.validation, labels),
                decode=streaming.decoded,
                decoder_cores=streaming.DECODER_CORES,
                lines=reporter,
            )
            result = _trainer(run, workers).fit()
        if result.checkpoint is None:
            raise RunFailed(
                "training ended without a checkpoint: see the first error above, then run the command again"
            )
        log.info("writing the model …")
        with result.checkpoint.as_directory() as folder:
            origin = {"data": data, "scans": recorded(config, scans, split)}
            trained = _publish(config, Path(folder), labels, origin)
        return _calibrated(config, trained, scans, split)


@dataclass(frozen=True, kw_only=True)
class Trained(Shown):
    """A trained model and its history."""

    model: Model
    history: pa.Table
    exit_code: int = 0

    def blocks(self) -> list[Block]:
        """Return one line on the model."""
        epoch, metrics = self.model.facts["training"]["epoch"], self.model.facts["metrics"]
        accuracy, loss = metrics["val_accuracy"], metrics["val_loss"]
        return [
            f"{self.model.uri} · model {self.model.digest} · epoch {epoch} · validation accuracy {accuracy:.4f} · "
            f"loss {loss:.4f} (same source, {self._grouping()})"
        ]

    def _grouping(self) -> str:
        split = self.model.facts["training"]["data"]["split"]
        leaking = split["leaks"].get("validation", 0)
        if not leaking:
            return "near copies kept apart"
        return f"{leaking:,} of {split['validation']:,} validation scans have a near copy among the training scans"


# Before Ray starts


def _warn_of_unused(config: TrainConfig, table: pa.Table) -> None:
    """Warn of flags that have no effect on these scans or beside other flags."""
    if config.changed("validation_fraction") and "validation" in table["split"].to_pylist():
        log.warning("warning: --validation-fraction is not used: %s names its validation scans", config.data)
    if config.allow_leaks and config.paper_protocol:
        log.warning("warning: --allow-leaks is not used: --paper-protocol keeps leaks")
    if config.start_from is not None and config.backbone_weights is not None:
        log.warning("warning: --backbone-weights is not used: --start-from brings all weights")


def _backbone_weights(config: TrainConfig) -> str:
    """Return --backbone-weights, a file as an absolute path that was checked: workers have their own working folders."""
    weights = str(config.backbone_weights)
    if weights in ("imagenet", "none") or config.start_from:
        return weights
    pretrained.read_weights(weights, config.backbone)
    return uris.absolute(weights)


def _start_model(config: TrainConfig, table: pa.Table) -> str | None:
    """Return the URI of the model to start from, if any. Raises ModelError if it does not fit the data and flags."""
    if config.start_from is None:
        return None
    model, labels = directory.load_model(config.start_from), sorted(set(table["label"].to_pylist()))
    check_original(model, "start from")
    if model.is_classical or (model.backbone, list(model.labels)) != (config.backbone, labels):
        raise ModelError(
            f"--start-from is a {model.kind} for {', '.join(model.labels)}; the data and flags ask for a {config.backbone} "
            f"for {', '.join(labels)}: make them agree, or omit --start-from"
        )
    return model.uri


def _boxes(config: TrainConfig, table: pa.Table) -> Mapping[str, Box] | None:
    """Return the boxes of --lesion-boxes; None without that flag. Raises InputError if the data lacks --no-tumour."""
    if config.lesion_boxes is None:
        return None
    labels = sorted(set(table["label"].to_pylist()))
    if config.no_tumour not in labels:
        raise InputError(f"{config.flags('no_tumour')} must be one of {', '.join(labels)}, got {config.no_tumour}")
    return lesion_boxes(config.lesion_boxes, config.data)


def _checkpoints(config: TrainConfig) -> tuple[str, str]:
    """Return where checkpoints are stored, and the name of the run there."""
    storage = config.storage or uris.join(uris.parent(config.output), "_training")
    return storage, config.run_name or f"train-{config.fingerprint()}"


# The scans


def _check_nodes(config: TrainConfig, table: pa.Table, weights: str, start: str | None) -> None:
    """Check that every node sees the scans, the first weights, and the folder of checkpoints."""
    first = table.slice(0, 1).to_pylist()[0]
    files: dict[str, str | None] = {first["scan_uri"]: first["scan_version"]}
    if start is not None:
        files[uris.join(start, "model.json")] = None
    elif weights not in ("imagenet", "none"):
        files[weights] = None
    with uris.probe(_checkpoints(config)[0]) as mark:
        check_seen(files | {mark: None})


def _examples(table: pa.Table, rows: Sequence[int], labels: Sequence[str]) -> pa.Table:
    """Return the columns of some scans that a `Feed` needs: URI, version and `class_number`."""
    chosen = table.select(["scan_uri", "scan_version", "label"]).take(pa.array(rows, pa.int64()))
    numbers = pc.index_in(chosen["label"], pa.array(labels)).cast(pa.int64())
    return chosen.drop_columns(["label"]).append_column("class_number", numbers)


def _with_lesions(config: TrainConfig, training: pa.Table, boxes: Mapping[str, Box] | None) -> pa.Table:
    """Return the scans with their boxes, if any, as the column `lesion`. Raises InputError if none of them has one."""
    if boxes is None:
        return training
    column = [boxes.get(uri) for uri in training["scan_uri"].to_pylist()]
    known = len(column) - column.count(None)
    if not known:
        raise InputError(f"{config.lesion_boxes} names none of the training scans: its paths must start below --data")
    log.info("%d of %d training scans have the box of their lesion", known, len(column))
    return training.append_column("lesion", pa.array(column, pa.list_(pa.float64())))


# The training


def _workers(config: TrainConfig, split: splits.TrainingSplit) -> ScalingConfig:
    number, share = trainers(working_nodes(), config.workers)
    if len(split.train) < number * config.batch_size:
        raise ConfigError(
            f"{len(split.train)} training scans do not fill one global batch of {number} × {config.batch_size}: lower "
            f"{config.flags('batch_size', 'workers')}"
        )
    counts = len(split.train), len(split.validation), number
    log.info("training on %d scans, validating on %d, %d workers", *counts)
    return ScalingConfig(num_workers=number, use_gpu="GPU" in share, resources_per_worker=share)


@contextmanager
def _progress(config: TrainConfig) -> Iterator[Any]:
    """Show the lines and epochs that workers report to the actor that this yields."""
    log.info("loading the network …")
    with progress("training", config.epochs, "epochs", logged=False) as bar, lines(bar.heard) as reporter:
        yield reporter


def _trainer(run: fit.TrainingRun, workers: ScalingConfig) -> Trainer:
    storage, name = _checkpoints(run.config)
    _check_same_run(uris.join(storage, name), run.fingerprint, run.config.flags("run_name"))
    filesystem, path = uris.filesystem(storage)
    run_config = RunConfig(
        name=name,
        storage_path=path,
        storage_filesystem=filesystem,
        failure_config=FailureConfig(max_failures=2),
        checkpoint_config=CheckpointConfig(num_to_keep=2),
    )
    loop_config = {"run": run}
    return Trainer(fit.train_loop, train_loop_config=loop_config, scaling_config=workers, run_config=run_config)


def _check_same_run(folder: str, fingerprint: str, flag: str) -> None:
    """Raise ConfigError if the run in a folder began with other settings or scans."""
    for name in [name for name in uris.folders(folder) if name.startswith("checkpoint_")]:
        try:
            state = json.loads(uris.read(uris.join(folder, name, "state.json")))
        except StorageMissing:
            continue  # a checkpoint that a crash left half-written; Ray ignores it too
        if state["fingerprint"] != fingerprint:
            raise ConfigError(
                f"the run in {folder} has other settings or other scans: choose another {flag}, or repeat the first command"
            )


def _fingerprint(config: TrainConfig, data: dict[str, Any]) -> str:
    """Return a digest of all that a checkpoint must agree with, which excludes where things are stored."""
    settings = config.as_dict()
    for name in _NOT_IN_FINGERPRINT:
        del settings[name]
    if config.start_from is not None:
        settings["started_from"] = directory.open_model(config.start_from).digest
    return hashlib.sha256(json.dumps([settings, data], sort_keys=True).encode()).hexdigest()


_NOT_IN_FINGERPRINT = (
    *("data", "exclude", "groups", "output", "storage", "run_name"),
    *("workers", "keep", "backbone_weights", "start_from", "requester_pays"),
)


# The model


def _data_facts(config: TrainConfig, scans: pa.Table, split: splits.TrainingSplit, *, rejected: int) -> dict[str, Any]:
    pairs = scans.select(["label", "pixels_sha256"]).to_pylist()
    content = "".join(sorted(f"{row['label']}{row['pixels_sha256']}" for row in pairs))
    groups = splits.content_groups(scans)
    return {
        "scans": scans.num_rows,
        "different_images": len(set(scans["pixels_sha256"].to_pylist())),
        "rejected": rejected,
        "by_label": {row["values"]: row["counts"] for row in scans["label"].value_counts().to_pylist()},
        "content_sha256": hashlib.sha256(content.encode()).hexdigest(),
        "split": {
            "protocol": "paper" if config.paper_protocol else "by groups of near copies",
            "seed": config.seed,
            "train": len(split.train),
            "validation": len(split.validation),
            "test": len(split.test),
            "set_aside": split.set_aside,
            "groups": len(set(groups)),
            "leaks": {leak.side: len(leak.pairs) for leak in splits.leaks(groups, split.sides())},
        },
    }


def _lineage(config: TrainConfig) -> list[dict[str, str]]:
    """Return the digests and training commands of the models that this one was trained from, the nearest first."""
    if config.start_from is None:
        return []
    model = directory.open_model(config.start_from)
    training = model.facts.get("training", {})
    stages = [{"digest": model.digest, "command": training.get("command", "")}, *training.get("started_from", [])]
    return [stage | {"command": recipe.portable(stage["command"])} for stage in stages]


def _publish(config: TrainConfig, checkpoint: Path, labels: Sequence[str], origin: dict[str, Any]) -> Trained:
    """Write the model directory from the last checkpoint: the weights to keep, their history and curves."""
    state = fit.read_state(checkpoint)
    epoch = fit.kept_epoch(config, state)
    history, facts = pa.Table.from_pylist(state.history), _model_facts(config, state, epoch, labels, origin)
    model = directory.save(config.output, checkpoint / f"{config.keep}.weights.h5", facts, card.model_card(facts))
    parquet = io.BytesIO()
    pyarrow.parquet.write_table(history, parquet)
    uris.put(uris.join(config.output, "history.parquet"), parquet.getvalue())
    uris.put(uris.join(config.output, "curves.png"), figures.training_curves(history, epoch))
    return Trained(model=model, history=history)


def _calibrated(config: TrainConfig, trained: Trained, scans: pa.Table, split: splits.TrainingSplit) -> Trained:
    """Calibrate the trained model on its validation scans, if there are enough."""
    if len(split.validation) < LEAST_SCANS:
        log.warning(
            "warning: the model is not calibrated and refers no scans: %d validation scans, which is fewer than %d",
            *(len(split.validation), LEAST_SCANS),
        )
        return trained
    scans = scans.append_column("group", pa.array(splits.content_groups(scans), pa.int64()))
    calibrated = calibrate_model(
        trained.model,
        trained.model.uri,
        *(scans.take(pa.array(rows, pa.int64())) for rows in (split.train, split.validation)),
        false_referrals=FALSE_REFERRALS,
        batch_size=config.batch_size,
        max_reject_rate=config.max_reject_rate,
        seed=config.seed,
    )
    return replace(trained, model=calibrated.model)


def _model_facts(
    config: TrainConfig, state: fit.State, epoch: int, labels: Sequence[str], origin: dict[str, Any]
) -> dict[str, Any]:
    kept = state.history[epoch - 1]
    return {
        "labels": list(labels),
        "backbone": config.backbone,
        "image_side_px": config.sides[0],
        "training": {
            "command": recipe.portable(config.command("jobs/train.py")),
            **origin,
            "kept": config.keep,
            "epoch": epoch,
            "epochs": state.epoch,
            "hours": sum(row["seconds"] for row in state.history) / 3600,
            "started_from": _lineage(config),
        },
        "metrics": {name: kept[name] for name in kept if name.startswith("val_")},
        "libraries": {"mribatch": __version__} | {name: version(name) for name in _LIBRARIES},
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
