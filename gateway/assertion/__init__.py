"""The gateway assertion: a short-lived JWT (EdDSA) by which an upstream verifies who a request is from.

The gate signs it (:mod:`gateway.assertion.sign`, keys from :mod:`gateway.assertion.keys`); an upstream written in Python verifies it
with one call of :func:`verify`, or with :func:`require_assertion` as an aiohttp middleware.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from gateway.assertion.keys import KeyRing, SigningKey
from gateway.assertion.sign import Signer

if TYPE_CHECKING:
    from gateway.assertion.verifier import ASSERTED, Asserted, AssertionRefused, require_assertion, verify

__all__ = ["ASSERTED", "Asserted", "AssertionRefused", "KeyRing", "Signer", "SigningKey", "require_assertion", "verify"]


def __getattr__(name: str) -> object:
    """Import the verifier on first use: a worker needs neither it nor aiohttp's client."""
    if name in __all__:
        return getattr(import_module("gateway.assertion.verifier"), name)
    raise AttributeError(name)
