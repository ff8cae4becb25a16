"""The Ray Train loop: Keras 3 under MultiWorkerMirroredStrategy with a step of its own (`Model.fit` fails there).

Which scans, and what becomes of the result, is `runs.train`'s. TensorFlow is imported inside functions: the driver
that launches this never loads it.
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
import ray.data
import ray.train
from numpy.typing import NDArray

from mribatch.errors import ConfigError, RunFailed
from mribatch.models import directory
from mribatch.settings.train import TrainConfig
from mribatch.training.feed import Feed, ahead
from mribatch.training.step import DRAWS, Augmentation, TrainingStep

__all__ = ["HISTORY", "Plan", "State", "read_state", "train_loop"]

WARMUP_STEPS = 60  # Adamax's first moments are noise; ImageNet weights would be lost to a full first step
LINE_EVERY_S = 15.0  # a line of progress; a job log of an hour stays readable
_MAX_SKIPPED = 0.05  # share of steps without finite gradients; one in a thousand is an accident, more is divergence

_TRIM_THRESHOLD, _TOP_PAD = -1, -2  # of mallopt, as in malloc.h

HISTORY = ("epoch", "loss", "accuracy", "precision", "recall", "val_loss", "val_accuracy", "val_precision",
           "val_recall", "learning_rate", "image_side_px", "train_scans_per_s", "seconds")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every worker is told."""

    config: TrainConfig
    labels: tuple[str, ...]
    backbone_weights: str  # imagenet, none, or a URI that every worker can read
    start_from: str | None  # a model's URI, or the backbone's weights serve
    fingerprint: str  # of settings and data: a checkpoint of another one is refused


@dataclass(kw_only=True)
class State:
    """What a checkpoint knows beside weights and optimizer."""

    fingerprint: str
    epoch: int = 0  # epochs done
    best_epoch: int = 0
    best_val_loss: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)


def train_loop(told: dict[str, Any]) -> None:
    """What each Ray Train worker runs: all epochs, from the last checkpoint on."""
    _keep_freed_memory()
    plan: Plan = told["plan"]
    context = ray.train.get_context()
    workers, rank = context.get_world_size(), context.get_world_rank()
    _share_cluster(workers, told["decoder_cores"])
    feed = Feed(
        training=told["training"], validation=told["validation"], side_px=plan.config.sides[0],
        batch_scans=plan.config.batch_size, workers=workers, rank=rank, seed=plan.config.seed,
        restart_flag=plan.config.flags("run_name"),
        decode=told["decode"],
    )  # fmt: skip
    run = _Run(plan, feed, say=told["lines"].say.remote if rank == 0 else _say_nothing)
    while not run.over():
        run.epoch()


def _share_cluster(workers: int, decoder_cores: float) -> None:
    """What a worker's decoding takes of the cluster: of the cores that do not train and of the memory for objects, one
    worker's part. Rows keep their order."""
    own = ray.get_runtime_context().get_assigned_resources().get("CPU", 0.0)
    all_of_it = ray.cluster_resources()
    options = ray.data.DataContext.get_current().execution_options
    options.preserve_order = True
    options.resource_limits = ray.data.ExecutionResources.for_limits(
        cpu=max(all_of_it["CPU"] / workers - own, decoder_cores),
        object_store_memory=all_of_it["object_store_memory"] / 2 / workers,
    )


def _keep_freed_memory() -> None:
    """Each step frees the gigabytes that the next one asks for. glibc would give them back to the kernel meanwhile, which
    costs some percent of a step on CPUs. Other C libraries are left as they are."""
    options = getattr(ctypes.CDLL(None), "mallopt", None)
    if options is not None:
        options(_TRIM_THRESHOLD, -1)
        options(_TOP_PAD, 1 << 28)


def _say_nothing(line: str) -> None:
    """All workers know the same; the first one says it."""


