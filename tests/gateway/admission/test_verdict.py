"""What is refused to an asking proxy before the gate is asked: the whole of the proxy's own list."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.routes import Route
from gateway.admission.verdict import _check
from gateway.config.settings import Auth, ClientIp, Limits
from gateway.errors import BodyTooLarge, HeadersTooLarge, MalformedRequest
from gateway.http1.headers import ELSEWHERE, FAMILIES, OWNED
from gateway.http1.message import Request

LIMITS = Limits(max_body_bytes=1_024, max_header_bytes=1_024)


def check(
    *fields: tuple[bytes, bytes],
    method: bytes = b"GET",
    body: bytes = b"",
    scope: str = "read",
    whole: bool = True,
    header: str = "Forwarded",
    **auth: str,
) -> None:
    settings = SimpleNamespace(auth=Auth.model_validate(auth), limits=LIMITS, client_ip=ClientIp(header=header))
    request = Request(method, b"/a", b"/a", None, fields, body, "192.0.2.1", secure=False, received_ms=0, request_id="r")
    _check(request, Route(0, "GET /a", scope, "spot", 1, strict_replay=False, websocket=False, builtin=""), settings, whole=whole)


@pytest.mark.parametrize("name", sorted(ELSEWHERE | {family + b"anything" for family in FAMILIES}))
def test_a_field_that_the_gate_would_not_forward_is_refused_in_every_spelling(name: bytes) -> None:
    for spelled in {name, name.replace(b"-", b"_"), name.replace(b"-", b"_", 1)}:
        with pytest.raises(MalformedRequest, match=spelled.decode()):
            check((b"a", b"1"), (spelled, b"evil"))


@pytest.mark.parametrize("name", sorted(OWNED))
def test_what_the_proxy_itself_replaces_passes_but_not_what_folds_onto_it(name: bytes) -> None:
    if not name.startswith(FAMILIES):
        check((name, b"1"))
    if b"-" in name:
        with pytest.raises(MalformedRequest):
            check((name.replace(b"-", b"_"), b"evil"))


def test_the_field_by_which_the_client_is_told_is_the_proxys() -> None:
    check((b"true-client-ip", b"8.8.8.8"), header="True-Client-IP")
    with pytest.raises(MalformedRequest):
        check((b"true_client_ip", b"8.8.8.8"), header="True-Client-IP")
    with pytest.raises(MalformedRequest):
        check((b"client-ip", b"8.8.8.8"), header="True-Client-IP")


@given(
    st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"]),
    st.sampled_from(["public", "any", "read", "trade"]),
    st.sampled_from([b"x-api-key", b"x-mbx-apikey", b"signature"]),
    st.sampled_from([{}, {"unseen_content": "refuse"}, {"unseen_content": "ignore"}]),
)
def test_content_that_was_not_seen_stops_whatever_could_have_any(method: bytes, scope: str, field: bytes, auth: dict[str, str]) -> None:
    check((field, b"k"), method=method, scope=scope, whole=True, **auth)
    reads = method in (b"GET", b"HEAD") and scope != "trade" and field != b"x-mbx-apikey"
    if scope == "public" or (reads and auth.get("unseen_content") == "ignore"):
        check((field, b"k"), method=method, scope=scope, whole=False, **auth)
    else:
        with pytest.raises(MalformedRequest, match="did not send the body"):
            check((field, b"k"), method=method, scope=scope, whole=False, **auth)


def test_sizes_are_those_of_the_configuration() -> None:
    check(body=b"a" * 1_024)
    check((b"a", b"1" * (1_024 - 3 - 2 - 5)))
    with pytest.raises(BodyTooLarge, match="1024"):
        check(body=b"a" * 1_025)
    with pytest.raises(HeadersTooLarge, match="1024"):
        check((b"a", b"1" * (1_024 - 3 - 2 - 4)))
