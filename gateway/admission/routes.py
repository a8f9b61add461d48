"""The routing table: compiled once per configuration, matched once per request; a request without a route is refused. Pure.

Default deny: a route that is not listed does not exist. An ambiguous path is refused, never normalized: the
bytes that were signed are the bytes that are routed and the bytes that are forwarded.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from gateway.admission.sessions import SESSIONS
from gateway.errors import AmbiguousPath, ConfigError, ConfigProblem, MethodNotAllowed, NoRoute

if TYPE_CHECKING:
    from gateway.config.settings import RouteConfig, Rule

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
RESERVED = "/gateway/"
"""The prefix of the gate's own paths."""
MAX_SEGMENTS = 64

_PATTERN = re.compile(r"([A-Z]+) (/\S*)")
_LITERAL = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,=:@]|%[0-9A-Fa-f]{2})*")
_PARAMETER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*(\.\.\.)?\}")

_AMBIGUITIES = (
    (re.compile(rb"//"), "an empty segment (//)"),
    (re.compile(rb"(?:^|/)\.{1,2}(?:/|$)"), "a dot segment"),
    (re.compile(rb";"), "a semicolon"),
    (re.compile(rb"\\"), "a backslash"),
    (re.compile(rb"#"), "a fragment (#)"),
    (re.compile(rb"[\x00-\x20\x7f-\xff]"), "a control, space or non-ASCII byte; percent-encode it"),
    (re.compile(rb"%(?![0-9A-Fa-f]{2})"), "a percent sign that begins no percent-encoding"),
    (re.compile(rb"%(?:2[Ff]|5[Cc])"), "an encoded slash or backslash"),
    (re.compile(rb"%2[Ee]"), "an encoded dot"),
    (re.compile(rb"%(?:[01][0-9A-Fa-f]|7[Ff])"), "an encoded control byte"),
)
_CLEAN = re.compile(rb"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9\-._~!$&'()*+,=:@]+)+/?|/")
"""Matches most paths, which are then known to be unambiguous."""


class Route:
    """One route of the table; or one method of a session's messages, which is admitted like a request to a route of its own."""

    __slots__ = (
        "builtin", "dialect", "further", "maintenance", "maintenance_retry_ms", "methods", "pattern", "places_orders", "position",
        "replay_off", "scope", "session", "strict_replay", "upstream", "websocket", "weight",
    )  # fmt: skip

    def __init__(
        self, position: int, pattern: str, scope: str, upstream: str, weight: int, *, strict_replay: bool, websocket: bool, builtin: str
    ) -> None:
        self.position = position
        """Its index in the configuration; built-in routes come after the last."""
        self.pattern = pattern
        """As written: ``GET /v1/orders/{id}``."""
        self.places_orders = scope == "trade" and pattern.startswith(("POST ", "PUT "))
        """Whether its calls count as orders in a dialect that reports their number; cancellations do not."""
        self.scope = scope
        """``public``, ``any``, ``read`` or ``trade``."""
        self.upstream = upstream
        """``""`` for built-in routes."""
        self.weight = weight
        self.strict_replay = strict_replay
        self.replay_off = False
        """Set by ``replay = "off"``: then no signature is claimed, not even one that is valid for another call."""
        self.websocket = websocket
        self.builtin = builtin
        """``time``, ``ip`` or ``key`` for a route that the gate answers itself, else ``""``."""
        self.dialect = ""
        """The dialect whose form its refusals take; ``""``: determined by the path."""
        self.maintenance = ""
        """The detail of its refusals while it is closed for maintenance; ``""``: it is open."""
        self.maintenance_retry_ms = 0
        self.session = ""
        """The session dialect, for a WebSocket whose messages are admitted one by one; ``""``: none."""
        self.methods: dict[str, Route] = {}
        """The methods that a session's messages may call, by name."""
        self.further: tuple[Route, ...] = ()
        """For a message with several methods: the other scopes that must be granted."""

    def method(self, names: Sequence[str]) -> "Route":
        """The rule that applies to a message of this session.

        :param names: the methods that it calls, at least one
        :return: for several, their requirements combined; or one that is closed for maintenance
        :raises NoRoute: one of them is not listed
        """
        if len(names) == 1 and (alone := self.methods.get(names[0])) is not None:
            return alone
        found = [self.methods.get(name) for name in names]
        listed = [method for method in found if method is not None]
        if len(listed) != len(found):
            unlisted = names[found.index(None)]
            raise NoRoute(f"the method {unlisted[:64]!r} is not available on this connection; see the list of methods in the documentation")
        for method in listed:
            if method.maintenance:
                return method
        return listed[0] if len(listed) == 1 else _together(listed)


class _Node:
    """A node of the trie: one path segment. ``routes`` end here; ``rest`` end here with ``{name...}``."""

    __slots__ = ("literals", "parameter", "rest", "routes")

    def __init__(self) -> None:
        self.literals: dict[bytes, _Node] = {}
        self.parameter: _Node | None = None
        self.routes: dict[bytes, Route] = {}
        self.rest: dict[bytes, Route] = {}