class _Run:
    """The network, its optimizer and its state on one worker."""

    def __init__(self, plan: Plan, feed: Feed, *, say: Callable[[str], object]) -> None:
        import keras
        import tensorflow as tf

        from mribatch.models import networks

        config = plan.config
        self.plan, self.config, self.feed, self.say = plan, config, feed, say
        self.state = State(fingerprint=plan.fingerprint)
        if feed.steps < 1:
            raise ConfigError(f"{feed.training.num_rows} training scans do not fill one global batch of {feed.workers} × "
                              f"{config.batch_size}: lower {config.flags('batch_size', 'workers')}")  # fmt: skip
        keras.config.set_dtype_policy(config.precision)
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        with strategy.scope():
            self.model = networks.build(config.backbone, len(plan.labels), workers=feed.workers, seed=config.seed)
            averaging = {"use_ema": True, "ema_momentum": config.average} if config.average else {}
            self.optimizer = keras.optimizers.Adamax(self._schedule(), **averaging)
            self.optimizer.build(self.model.trainable_variables)
        if not self._restore():
            self._begin()
            self.best = self.model.get_weights()
        augmentation = Augmentation(rotation_deg=config.rotation_deg, zoom=config.zoom)
        self.step = TrainingStep(strategy, self.model, self.optimizer, augmentation)
        self.batches = feed.train(self.state.epoch)

    def over(self) -> bool:
        """All epochs are done, or the validation loss has not fallen for too long."""
        state = self.state
        return state.epoch >= self.config.epochs or state.epoch - state.best_epoch >= self.config.patience

    def epoch(self) -> None:
        """One pass over the training scans, one over the validation scans, a checkpoint."""
        begun = time.monotonic()
        done, steps = self.state.epoch, self.feed.steps
        sums = self._train(done)
        learnt = self._metrics(sums)
        if sums[-1]:
            self.say(
                f"{sums[-1]:.0f} of {steps * self.feed.workers} steps gave no finite gradients: nothing was learnt"
            )
        if sums[-1] > _MAX_SKIPPED * steps * self.feed.workers:
            flags = self.config.flags("learning_rate", "precision")
            raise RunFailed(f"training gives no finite gradients any more: change {flags}")
        speed = steps * self.feed.global_batch_scans / (time.monotonic() - begun)
        learning = self.model.get_weights()
        if self.config.average:
            self.optimizer.finalize_variable_values(self.model.trainable_variables)
        checked = {f"val_{name}": value for name, value in self._metrics(self._validate()).items()}
        rate = float(np.asarray(self.optimizer.learning_rate))
        row = {"epoch": done + 1, **learnt, **checked, "learning_rate": rate,
               "image_side_px": self.config.side_of_epoch(done), "train_scans_per_s": speed, "seconds": time.monotonic() - begun}  # fmt: skip
        self.state.history.append(row)
        self.state.epoch = done + 1
        if row["val_loss"] < self.state.best_val_loss:
            self.state.best_val_loss, self.state.best_epoch = row["val_loss"], done + 1
            self.best = self.model.get_weights()
        self.say(_epoch_line(row, self.config.epochs, best=self.state.best_epoch == done + 1))
        if not self.over():
            self.batches = ahead(self.feed.train(self.state.epoch))  # decoding begins while the checkpoint is written
        self._checkpoint(row, learning)

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
        steps, side = self.feed.steps, self.config.side_of_epoch(epoch)
        sums, line = np.zeros(len(TrainingStep.SUMS)), _Line(epoch + 1, self.config.epochs, steps, side)
        for number, batch in enumerate(self.batches):
            key = (self.config.seed * self.feed.workers + self.feed.rank, DRAWS * (epoch * steps + number))
            sums += self.step.train(batch, side_px=side, seed=key)
            said = line.after(number + 1, sums)
            if said is not None:
                self.say(said)
        return sums

    def _validate(self) -> NDArray[np.float64]:
        sums = np.zeros(len(TrainingStep.SUMS))
        for batch in self.feed.validate():
            sums += self.step.validate(batch)
        return sums

    def _metrics(self, sums: NDArray[np.float64]) -> dict[str, float]:
        loss, scans, right, sure_right, sure, _ = sums.tolist()
        scans = max(scans, 1.0)
        return {"loss": loss / scans, "accuracy": right / scans,
                "precision": sure_right / max(sure, 1.0), "recall": sure_right / scans}  # fmt: skip

    def _begin(self) -> None:
        """The first weights: those of another model, or of the backbone."""
        from mribatch.models import networks

        if self.plan.start_from is None:
            flag = self.config.flags("backbone_weights")
            networks.load_backbone(self.model, self.config.backbone, self.plan.backbone_weights, flag)
        else:
            self.model.set_weights(networks.load(directory.named(self.plan.start_from)).get_weights())

    def _restore(self) -> bool:
        """Go on from the last checkpoint, if there is one."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return False
        with checkpoint.as_directory() as folder:
            self.state = read_state(Path(folder))
            self.model.load_weights(Path(folder) / "best.weights.h5")
            self.best = self.model.get_weights()
            learning = "learning" if self.config.average else "last"
            self.model.load_weights(Path(folder) / f"{learning}.weights.h5")
            with np.load(Path(folder) / "optimizer.npz") as stored:
                for number, variable in enumerate(self.optimizer.variables):
                    variable.assign(stored[str(number)])
        self.say(f"going on after epoch {self.state.epoch} of {self.config.epochs}")
        return True

    def _checkpoint(self, row: dict[str, float], learning: list[NDArray[Any]]) -> None:
        """Report the epoch; rank 0 adds the weights to be kept (best and last), those that are learning where they are others,
        the optimizer and the state. The network then goes on with those that are learning."""
        if self.feed.rank != 0:
            self.model.set_weights(learning)
            ray.train.report(row)
            return
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files = {"best": self.best, "last": self.model.get_weights()}
            if self.config.average:
                files["learning"] = learning
            for file, weights in files.items():  # the one that is learning comes last
                self.model.set_weights(weights)
                self.model.save_weights(folder / f"{file}.weights.h5")
            optimizer: dict[str, Any] = {str(n): np.asarray(v) for n, v in enumerate(self.optimizer.variables)}
            np.savez(folder / "optimizer.npz", **optimizer)
            (folder / "state.json").write_text(json.dumps(vars(self.state)))
            ray.train.report(row, checkpoint=ray.train.Checkpoint.from_directory(folder))


def read_state(folder: Path) -> State:
    """The state in a checkpoint's folder."""
    return State(**json.loads((folder / "state.json").read_text()))


