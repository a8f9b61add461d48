"""The values of a request: each stays what it was."""

from gateway.http1.message import Request

NAMES = ("method", "target", "path", "query", "headers", "body", "peer", "secure", "received_ms", "request_id", "believed", "shape")


def whole(**changes: object) -> Request:
    """A request in which no two values are alike."""
    values: dict[str, object] = {
        "method": b"PUT", "target": b"/a?b", "path": b"/a", "query": b"b", "headers": ((b"x", b"1"), (b"y", b"2"), (b"x", b"3")),
        "body": b"c", "peer": "192.0.2.1", "secure": True, "received_ms": 7, "request_id": "r-1", "believed": False, "shape": None,
    }  # fmt: skip
    return Request(**(values | changes))  # type: ignore[arg-type]


def values(request: Request) -> dict[str, object]:
    return {name: getattr(request, name) for name in NAMES}


def test_a_request_has_what_it_was_made_of() -> None:
    assert values(whole()) == {
        "method": b"PUT", "target": b"/a?b", "path": b"/a", "query": b"b", "headers": ((b"x", b"1"), (b"y", b"2"), (b"x", b"3")),
        "body": b"c", "peer": "192.0.2.1", "secure": True, "received_ms": 7, "request_id": "r-1", "believed": False, "shape": None,
    }  # fmt: skip
    usual = Request(b"GET", b"/", b"/", None, (), b"", "", False, 0, "")
    assert (usual.believed, usual.shape) == (True, None)


def test_content_that_has_come_changes_nothing_else() -> None:
    shape = object()
    request = whole(shape=shape)
    assert values(request.with_content(b"later", 8)) == values(request) | {"body": b"later", "received_ms": 8}


def test_what_is_replaced_is_replaced_alone() -> None:
    request = whole()
    assert values(request.replace(path=b"/z")) == values(request) | {"path": b"/z"}
    assert values(request.replace()) == values(request)


def test_every_line_of_a_field_is_seen() -> None:
    assert whole().field_lines(b"x") == [b"1", b"3"]
    assert whole().field_lines(b"z") == []
