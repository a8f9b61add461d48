"""The table of routes: what matches, what is refused, and which tables cannot be loaded."""

import contextlib
import re
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.admission.routes import Route, RouteTable
from gateway.config.settings import RouteConfig, Rule
from gateway.errors import AmbiguousPath, ConfigError, MethodNotAllowed, NoRoute, Refusal
from tests.bench.routes import table as bench_table


def route(match: str, *, scope: str = "read", **more: object) -> RouteConfig:
    return RouteConfig(match=match, scope=scope, upstream="spot", **more)


def table(*patterns: str) -> RouteTable:
    return RouteTable.compile([route(pattern) for pattern in patterns])


PATTERNS = (
    "GET /v1/markets/summary",
    "GET /v1/markets/{symbol}/summary",
    "POST /v1/orders",
    "GET /v1/orders/{id}",
    "DELETE /v1/orders/{id}",
    "GET /files/{path...}",
    "GET /a/{x}/c",
    "GET /a/b/d",
    "GET /dir/",
)


def matched(method: bytes, path: bytes) -> Route:
    return table(*PATTERNS).match(method, path)


@pytest.mark.parametrize(
    ("method", "path", "pattern"),
    [
        (b"GET", b"/v1/markets/summary", "GET /v1/markets/summary"),
        (b"HEAD", b"/v1/markets/summary", "GET /v1/markets/summary"),
        (b"GET", b"/v1/markets/BTC-IDR/summary", "GET /v1/markets/{symbol}/summary"),
        (b"HEAD", b"/v1/markets/BTC-IDR/summary", "GET /v1/markets/{symbol}/summary"),
        (b"POST", b"/v1/orders", "POST /v1/orders"),
        (b"GET", b"/v1/orders/7", "GET /v1/orders/{id}"),
        (b"DELETE", b"/v1/orders/7", "DELETE /v1/orders/{id}"),
        (b"GET", b"/v1/orders/a%20b", "GET /v1/orders/{id}"),
        (b"GET", b"/v1/orders/.well-known", "GET /v1/orders/{id}"),
        (b"GET", b"/files/one", "GET /files/{path...}"),
        (b"GET", b"/files/one/two/three", "GET /files/{path...}"),
        (b"GET", b"/files/one/", "GET /files/{path...}"),
        (b"GET", b"/a/b/c", "GET /a/{x}/c"),
        (b"GET", b"/a/b/d", "GET /a/b/d"),
        (b"GET", b"/dir/", "GET /dir/"),
        (b"GET", b"/gateway/v1/time", "GET /gateway/v1/time"),
        (b"GET", b"/gateway/v1/ip", "GET /gateway/v1/ip"),
        (b"GET", b"/gateway/v1/key", "GET /gateway/v1/key"),
    ],
)
def test_a_request_finds_its_route(method, path, pattern):
    assert matched(method, path).pattern == pattern


@pytest.mark.parametrize(
    "path",
    [
        b"/", b"/v1", b"/v1/orders/", b"/v1/orders/7/", b"/v1/markets//summary"[:12], b"/files/", b"/files", b"/dir", b"/V1/orders/7",
        b"/v1/markets/BTC-IDR/SUMMARY", b"/gateway/v1/nothing", b"/gateway/", b"/v1/markets/%73ummary",
    ],
)  # fmt: skip
def test_what_is_not_listed_does_not_exist(path):
    with pytest.raises(NoRoute):
        matched(b"GET", path)


