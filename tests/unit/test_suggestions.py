"""A mistyped name is answered with the one that was probably meant."""

from pathlib import Path

import pytest

from mribatch.commands.promote import promote
from mribatch.errors import InputError, ModelError
from mribatch.settings.evaluate import PromoteConfig
from mribatch.settings.suggestions import did_you_mean
from mribatch.sources.label_names import LabelledScan, of_classes


@pytest.mark.parametrize(
    ("name", "known", "suggestion"),
    [
        ("gliomaa", ["notumor", "glioma"], ": did you mean glioma?"),
        ("GLIOMA", ["glioma"], ": did you mean glioma?"),
        ("xception", ["Xception", "cnn"], ": did you mean Xception?"),
        ("stroke", ["glioma", "notumor"], ""),
        ("x", [], ""),
    ],
)
def test_only_a_name_that_is_close_is_suggested(name: str, known: list[str], suggestion: str) -> None:
    assert did_you_mean(name, known) == suggestion


def test_a_mistyped_class_is_answered_with_the_class_in_the_data() -> None:
    scans = [LabelledScan("a", "1", "glioma", None, None), LabelledScan("b", "1", "notumor", None, None)]
    with pytest.raises(InputError, match=r"no scans of glioam in DATA: .*--classes: did you mean glioma\?$"):
        of_classes("DATA", scans, ["glioam", "notumor"])


def test_a_mistyped_candidate_is_answered_with_the_model_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "brain-v2").mkdir()
    config = PromoteConfig(models=str(tmp_path), candidate="brian-v2", data="d", output=str(tmp_path / "o"))
    with pytest.raises(ModelError, match=r"no model directory brian-v2 .* did you mean brain-v2\?$"):
        promote(config)
