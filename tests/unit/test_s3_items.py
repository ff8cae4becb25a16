"""Objects in a listing on S3 are read as boto reads them, and what is not a sound page of them is left to boto."""

from typing import Any

import pytest
from botocore.parsers import ResponseParserFactory
from botocore.session import Session

from mribatch.stores import s3_items

SPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
OBJECT = (
    "<Contents><Key>{key}</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag>"
    "<ChecksumAlgorithm>CRC32</ChecksumAlgorithm><Size>7</Size><Owner><ID>me</ID></Owner></Contents>"
)


class Events:
    """Keeps what is registered."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def register(self, name: str, handler: Any) -> None:
        self.handlers[name] = handler


def page(*keys: str, space: str = SPACE) -> bytes:
    objects = "".join(OBJECT.format(key=key) for key in keys)
    head = "<KeyCount>2</KeyCount><IsTruncated>true</IsTruncated><NextContinuationToken>t&amp;</NextContinuationToken>"
    return f'<?xml version="1.0"?><ListBucketResult{space}>{head}{objects}</ListBucketResult>'.encode()


def parsed(response: dict[str, Any]) -> dict[str, Any]:
    """Return what boto makes of a response."""
    shape = Session().get_service_model("s3").operation_model("ListObjectsV2").output_shape
    answer: dict[str, Any] = ResponseParserFactory().create_parser("rest-xml").parse(response, shape)
    return answer


def before_parsing(body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the response that boto parses, and what it adds to the answer."""
    events, added = Events(), dict[str, Any]()
    s3_items.register(events)
    response = {"headers": {}, "status_code": 200, "body": body}
    events.handlers["before-parse.s3.ListObjectsV2"](response_dict=response, customized_response_dict=added)
    return response, added


@pytest.mark.parametrize("space", [SPACE, ""], ids=["namespace", "none"])
def test_a_page_has_the_objects_and_the_token_that_boto_reads(space: str) -> None:
    body = page("a/b.jpg", "a%26/&lt;ü&gt;.jpg", "", space=space)
    response, added = before_parsing(body)
    ours, theirs = parsed(response) | added, parsed({"headers": {}, "status_code": 200, "body": body})
    assert b"Contents" not in response["body"]
    wanted = [{name: item[name] for name in ("Key", "ETag", "Size")} for item in theirs.pop("Contents")]
    assert ours.pop("Contents") == wanted
    assert ours == theirs
    assert ours["NextContinuationToken"] == "t&"


@pytest.mark.parametrize(
    "body",
    [
        page(),
        page("a.jpg")[:-20],
        b"",
        page("a.jpg").replace(b"<Size>7</Size>", b""),
        page("a.jpg").replace(b"<Size>7</Size>", b"<Size>seven</Size>"),
        page("a.jpg").replace(b"ETag", b"Tag"),
        page("a.jpg").replace(b"ListBucketResult", b"Error"),
    ],
    ids=["no objects", "cut", "empty", "no size", "no number", "no ETag", "an error"],
)
def test_any_other_answer_is_left_to_boto(body: bytes) -> None:
    response, added = before_parsing(body)
    assert response["body"] == body
    assert added == {}
