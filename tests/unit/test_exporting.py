"""Exported models: their own files and digest, no telemetry, OpenVINO alone, and a card that says what was measured."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from mribatch.commands.exported import Compared, check_loss, compared
from mribatch.commands.exported_scans import chosen_scans, spread
from mribatch.errors import ConfigError, InputError, ModelError
from mribatch.models import directory, quantization
from mribatch.models.engine import chosen, takes_gpus
from mribatch.models.exported_card import exported_card
from mribatch.models.exporting import Copy, CopyPredictor, measured_rates
from mribatch.models.format import Model, check, check_original
from mribatch.models.openvino_engine import OpenVINOEngine
from mribatch.schema import Status
from mribatch.settings.export import ExportConfig
from tests.conftest import write_scans

SIDE = 32

QUANTIZE = """if True:
    import pathlib, sys
    import numpy as np
    events = []
    watched = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request")
    sys.addaudithook(lambda event, _: events.append(event) if event in watched else None)
    from mribatch.models.quantization import quantized_files
    place, digest, pixels, folder = sys.argv[1:]
    for name, data in quantized_files(place, digest, np.load(pixels)).values():
        pathlib.Path(folder, name).write_bytes(data)
    unwanted = ("openvino_telemetry", "openvino.tools.ovc", "tensorflow", "torch")
    print("watched", events, [name for name in unwanted if name in sys.modules], "nncf" in sys.modules)
"""


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(4).integers(0, 256, (16, SIDE, SIDE, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def quantized(
    tiny_model: Model, pixels: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Copy, str, list[str]]:
    """Return a model in int8, what its quantization printed, and what it left in the home folder.

    It runs in a process without pytest, where NNCF would switch its telemetry off by itself.
    """
    folder = tmp_path_factory.mktemp("quantized")
    home = folder / "home"
    home.mkdir()
    np.save(folder / "pixels.npy", pixels)
    words = [sys.executable, "-c", QUANTIZE, tiny_model.uri, tiny_model.digest, str(folder / "pixels.npy"), str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        done = subprocess.run(words, check=True, capture_output=True, text=True)
    files = {
        role: (name, (folder / name).read_bytes()) for role, name in (("weights", "graph.bin"), ("graph", "graph.xml"))
    }
    copy = Copy(model=tiny_model.uri, digest=tiny_model.digest, precision="int8", files=files)
    return copy, done.stdout.splitlines()[-1], [str(path.relative_to(home)) for path in home.rglob("*")]


@pytest.fixture(scope="module")
def int8(quantized: tuple[Copy, str, list[str]], tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Return a tiny model in int8, as `export` writes it."""
    facts = tiny_model.facts | {"precision": "int8", "exported": {"from": tiny_model.digest}}
    place = str(tmp_path_factory.mktemp("exported") / "int8")
    return directory.save_exported(tiny_model, place, quantized[0].files, facts, "A test's model, {digest}.")


@pytest.fixture
def bf16(tiny_model: Model, tmp_path: Path) -> Model:
    facts = tiny_model.facts | {"precision": "bf16", "exported": {"from": tiny_model.digest}}
    return directory.save_exported(tiny_model, str(tmp_path / "bf16"), {}, facts, "A test's model, {digest}.")


# Quantization


def test_quantization_reports_to_nobody_and_loads_no_other_framework(quantized: tuple[Copy, str, list[str]]) -> None:
    _, printed, left_at_home = quantized
    assert printed == "watched [] [] True"
    assert left_at_home == []


def test_a_missing_nncf_is_one_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'nncf>=3.4'"):
        quantization.check_installed()


def test_an_int8_model_computes_every_output_about_as_its_network_does(
    int8: Model, tiny_model: Model, pixels: NDArray[np.uint8]
) -> None:
    ours, theirs = (OpenVINOEngine(model, 2, with_layers=True)(pixels) for model in (int8, tiny_model))
    assert ours.layers is not None
    assert theirs.layers is not None
    for computed, expected in zip((*ours[:3], *ours.layers), (*theirs[:3], *theirs.layers), strict=True):
        assert computed.shape == expected.shape
        assert 0 < np.abs(computed - expected).mean() < 0.1 * np.abs(expected).mean()


