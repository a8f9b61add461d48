"""Whether the data plane runs compiled (mypyc, as in a wheel) or interpreted."""

from importlib.util import find_spec


def is_compiled() -> bool:
    """Checks where the exchange's module would be imported from, without importing it."""
    spec = find_spec("gateway.server.exchange")
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")