@pytest.mark.parametrize(
    "path",
    [
        b"/v1//orders", b"//v1/orders", b"/v1/orders//", b"/v1/orders/%2f", b"/v1/orders/%2Fx", b"/v1/orders/%5c", b"/v1/orders/%5C",
        b"/v1/orders/%2e", b"/v1/orders/%2E%2e", b"/v1/orders/..", b"/v1/orders/.", b"/v1/../v1/orders/7", b"/./v1/orders/7",
        b"/v1/orders/7;x=1", b"/v1/orders/7#x", b"/v1/orders\\7", b"/v1/orders/\x01", b"/v1/orders/a b", b"/v1/orders/\x7f",
        b"/v1/orders/\xc3\xa9", b"/v1/orders/%", b"/v1/orders/%4", b"/v1/orders/%zz", b"/v1/orders/%00", b"/v1/orders/%0d%0a",
        b"/v1/orders/%7f", b"/files/a/../b", b"/files/a//b", b"/nowhere/..",
    ],
)  # fmt: skip
def test_a_path_that_can_be_read_in_two_ways_is_refused_and_never_normalised(path):
    with pytest.raises(AmbiguousPath):
        matched(b"GET", path)


def test_a_route_has_what_its_configuration_says_and_no_more():
    orders = matched(b"POST", b"/v1/orders")
    assert (orders.position, orders.pattern, orders.scope, orders.upstream, orders.weight) == (2, "POST /v1/orders", "read", "spot", 1)
    assert (orders.strict_replay, orders.replay_off, orders.websocket, orders.places_orders) == (False, False, False, False)
    assert (orders.builtin, orders.dialect, orders.session, orders.maintenance) == ("", "", "", "")
    assert (orders.methods, orders.further) == ({}, ())


def test_built_in_routes_stand_behind_the_last_and_have_no_upstream():
    built_in = [matched(b"GET", f"/gateway/v1/{name}".encode()) for name in ("time", "ip", "key")]
    assert [(one.position, one.builtin, one.scope, one.upstream, one.weight) for one in built_in] == [
        (9, "time", "public", "", 1),
        (10, "ip", "public", "", 1),
        (11, "key", "any", "", 1),
    ]


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        (b"/v1/orders/", "did you mean /v1/orders?"),
        (b"/v1/orders/7/", "did you mean /v1/orders/7?"),
        (b"/dir", "did you mean /dir/?"),
        (b"/v1", "see the list of calls"),
        (b"/files/", "see the list of calls"),
    ],
)
def test_a_slash_too_many_or_too_few_is_told(path, meant):
    with pytest.raises(NoRoute) as refused:
        matched(b"GET", path)
    assert meant in refused.value.detail


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        (b"PUT", b"/v1/orders", b"POST"),
        (b"PUT", b"/v1/orders/7", b"DELETE, GET, HEAD"),
        (b"POST", b"/a/b/c", b"GET, HEAD"),
        (b"POST", b"/gateway/v1/key", b"GET, HEAD"),
        (b"BREW", b"/v1/orders", b"POST"),
    ],
)
def test_only_another_method_is_served_here(method, path, allow):
    with pytest.raises(MethodNotAllowed) as refused:
        matched(method, path)
    assert refused.value.headers == ((b"Allow", allow),)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("GET /a", "GET /a"),
        ("GET /a", "HEAD /a"),
        ("GET /a/{x}", "GET /a/b"),
        ("GET /a/b", "GET /a/{x}"),
        ("GET /a/{x}", "GET /a/{y}"),
        ("GET /{x}/b", "GET /a/{y}"),
        ("GET /a/{x...}", "GET /a/b/c"),
        ("GET /a/b/c", "GET /a/{x...}"),
        ("GET /a/{x...}", "GET /a/{y}/c"),
        ("GET /a/{x...}", "GET /a/{y...}"),
        ("GET /{x...}", "GET /a/b/"),
        ("GET /a/b/", "GET /a/{x...}"),
    ],
)
def test_two_routes_that_can_match_one_request_are_an_error_that_names_both(first, second):
    with pytest.raises(ConfigError) as error:
        table(first, second)
    (problem,) = error.value.problems
    assert problem.path == "routes[1].match"
    assert first in problem.message
    assert second in problem.message


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("GET /a", "POST /a"),
        ("GET /a/{x}/c", "GET /a/b/d"),
        ("GET /a/{x}", "GET /a/b/c"),
        ("GET /a/{x...}", "GET /a"),
        ("GET /a/{x...}", "GET /a/"),
        ("GET /a/{x}", "DELETE /a/b"),
        ("GET /a/{x}", "GET /a/{x}/"),
    ],
)
def test_routes_that_cannot_meet_may_stand_side_by_side(first, second):
    table(first, second)


