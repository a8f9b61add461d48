"""The gate's assertion: a JWT (EdDSA) that proves to an upstream that it was the gate that admitted a request, and for whom.

The gate makes it (:mod:`gateway.assertion.sign`, keys from :mod:`gateway.assertion.keys`); an upstream written in Python checks it
with one call of :func:`verify`, or with :func:`require_assertion` as an aiohttp middleware.
"""

from gateway.assertion.keys import KeyRing, SigningKey
from gateway.assertion.sign import Signer
from gateway.assertion.verify import ASSERTED, Asserted, AssertionRefused, require_assertion, verify

__all__ = ["ASSERTED", "Asserted", "AssertionRefused", "KeyRing", "Signer", "SigningKey", "require_assertion", "verify"]
