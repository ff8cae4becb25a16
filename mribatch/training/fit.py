"""The training loop that Ray Train runs on each worker: Keras 3 under MultiWorkerMirroredStrategy.

It has its own training step, because `Model.fit` fails under Ray Train. `commands.train` selects the scans and writes the
model. TensorFlow is imported inside functions: the driver that starts the workers never loads it.
"""

import ctypes
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
import ray.train
from numpy.typing import NDArray

from mribatch.errors import RunFailed
from mribatch.models import directory
from mribatch.settings.train import TrainConfig
from mribatch.training import augment
from mribatch.training.feed import Decode, Feed, ahead
from mribatch.training.step import DRAWS, Augmentation, TrainingStep

__all__ = ["HISTORY", "State", "TrainingRun", "kept_epoch", "read_state", "train_loop"]

WARMUP_STEPS = 60  # Adamax's first moments are noise; a full first step would destroy ImageNet weights
LINE_EVERY_S = 15.0  # between lines of progress, so that the log of an hour stays readable
_MAX_SKIPPED = 0.05  # share of steps without finite gradients; one in a thousand is an accident, more is divergence

_TRIM_THRESHOLD, _TOP_PAD = -1, -2  # of mallopt, as in malloc.h

HISTORY = (
    "epoch",
    "loss",
    "accuracy",
    "precision",
    "recall",
    "val_loss",
    "val_accuracy",
    "val_precision",
    "val_recall",
    "learning_rate",
    "image_side_px",
    "train_scans_per_s",
    "seconds",
)
"""The columns of the training history, one row per epoch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingRun:
    """Everything that the workers of a training need; the same for all of them.

    backbone_weights: imagenet, none, or a URI that every worker can read. start_from: URI of a model to continue from,
    None to start from the backbone's weights. fingerprint: of settings and data; a checkpoint with another one is refused.
    training, validation, decode: as for `Feed`. decoder_cores: cores for decoding, per worker at least.
    lines: actor whose method `say(line, epochs_done)` logs a line of progress.
    """

    config: TrainConfig
    labels: tuple[str, ...]
    backbone_weights: str
    start_from: str | None
    fingerprint: str
    training: pa.Table
    validation: pa.Table
    decode: Decode
    decoder_cores: float
    lines: Any


@dataclass(kw_only=True)
class State:
    """The part of a checkpoint that is not weights or optimizer. epoch: number of epochs done."""

    fingerprint: str
    epoch: int = 0
    best_epoch: int = 0
    best_val_loss: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)


def train_loop(settings: dict[str, TrainingRun]) -> None:
    """Train all epochs that are left after the last checkpoint, as one Ray Train worker. settings: `{"run": …}`."""
    _keep_freed_memory()
    run = settings["run"]
    context = ray.train.get_context()
    workers, rank = context.get_world_size(), context.get_world_rank()
    _share_cluster(workers, run.decoder_cores)
    feed = Feed(
        training=run.training,
        validation=run.validation,
        side_px=run.config.sides[0],
        batch_scans=run.config.batch_size,
        workers=workers,
        rank=rank,
        seed=run.config.seed,
        restart_flag=run.config.flags("run_name"),
        decode=run.decode,
        augment=augment.strong if run.config.augment == "strong" else None,
        no_tumour=run.labels.index(run.config.no_tumour) if run.config.lesion_boxes else None,
    )
    worker = _Worker(run, feed, say=run.lines.say.remote if rank == 0 else lambda *_: None)
    while not worker.is_done():
        worker.train_epoch()


def _share_cluster(workers: int, decoder_cores: float) -> None:
    """Limit this worker's decoding to its share of the cluster's memory for objects and of the cores that do not train."""
    own = ray.get_runtime_context().get_assigned_resources().get("CPU", 0.0)
    total = ray.cluster_resources()
    options = ray.data.DataContext.get_current().execution_options
    options.preserve_order = True
    options.resource_limits = ray.data.ExecutionResources.for_limits(
        cpu=max(total["CPU"] / workers - own, decoder_cores),
        object_store_memory=total["object_store_memory"] / 2 / workers,
    )


def _keep_freed_memory() -> None:
    """Keep glibc from returning freed memory to the kernel; other C libraries are left as they are.

    Each step frees the gigabytes that the next one asks for, and fetching them again costs some percent of a step on CPUs.
    """
    options = getattr(ctypes.CDLL(None), "mallopt", None)
    if options is not None:
        options(_TRIM_THRESHOLD, -1)
        options(_TOP_PAD, 1 << 28)


class _Worker:
    """The network, its optimizer and the state of the training on one worker."""

    def __init__(self, run: TrainingRun, feed: Feed, *, say: Callable[..., object]) -> None:
        import keras
        import tensorflow as tf

        from mribatch.models import networks

        config = run.config
        self.run, self.config, self.feed, self.say = run, config, feed, say
        self.state = State(fingerprint=run.fingerprint)
        keras.config.set_dtype_policy(config.precision)
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        with strategy.scope():
            self.model = networks.build(config.backbone, len(run.labels), workers=feed.workers, seed=config.seed)
            averaging = {"use_ema": True, "ema_momentum": config.average} if config.average else {}
            self.optimizer = keras.optimizers.Adamax(self._schedule(), **averaging)
            self.optimizer.build(self.model.trainable_variables)
        if not self._restore():
            self._load_first_weights()
            self.best = self.model.get_weights()
        augmentation = None if feed.augment else Augmentation(rotation_deg=config.rotation_deg, zoom=config.zoom)
        self.step = TrainingStep(strategy, self.model, self.optimizer, augmentation, config.label_smoothing)
        self.batches = feed.train(self.state.epoch)

    def is_done(self) -> bool:
        """Return whether all epochs are done, or the validation loss has not improved for too long."""
        state = self.state
        return state.epoch >= self.config.epochs or state.epoch - state.best_epoch >= self.config.patience

    def train_epoch(self) -> None:
        """Train on all training scans, validate on all validation scans, and write a checkpoint."""
        start, state = time.monotonic(), self.state
        sums = self._train(state.epoch)
        speed = self.feed.steps * self.feed.global_batch_scans / (time.monotonic() - start)
        raw_weights = self.model.get_weights()
        if self.config.average:
            self.optimizer.finalize_variable_values(self.model.trainable_variables)
        row = {
            "epoch": state.epoch + 1,
            **_metrics(sums),
            **{f"val_{name}": value for name, value in _metrics(self._validate()).items()},
            "learning_rate": float(np.asarray(self.optimizer.learning_rate)),
            "image_side_px": self.config.side_of_epoch(state.epoch),
            "train_scans_per_s": speed,
            "seconds": time.monotonic() - start,
        }
        state.history.append(row)
        state.epoch += 1
        if row["val_loss"] < state.best_val_loss:
            state.best_val_loss, state.best_epoch = row["val_loss"], state.epoch
            self.best = self.model.get_weights()
        self.say(_epoch_line(row, self.config.epochs, is_best=state.best_epoch == state.epoch), state.epoch)
        if not self.is_done():
            self.batches = ahead(self.feed.train(state.epoch))  # decode while the checkpoint is written
        self._checkpoint(row, raw_weights)

    def _schedule(self) -> Any:
        import keras

        total = self.feed.steps * self.config.epochs
        warmup = min(WARMUP_STEPS, max(1, total // 10))
        return keras.optimizers.schedules.CosineDecay(
            self.config.peak_rate / warmup,
            max(1, total - warmup),
            warmup_target=self.config.peak_rate,
            warmup_steps=warmup,
        )

    def _train(self, epoch: int) -> NDArray[np.float64]:
        """Return the sums of an epoch. Raises RunFailed if too many steps had no finite gradients."""
        steps, side = self.feed.steps, self.config.side_of_epoch(epoch)
        progress = _Progress(f"epoch {epoch + 1}/{self.config.epochs}", steps, side)
        sums = np.zeros(len(TrainingStep.SUMS))
        for number, batch in enumerate(self.batches):
            key = (self.config.seed * self.feed.workers + self.feed.rank, DRAWS * (epoch * steps + number))
            sums += self.step.train(batch, side_px=side, seed=key)
            line = progress.line(number + 1, sums)
            if line is not None:
                self.say(line, epoch + (number + 1) / steps)
        skipped, total = sums[-1], steps * self.feed.workers
        if skipped:
            self.say(f"{skipped:.0f} of {total} steps had no finite gradients and were skipped")
        if skipped > _MAX_SKIPPED * total:
            flags = self.config.flags("learning_rate", "precision")
            raise RunFailed(f"too many training steps have no finite gradients: change {flags}")
        return sums

    def _validate(self) -> NDArray[np.float64]:
        sums = np.zeros(len(TrainingStep.SUMS))
        for batch in self.feed.validate():
            sums += self.step.validate(batch)
        return sums

    def _load_first_weights(self) -> None:
        from mribatch.models import networks

        if self.run.start_from is None:
            flag = self.config.flags("backbone_weights")
            networks.load_backbone(self.model, self.config.backbone, self.run.backbone_weights, flag)
        else:
            start = networks.load_network(directory.open_model(self.run.start_from))
            self.model.set_weights(start.get_weights())

    def _restore(self) -> bool:
        """Continue from the last checkpoint. Return False if there is none."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return False
        with checkpoint.as_directory() as name:
            folder = Path(name)
            self.state = read_state(folder)
            self.model.load_weights(folder / "best.weights.h5")
            self.best = self.model.get_weights()
            raw = "learning" if self.config.average else "last"
            self.model.load_weights(folder / f"{raw}.weights.h5")
            with np.load(folder / "optimizer.npz") as stored:
                for number, variable in enumerate(self.optimizer.variables):
                    variable.assign(stored[str(number)])
        self.say(f"resuming after epoch {self.state.epoch} of {self.config.epochs}", self.state.epoch)
        return True

    def _checkpoint(self, row: dict[str, float], raw_weights: list[NDArray[Any]]) -> None:
        """Report the epoch; rank 0 adds all weights, the optimizer and the state. Continue with the raw weights."""
        if self.feed.rank != 0:
            self.model.set_weights(raw_weights)
            ray.train.report(row)
            return
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files = {"best": self.best, "last": self.model.get_weights()}
            if self.config.average:  # then the last weights are the average
                files["learning"] = raw_weights
            for file, weights in files.items():  # the raw weights are the last of them
                self.model.set_weights(weights)
                self.model.save_weights(folder / f"{file}.weights.h5")
            optimizer: dict[str, Any] = {str(n): np.asarray(v) for n, v in enumerate(self.optimizer.variables)}
            np.savez(folder / "optimizer.npz", **optimizer)
            (folder / "state.json").write_text(json.dumps(vars(self.state)))
            ray.train.report(row, checkpoint=ray.train.Checkpoint.from_directory(folder))