class _Line:
    """Progress within an epoch, a line now and then."""

    def __init__(self, epoch: int, epochs: int, steps: int, side_px: int) -> None:
        self._title, self._steps, self._side_px = f"epoch {epoch}/{epochs}", steps, side_px
        self._begun = self._said = time.monotonic()

    def after(self, step: int, sums: NDArray[np.float64]) -> str | None:
        now = time.monotonic()
        if now - self._said < LINE_EVERY_S:
            return None
        self._said = now
        loss, scans, right = sums[:3]
        rate = scans / (now - self._begun)
        left = (now - self._begun) / step * (self._steps - step)
        return (f"{self._title} · step {step}/{self._steps} · {self._side_px} px · loss {loss / scans:.4f} · "
                f"accuracy {right / scans:.4f} · {rate:.1f} scans/s · {left / 60:.1f} min left")  # fmt: skip


def _epoch_line(row: dict[str, float], epochs: int, *, best: bool) -> str:
    return (f"epoch {row['epoch']:.0f}/{epochs} done · loss {row['loss']:.4f} · accuracy {row['accuracy']:.4f} · "
            f"validation loss {row['val_loss']:.4f} · accuracy {row['val_accuracy']:.4f} · "
            f"{row['seconds'] / 60:.1f} min" + (" · best so far" if best else ""))  # fmt: skip