@pytest.mark.parametrize(
    "pattern",
    [
        "", "GET", "/a", "GET a", "get /a", "BREW /a", "CONNECT /a", "GET  /a", "GET /a//b", "GET /a/../b", "GET /a/./b", "GET /a;b",
        "GET /a?b=c", "GET /a#b", "GET /a/{}", "GET /a/{x", "GET /a/x}", "GET /a/{x}y", "GET /a/{x...}/b", "GET /a/{1x}", "GET /a b",
        "GET /%2f", "GET /%", "GET /é", "GET /gateway/v1/mine", "GET /a\n",
    ],
)  # fmt: skip
def test_a_pattern_that_no_request_could_match_is_an_error(pattern):
    with pytest.raises(ConfigError) as error:
        table("GET /fine", pattern)
    assert error.value.problems[0].path == "routes[1].match"


@pytest.mark.parametrize(("pattern", "what"), [("GET /a/./b", "a dot segment"), ("GET /%2f", "an encoded slash or backslash")])
def test_a_pattern_that_is_ambiguous_is_told_why(pattern, what):
    with pytest.raises(ConfigError) as error:
        table(pattern)
    assert [problem.message for problem in error.value.problems] == [f"no request could match: the path contains {what}"]


def test_every_problem_is_told_at_once():
    with pytest.raises(ConfigError) as error:
        table("GET /a", "GET /a", "nonsense", "GET /b", "GET /{x}")
    assert [problem.path for problem in error.value.problems] == [
        "routes[1].match",
        "routes[2].match",
        "routes[4].match",
        "routes[4].match",
    ]


def test_routes_that_clash_among_each_other_and_with_an_earlier_one_are_all_told():
    with pytest.raises(ConfigError) as error:
        table("GET /v1/wallets", "GET /v1/{a}", "GET /v1/{b}")
    assert [problem.path for problem in error.value.problems] == [f"routes[{index}].match" for index in (1, 2, 2)]


def test_a_websocket_is_opened_by_get():
    with pytest.raises(ConfigError):
        RouteTable.compile([route("POST /stream", websocket=True)])


def test_replay_is_strict_for_trade_unless_said_otherwise():
    compiled = RouteTable.compile(
        [
            route("POST /a", scope="trade"),
            route("GET /a", scope="read"),
            route("POST /b", scope="trade", replay="off"),
            route("GET /b", scope="read", replay="strict"),
        ]
    )
    assert [one.strict_replay for one in compiled.routes[:4]] == [True, False, False, True]


def test_a_session_has_the_methods_of_its_table_and_those_about_itself():
    methods = {
        "m": {
            "order.place": Rule(scope="trade", weight=2),
            "account.status": Rule(scope="read", weight=20),
            "time": Rule(scope="public"),
        }
    }
    compiled = RouteTable.compile([route("GET /ws", scope="public", websocket="binance", methods="m")], methods).match(b"GET", b"/ws")
    assert (compiled.session, compiled.websocket, compiled.scope) == ("binance", True, "public")
    found = {name: (one.scope, one.weight, one.strict_replay) for name, one in compiled.methods.items()}
    assert found == {
        "session.logon": ("any", 1, True),
        "session.logout": ("public", 1, False),
        "session.status": ("public", 1, False),
        "order.place": ("trade", 2, True),
        "account.status": ("read", 20, False),
        "time": ("public", 1, False),
    }
    assert compiled.method(["order.place"]).pattern == "GET /ws order.place"
    several = compiled.method(["time", "account.status", "order.place"])
    assert (several.scope, several.weight, several.strict_replay) == ("read", 22, True)
    assert [one.scope for one in several.further] == ["trade"]
    assert compiled.method(["time", "time"]).scope == "public"
    with pytest.raises(NoRoute, match="nothing"):
        compiled.method(["time", "nothing"])


