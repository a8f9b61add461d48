"""The gate's assertion as a test makes it, for whoever stands behind the gate."""

from gateway.assertion import Signer, SigningKey
from gateway.http1.message import Identity
from gateway.runtime import clock

KEY = SigningKey.new(0)


def assertion(account="budi", *, audience="spot", key=KEY, issuer="gerbang"):
    """The header with which a request of this account reaches an upstream; ``None``: a public route's."""
    identity = Identity(account, "gbk_test", ("read", "trade")) if account else None
    token = Signer(key, issuer=issuer, ttl_ms=60_000).assertion(identity, audience, clock.now_ms())
    return {"X-Gateway-Assertion": token.decode()}


def admitted(account="budi", **how):
    """What the gate adds for this account: ``headers`` of a request, and ``member``, the first one of a session's message."""
    headers = assertion(account, **how)
    names = {"account_id": account, "key_id": "gbk_test", "scopes": ["read", "trade"]} if account else {}
    proof = {"assertion": headers["X-Gateway-Assertion"]} if account else {}
    return {"headers": headers, "member": proof | names | {"client_ip": "127.0.0.1", "request_id": "r"}}
