"""Interpret the names in labelled data: splits, documents beside the scans, and classes that look alike."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

from mribatch.errors import InputError
from mribatch.settings.suggestions import did_you_mean

__all__ = [
    "MANIFESTS",
    "SPLIT_NAMES",
    "LabelledScan",
    "copied_class",
    "is_document",
    "looks_like_split",
    "of_classes",
    "same_class",
    "split_of",
]

MANIFESTS = (".csv", ".tsv", ".txt", ".parquet")
SPLIT_NAMES = "train, validation or test"

_SPLITS = {
    **dict.fromkeys(("train", "training"), "training"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SETS = {"trainset", "trainval", "valset", "validset", "devset", "testset"}
_SPLIT_WORDS = {*_SPLITS, *_SETS, "eval", "evaluate", "evaluation", "holdout", "heldout"}

_TEXTS = (".asc", ".bib", ".doc", ".docx", ".htm", ".html", ".log", ".md", ".odt", ".pdf", ".rst", ".rtf")
_TABLES = (".db", ".json", ".jsonl", ".ods", ".sqlite", ".xls", ".xlsx", ".xml")
_SLIDES = (".odp", ".ppt", ".pptx")
_SETTINGS = (".cfg", ".ini", ".toml", ".yaml", ".yml")
_CODE = (".bat", ".css", ".ipynb", ".js", ".ps1", ".py", ".pyc", ".sh")
_LINKS = (".dvc", ".lnk", ".torrent", ".url")
_CHECKSUMS = (".crc", ".md5", ".sfv", ".sha1", ".sha256", ".sig")
_ARCHIVES = (".7z", ".bz2", ".lz4", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst", ".tar.gz", ".csv.gz", ".json.gz")
_DOCUMENTS = (
    *MANIFESTS,
    *_TEXTS,
    *_TABLES,
    *_SLIDES,
    *_SETTINGS,
    *_CODE,
    *_LINKS,
    *_CHECKSUMS,
    *_ARCHIVES,
)
_SCAN_ARCHIVES = (".nii.bz2", ".nii.xz", ".nii.zst", ".dcm.bz2", ".dcm.xz", ".dcm.zst")
_DOCUMENT_NAMES = frozenset(
    (
        "AUTHORS",
        "CHANGELOG",
        "CHECKSUMS",
        "CITATION",
        "CITATION.CFF",
        "COPYING",
        "DICOMDIR",
        "LICENCE",
        "LICENSE",
        "MAKEFILE",
        "MANIFEST",
        "MD5SUMS",
        "NOTICE",
        "README",
        "SHA1SUMS",
        "SHA256SUMS",
        "VERSION",
    )
)
# how file managers name copies
_COPY = re.compile(r"^copy of |[ _-]*\bcopy(?: ?\(?\d+\)?)?$| ?\(\d+\)$", re.IGNORECASE)
_SEPARATORS = re.compile(r"(?<=[^\W\d_])[\s_.-]+(?=\w)|(?<=\d)[\s_.-]+(?=[^\W\d_])|[\s_]+$")  # 1.5 and 15 differ
_WORD_BREAK = re.compile(r"[\W\d_]+|(?<=[a-z])(?=[A-Z])")
_PLURAL_FROM = 4  # letters; shorter names that differ by an s are often codes


class LabelledScan(NamedTuple):
    """A row of LABELLED."""

    scan_uri: str
    scan_version: str
    label: str
    split: str | None
    patient_id: str | None


class _Labelled(Protocol):
    @property
    def label(self) -> str: ...


_Scan = TypeVar("_Scan", bound=_Labelled)


def of_classes(uri: str, scans: list[_Scan], classes: Sequence[str]) -> list[_Scan]:
    """Return the scans of some classes, or all if none is named. Raises InputError for a class without scans."""
    labels = {scan.label for scan in scans}
    absent = sorted(set(classes) - labels)
    if absent:
        raise InputError(
            f"no scans of {', '.join(absent)} in {uri}: it has {', '.join(sorted(labels))}; correct --classes"
            + did_you_mean(absent[0], labels)
        )
    return [scan for scan in scans if scan.label in classes] if classes else scans


def split_of(name: str) -> str | None:
    """Return the split that a folder or a manifest's field names, or None."""
    return _SPLITS.get(name.strip().casefold())


def looks_like_split(name: str) -> bool:
    """Return whether a name is that of a split or contains one, such as Train_set or test2."""
    words = [word.casefold() for word in _WORD_BREAK.split(name)]
    return not _SPLIT_WORDS.isdisjoint([*words, "".join(words)])


def is_document(name: str) -> bool:
    """Return whether a file beside scans is about them: text, a table, an archive, a script."""
    lower = name.casefold()
    if lower.endswith(_SCAN_ARCHIVES):
        return False
    return lower.endswith(_DOCUMENTS) or name.upper() in _DOCUMENT_NAMES


def same_class(label: str) -> str:
    """Return a form that labels share if they differ only in case, separators, plural or Unicode form."""
    plain = _SEPARATORS.sub("", unicodedata.normalize("NFKC", label).casefold().strip())
    return plain.removesuffix("s") if len(plain) > _PLURAL_FROM else plain


def copied_class(label: str) -> str:
    """Return a label without the suffix or prefix that a file manager gives to a copied folder."""
    return _COPY.sub("", label) or label
