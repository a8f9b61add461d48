"""``gerbang vault``: create key-encryption keys, and re-encrypt secrets."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.plural import counted

if TYPE_CHECKING:
    from gateway.keys.vault import Vault


@click.group()
def vault() -> None:
    """Create key-encryption keys; re-seal every secret with the first key of the ring."""


@vault.command("new-key")
@click.option("--id", "entry_id", help="The key's id in the ring, e.g. the year and month; default: the current time.")
def new_key(entry_id: str | None) -> None:
    r"""Print a new entry for vault.keys. Put it first to seal with it; keep the old keys after it to open what they sealed.

    \b
    Example: gerbang vault new-key --id 2026-11
    """
    from gateway.keys.vault import new_entry
    from gateway.runtime import clock, moments

    if entry_id is None:
        entry_id = moments.rfc3339(clock.now_ms())[:19].replace("T", "_").replace(":", "-")
    try:
        click.echo(new_entry(entry_id))
    except ValueError:
        said = f"{entry_id!r} is not a name for a key: write 1 to 32 letters, digits, '-' or '_', e.g. 2026-11"
        raise click.BadParameter(said, param_hint="'--id'") from None


@vault.command()
@click.option("--dsn", required=True, envvar="GERBANG_DSN", show_envvar=True, help="postgresql://… of the admin service's role.")
@click.option("--keys", required=True, envvar="GERBANG_VAULT_KEYS", show_envvar=True, help="The key ring, or file:PATH.")
def reseal(dsn: str, keys: str) -> None:
    r"""Re-seal every stored secret with the first key of the ring. Afterwards the other keys can be removed from it.

    \b
    Example: GERBANG_VAULT_KEYS=file:/etc/gerbang/vault gerbang vault reseal --dsn postgresql://gerbang_admin@db.internal/gerbang
    """
    import asyncio

    from gateway.keys.vault import Vault

    unreadable = asyncio.run(_reseal(dsn, Vault.parse(_content(keys))))
    if unreadable:
        raise click.ClickException(f"no key of the ring opens the secrets of: {', '.join(unreadable)}; these were left unchanged")


async def _reseal(dsn: str, ring: "Vault") -> list[str]:
    """Re-seal keys' secrets and second factors. Returns the ids of those that do not open."""
    from admin.stepup import factors
    from deploy.cli.database import connected
    from gateway.keys.reseal import reseal as reseal_secrets

    async with connected(dsn) as connection:
        secrets = await reseal_secrets(connection, ring)
        others = await factors.reseal(connection, ring)
    click.echo(f"re-encrypted: {counted(secrets.done, 'key secret')}, {counted(others.done, 'second factor')}")
    return secrets.unreadable + others.unreadable


def _content(value: str) -> str:
    if not value.startswith("file:"):
        return value
    try:
        return Path(value[5:]).read_text(encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{value[5:]} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{value[5:]} is not UTF-8 text") from None