def read_state(folder: Path) -> State:
    """Return the state in the folder of a checkpoint."""
    return State(**json.loads((folder / "state.json").read_text()))


def kept_epoch(config: TrainConfig, state: State) -> int:
    """Return the epoch, from 1, whose weights --keep asks for. Raises RunFailed if its validation loss is not finite."""
    epoch = state.best_epoch if config.keep == "best" else state.epoch
    if not epoch or not math.isfinite(state.history[epoch - 1]["val_loss"]):
        flags = config.flags("learning_rate", "precision")
        raise RunFailed(f"the validation loss is not finite, so no model was written: change {flags}")
    return epoch


def _metrics(sums: NDArray[np.float64]) -> dict[str, float]:
    loss, scans, right, sure_right, sure, _ = sums.tolist()
    scans = max(scans, 1.0)
    return {
        "loss": loss / scans,
        "accuracy": right / scans,
        "precision": sure_right / max(sure, 1.0),
        "recall": sure_right / scans,
    }


class _Progress:
    """Lines of progress within an epoch, one every LINE_EVERY_S seconds."""

    def __init__(self, title: str, steps: int, side_px: int) -> None:
        self._title, self._steps, self._side_px = title, steps, side_px
        self._start = self._last_line = time.monotonic()

    def line(self, step: int, sums: NDArray[np.float64]) -> str | None:
        """Return the line after a step, None if it is too early for one."""
        now = time.monotonic()
        if now - self._last_line < LINE_EVERY_S:
            return None
        self._last_line = now
        elapsed, (loss, scans, right) = now - self._start, sums[:3]
        minutes_left = elapsed / step * (self._steps - step) / 60
        return (
            f"{self._title} · step {step}/{self._steps} · {self._side_px} px · loss {loss / scans:.4f} · "
            f"accuracy {right / scans:.4f} · {scans / elapsed:.1f} scans/s · {minutes_left:.1f} min left"
        )


def _epoch_line(row: dict[str, float], epochs: int, *, is_best: bool) -> str:
    return (
        f"epoch {row['epoch']:.0f}/{epochs} done · loss {row['loss']:.4f} · accuracy {row['accuracy']:.4f} · "
        f"validation loss {row['val_loss']:.4f} · accuracy {row['val_accuracy']:.4f} · "
        f"{row['seconds'] / 60:.1f} min" + (" · best so far" if is_best else "")
    )
