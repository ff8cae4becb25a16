"""New batch statistics: those of a hand computation, for all scans and in any batches, and nothing else changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from mribatch.errors import ModelError
from mribatch.models import directory
from mribatch.models.adaptation import PairedPredictor, Statistics, adapted_weights, assign, estimate, pooled
from mribatch.models.adapted_card import adapted_card
from mribatch.models.format import Model

SIDE = 32


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (13, SIDE, SIDE, 3)).astype(np.uint8)


@pytest.fixture
def network() -> Any:
    from mribatch.models import networks

    return networks.build("cnn", 2, side_px=SIDE, seed=1)


def convolved(network: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the output of the first 3 × 3 convolution of a cnn, by hand: zeros around the image, no bias."""
    kernel = network.layers[0].layers[1].kernel.numpy().astype(np.float64)
    padded = np.pad(pixels / 127.5 - 1, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))  # (N, side, side, 3, 3, 3)
    out: NDArray[np.float64] = np.einsum("nyxcij,ijco->nyxo", windows, kernel)
    return out


@pytest.mark.parametrize("batch_scans", [13, 5, 8])
def test_the_first_layer_gets_mean_and_variance_over_all_scans_as_computed_by_hand(
    network: Any, pixels: NDArray[np.uint8], batch_scans: int
) -> None:
    features = convolved(network, pixels)
    statistics = estimate(network, pixels, batch_scans)
    np.testing.assert_allclose(statistics.means[0], features.mean(axis=(0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(statistics.variances[0], features.var(axis=(0, 1, 2)), rtol=1e-4)
    assert [len(mean) for mean in statistics.means] == [32, 64, 128, 256]


def test_batches_count_by_their_scans_and_the_variance_of_their_means_is_added() -> None:
    values = [np.array([1.0, 2.0, 6.0]), np.array([5.0])]
    of_batches = [
        Statistics([np.array([batch.mean()], np.float32)], [np.array([batch.var()], np.float32)]) for batch in values
    ]
    means, variances = pooled(of_batches, [3, 1])
    every = np.concatenate(values)
    np.testing.assert_allclose([means[0][0], variances[0][0]], [every.mean(), every.var()], rtol=1e-6)


def test_an_estimate_leaves_the_network_as_it_is_and_an_assignment_changes_only_statistics(
    network: Any, pixels: NDArray[np.uint8]
) -> None:
    before = network.get_weights()
    momenta = [layer.momentum for layer in network.layers[0].layers if hasattr(layer, "momentum")]
    statistics, again = estimate(network, pixels, 8), estimate(network, pixels, 8)
    for ours, theirs in zip((*again.means, *again.variances), (*statistics.means, *statistics.variances), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [layer.momentum for layer in network.layers[0].layers if hasattr(layer, "momentum")] == momenta
    assign(network, statistics)
    changed = [(ours != theirs).any() for ours, theirs in zip(network.get_weights(), before, strict=True)]
    assert sum(changed) == 8, "a mean and a variance for each of four layers"


def test_a_network_without_batch_normalization_cannot_be_adapted(pixels: NDArray[np.uint8]) -> None:
    import keras

    plain = keras.Sequential([keras.Sequential([keras.layers.Conv2D(2, 3)]), keras.layers.Dense(2)])
    with pytest.raises(ModelError, match="no batch normalization"):
        estimate(plain, pixels, 8)


def test_the_weights_make_a_model_with_a_digest_of_its_own_that_answers_as_compared(
    tiny_model: Model, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    from mribatch.models.predictor import Predictor

    result = adapted_weights(tiny_model.uri, tiny_model.digest, pixels, 8)
    (tmp_path / "new.weights.h5").write_bytes(result.weights)
    facts = {name: value for name, value in tiny_model.facts.items() if name != "digest"} | {"adapted": {}}
    model = directory.save_changed(tiny_model, str(tmp_path / "here"), tmp_path / "new.weights.h5", facts, "{digest}")
    assert directory.load_model(str(tmp_path / "here")).digest == model.digest != tiny_model.digest
    cells = [*[one.tobytes() for one in pixels], None]
    table = pa.table({"pixels": pa.array(cells, pa.binary(SIDE * SIDE * 3))})
    rows = PairedPredictor(tiny_model.uri, tiny_model.digest, result.statistics)(table)
    assert rows.column_names == ["before", "after"]
    assert rows["after"].null_count == 1
    for name, one in (("before", tiny_model), ("after", model)):
        best = Predictor(one.uri).probabilities(pixels).argmax(axis=1)
        assert rows[name].to_pylist()[:-1] == [one.labels[k] for k in best]


FACTS: dict[str, Any] = {
    "labels": ["glioma", "notumor"],
    "libraries": {"mribatch": "0.1.0"},
    "created_at": "2026-11-28T07:00:00+00:00",
    "adapted": {
        "from": "aaaabbbbcccc",
        "scans": 192,
        "layers": 40,
        "batch_scans": 32,
        "content_sha256": "0123456789abcdef",
        "labelled": None,
    },
}


def test_the_card_says_from_which_model_by_how_many_scans_and_that_nothing_else_is_known() -> None:
    text = adapted_card(FACTS)
    assert "Model aaaabbbbcccc, adapted to the scans of one site" in text
    assert "on 192 unlabelled scans" in text
    assert "nothing is known of whether the model became better or worse" in text
    labelled = {"scans": 40, "before": 0.5, "after": 0.625, "before_right": 20, "after_right": 25}
    labelled |= {"only_before": 1, "only_after": 6, "p_value": 0.125}
    text = adapted_card(FACTS | {"adapted": FACTS["adapted"] | {"labelled": labelled}})
    assert "| balanced accuracy | 50.00% | 62.50% |" in text
    assert "p = 0.12" in text