def test_what_a_table_says_of_a_log_in_goes_before_what_it_is_by_itself():
    methods = {"m": {"login": Rule(scope="trade", replay="off", weight=7)}}
    compiled = RouteTable.compile([route("GET /ws", scope="public", websocket="mobee", methods="m")], methods).match(b"GET", b"/ws")
    login = compiled.methods["login"]
    assert (login.scope, login.strict_replay, login.weight) == ("trade", False, 7)


_SEGMENT = st.sampled_from(["a", "b", "c", "{x}", "{y}"])
_PATTERNS = st.lists(
    st.builds(
        lambda method, segments, rest: f"{method} /" + "/".join([*segments, *(["{r...}"] if rest else [])]),
        st.sampled_from(["GET", "POST"]),
        st.lists(_SEGMENT, min_size=1, max_size=3),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)
_PATH = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=4).map(lambda segments: "/" + "/".join(segments))


def _naive(pattern: str) -> re.Pattern[str]:
    path = pattern.partition(" ")[2]
    return re.compile(re.sub(r"\{[a-z]\.\.\.\}", "[^/].*", re.sub(r"\{[a-z]\}", "[^/]+", path)))


@given(_PATTERNS, _PATH)
def test_the_table_agrees_with_trying_every_pattern_in_turn(patterns, path):
    try:
        compiled = table(*patterns)
    except ConfigError:
        assume(False)
    hits = [pattern for pattern in patterns if pattern.startswith("GET ") and _naive(pattern).fullmatch(path)]
    try:
        found = [compiled.match(b"GET", path.encode()).pattern]
    except Refusal:
        found = []
    assert found == hits


@given(_PATTERNS, _PATH)
def test_whatever_two_patterns_match_together_does_not_load(patterns, path):
    for method in ("GET", "POST"):
        hits = [pattern for pattern in patterns if pattern.startswith(method) and _naive(pattern).fullmatch(path)]
        if len(hits) > 1:
            with pytest.raises(ConfigError):
                table(*patterns)


@given(st.binary(max_size=40))
def test_no_path_does_anything_but_match_or_be_refused(path):
    with contextlib.suppress(Refusal):
        matched(b"GET", b"/" + path)


def steps(routes: RouteTable, path: bytes) -> int:
    """How many functions one match calls."""
    calls = 0

    def count(_frame, event, _argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        routes.match(b"GET", path)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("path", [b"/v1/service-0/orders", b"/v1/service-0/orders/1", b"/v1/service-0/files/a/b"])
def test_a_match_takes_as_many_steps_among_5_routes_as_among_5_000(path):
    small, large = bench_table(5), bench_table(5_000)
    assert len(large.routes) > 5_000
    assert steps(small, path) == steps(large, path)


def test_a_literal_path_takes_as_many_steps_however_long_it_is():
    routes = table("GET /a", "GET /a/b/c/d/e/f/g/h")
    assert steps(routes, b"/a") == steps(routes, b"/a/b/c/d/e/f/g/h")


@pytest.mark.parametrize("names", [["order.place"], ["time", "order.place"], ["order.place", "account.status"]])
def test_a_method_is_closed_for_maintenance_and_whatever_asks_for_it_with_others(names):
    methods = {
        "time": Rule(scope="public"),
        "account.status": Rule(scope="read"),
        "order.place": Rule(scope="trade", maintenance="Back at ten", maintenance_retry_ms=5_000),
    }
    table = RouteTable.compile([route("GET /ws", scope="public", websocket="binance", methods="m")], {"m": methods})
    session = table.match(b"GET", b"/ws")
    closed = session.method(names)
    assert (closed.maintenance, closed.maintenance_retry_ms) == ("Back at ten", 5_000)
    assert session.method(["time", "account.status"]).maintenance == ""
