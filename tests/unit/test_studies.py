"""Series and studies: the same tables from any order of rows, each slice once, whatever the layout of the archive."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydicom.fileset import FileSet

from mribatch import schema
from mribatch.commands.studies import Studied, studies
from mribatch.errors import ConfigError, InputError
from mribatch.predictions.series import entities, with_series
from mribatch.predictions.studies import Rule, series_and_studies
from mribatch.scans.decode import opened
from mribatch.scans.dicom.identity import Identifiers
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.schema import Status
from mribatch.settings.studies import StudiesConfig
from mribatch.sources.listing import list_scans
from tests.unit.dicom_files import clean, written
from tests.unit.test_archives import png
from tests.unit.test_history import DAY, NEW, OLD
from tests.unit.volume_files import as_zip, nifti

LABELS = ("glioma", "notumor")
READING = Reading(identifiers=Identifiers(mode="plain"))
RULE = Rule(healthy_class="notumor", kth=2)


def row(number: int, glioma: float | None = 0.0, **changes: Any) -> dict[str, Any]:
    """Return the row of a slice of series S in study T, 2 mm from its neighbours. glioma: None for a rejected slice."""
    made = {
        "scan_uri": f"/a/{number}.dcm",
        "scan_version": "1-1",
        "frame": 0,
        "frames": 1,
        "format": "DICOM",
        "content_sha256": f"sha{number}",
        "instance_key": f"i{number}",
        "kind": "anatomical",
        "plane": "axial",
        "series_key": "S",
        "study_key": "T",
        "patient_key": "P",
        "slice_mm": 2.0 * number,
        "reading": "r1",
        "model_digest": OLD,
        "run_id": "run",
        "scored_at": DAY,
        "status": "rejected" if glioma is None else "ok",
    }
    shares = {} if glioma is None else {"p_glioma": glioma, "p_notumor": 1 - glioma}
    return made | shares | changes


def put(output: Path, rows: Sequence[Mapping[str, Any]], name: str = "0") -> None:
    """Write rows as a run writes them, by model."""
    for digest in {str(made["model_digest"]) for made in rows}:
        own = [dict(made) for made in rows if made["model_digest"] == digest]
        folder = output / f"model={digest}"
        folder.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(own, schema=schema.prediction_schema(LABELS))
        pq.write_table(table, folder / f"part-{name}-{len(own)}.parquet")


def run(output: Path, **settings: Any) -> Studied:
    return studies(StudiesConfig(output=str(output), **{"kth": 2} | settings))


def summed(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the only series and the only study of some rows."""
    table = pa.Table.from_pylist([dict(made) for made in rows], schema=schema.prediction_schema(LABELS))
    series, study = series_and_studies(with_series(table), RULE)
    (one,), (other,) = series.to_pylist(), study.to_pylist()
    return one, other


def scored(folder: Path, output: Path) -> None:
    """Write the rows of all files of a folder, decoded as scoring does. Each is suspicious to a degree of its own."""
    rows = []
    for scan in list_scans([str(folder)]).to_pylist():
        for member in opened(Path(scan["scan_uri"]).read_bytes(), ImageSpec(side_px=8), READING).scans(0):
            for frame in member:
                uri = scan["scan_uri"] if frame.name is None else f"{scan['scan_uri']}!{frame.name}"
                known = {
                    name: value for name, value in vars(frame).items() if name in schema.prediction_schema(()).names
                }
                container = None if frame.name is None else scan["scan_uri"]
                glioma = 0.25 if frame.status is Status.OK else None
                rows.append(row(0, glioma) | known | {"scan_uri": uri, "container": container})
    put(output, rows)


# What is counted


def test_slices_are_counted_by_status_and_kind_and_blank_ones_have_no_probability() -> None:
    rows = [row(0, 0.2), row(1, 0.4), row(2, None), row(3, None, status="skipped", reason="blank")]
    rows.append(row(4, None, status="skipped", reason="localizer", kind="localizer", slice_mm=None))
    for level in summed(rows):
        assert [level[name] for name in ("slices", "ok", "rejected", "skipped")] == [5, 2, 1, 2]
        assert dict(level["kinds"]) == {"anatomical": 4, "localizer": 1}
        assert level["mean_p_glioma"] == pytest.approx(0.3)
        assert level["max_p_notumor"] == pytest.approx(0.8)