class RouteTable:
    """Literal paths are in a dict, others in a trie, so that matching takes the same time however many routes there are."""

    def __init__(self) -> None:
        self.routes: list[Route] = []
        self.literal: dict[tuple[bytes, bytes], Route] = {}
        """By method and path, those without parameters: the hot path reads it directly."""
        self._root = _Node()

    @classmethod
    def compile(cls, routes: Sequence["RouteConfig"], methods: Mapping[str, Mapping[str, "Rule"]] | None = None) -> "RouteTable":
        """Build the table, the built-in routes included.

        :param methods: the tables of session methods, by name
        :raises ConfigError: with every invalid pattern and every pair of routes that could match the same request
        """
        table = cls()
        problems: list[ConfigProblem] = []
        for index, config in enumerate(routes):
            route = Route(
                index, config.match, config.scope, config.upstream, config.weight,
                strict_replay=config.strict_replay, websocket=bool(config.websocket), builtin="",
            )  # fmt: skip
            route.dialect = config.dialect or ""
            route.replay_off = config.replay == "off"
            route.maintenance, route.maintenance_retry_ms = config.maintenance, config.maintenance_retry_ms
            if config.session:
                route.session = config.session
                route.methods = _methods(route, (methods or {}).get(config.methods or "", {}))
            problems += [ConfigProblem(f"routes[{index}].match", message) for message in table._add(route)]
        for offset, (name, scope) in enumerate((("time", "public"), ("ip", "public"), ("key", "any"))):
            table._add(
                Route(len(routes) + offset, f"GET {RESERVED}v1/{name}", scope, "", 1, strict_replay=False, websocket=False, builtin=name)
            )
        if problems:
            raise ConfigError(problems)
        return table

    def match(self, method: bytes, path: bytes) -> Route:
        """The route of a request.

        :raises AmbiguousPath: servers could interpret the path differently
        :raises NoRoute: no route matches the path
        :raises MethodNotAllowed: routes match the path, but not the method
        """
        route = self.literal.get((method, path))
        return route if route is not None else self._search(method, path)

    def patterns(self) -> Iterator[str]:
        """The pattern of every route and of every method of a session."""
        for route in self.routes:
            yield route.pattern
            yield from (method.pattern for method in route.methods.values())

    def _search(self, method: bytes, path: bytes) -> Route:
        if not _CLEAN.fullmatch(path):
            check_path(path)
        allowed: set[bytes] = set()
        for found in _walk(self._root, path.split(b"/")[1:], 0):
            if method in found:
                return found[method]
            allowed |= found.keys()
        raise _unlisted(method, path, allowed, "" if allowed else self._with_other_slash(path))

    def _with_other_slash(self, path: bytes) -> str:
        """The path with its trailing slash added or removed, if a route matches that; else ``""``."""
        other = path[:-1] if path.endswith(b"/") else path + b"/"
        return other.decode("ascii", "replace") if any(_walk(self._root, other.split(b"/")[1:], 0)) else ""

    def _add(self, route: Route) -> list[str]:
        """Add one route. Returns its errors."""
        match = _PATTERN.fullmatch(route.pattern)
        if match is None or match[1] not in METHODS:
            return [f'write a route as "METHOD /path", the method one of {", ".join(METHODS)}']
        if match[2].startswith(RESERVED) and not route.builtin:
            return [f"paths below {RESERVED} are the gate's own"]
        segments = match[2].split("/")[1:]
        wrong = _check_segments(segments)
        if wrong:
            return [wrong]
        methods = {match[1].encode()} | ({b"HEAD"} if match[1] == "GET" else set())
        if route.websocket and match[1] != "GET":
            return ["a WebSocket handshake is a GET (RFC 6455 §4.1)"]
        clashes = sorted({other.position for other in _overlapping(self._root, segments, 0, methods)})
        self._insert(route, segments, methods)  # even if it clashes, so that later clashes with it are reported in the same run
        return [f'"{route.pattern}" and routes[{other}] "{self.routes[other].pattern}" can match the same request' for other in clashes]

    def _insert(self, route: Route, segments: list[str], methods: set[bytes]) -> None:
        while len(self.routes) <= route.position:
            self.routes.append(route)
        self.routes[route.position] = route
        node, leaf = self._root, "routes"
        for segment in segments:
            if segment.startswith("{") and segment.endswith("...}"):
                leaf = "rest"
            elif segment.startswith("{"):
                child = node.parameter or _Node()
                node.parameter = child
                node = child
            else:
                node = node.literals.setdefault(segment.encode(), _Node())
        leaves = getattr(node, leaf)
        for method in methods:
            leaves.setdefault(method, route)
        if "{" not in route.pattern:
            path = route.pattern.partition(" ")[2].encode()
            self.literal.update({(method, path): route for method in methods})


