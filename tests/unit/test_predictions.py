"""Reading and compacting an output: a mistyped path is an error and not an empty result."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mribatch.commands.compact import compact
from mribatch.commands.read_predictions import read_predictions
from mribatch.errors import InputError, ModelError, MribatchError, StorageMissing
from mribatch.settings.score import CompactConfig
from mribatch.stores import uris
from tests.unit.test_history import NEW, OLD, part

Use = Callable[[str], object]

USES: list[Use] = [read_predictions, lambda output: compact(CompactConfig(output=output))]


@pytest.fixture
def output(tmp_path: Path) -> str:
    part(tmp_path / "out", OLD, ["a", "b"])
    return str(tmp_path / "out")


@pytest.mark.parametrize("use", USES)
def test_an_output_that_is_not_there_is_told(use: Use, tmp_path: Path, bucket: str) -> None:
    for missing in (str(tmp_path / "nowhere"), f"{bucket}/nowhere", f"{bucket}-is-not-there/out"):
        with pytest.raises(StorageMissing, match=missing):
            use(missing)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("use", USES)
def test_a_folder_without_predictions_is_told(use: Use, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "scans" / "glioma").mkdir(parents=True)
    (tmp_path / "scans" / "glioma" / "1.png").write_bytes(b"x")
    for folder in ("empty", "scans"):
        with pytest.raises(InputError, match=rf"no predictions in .*{folder}: expected a folder that `mribatch score`"):
            use(str(tmp_path / folder))
        assert not (tmp_path / folder / "_runs").exists()


@pytest.mark.parametrize("use", USES)
def test_a_file_and_a_part_in_place_of_an_output_are_told(use: Use, output: str) -> None:
    folder = Path(output) / f"model={OLD}"
    for place in (next(folder.iterdir()), folder):
        with pytest.raises(MribatchError, match="expected a folder"):
            use(str(place))


def test_an_output_whose_runs_wrote_no_row_has_none(tmp_path: Path) -> None:
    uris.put(str(tmp_path / "out" / "_runs" / "x.json"), b"{}")
    assert read_predictions(str(tmp_path / "out")).num_rows == 0
    with pytest.raises(InputError, match="no row yet"):
        compact(CompactConfig(output=str(tmp_path / "out")))


def test_a_model_without_rows_is_told_with_those_that_have_some(output: str) -> None:
    assert read_predictions(output, model=OLD).num_rows == 2
    with pytest.raises(ModelError, match=f"{NEW} has no rows in {output}, which has rows of {OLD}"):
        read_predictions(output, model=NEW)
    (Path(output) / f"model={NEW}").mkdir()
    with pytest.raises(ModelError, match=f"{NEW} has no rows"):
        read_predictions(output, model=NEW)
