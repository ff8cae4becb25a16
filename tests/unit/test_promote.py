"""`promote` before it scores: which scans it takes. No Ray is started."""

from pathlib import Path

import pytest

from mribatch.commands.promote import promote
from mribatch.errors import RunFailed
from mribatch.models import directory
from mribatch.settings.evaluate import PromoteConfig
from tests.conftest import write_scans
from tests.unit.test_nightly import save_network


def test_excluded_scans_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_network(tmp_path / "models" / "one")
    write_scans(tmp_path / "data", {"glioma": 3, "notumor": 3})
    write_scans(tmp_path / "data" / "glioma" / "old", {"x": 2})

    def scored(_config: object, _model: object, labelled: object) -> None:
        raise RunFailed(f"{labelled.num_rows} scans")

    monkeypatch.setattr("mribatch.commands.promote.evaluate_scans", scored)
    assert directory.load_model(model.uri).digest == model.digest
    places = {name: str(tmp_path / name) for name in ("models", "data", "output")}
    with pytest.raises(RunFailed, match="6 scans"):
        promote(PromoteConfig(**places, candidate="one", exclude=("glioma/old/**",)))
