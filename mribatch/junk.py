"""Recognize the names that file systems, NAS boxes, archivers and tools leave beside data, and that are never scans."""

__all__ = ["is_junk"]

_SYNOLOGY = ("@eaDir", "@tmp", "@sharebin", "#recycle", "#snapshot")
_QNAP = ("@Recycle", "@Recently-Snapshot", "@__thumb")
_NETAPP = ("~snapshot",)
_MACOS = ("__MACOSX", "Icon\r", "Network Trash Folder", "Temporary Items")
_WINDOWS_FOLDERS = ("$RECYCLE.BIN", "RECYCLER", "System Volume Information")
_WINDOWS_FILES = ("Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini")
_EXT = ("lost+found",)
_SPARK = ("_SUCCESS",)
_PYTHON = ("__pycache__",)
_SYSTEMS = (_SYNOLOGY, _QNAP, _NETAPP, _MACOS, _WINDOWS_FOLDERS, _WINDOWS_FILES, _EXT, _SPARK, _PYTHON)
_NAMES = frozenset(name.casefold() for names in _SYSTEMS for name in names)
_JUNK_STARTS = (".", "~$")  # hidden files; locks of office programs
_HADOOP_FOLDER = "_$folder$"  # ends the key of an empty object that stands for a folder on S3


def is_junk(relative_path: str) -> bool:
    """Return whether a file or folder, or a folder above it, is hidden or belongs to a system.

    The path is relative to the folder that the user named: a named folder is listed, whatever it is called.
    """
    return any(
        name.startswith(_JUNK_STARTS) or name.endswith(_HADOOP_FOLDER) or name.casefold() in _NAMES
        for name in relative_path.split("/")
    )
