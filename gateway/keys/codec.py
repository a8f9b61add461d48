"""Serializes a key record to the sealed bytes stored in Redis. Pure: no I/O, no clock.

The seal covers the record, the position in the change feed at which it was true, when it was read, and for how long it may be used.
Write access to Redis therefore does not allow reading a secret, widening a scope, moving a record to another key (the key id is
authenticated), or replaying an old record where its change is known or beyond its original validity.

The plaintext is versioned JSON.
"""

import base64
import json
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

from gateway.errors import GerbangError
from gateway.keys.record import Algorithm, KeyRecord, Scope
from gateway.keys.secret import Secret
from gateway.keys.snapshot import Snapshot, parse_snapshot
from gateway.keys.vault import SealBroken, Vault

_VERSION = 2


class RecordUnreadable(GerbangError):
    """A stored record that cannot be used. Refuses that key only; the message says why, without any of its secrets."""


class DatedRecord(NamedTuple):
    """A record, the feed position at which it was true, and how long it may be used."""

    record: KeyRecord
    read_ms: int
    """Unix milliseconds of the gateway that read it, taken before the query."""
    ttl_ms: int
    position: Snapshot
    """Every change visible to this snapshot is in the record."""
    server: int
    """Identifies the PostgreSQL server and its start that the snapshot is from."""


def seal_record(dated: DatedRecord, vault: Vault) -> bytes:
    """The bytes to put into Redis under the record's own key id."""
    return vault.seal(encode(dated), context=_context(dated.record.key_id))


def open_record(sealed: bytes, vault: Vault, *, expected_key_id: str) -> DatedRecord:
    """Undo :func:`seal_record`.

    :raises RecordUnreadable: damaged, sealed for another key id, by an unknown vault key, or not a record
    """
    try:
        dated = decode(vault.open(sealed, context=_context(expected_key_id)))
    except SealBroken as error:
        raise RecordUnreadable(str(error)) from None
    if dated.record.key_id != expected_key_id:
        raise RecordUnreadable("a record of another key")
    return dated


def encode(dated: DatedRecord) -> bytes:
    """The plaintext of a record; holds the secret, so it is only ever sealed."""
    record = dated.record
    members: dict[str, Any] = {
        "v": _VERSION,
        "read_ms": dated.read_ms,
        "ttl_ms": dated.ttl_ms,
        "position": dated.position.text,
        "server": dated.server,
        "key_id": record.key_id,
        "account_id": record.account_id,
        "label": record.label,
        "scopes": sorted(record.scopes),
        "algorithm": record.algorithm,
        "secret": None if record.secret is None else _to_base64(record.secret.reveal()),
        "public_key": None if record.public_key is None else _to_base64(record.public_key),
        "ip_allowlist": None if record.ip_allowlist is None else [str(address) for address in record.ip_allowlist],
        "created_ms": record.created_ms,
        "expires_ms": record.expires_ms,
        "frozen": record.frozen,
        "tier": record.tier,
    }
    return json.dumps(members, separators=(",", ":")).encode()


def decode(plaintext: bytes) -> DatedRecord:
    """Undo :func:`encode`.

    :raises RecordUnreadable: not JSON, another version, a member missing or of the wrong type
    """
    try:
        members = json.loads(plaintext)
        if not isinstance(members, dict) or members.get("v") != _VERSION:
            raise RecordUnreadable("not a record of a known version")
        read_ms, ttl_ms, server = (_typed(members, name, int) for name in ("read_ms", "ttl_ms", "server"))
        return DatedRecord(_record(members), read_ms, ttl_ms, parse_snapshot(_typed(members, "position", str)), server)
    except (ValueError, KeyError, TypeError, RecursionError):
        # Without the cause: a JSON error holds the whole document, secret included.
        raise RecordUnreadable("not a record: a member is missing or malformed") from None


def _record(members: dict[str, Any]) -> KeyRecord:
    addresses = _optional(members, "ip_allowlist", list)
    return KeyRecord(
        key_id=_typed(members, "key_id", str),
        account_id=_typed(members, "account_id", str),
        label=_typed(members, "label", str),
        scopes=frozenset(map(Scope, _typed(members, "scopes", list))),
        algorithm=Algorithm(members["algorithm"]),
        secret=None if members["secret"] is None else Secret(_from_base64(members["secret"])),
        public_key=None if members["public_key"] is None else _from_base64(members["public_key"]),
        ip_allowlist=None if addresses is None else tuple(map(_address, addresses)),
        created_ms=_typed(members, "created_ms", int),
        expires_ms=_optional(members, "expires_ms", int),
        frozen=_typed(members, "frozen", bool),
        tier=_optional(members, "tier", str),
    )


def _typed(members: dict[str, Any], name: str, kind: type) -> Any:
    value = members[name]
    if type(value) is not kind:  # exactly: True is not a number here
        raise TypeError(name)
    return value


def _optional(members: dict[str, Any], name: str, kind: type) -> Any:
    return None if members[name] is None else _typed(members, name, kind)


def _address(text: object) -> IPv4Address | IPv6Address:
    if not isinstance(text, str):  # ip_address would take a number too
        raise TypeError("ip_allowlist")
    return ip_address(text)


def _to_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _context(key_id: str) -> str:
    # Distinct from the context of the secret in the database (the bare key id), so that neither can replace the other.
    return f"record:{key_id}"