def test_mean_maximum_and_kth_highest_are_those_of_a_loop_over_the_rows() -> None:
    values = np.random.default_rng(0).random((3, 40))
    rows = [
        row(100 * s + n, float(values[s, n]), series_key=f"S{s}", slice_mm=float(n))
        for s in range(3)
        for n in range(40)
    ]
    table = pa.Table.from_pylist(rows, schema=schema.prediction_schema(LABELS))
    series, study = series_and_studies(with_series(table), Rule(healthy_class="notumor", kth=5))
    for one, own in zip(series.to_pylist(), values, strict=True):
        expected = (own.mean(), own.max(), np.sort(own)[-5], (own > 0.5).sum())
        names = ("mean_p_glioma", "max_suspicion", "kth_p_glioma", "suspicious")
        assert [one[name] for name in names] == pytest.approx(expected, abs=1e-6)
        assert one["most_suspicious_uri"] == f"/a/{100 * int(one['series_key'][1]) + own.argmax()}.dcm"
    assert study["series"].to_pylist() == [3]
    assert study["kth_suspicion"][0].as_py() == pytest.approx(np.sort(values.ravel())[-5], abs=1e-6)


def test_fewer_slices_than_k_have_no_kth_highest() -> None:
    one, _ = summed([row(0, 0.9)])
    assert (one["kth_p_glioma"], one["max_p_glioma"]) == (None, pytest.approx(0.9))


@pytest.mark.parametrize(
    ("positions", "run_of", "length", "gap"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 3, 6.0, 0),
        ([0, 1, 2, 3, 5, 6, 7, 8, 9, 10], 2, 4.0, 1),  # a missing slice ends a run
        ([0, 1, 2, 2, 3, 4, 5, 6, 7, 8], 2, 4.0, 0),  # two slices at one position are one
    ],
)
def test_the_longest_run_is_of_neighbouring_positions(
    positions: list[int], run_of: int, length: float, gap: int
) -> None:
    suspicious = {2, 3, 4, 8}
    rows = [row(n, 0.9 if n in suspicious else 0.1, slice_mm=2.0 * at) for n, at in enumerate(positions)]
    for level in summed(rows):
        assert [level[name] for name in ("longest_run", "longest_run_mm", "gap")] == [run_of, length, gap]


def test_a_blank_slice_ends_a_run_and_is_no_gap() -> None:
    rows = [row(0, 0.9), row(1, None, status="skipped", reason="blank"), row(2, 0.9), row(3, 0.9)]
    one, _ = summed(rows)
    assert [one[name] for name in ("longest_run", "gap", "suspicious")] == [2, 0, 3]


