"""A refusal's line in the access log: whose it was, as far as it was known."""

from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.admission.outcome import Admitted
from gateway.admission.routes import RouteTable
from gateway.admission.rules import check_open
from gateway.config.settings import RouteConfig
from gateway.errors import Maintenance, Refusal, ReplayedRequest, Requester
from gateway.http1.message import Identity, Request
from gateway.server.reports import log_refused

ROUTE = RouteTable.compile([RouteConfig(match="GET /read", scope="read", upstream="spot")]).match(b"GET", b"/read")
ADMITTED = Admitted(ROUTE, Identity("alice", "gbk_1", ("read",)), "203.0.113.7")


@pytest.mark.parametrize(
    ("requester", "admitted", "told"),
    [
        (None, None, (None, None, "")),
        (None, ADMITTED, ("gbk_1", "alice", "203.0.113.7")),
        (None, Admitted(ROUTE, None, "203.0.113.7"), (None, None, "203.0.113.7")),
        (Requester("gbk_2", None, "198.51.100.7"), None, ("gbk_2", None, "198.51.100.7")),
        (Requester("gbk_2", "bob", "198.51.100.7"), None, ("gbk_2", "bob", "198.51.100.7")),
    ],
)
def test_who_it_was_is_told_as_far_as_it_is_known(
    requester: Requester | None, admitted: Admitted | None, told: tuple[str | None, ...]
) -> None:
    refusal = ReplayedRequest("again")
    refusal.requester = requester
    line = logged(refusal, admitted)
    assert tuple(line[name] for name in ("key_id", "account_id", "client_ip")) == told


def test_a_request_refused_by_its_routes_maintenance_names_the_route() -> None:
    closed = RouteConfig(match="GET /read", scope="read", upstream="spot", maintenance="Back at ten")
    with pytest.raises(Maintenance) as refused:
        check_open(RouteTable.compile([closed]).match(b"GET", b"/read"))
    assert logged(refused.value, None)["route"] == "GET /read"


def test_a_refusal_tells_its_reason_and_no_query() -> None:
    asked = Request(b"GET", b"/v1/orders?secret=1", b"/v1/orders", b"secret=1", (), b"", "8.8.8.8", False, 0, "r1")
    line = logged(Refusal("no", reason="unknown key"), None, asked)
    assert (line["outcome"], line["reason"], line["path"]) == ("internal_error", "unknown key", b"/v1/orders")
    assert "secret" not in str(line)


def logged(refusal: Refusal, admitted: Admitted | None, request: Request | None = None) -> Mapping[str, Any]:
    """The line of a request that had no route yet."""
    with capture_logs() as lines:
        log_refused(refusal, request, None, admitted)
    return lines[0]
