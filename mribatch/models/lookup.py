"""Find the model directory that the user's --model stands for."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain

from mribatch.errors import ModelError, MribatchError
from mribatch.settings.suggestions import did_you_mean
from mribatch.stores import uris

__all__ = ["FOLDERS", "locate"]

FOLDERS = "MRIBATCH_MODELS"
"""Environment variable: folders of model directories, separated as in PATH; local paths or s3://…"""

_HERE = "models"
_SHOWN = 10  # models of a folder in a message
_TRIED = 100  # folders beside a model that is not there; each is a request on S3
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SEPARATOR = re.compile(re.escape(os.pathsep) + "(?!//)")  # the colon of s3:// separates nothing


def locate(name: str) -> str:
    """Return where a model is: `name` itself, in models/ of the current folder or in a folder of MRIBATCH_MODELS.

    An absolute path and a URI are taken as they are, and so is what exists as a path. Raises ModelError, which says
    where it looked and which models are there.
    """
    if uris.is_s3(name):
        return name
    is_relative = not os.path.isabs(name) and not _SCHEME.match(name)
    places = [name, *(uris.join(folder, name) for folder in (_HERE, *_listed()) if is_relative)]
    for place in places:
        if uris.exists(place):
            return place
    raise ModelError(_not_found(name, places))


def _listed() -> list[str]:
    return [folder for folder in _SEPARATOR.split(os.environ.get(FOLDERS, "")) if folder]


def _not_found(name: str, places: Sequence[str]) -> str:
    models = {folder: _models(folder) for folder in map(uris.parent, places)}
    looked = "; ".join(f"{folder}, {_shown(names)}" for folder, names in models.items())
    unset = f"; {FOLDERS} is not set" if len(places) > 1 and not _listed() else ""
    wanted = uris.plain(uris.absolute(name)).rpartition("/")[2]
    suggestion = did_you_mean(wanted, chain.from_iterable(models.values()))
    advice = suggestion or ": train one with `mribatch train`"
    return f"no model at {name} (looked in {looked}{unset}){advice}"


def _models(folder: str) -> list[str]:
    """Return the names of the model directories in a folder, as far as it may be listed."""
    with suppress(MribatchError):
        names = uris.folders(folder)[:_TRIED]
        return [name for name in names if uris.exists(uris.join(folder, name, "model.json"))]
    return []


def _shown(names: Sequence[str]) -> str:
    if not names:
        return "which has no models"
    return f"which has {', '.join(names[:_SHOWN])}{' …' if len(names) > _SHOWN else ''}"
