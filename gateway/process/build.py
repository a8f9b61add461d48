"""Whether the data plane runs compiled (mypyc, as in a wheel) or interpreted."""

from importlib.util import find_spec


def is_compiled() -> bool:
    """Looks where the module of the exchange would be imported from; imports nothing of it."""
    spec = find_spec("gateway.server.exchange")
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")