def _methods(route: Route, table: Mapping[str, "Rule"]) -> dict[str, Route]:
    """A session's methods: those of its table, and the session's own (log-in, log-out, status), which need not be listed.

    A log-in passes once, like a trade: a replayed one would have all permissions of its key.
    """
    dialect = SESSIONS[route.session]
    methods = {
        dialect.log_in: _method(route, dialect.log_in, "any", strict_replay=True),
        dialect.log_out: _method(route, dialect.log_out, "public"),
    }
    for name, rule in table.items():
        methods[name] = method = _method(route, name, rule.scope, rule.weight, strict_replay=rule.strict_replay)
        method.replay_off = rule.replay == "off"
        method.maintenance, method.maintenance_retry_ms = rule.maintenance, rule.maintenance_retry_ms
    if dialect.state:
        methods[dialect.state] = _method(route, dialect.state, "public")
    return methods


def _method(route: Route, name: str, scope: str, weight: int = 1, *, strict_replay: bool = False) -> Route:
    pattern = f"{route.pattern} {name}"
    return Route(route.position, pattern, scope, route.upstream, weight, strict_replay=strict_replay, websocket=False, builtin="")


def _together(methods: list[Route]) -> Route:
    """The rule for a message with several methods: all scopes must be granted, and the weights are added."""
    private = [method for method in methods if method.scope != "public"]
    if not private:
        return methods[0]
    first = private[0]
    rule = Route(
        first.position, first.pattern, first.scope, first.upstream, sum(method.weight for method in private),
        strict_replay=any(method.strict_replay for method in private), websocket=False, builtin="",
    )  # fmt: skip
    rule.further = tuple(method for method in private if method.scope != first.scope)
    return rule


def check_path(path: bytes) -> None:
    """:raises AmbiguousPath: the detail names the ambiguous part"""
    for pattern, what in _AMBIGUITIES:
        if pattern.search(path):
            raise AmbiguousPath(f"the path contains {what}; paths are forwarded exactly as signed and never normalized")


def _unlisted(method: bytes, path: bytes, allowed: set[bytes], suggestion: str) -> NoRoute | MethodNotAllowed:
    if not allowed:
        advice = f"did you mean {suggestion[:200]}?" if suggestion else "see the list of calls in the documentation"
        return NoRoute(f"no route for {path[:200].decode('ascii', 'replace')}; {advice}")
    names = b", ".join(sorted(allowed))
    return MethodNotAllowed(
        f"{method.decode('ascii', 'replace')} is not supported on this path; use {names.decode()}", headers=((b"Allow", names),)
    )


def _walk(node: _Node, segments: list[bytes], depth: int) -> Iterator[dict[bytes, Route]]:
    """Every leaf that matches the path; literal segments before parameters."""
    if depth == len(segments):
        if node.routes:
            yield node.routes
        return
    segment = segments[depth]
    if (literal := node.literals.get(segment)) is not None:
        yield from _walk(literal, segments, depth + 1)
    if node.parameter is not None and segment:
        yield from _walk(node.parameter, segments, depth + 1)
    if node.rest and segment:
        yield node.rest


def _overlapping(node: _Node, segments: list[str], depth: int, methods: set[bytes]) -> Iterator[Route]:
    """Existing routes that could match a request that this pattern matches."""
    if depth == len(segments):
        yield from (route for method, route in node.routes.items() if method in methods)
        return
    segment = segments[depth]
    if segment != "":
        yield from (route for method, route in node.rest.items() if method in methods)
    if segment.startswith("{") and segment.endswith("...}"):
        yield from (route for route in _below(node, methods))
        return
    if segment.startswith("{"):
        for literal, child in node.literals.items():
            if literal:
                yield from _overlapping(child, segments, depth + 1, methods)
    elif (same := node.literals.get(segment.encode())) is not None:
        yield from _overlapping(same, segments, depth + 1, methods)
    if node.parameter is not None and segment:
        yield from _overlapping(node.parameter, segments, depth + 1, methods)


def _below(node: _Node, methods: set[bytes]) -> Iterator[Route]:
    children = [child for literal, child in node.literals.items() if literal] + ([node.parameter] if node.parameter else [])
    for child in children:
        for leaves in (child.routes, child.rest):
            yield from (route for method, route in leaves.items() if method in methods)
        yield from _below(child, methods)
        if (empty := child.literals.get(b"")) is not None:
            yield from (route for method, route in empty.routes.items() if method in methods)


def _check_segments(segments: list[str]) -> str:
    """The error in a pattern's path, or ``""``."""
    if len(segments) > MAX_SEGMENTS:
        return f"a path has at most {MAX_SEGMENTS} segments"
    for position, segment in enumerate(segments):
        last = position == len(segments) - 1
        parameter = _PARAMETER.fullmatch(segment)
        if parameter is not None and parameter[1] and not last:
            return f"{segment} can only be the last segment"
        if parameter is None and not _LITERAL.fullmatch(segment):
            return f'the segment "{segment}" is neither text nor one whole {{name}} or {{name...}}'
        if not segment and not last:
            return "a path has no empty segment"
    try:
        check_path("/".join(["", *(segment if not segment.startswith("{") else "x" for segment in segments)]).encode())
    except AmbiguousPath as error:
        return f"no request could match: {error.detail.partition(';')[0]}"
    return ""
