"""Prints what one match costs in tables of 5 to 5 000 routes: ``python -m tests.bench.routes``."""

import timeit
from collections.abc import Callable
from functools import partial

from gateway.admission.routes import RouteTable
from gateway.config import RouteConfig

PATHS = {"literal": b"/v1/service-%d/orders", "one parameter": b"/v1/service-%d/orders/ORDER-1", "the rest": b"/v1/service-%d/files/a/b/c"}
PATTERNS = ("GET /v1/service-{n}/orders", "GET /v1/service-{n}/orders/{{id}}", "POST /v1/service-{n}/orders",
            "DELETE /v1/service-{n}/orders/{{id}}", "GET /v1/service-{n}/files/{{path...}}")  # fmt: skip


def table(size: int) -> RouteTable:
    """Five routes for each of so many services."""
    routes = [pattern.format(n=number) for number in range(size // len(PATTERNS)) for pattern in PATTERNS]
    return RouteTable.compile([RouteConfig(match=route, scope="read", upstream="spot") for route in routes])


def cost(match: Callable[[], object]) -> float:
    """Microseconds of one match, at the machine's best."""
    return min(timeit.repeat(match, number=2_000, repeat=20)) / 2_000 * 1e6


def main() -> None:
    print(f"{'routes':>8}", *(f"{name:>16}" for name in PATHS), "   (µs for one match)")
    for size in (5, 50, 500, 5_000):
        routes, last = table(size), size // len(PATTERNS) - 1
        print(f"{size:>8}", *(f"{cost(partial(routes.match, b'GET', path % last)):>16.2f}" for path in PATHS.values()))


if __name__ == "__main__":
    main()
