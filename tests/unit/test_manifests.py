"""Manifests as people write them: read correctly, or rejected with the file, the row and the remedy."""

import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mribatch.errors import ConfigError, InputError
from mribatch.sources.labels import labelled, training_scans
from tests.unit.test_labelled import touch, wrong

ROWS = [("a.jpg", "glioma"), ("b/c d.jpg", "notumor")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    touch(tmp_path, *(name for name, _ in ROWS), "e,f;g.jpg")
    return tmp_path


def labels(root: Path, content: str | bytes, name: str = "m.csv") -> list[tuple[str, str, str | None, str | None]]:
    """Return what is read from a manifest, row by row."""
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    rows = labelled(str(root / name)).to_pylist()
    return [(row["scan_uri"].removeprefix(f"{root}/"), row["label"], row["split"], row["patient_id"]) for row in rows]


def refused(root: Path, content: str | bytes, name: str = "m.csv") -> str:
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    message = wrong(root / name)
    assert f"{root}/{name}" in message
    assert "\n" not in message
    return message


PLAIN = [(*row, None, None) for row in ROWS]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.txt"])
def test_any_common_separator_and_line_end_is_read(root: Path, separator: str, newline: str, name: str) -> None:
    text = newline.join(separator.join(row) for row in [("uri", "label"), *ROWS])
    assert labels(root, text, name) == PLAIN


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_is_read_by_its_mark(root: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    text = mark + "uri;label\r\na.jpg;Größe\r\nb/c d.jpg;0\r\n"
    assert [row[1] for row in labels(root, text.encode(encoding))] == ["Größe", "0"]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_an_encoding_that_can_only_be_guessed_is_refused_with_its_line(root: Path, encoding: str) -> None:
    message = refused(root, "uri,label\na.jpg,glioma\nb/c d.jpg,Größe\n".encode(encoding))
    assert "line 3 is not UTF-8" in message
    assert 'save it as "CSV UTF-8"' in message


def test_utf_16_without_its_mark_and_a_spreadsheet_are_refused(root: Path) -> None:
    assert "may be UTF-16" in refused(root, "uri,label\na.jpg,x\n".encode("utf-16-le"))
    assert "spreadsheet" in refused(root, b"PK\3\4\x14\0\6\0")


@pytest.mark.parametrize(
    "header",
    [
        "URI,Label",
        " Uri , LABEL ",
        '"uri","label"',
        "\ufeffuri,label",
        ",uri,label",
        "uri,label,,",
        "label,uri",
        "uri,label,remark",
    ],
)
def test_columns_are_known_in_any_case_padded_quoted_and_in_any_order(root: Path, header: str) -> None:
    fields = [name.strip(' "\ufeff').casefold() for name in header.split(",")]
    rows = [",".join({"uri": uri, "label": label}.get(field, "") for field in fields) for uri, label in ROWS]
    assert labels(root, "\n".join([header, *rows])) == PLAIN


@pytest.mark.parametrize("name", ["Patient_ID", "patient id", "PatientID", "PATIENT-ID"])
def test_a_patients_column_is_known_however_it_is_spelled(root: Path, name: str) -> None:
    text = f"uri;label;{name};SPLIT\na.jpg;glioma; 007 ;Train\nb/c d.jpg;notumor;;valid\n"
    with pytest.raises(InputError, match="validation scans have classes without training scans"):
        labels(root, text)
    assert labels(root, text.replace("valid", "")) == [
        ("a.jpg", "glioma", "training", "007"),
        ("b/c d.jpg", "notumor", None, None),
    ]


@pytest.mark.parametrize(
    ("header", "changes"),
    [
        ("filename,label", ["rename the column `filename` to `uri`"]),
        ("Image Path;Class", ["rename the column `Image Path` to `uri`", "rename the column `Class` to `label`"]),
        ("uri\tdiagnosis", ["rename the column `diagnosis` to `label`"]),
        ("uri,label,Subject", ["rename the column `Subject` to `patient_id`, or to another name"]),
        ("uri,label,set", ["rename the column `set` to `split`"]),
        ("x,y2", ["lacks the columns uri and label, it has x, y2: expected uri, label"]),
    ],
)
def test_other_names_for_the_columns_are_not_guessed_but_proposed(root: Path, header: str, changes: list[str]) -> None:
    message = refused(root, f"{header}\n")
    assert all(change in message for change in changes), message


def test_a_column_that_comes_twice_is_refused(root: Path) -> None:
    assert "the column label more than once (`label`, `Label`)" in refused(root, "uri,label,Label\na.jpg,x,y\n")


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;"])
def test_the_first_line_of_excel_names_the_separator(root: Path, first: str) -> None:
    assert labels(root, f"{first}\r\nuri;label\r\na.jpg;glioma\r\nb/c d.jpg;notumor\r\n") == PLAIN
    assert "row 2, line 4" in refused(root, f"{first}\nuri;label\na.jpg;glioma\nb/c d.jpg;\n")


def test_blank_rows_padding_quotes_and_empty_fields_at_the_end_do_not_count(root: Path) -> None:
    text = '\n\nuri,label\n\n  a.jpg ,"  glioma "\n,\n,,,\n"b/c d.jpg", "notumor",,\n\n  \n,,\n'
    assert labels(root, text) == PLAIN


def test_a_quoted_field_may_hold_the_separator(root: Path) -> None:
    text = 'uri;label\n"e,f;g.jpg";glioma\na.jpg;"a ""quoted"" one"\n'
    assert [row[:2] for row in labels(root, text)] == [("a.jpg", 'a "quoted" one'), ("e,f;g.jpg", "glioma")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.jpg,glioma\nb.jpg,glioma,x\n", "row 2, line 3, has 3 fields and the header 2"),
        ('a.jpg,glioma\n"b.jpg,glioma\n', "row 2, line 3: unexpected end of data.: check its quotes"),
        ("a.jpg,glioma\n\nb/c d.jpg,  \n", "the first in row 2, line 4: fill or remove"),
        ("a.jpg,glioma\n,notumor\n", "row 2, line 3 of the manifest"),
        (
            "a.jpg,glioma\na.jpg,notumor\n",
            "names 1 scans twice, the first in row 1, line 2 and row 2, line 3: keep one",
        ),
        ("a.jpg,glioma\nb\\c d.jpg,notumor\n", "in row 2, line 3, .*Windows path; write / for"),
        ("C:\\scans\\a.jpg,glioma\n", "in row 1, line 2, .*Windows path"),
        ("a.jpg,glioma\nC:/scans/b.jpg,notumor\n", "in row 2, line 3, .*Windows path"),
    ],
)
def test_a_row_that_does_not_fit_is_named_with_its_line_and_the_change(root: Path, rows: str, message: str) -> None:
    (root / "m.csv").write_text("uri,label\n" + rows)
    with pytest.raises(InputError, match=message):
        labelled(str(root / "m.csv"))


def test_a_name_in_another_unicode_form_and_an_unknown_scheme_are_named_with_their_rows(root: Path) -> None:
    touch(root, unicodedata.normalize("NFD", "Größe.jpg"))
    message = refused(root, "uri,label\na.jpg,x\n" + unicodedata.normalize("NFC", "Größe.jpg") + ",y\n")
    assert "in row 2, line 3" in message
    assert "in another Unicode form" in message
    (root / "m.csv").write_text("uri,label\na.jpg,x\ngs://bucket/b.jpg,y\n")
    with pytest.raises(ConfigError, match=r"row 2, line 3 of the manifest .*m.csv: expected .* got gs://bucket/b.jpg"):
        labelled(str(root / "m.csv"))


def test_a_split_that_is_none_is_named_with_its_row(root: Path) -> None:
    message = refused(root, "uri,label,split\na.jpg,x,train\nb/c d.jpg,y,holdout\n")
    assert "has the split 'holdout' in row 2, line 3: expected train, validation or test" in message


def test_parquet_is_read_by_the_same_rules_and_counts_rows(root: Path) -> None:
    table = pa.table(
        {"URI": [" a.jpg", "b/c d.jpg"], "Label ": ["glioma ", "notumor"], "patient id": [7, None], "z": [[1], [2]]}
    )
    pq.write_table(table, root / "m.parquet")
    assert labels(root, (root / "m.parquet").read_bytes(), "m.parquet") == [
        ("a.jpg", "glioma", None, "7"),
        ("b/c d.jpg", "notumor", None, None),
    ]
    pq.write_table(pa.table({"file": ["a.jpg"], "label": ["x"]}), root / "n.parquet")
    assert "rename the column `file` to `uri`" in wrong(root / "n.parquet")
    pq.write_table(pa.table({"uri": ["a.jpg", "b/c d.jpg"], "label": ["x", None]}), root / "o.parquet")
    assert "the first in row 2: fill" in wrong(root / "o.parquet")


# Scans that a model may have been trained on


def training(*uris: Path) -> tuple[list[str], int]:
    """Return the names of the training scans and the number of test scans left out."""
    trained = training_scans([str(uri) for uri in uris])
    return [uri.rpartition("/")[2] for uri in trained.scans["scan_uri"].to_pylist()], trained.test_scans


def test_training_scans_are_read_from_folders_files_globs_and_manifests(tmp_path: Path) -> None:
    touch(tmp_path, "set/a/1.jpg", "set/README", "set/data.zip", "2.jpg", "x/3.png", "x/4.jpg", "lists/5.jpg")
    (tmp_path / "lists" / "m.csv").write_text("URI\n5.jpg\n../x/3.png\n")
    assert training(tmp_path / "set") == (["1.jpg"], 0)
    assert training(tmp_path / "2.jpg") == (["2.jpg"], 0)
    assert training(tmp_path / "x" / "*.png") == (["3.png"], 0)
    assert training(tmp_path / "lists" / "m.csv") == (["5.jpg", "3.png"], 0)
    assert training(tmp_path / "set", tmp_path / "x", tmp_path / "x" / "3.png") == (["1.jpg", "3.png", "4.jpg"], 0)


def test_test_scans_of_a_set_with_training_scans_do_not_count_and_others_do(tmp_path: Path) -> None:
    touch(tmp_path, "Training/a/1.jpg", "valid/a/2.jpg", "Testing/a/3.jpg")
    assert training(tmp_path) == (["1.jpg", "2.jpg"], 1)
    assert training(tmp_path / "Testing") == (["3.jpg"], 0)
    assert training(tmp_path, tmp_path / "Testing") == (["3.jpg", "1.jpg", "2.jpg"], 0)
    (tmp_path / "m.tsv").write_text("uri\tsplit\nTraining/a/1.jpg\ttrain\nTesting/a/3.jpg\ttest\n")
    assert training(tmp_path / "m.tsv") == (["1.jpg"], 1)
    (tmp_path / "m.tsv").write_text("uri\tsplit\nTesting/a/3.jpg\ttest\n")
    assert training(tmp_path / "m.tsv") == (["3.jpg"], 0)


@pytest.mark.parametrize("name", ["lists", "labels.xlsx", "empty.csv"])
def test_what_names_no_scan_is_refused(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "lists/m.csv", "labels.xlsx")
    (tmp_path / "empty.csv").write_text("uri,label\n")
    with pytest.raises(InputError, match=f"no scans in {tmp_path}/{name}: expected a folder with scans, or a manifest"):
        training_scans([str(tmp_path / name)])
