"""Names that file systems, NAS boxes, archivers and tools leave beside data: never scans. Pure; every listing uses it."""

__all__ = ["is_junk"]

_NAMES = frozenset(
    name.casefold()
    for name in (
        "@eaDir", "@tmp", "@sharebin", "#recycle", "#snapshot",  # Synology
        "@Recycle", "@Recently-Snapshot", "@__thumb",  # QNAP
        "~snapshot",  # NetApp
        "__MACOSX", "Icon\r", "Network Trash Folder", "Temporary Items",  # macOS
        "$RECYCLE.BIN", "RECYCLER", "System Volume Information",  # Windows
        "Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",
        "lost+found",  # ext file systems
        "_SUCCESS",  # Spark and Hadoop
        "__pycache__",
    )
)  # fmt: skip
_OFFICE_LOCK = "~$"
_HADOOP_FOLDER = "_$folder$"  # an empty object that stands for a folder on S3


def is_junk(relative_path: str) -> bool:
    """Return whether a file or folder, or a folder above it, is hidden or a system's own.

    The path is relative to the folder that was named: what a person names is listed, whatever it is called.
    """
    return any(map(_is_junk_name, relative_path.split("/")))


def _is_junk_name(name: str) -> bool:
    return name.startswith((".", _OFFICE_LOCK)) or name.endswith(_HADOOP_FOLDER) or name.casefold() in _NAMES
