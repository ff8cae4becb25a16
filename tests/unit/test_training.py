"""A training before its first epoch and after its last: what is refused, and which epoch's weights are kept. No Ray is started."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mribatch.commands.calibrate import calibrate
from mribatch.commands.compare import compare
from mribatch.commands.train import train
from mribatch.errors import InputError, RunFailed
from mribatch.settings.calibrate import CalibrateConfig
from mribatch.settings.compare import BaselinesConfig
from mribatch.settings.train import TrainConfig
from mribatch.training.fit import State, kept_epoch
from tests.conftest import write_scans
from tests.unit.test_nightly import save_network


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"data": "data", "output": "out", "backbone": "cnn"} | changes)


def state(*losses: float) -> State:
    """Return the state after epochs of these validation losses, the second of which was the best."""
    history = [{"val_loss": loss} for loss in losses]
    return State(fingerprint="", epoch=len(losses), best_epoch=2, best_val_loss=losses[1], history=history)


def test_the_best_epoch_or_the_last_one_is_kept() -> None:
    assert kept_epoch(config(), state(3.0, 1.0, 2.0)) == 2
    assert kept_epoch(config(keep="last"), state(3.0, 1.0, 2.0)) == 3


def test_no_model_is_made_of_an_epoch_whose_loss_is_not_finite() -> None:
    with pytest.raises(RunFailed, match=r"the validation loss is not finite.* change --learning-rate or --precision"):
        kept_epoch(config(), State(fingerprint="", epoch=1, history=[{"val_loss": float("nan")}]))
    with pytest.raises(RunFailed, match="not finite"):
        kept_epoch(config(keep="last"), state(1.0, 0.5, float("nan")))


def by_train(places: dict[str, str], **more: Any) -> None:
    train(TrainConfig(**places, backbone="cnn", **more))


def by_calibrate(places: dict[str, str], **more: Any) -> None:
    model = save_network(Path(places["output"]).parent / "model")
    calibrate(CalibrateConfig(**places, model=model.uri, **more))


def by_baselines(places: dict[str, str], **more: Any) -> None:
    compare(BaselinesConfig(**places, models=("knn",), **more))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return where labelled scans and the output are. To start Ray fails."""

    def start() -> None:
        raise AssertionError("Ray was started")

    for command in ("train", "calibrate", "compare"):
        monkeypatch.setattr(f"mribatch.commands.{command}.session", start)
    write_scans(tmp_path / "data", {"glioma": 3, "notumor": 3})
    return {"data": str(tmp_path / "data"), "output": str(tmp_path / "out")}


@pytest.mark.parametrize("command", [by_train, by_calibrate, by_baselines])
def test_groups_that_no_audit_wrote_are_refused_before_ray_starts(
    command: Callable[..., None], places: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "groups").write_text("none")
    with pytest.raises(InputError, match=r"groups is not a clusters\.parquet"):
        command(places, groups=str(tmp_path / "groups"))


def test_boxes_that_are_no_table_are_refused_before_ray_starts(places: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("scan\na")
    with pytest.raises(InputError, match="has no column x0, y0, x1, y1"):
        by_train(places, lesion_boxes=str(tmp_path / "boxes.csv"), augment="strong")
    with pytest.raises(InputError, match="--no-tumour must be one of glioma, notumor, got healthy"):
        by_train(places, lesion_boxes=str(tmp_path / "boxes.csv"), augment="strong", no_tumour="healthy")
