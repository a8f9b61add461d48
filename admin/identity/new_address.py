"""Detects logins from an address that the account has not used before."""

from admin import outbox
from admin.audit import Event, Provenance
from admin.identity import accounts
from admin.outbox import Notice, Topic
from gateway.keys.postgres import Connection, translated
from gateway.net.addresses import customer_network


async def note_login(connection: Connection, account_id: str, provenance: Provenance) -> None:
    """Notify the account's holder of a login from a network new to the account, except for the first login.

    Call it in the transaction of the login's audit entry, before that entry.
    """
    if provenance.client_ip is None:
        return
    await accounts.lock(connection, account_id)
    with translated():
        rows = await connection.fetch(_ADDRESSES, account_id, Event.LOGIN.value)
    known = {customer_network(row["client_ip"]) for row in rows}
    if known and customer_network(provenance.client_ip) not in known:
        detail = {"client_ip": provenance.client_ip}
        await outbox.add(connection, Notice(topic=Topic.LOGIN_NEW_ADDRESS, account_id=account_id, at_ms=provenance.now_ms, detail=detail))


_ADDRESSES = "SELECT DISTINCT client_ip FROM audit_events WHERE account_id = $1 AND event = $2 AND client_ip IS NOT NULL"
