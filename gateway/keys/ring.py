"""Start-up check that the configured key-encryption keys open what is stored."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import asyncpg

from gateway.errors import ConfigError, ConfigProblem, StoreUnavailable
from gateway.keys import postgres, sql
from gateway.keys.vault import SealBroken, Vault

SAMPLE = 5
"""Number of secrets opened at start-up. If one does not open, only its key is affected; if none does, the key ring is wrong."""


class Source(Protocol):
    """A connection or a pool."""

    async def fetch(self, query: str, *args: Any) -> list[Any]: ...


@contextmanager
def migrated() -> Iterator[None]:
    """:raises StoreUnavailable: PostgreSQL did not answer, was not migrated, or does not let this role read keys"""
    try:
        with postgres.translated():
            yield
    except asyncpg.UndefinedTableError:
        raise StoreUnavailable("tables are missing from the database: run `gerbang migrate`") from None
    except asyncpg.InsufficientPrivilegeError:
        raise StoreUnavailable("the role may not read the keys: it must be a member of gerbang_gateway or gerbang_admin") from None


async def check(source: Source, vault: Vault) -> None:
    """Try the ring on some keys' secrets. Without any, every ring passes.

    :raises ConfigError: the ring opens none of them
    :raises StoreUnavailable: see :func:`migrated`
    """
    with migrated():
        rows = await source.fetch(sql.SEALED_AFTER, "", SAMPLE)
    check_opens(vault, [(row["sealed_secret"], row["id"]) for row in rows], "stored secrets")


def check_opens(vault: Vault, sealed: Collection[tuple[bytes, str]], what: str) -> None:
    """:param sealed: sealed values, each with its context

    :raises ConfigError: none of them opens
    """
    broken = []
    for seal, context in sealed:
        try:
            vault.open(seal, context=context)
        except SealBroken as error:
            broken.append(str(error))
    if broken and len(broken) == len(sealed):
        raise ConfigError([ConfigProblem("vault.keys", f"opens none of the {what}: {broken[0]}")])
