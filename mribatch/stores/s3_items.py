"""Read the objects in the pages of a listing on S3.

boto's own reader looks for all that an object may have, and takes 35 ms of a core for a page of a thousand. A million
objects would take longer to read than to ask for.
"""

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from botocore.hooks import BaseEventHooks

__all__ = ["register"]

_PAGE = "ListBucketResult"


def register(events: "BaseEventHooks") -> None:
    """Let a client of boto read only the key, ETag and size of the objects in an answer to ListObjectsV2."""
    events.register("before-parse.s3.ListObjectsV2", _read)


def _read(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """Move the objects from the body of a response to what boto adds to its parsed answer.

    boto reads the rest, decodes the keys, and gets a damaged body as it came.
    """
    try:
        page = ElementTree.fromstring(response_dict["body"])
        space = page.tag.removesuffix(_PAGE)
        nodes = page.findall(f"{space}Contents")
        contents = [_item(node, space) for node in nodes]
    except (ElementTree.ParseError, KeyError, ValueError):
        return
    if page.tag != space and contents:
        for node in nodes:
            page.remove(node)
        response_dict["body"] = ElementTree.tostring(page)
        customized_response_dict["Contents"] = contents


def _item(node: ElementTree.Element, space: str) -> dict[str, str | int]:
    """Return an object. Raises KeyError or ValueError if its size is missing or no number, or another field is missing."""
    fields = {field.tag: field.text or "" for field in node}
    return {"Key": fields[f"{space}Key"], "ETag": fields[f"{space}ETag"], "Size": int(fields[f"{space}Size"])}