def test_planes_of_one_series_are_stacks_of_their_own() -> None:
    rows = [row(n, 0.9, plane=("axial", "coronal")[n % 2], slice_mm=float(n // 2)) for n in range(8)]
    one, _ = summed(rows)
    assert [one[name] for name in ("longest_run", "longest_run_mm", "gap")] == [4, 4.0, 0]


def test_the_middle_is_sixty_percent_of_the_extent() -> None:
    rows = [row(n, 0.9 if n in (0, 1, 5) else 0.1) for n in range(11)]
    for level in summed(rows):
        assert level["suspicious_fraction"] == pytest.approx(3 / 11)
        assert level["suspicious_fraction_middle"] == pytest.approx(1 / 7)  # slices 2 to 8


def test_without_positions_there_is_no_run_and_no_middle() -> None:
    for level in summed([row(n, 0.9, slice_mm=None) for n in range(3)]):
        assert [level[n] for n in ("longest_run", "longest_run_mm", "gap", "suspicious_fraction_middle")] == [None] * 4
        assert level["suspicious"] == 3


# Copies, models and readings


def test_copies_of_a_slice_count_once() -> None:
    rows = [row(n, 0.9 if n == 1 else 0.1) for n in range(3)]
    copies = [row(1, 0.9, scan_uri="/b/copy.dcm"), row(1, 0.9, scan_uri="/z.zip!x", container="/z.zip")]
    plain, with_copies = summed(rows), summed([*rows, *copies])
    for one, other in zip(plain, with_copies, strict=True):
        assert other == one | {"duplicates": 2}


def test_without_instance_keys_copies_are_known_by_their_bytes() -> None:
    copy = row(0, 0.9, scan_uri="/b/copy.dcm")
    one, _ = summed([made | {"instance_key": None} for made in (row(0, 0.9), row(1, 0.1), copy)])
    assert (one["slices"], one["duplicates"], one["suspicious"]) == (2, 1, 1)


def test_slices_that_only_an_older_model_or_reading_scored_are_counted_and_not_mixed_in() -> None:
    later = {"scored_at": DAY + timedelta(days=1)}
    for change in ({"model_digest": NEW}, {"reading": "r2"}):
        one, study = summed([row(0, 0.9), row(1, 0.9), row(2, 0.2, **later, **change)])
        assert (one["ok"], one["outdated"], study["outdated"]) == (3, 2, 2)
        assert one["max_p_glioma"] == pytest.approx(0.2)
        assert one | change == one


def test_the_tables_are_the_same_from_any_order_of_rows() -> None:
    rng = np.random.default_rng(1)
    shares = rng.random(300)
    rows = [row(n, float(shares[n]), series_key=f"S{n % 7}", study_key=f"T{n % 7 % 3}") for n in range(300)]
    rows += [
        row(n, float(shares[n]), series_key=f"S{n % 7}", study_key=f"T{n % 7 % 3}", scan_uri=f"/b/{n}")
        for n in range(40)
    ]
    table = with_series(pa.Table.from_pylist(rows, schema=schema.prediction_schema(LABELS)))
    expected = series_and_studies(table, RULE)
    for _ in range(3):
        shuffled = table.take(pa.array(rng.permutation(len(rows))))
        assert [one.equals(other) for one, other in zip(series_and_studies(shuffled, RULE), expected, strict=True)] == [
            True
        ] * 2


# The command


def test_a_study_grows_over_several_nights_and_its_tables_are_replaced(tmp_path: Path) -> None:
    put(tmp_path, [row(n, 0.1) for n in range(3)], "0")
    first = run(tmp_path)
    assert first.studies["slices"].to_pylist() == [3]
    put(tmp_path, [row(n, 0.9) for n in range(3, 6)], "1")
    put(tmp_path, [row(9, 0.9, series_key="S2")], "2")
    grown = run(tmp_path)
    assert pq.read_table(grown.places[0]).equals(grown.series)
    assert pq.read_table(tmp_path / "_studies").to_pylist() == grown.studies.to_pylist()
    (study,) = grown.studies.to_pylist()
    assert [study[name] for name in ("series", "slices", "longest_run")] == [2, 7, 3]
    assert [path.name for path in (tmp_path / "_series").iterdir()] == ["series.parquet"]


def test_the_tables_are_in_nobodys_way(tmp_path: Path) -> None:
    put(tmp_path / "out", [row(0, 0.1)])
    run(tmp_path / "out")
    assert pq.read_table(tmp_path / "out", partitioning=None).num_rows == 1, "readers ignore names that start with _"
    with pytest.raises(InputError, match="that is not mribatch's own output"):
        list_scans([str(tmp_path)])


def test_a_model_without_the_healthy_class_is_an_error_with_its_classes(tmp_path: Path) -> None:
    put(tmp_path, [row(0, 0.1)])
    with pytest.raises(InputError, match=f"model {OLD} has no class CN, but glioma, notumor: .* --healthy-class"):
        run(tmp_path, healthy_class="CN")
    assert not (tmp_path / "_series").exists()


def test_an_output_without_a_row_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "_runs").mkdir()
    with pytest.raises(InputError, match="no row yet"):
        run(tmp_path)


@pytest.mark.parametrize("settings", [{"threshold": 1.0}, {"kth": 0}, {"healthy_class": ""}])
def test_settings_out_of_range_are_errors(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        StudiesConfig(output="o", **settings)


# Layouts


def test_a_bids_data_set_has_a_study_per_session_and_its_entities_as_columns(tmp_path: Path) -> None:
    for place in (
        "sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w",
        "sub-01/ses-a/anat/sub-01_ses-a_T2w",
        "sub-02/anat/sub-02_acq-fl_T1w",
    ):
        file = tmp_path / "bids" / f"{place}.nii"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(nifti())
    (tmp_path / "bids" / "dataset_description.json").write_text("{}")
    scored(tmp_path / "bids", tmp_path / "out")
    done = run(tmp_path / "out")
    root = str(tmp_path / "bids")
    assert done.studies.select(["study_key", "subject", "session", "series"]).to_pylist() == [
        {"study_key": f"{root}/sub-01/ses-a", "subject": "01", "session": "a", "series": 2},
        {"study_key": f"{root}/sub-02", "subject": "02", "session": None, "series": 1},
    ]
    names = ("subject", "session", "acquisition", "run", "suffix", "slices", "ok", "skipped")
    assert [tuple(one[name] for name in names) for one in done.series.to_pylist()] == [
        ("01", "a", None, None, "T2w", 12, 10, 2),
        ("01", "a", None, "1", "T1w", 12, 10, 2),
        ("02", None, "fl", None, "T1w", 12, 10, 2),
    ]
    assert "1 rows belong to no study" in done.table()


def test_a_zip_of_uk_biobank_is_a_study_of_one_participant_and_visit(tmp_path: Path) -> None:
    (tmp_path / "zips").mkdir()
    for visit in (2, 3):
        mask = (np.arange(8000).reshape(20, 20, 20) % 2).astype(np.uint8)
        members = {"T1/T1.nii.gz": nifti(), "T1/T1_brain_mask.nii.gz": nifti(mask)}
        (tmp_path / "zips" / f"1234567_20252_{visit}_0.zip").write_bytes(as_zip(members))
    scored(tmp_path / "zips", tmp_path / "out")
    done = run(tmp_path / "out")
    names = ("study_key", "subject", "session", "series", "ok", "skipped")
    assert [tuple(one[name] for name in names) for one in done.studies.to_pylist()] == [
        (f"{tmp_path}/zips/1234567_20252_{visit}_0.zip", "1234567", str(visit), 2, 10, 3) for visit in (2, 3)
    ]


def test_names_of_layouts_are_read_to_their_last_character_and_in_any_case() -> None:
    uris = ["/d/sub-1/anat/sub-1_acq-a+b_run-02_T1w.nii.gz", "/d/1234567_20252_2_0.ZIP!T1.nii"]
    known = entities(pa.array(uris), pa.array([None, "/d/1234567_20252_2_0.ZIP"]))
    assert known["acquisition"].to_pylist() == ["a+b", None]
    assert known["subject"].to_pylist() == ["1", "1234567"]


def test_an_archive_of_dicom_is_no_study_beside_those_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "zips").mkdir()
    members = {"1.dcm": written(clean()), "DICOMDIR.txt": b"a note", "T1.nii": nifti()}
    (tmp_path / "zips" / "dicom.zip").write_bytes(as_zip({name: members[name] for name in ("1.dcm", "DICOMDIR.txt")}))
    (tmp_path / "zips" / "both.zip").write_bytes(as_zip(members))
    scored(tmp_path / "zips", tmp_path / "out")
    keys = run(tmp_path / "out").studies["study_key"].to_pylist()
    assert keys == [f"{tmp_path}/zips/both.zip", "1.2.3.2"]


def test_a_cd_has_the_studies_of_its_files_whatever_its_dicomdir_says(tmp_path: Path) -> None:
    disc = FileSet()
    for number in range(4):
        uids = {
            "SeriesInstanceUID": f"1.2.3.{number // 2}",
            "SOPInstanceUID": f"1.2.3.9.{number}",
            "StudyID": "1",
            "SeriesNumber": 1,
        }
        made = clean(**uids, InstanceNumber=number, ImagePositionPatient=[0, 0, 3.0 * number], StudyTime="120000")
        place = tmp_path / f"{number}.dcm"
        place.write_bytes(written(made))
        disc.add(place)
        place.unlink()
    disc.write(tmp_path / "cd")
    scored(tmp_path / "cd", tmp_path / "out")
    done = run(tmp_path / "out")
    assert done.rows == 5
    names = ("study_key", "patient_key", "series", "slices")
    assert [tuple(one[name] for name in names) for one in done.studies.to_pylist()] == [("1.2.3.2", "77553311", 2, 4)]
    assert "1 rows belong to no study" in done.table()


def test_pictures_without_headers_are_studies_of_the_patients_that_a_manifest_names(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for number in range(5):
        (tmp_path / "scans" / f"{number}.png").write_bytes(png(number))
    lines = ["uri,patient_id", *(f"scans/{number}.png,Patient {number // 2}" for number in range(4)), "scans/4.png,"]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    scored(tmp_path / "scans", tmp_path / "out")
    assert run(tmp_path / "out").studies.num_rows == 0
    key = str(tmp_path / "key")
    done = run(tmp_path / "out", manifest=str(tmp_path / "m.csv"), identifier_key=key)
    assert (done.series.num_rows, done.studies["slices"].to_pylist()) == (0, [2, 2])
    assert "Patient" not in repr(done.studies.to_pylist()) + done.table()
    plain = run(tmp_path / "out", manifest=str(tmp_path / "m.csv"), identifiers="plain")
    assert plain.studies["study_key"].to_pylist() == ["Patient 0", "Patient 1"]


def test_a_manifest_without_patients_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "out", [row(0, 0.1)])
    (tmp_path / "m.csv").write_text("uri\nm.csv")
    with pytest.raises(InputError, match="has no patient_id: fill this column"):
        run(tmp_path / "out", manifest=str(tmp_path / "m.csv"))
