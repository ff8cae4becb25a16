"""Broken files of every kind through a whole run on a real Ray session: it ends by itself, and each file is answered."""

from pathlib import Path

import pytest

from mribatch.commands.score import score
from mribatch.models.format import Model
from mribatch.settings.score import ScoreConfig
from tests.broken_files import MOST_S, broken_files, check_answers

pytestmark = pytest.mark.usefixtures("ray_session")

FILES = 300


def test_a_run_on_broken_files_ends_with_code_3_and_a_row_or_all_frames_of_each(
    tiny_model: Model, tmp_path: Path
) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for name, data in broken_files(FILES):
        (scans / name).write_bytes(data)
    config = ScoreConfig(
        model=tiny_model.uri, input=(str(scans),), output=str(output), select="all", scan_timeout_s=MOST_S
    )
    assert score(config).exit_code == 3
    statuses = check_answers(output, {str(path) for path in scans.iterdir()})
    assert statuses.keys() == {"ok", "rejected", "skipped"}
