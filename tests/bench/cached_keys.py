"""Prints by how many MiB a process grows when it holds this many keys ready to verify with. Run by ``memory``."""

import sys
from pathlib import Path

from gateway.admission.principal import Principal
from gateway.keys import ids
from gateway.keys.record import Algorithm, KeyRecord, Scope
from gateway.runtime import clock


def resident() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def principal(number: int) -> Principal:
    record = KeyRecord(
        key_id=ids.new_key_id(),
        account_id=f"account-{number}",
        label="bench",
        scopes=frozenset(Scope),
        algorithm=Algorithm.HMAC_SHA256,
        secret=ids.new_secret(),
        public_key=None,
        ip_allowlist=None,
        created_ms=clock.now_ms(),
        expires_ms=None,
        frozen=False,
    )
    return Principal.of(record)


principal(0)
before = resident()
cache = {one.record.key_id: one for one in map(principal, range(int(sys.argv[1])))}
print(round(resident() - before, 1))
