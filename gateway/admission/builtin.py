"""Endpoints that the gateway answers itself: server time, the client's IP address, and the caller's own key. Pure."""

from ipaddress import ip_address

from gateway.admission.answers import document
from gateway.admission.principal import Principal
from gateway.config.values import Rate
from gateway.errors import MalformedRequest
from gateway.http1.message import Answer
from gateway.net.client_ip import ClientAddress
from gateway.runtime.gcra import Charge, whole_in_ms
from gateway.runtime.moments import rfc3339


def time(now_ms: int) -> Answer:
    """``GET /gateway/v1/time``: the gate's time, to synchronize a clock."""
    return document({"server_time_ms": now_ms, "server_time": rfc3339(now_ms)})


def address(client: ClientAddress) -> Answer:
    """``GET /gateway/v1/ip``: the client IP as the gate sees it, for an IP allowlist.

    :raises MalformedRequest: a trusted proxy's header cannot be read
    """
    if not client.address:
        raise MalformedRequest(f"your IP address could not be determined: {client.problem}")
    return document({"client_ip": client.address, "family": f"ipv{ip_address(client.address).version}"})


def key(principal: Principal, per_key: Rate, per_account: Rate | None, charge: Charge, account: Charge | None) -> Answer:
    """``GET /gateway/v1/key``: the caller's own key.

    :param charge: the state of the key's limit
    :param account: the state of the account's limit; ``None``: it has none
    """
    record = principal.record
    return document(
        {
            "key_id": record.key_id,
            "label": record.label,
            "scopes": list(principal.identity.scopes),
            "algorithm": record.algorithm.value,
            "ip_access": "unrestricted" if record.ip_allowlist is None else "whitelisted",
            "ip_allowlist": [str(allowed) for allowed in record.ip_allowlist or ()],
            "created_at": rfc3339(record.created_ms),
            "expires_at": None if record.expires_ms is None else rfc3339(record.expires_ms),
            "limits": {
                "tier": record.tier,
                "per_key": str(per_key),
                **_standing(per_key, charge),
                "per_account": None if per_account is None else str(per_account),
                "account": None if per_account is None or account is None else _standing(per_account, account),
            },
        }
    )


def _standing(rate: Rate, charge: Charge) -> dict[str, int]:
    return {"limit": rate.units, "period_ms": rate.period_ms, "remaining": charge.remaining, "reset_ms": round(whole_in_ms(charge, rate))}
