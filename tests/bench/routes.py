"""Prints what one match costs in tables of 5 to 5 000 routes: ``python -m tests.bench.routes``."""

import timeit
from functools import partial

from gateway.admission.routes import RouteTable
from gateway.config.settings import RouteConfig

PATHS = {"literal": b"/v1/service-%d/orders", "one parameter": b"/v1/service-%d/orders/ORDER-1", "the rest": b"/v1/service-%d/files/a/b/c"}
PATTERNS = ("GET /v1/service-{n}/orders", "GET /v1/service-{n}/orders/{{id}}", "POST /v1/service-{n}/orders",
            "DELETE /v1/service-{n}/orders/{{id}}", "GET /v1/service-{n}/files/{{path...}}")  # fmt: skip


def table(size: int) -> RouteTable:
    """Five routes for each of so many services."""
    routes = [pattern.format(n=number) for number in range(size // len(PATTERNS)) for pattern in PATTERNS]
    return RouteTable.compile([RouteConfig(match=route, scope="read", upstream="spot") for route in routes])


def main() -> None:
    """The sizes take turns, so that they meet the same machine; each keeps its best."""
    sizes, best = (5, 50, 500, 5_000), {}
    matches = {
        (size, name): partial(routes.match, b"GET", path % (size // len(PATTERNS) - 1))
        for size, routes in zip(sizes, map(table, sizes), strict=True)
        for name, path in PATHS.items()
    }
    for _ in range(200):
        for key, match in matches.items():
            best[key] = min(timeit.timeit(match, number=200) / 200 * 1e6, best.get(key, 1e6))
    print(f"{'routes':>8}", *(f"{name:>16}" for name in PATHS), "   (µs for one match)")
    for size in sizes:
        print(f"{size:>8}", *(f"{best[size, name]:>16.2f}" for name in PATHS))


if __name__ == "__main__":
    main()