def test_an_int8_model_has_a_digest_and_files_of_its_own_which_are_checked(
    int8: Model, tiny_model: Model, tmp_path: Path
) -> None:
    assert directory.load_model(int8.uri).digest == int8.digest != tiny_model.digest
    assert not Path(int8.uri, "weights.h5").exists()
    for role, name in (("graph", "graph.xml"), ("weights", "graph.bin")):
        copy = directory.save_exported(int8, str(tmp_path / role), {}, dict(int8.facts), "{digest}")
        place = Path(copy.uri, name)
        place.write_bytes(place.read_bytes().replace(b"\0", b"\1", 1) + b" ")
        with pytest.raises(ModelError, match=rf"{name} is not the file that model\.json names"):
            OpenVINOEngine(copy)


def test_a_graph_that_does_not_fit_its_model_is_refused(int8: Model, tmp_path: Path) -> None:
    relabelled = {**int8.facts, "labels": ["a", "b", "c"]}
    model = directory.save_exported(int8, str(tmp_path / "three"), {}, relabelled, "{digest}")
    with pytest.raises(ModelError, match=r"does not fit its model\.json: export the model again"):
        OpenVINOEngine(model)


def test_scoring_in_int8_loads_neither_what_made_the_model_nor_what_reports(int8: Model) -> None:
    program = """if True:
        import sys
        import numpy as np
        from mribatch.models.predictor import Predictor
        print(Predictor(sys.argv[1], threads=1).probabilities(np.zeros((1, 32, 32, 3), np.uint8)).shape)
        unwanted = ("tensorflow", "keras", "nncf", "openvino_telemetry", "openvino.tools.ovc")
        print("loaded", sorted(name for name in unwanted if name in sys.modules), "openvino" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", program, int8.uri], check=True, capture_output=True, text=True)
    assert done.stdout == "(1, 2)\nloaded [] True\n"


# bf16


def test_a_bf16_model_has_the_same_weights_and_another_digest(bf16: Model, tiny_model: Model) -> None:
    loaded = directory.load_model(bf16.uri)
    assert loaded.facts["weights"] == tiny_model.facts["weights"]
    assert loaded.digest != tiny_model.digest


def test_a_processor_without_bf16_refuses_a_bf16_model(bf16: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from mribatch.models import openvino_library

    monkeypatch.setattr(openvino_library.openvino()[0].Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(ConfigError, match=r"this CPU does not compute in bf16 \(it has FP32, INT8\)"):
        OpenVINOEngine(bf16)


# What computes them


def test_only_openvino_computes_a_model_of_another_precision(int8: Model, bf16: Model, tiny_model: Model) -> None:
    for model in (int8, bf16):
        assert chosen("auto", model, on_gpu=True) == chosen("openvino", model, on_gpu=False) == "openvino"
        assert not takes_gpus("auto", model)
        with pytest.raises(ConfigError, match="--engine tensorflow computes in float32"):
            chosen("tensorflow", model, on_gpu=False)
    assert takes_gpus("auto", tiny_model)
    assert not takes_gpus("openvino", tiny_model)


def test_an_exported_model_only_scores_and_says_which_model_does_the_rest(int8: Model, tiny_model: Model) -> None:
    from mribatch.models import networks

    with pytest.raises(ModelError, match=f"calibrate model {tiny_model.digest}, which it was exported from"):
        check_original(int8, "calibrate")
    with pytest.raises(ModelError, match="such a model only scores scans"):
        networks.load_network(int8)
    check_original(tiny_model, "calibrate")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"precision": "fp4"}, "knows f32, bf16, int8"), ({"precision": "int8"}, "must name a graph")],
)
def test_an_unknown_precision_and_a_missing_graph_are_refused(
    tiny_model: Model, change: dict[str, str], message: str
) -> None:
    facts = {name: value for name, value in tiny_model.facts.items() if name != "digest"} | change
    with pytest.raises(ModelError, match=message):
        check("models/x", facts)


# The comparison


def test_both_models_answer_as_when_they_score_and_are_timed_on_the_same_scans(
    quantized: tuple[Copy, str, list[str]], int8: Model, tiny_model: Model, pixels: NDArray[np.uint8]
) -> None:
    cells = [*[one.tobytes() for one in pixels], None]
    columns = {
        "status": [Status.OK] * len(pixels) + [Status.REJECTED],
        "pixels": pa.array(cells, pa.binary(SIDE * SIDE * 3)),
        "pixels_sha256": [""] * len(cells),
    }
    rows = CopyPredictor(quantized[0], threads=1)(pa.table(columns))
    for name, model in (("before", tiny_model), ("after", int8)):
        best = OpenVINOEngine(model, 1)(pixels).probabilities.argmax(axis=1)
        assert rows[name].to_pylist() == [*(model.labels[k] for k in best), None]
    assert rows["before_referral"].null_count == len(cells)
    rates = measured_rates(quantized[0], pixels, rounds=1)
    assert rates.ratio == pytest.approx(rates.after / rates.before)


URIS = pa.chunked_array([["2", "4", "x"]])


def answers(before: str, after: str, labels: str, referred: str = "", then: str = "") -> pa.Table:
    """Return the rows of a comparison; each letter is a class, or r for review."""
    referrals = [
        [{"r": "review"}.get(letter, "auto") for letter in word] or [None] * len(before) for word in (referred, then)
    ]
    columns = {"scan_uri": list("123456789")[: len(before)], "before": list(before), "after": list(after)}
    columns |= {"before_referral": referrals[0], "after_referral": referrals[1]}
    return pa.table(
        {name: pa.array(values, pa.string()) for name, values in columns.items()}
        | ({"label": list(labels)} if labels else {})
    )


def test_a_comparison_counts_right_answers_equal_answers_and_referrals() -> None:
    result = compared(answers("aabb", "abbb", "aabb", "r---", "rr--"), URIS)
    assert result == Compared(
        scans=4, calibrated_on=2, same=3, before_right=4, after_right=3, before_referred=1, after_referred=2
    )
    assert result.loss == 0.25


def test_a_larger_loss_than_allowed_is_refused_and_a_gain_is_not() -> None:
    result = compared(answers("aaaaa", "aaaab", "aaaaa"), URIS)
    check_loss(result, 0.2)
    with pytest.raises(
        InputError, match=r"nothing was written: 5 of 5 labelled scans are right before, 4 after, a loss of 0\.2"
    ):
        check_loss(result, 0.19)
    check_loss(compared(answers("aaaab", "aaaaa", "aaaaa"), URIS), 0)


def test_without_labels_and_without_referral_only_equal_answers_are_counted() -> None:
    result = compared(answers("aabb", "aabb", ""), URIS)
    assert result == Compared(
        scans=4, calibrated_on=2, same=4, before_right=None, after_right=None, before_referred=None, after_referred=None
    )
    assert result.loss == 0


# The scans


def test_calibration_scans_are_spread_over_the_classes_and_over_each_of_them() -> None:
    table = pa.table({"label": ["a"] * 100 + ["b"] * 3 + ["c"] * 50, "row": range(153)})
    taken = spread(table, 21).to_pydict()
    assert [taken["label"].count(label) for label in "abc"] == [9, 3, 9]
    assert taken["row"][:9] == [0, 11, 22, 33, 44, 55, 66, 77, 88]
    assert spread(table.drop_columns(["label"]), 3)["row"].to_pylist() == [0, 51, 102]
    assert spread(table, 500).num_rows == 153


def settings(calibration: Path, **others: Any) -> ExportConfig:
    return ExportConfig(model="m", precision="int8", calibration=str(calibration), output="o", **others)


def test_labelled_scans_outside_the_test_split_are_calibrated_on_and_the_others_compared(
    tiny_model: Model, tmp_path: Path
) -> None:
    for split, count in (("Training", 10), ("Testing", 4)):
        write_scans(tmp_path / split, {"glioma": count, "notumor": count})
    scans = chosen_scans(settings(tmp_path, calibration_scans=16), tiny_model)
    assert [{"Training" in uri for uri in table["scan_uri"].to_pylist()} for table in scans] == [{True}, {False}]
    assert [table.num_rows for table in scans] == [16, 8]


def test_scans_of_unknown_folders_are_compared_without_labels(tiny_model: Model, tmp_path: Path) -> None:
    write_scans(tmp_path, {"ward-1": 12, "ward-2": 12})
    scans = chosen_scans(settings(tmp_path, calibration_scans=20), tiny_model)
    assert scans.compared.equals(scans.calibration)
    assert "label" not in scans.compared.column_names
    assert scans.compared.num_rows == 20


def test_a_class_that_the_model_does_not_know_and_too_few_scans_are_refused(tiny_model: Model, tmp_path: Path) -> None:
    write_scans(tmp_path / "new", {"glioma": 9, "notumor": 9, "cyst": 9})
    with pytest.raises(InputError, match="classes that the model does not know: cyst"):
        chosen_scans(settings(tmp_path / "new"), tiny_model)
    write_scans(tmp_path / "few", {"glioma": 7, "notumor": 7})
    with pytest.raises(InputError, match="has 14 scans, at least 16 are needed"):
        chosen_scans(settings(tmp_path / "few"), tiny_model)


# The card

COUNTS = {"scans": 655, "calibrated_on": 128, "same": 654, "before_right": 651, "after_right": 650}
COUNTS |= {"before_referred": 40, "after_referred": 66}
FACTS: dict[str, Any] = {
    "labels": ["glioma", "notumor"],
    "precision": "int8",
    "temperature": 1.3,
    "referral": {},
    "libraries": {"mribatch": "0.1.0", "openvino": "2026.4.1", "nncf": "3.4.0"},
    "created_at": "2026-11-28T07:00:00+00:00",
    "exported": {
        "from": "aaaabbbbcccc",
        "scans": 128,
        "content_sha256": "0123456789abcdef",
        "compared": COUNTS,
        "rates": {"before": 20.0, "after": 36.0, "ratio": 1.8, "processor": "a processor"},
    },
}


def test_the_card_gives_accuracy_equal_answers_referrals_and_speed_before_and_after() -> None:
    text = exported_card(FACTS)
    assert "Model aaaabbbbcccc in int8" in text
    assert "NNCF 3.4.0" in text
    assert "that in 128 calibration scans (fingerprint `0123456789ab`)" in text
    assert "the same class for 99.85% of 655 scans, 128 of which are calibration scans." in text
    assert "| right | 651 (99.39%) | 650 (99.24%) |" in text
    assert "| referred to a person | 40 (6.11%) | 66 (10.08%) |" in text
    assert "**1.80 × as fast as in float32 on a processor**" in text
    assert "no evidence" in text


def test_the_card_says_where_nothing_is_known_and_where_it_does_not_pay() -> None:
    how = FACTS["exported"]
    counts = COUNTS | dict.fromkeys(("before_right", "after_right", "before_referred", "after_referred"))
    unlabelled = FACTS | {"exported": how | {"compared": counts, "rates": how["rates"] | {"ratio": 1.04}}}
    text = exported_card({name: value for name, value in unlabelled.items() if name not in ("temperature", "referral")})
    assert "They have no labels: nothing is known of which model is right more often." in text
    assert "it does not pay here" in text
    assert "thresholds" not in text


def test_the_card_of_a_bf16_model_names_the_processors_that_compute_it() -> None:
    text = exported_card(FACTS | {"precision": "bf16"})
    assert "The weights are those of model aaaabbbbcccc" in text
    assert "AVX-512 BF16 or AMX" in text
