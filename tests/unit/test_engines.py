"""Engines: OpenVINO computes what TensorFlow computes, without TensorFlow, and what cannot be computed is an error."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mribatch.errors import ConfigError, ModelError
from mribatch.models import directory, engine
from mribatch.models.engine import Outputs, chosen
from mribatch.models.format import Model
from mribatch.models.openvino_engine import OpenVINOEngine
from mribatch.scans.decode import decode
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.settings.score import NightlyConfig, ScoreConfig

SIDES = {"cnn": 32, "resnet50v2": 64}
CLOSE = 1e-4
SHIPPED = "models/brain-mri-v2"


def saved(backbone: str, folder: Path, spread: float = 0.0) -> Model:
    """Save a network with random weights. spread: how far the vectors of its layers are from those of a new network."""
    from mribatch.models import networks  # loads TensorFlow

    side_px, rng = SIDES[backbone], np.random.default_rng(0)
    network = networks.build(backbone, 3, side_px=side_px, seed=1)
    arrays = [array + spread * rng.uniform(0, 1, array.shape) * (array.ndim == 1) for array in network.get_weights()]
    network.set_weights(arrays)
    path = folder / "x.weights.h5"
    network.save_weights(path)
    facts = {"labels": ["a", "b", "c"], "backbone": backbone, "image_side_px": side_px}
    return directory.save(str(folder / "model"), path, facts, "A test's model, {digest}.")


def noise(scans: int, side_px: int) -> Any:
    return np.random.default_rng(2).integers(0, 256, (scans, side_px, side_px, 3)).astype(np.uint8)


def both(model: Model, pixels: Any) -> tuple[Outputs, Outputs]:
    """Return what OpenVINO and TensorFlow compute, with the layers that referral looks at."""
    from mribatch.models.tensorflow_engine import TensorFlowEngine

    return OpenVINOEngine(model, 2, with_layers=True)(pixels), TensorFlowEngine(model, with_layers=True)(pixels)


def check_agreement(ours: Outputs, theirs: Outputs) -> None:
    """Check all outputs: probabilities within CLOSE, the others within CLOSE of their largest value; equal classes."""
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, rtol=0, atol=CLOSE)
    np.testing.assert_array_equal(ours.probabilities.argmax(axis=1), theirs.probabilities.argmax(axis=1))
    assert ours.layers is not None
    assert theirs.layers is not None
    for computed, expected in zip((*ours[1:3], *ours.layers), (*theirs[1:3], *theirs.layers), strict=True):
        assert expected.std() > 0, "constant outputs would agree whatever the layers are"
        np.testing.assert_allclose(computed, expected, rtol=0, atol=CLOSE * np.abs(expected).max())


@pytest.mark.parametrize("backbone", SIDES)
def test_openvino_computes_every_output_of_a_backbone_as_tensorflow_does(backbone: str, tmp_path: Path) -> None:
    check_agreement(*both(saved(backbone, tmp_path, spread=0.3), noise(5, SIDES[backbone])))


def test_the_shipped_xception_gives_the_samples_the_same_outputs_with_either_engine() -> None:
    model = directory.open_model(SHIPPED)
    samples = [decode(path.read_bytes(), model.image_spec)[0].pixels for path in Path("samples").glob("*/*.jpg")]
    assert len(samples) == 17
    check_agreement(*both(model, np.stack([pixels for pixels in samples if pixels is not None])))


def test_a_scan_has_the_same_outputs_in_any_batch(tiny_model: Model) -> None:
    pixels = noise(5, 32)
    compute = OpenVINOEngine(tiny_model, 2)
    together = compute(pixels).probabilities
    alone = np.concatenate([compute(pixels[row : row + 1]).probabilities for row in range(5)])
    np.testing.assert_array_equal(together, alone)
    assert compute(pixels[:0]).probabilities.shape == (0, 2)
    assert compute(pixels).layers is None


def test_a_predictor_on_openvino_loads_neither_tensorflow_nor_what_reports_to_its_maker(tiny_model: Model) -> None:
    program = """if True:
        import sys
        import numpy as np
        from mribatch.models.predictor import Predictor
        Predictor(sys.argv[1], threads=1, engine="openvino").probabilities(np.zeros((1, 32, 32, 3), np.uint8))
        unwanted = ("tensorflow", "keras", "openvino_telemetry", "openvino.tools.ovc")
        print("loaded", sorted(name for name in unwanted if name in sys.modules), "openvino" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", program, tiny_model.uri], check=True, capture_output=True, text=True)
    assert done.stdout == "loaded [] True\n"


def altered(model: Model, folder: Path, change: Any) -> Model:
    """Return a copy of a model whose weights file was changed by a function, with a fitting digest."""
    path = folder / "changed.weights.h5"
    path.write_bytes(directory.read_file(model, "weights"))
    with h5py.File(path, "r+") as file:
        change(file["layers"]["functional"]["layers"])
    facts = {key: model.facts[key] for key in ("labels", "backbone", "image_side_px")}
    return directory.save(str(folder / "changed"), path, facts, "A card.")


def test_weights_that_are_not_numbers_are_refused_where_a_maximum_would_hide_them(
    tiny_model: Model, tmp_path: Path
) -> None:
    def spoil(layers: Any) -> None:
        layers["conv2d/vars/0"][0, 0, 0, 0] = np.nan

    with pytest.raises(ModelError, match="NaN or infinite in part: train the model again"):
        OpenVINOEngine(altered(tiny_model, tmp_path, spoil))


def test_weights_of_another_network_are_refused(tiny_model: Model, tmp_path: Path) -> None:
    def shorten(layers: Any) -> None:
        del layers["batch_normalization_3"]

    def lengthen(layers: Any) -> None:
        layers.copy("conv2d_3", "conv2d_4")

    for number, change in enumerate((shorten, lengthen)):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(ModelError, match=r"do not fit its model\.json \(cnn, 2 labels\)"):
            OpenVINOEngine(altered(tiny_model, tmp_path / str(number), change))


# The choice


def test_auto_takes_openvino_on_cpus_and_tensorflow_on_gpus_or_without_it(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen("auto", tiny_model, on_gpu=False) == "openvino"
    assert chosen("auto", tiny_model, on_gpu=True) == "tensorflow"
    assert chosen("openvino", tiny_model, on_gpu=True) == "openvino"
    monkeypatch.setattr(engine, "library", lambda _: None)
    assert chosen("auto", tiny_model, on_gpu=False) == "tensorflow"
    with pytest.raises(ConfigError, match="not installed here: install the packages"):
        chosen("openvino", tiny_model, on_gpu=False)


def test_an_engine_named_for_a_classical_model_is_refused(tiny_model: Model) -> None:
    classical = Model(uri="models/svm", facts=tiny_model.facts | {"head": {"classifier": "svm"}})
    assert chosen("auto", classical, on_gpu=False) == "scikit-learn"
    with pytest.raises(ConfigError, match="computed by scikit-learn: leave --engine out"):
        chosen("tensorflow", classical, on_gpu=False)


def test_an_openvino_that_cannot_be_loaded_is_one_error_with_a_remedy(tiny_model: Model) -> None:
    program = """if True:
        import sys
        sys.modules["openvino"] = None
        from mribatch.errors import ConfigError
        from mribatch.models.predictor import Predictor
        try:
            Predictor(sys.argv[1], threads=1, engine="openvino")
        except ConfigError as err:
            print(err)
    """
    done = subprocess.run([sys.executable, "-c", program, tiny_model.uri], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("OpenVINO cannot be loaded on this machine")
    assert "install its package again" in done.stdout


@pytest.mark.parametrize(("visible", "sees"), [("", False), ("-1", False), ("0", True)])
def test_a_process_that_was_given_no_gpu_sees_none(visible: str, sees: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert engine.sees_a_gpu() is sees


def test_the_engine_is_no_part_of_the_fingerprint() -> None:
    for kind, inputs in (
        (ScoreConfig, {"input": ("x",)}),
        (NightlyConfig, {"input": ("x",)}),
        (EvaluateConfig, {"data": "x"}),
    ):
        plain, named = (kind(model="m", output="o", engine=name, **inputs) for name in ("auto", "tensorflow"))
        assert plain.fingerprint() == named.fingerprint()


HANDLES_A_SIGNAL_AFTER_TWO_ENGINES = """
import gc, os, signal, sys
from mribatch.models import directory
from mribatch.models.openvino_engine import OpenVINOEngine
first, second = (OpenVINOEngine(directory.open_model(sys.argv[1]), 1) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_process_that_has_dropped_its_engines_still_handles_signals(tiny_model: Model) -> None:
    command = [sys.executable, "-c", HANDLES_A_SIGNAL_AFTER_TWO_ENGINES, tiny_model.uri]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
