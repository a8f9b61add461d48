"""``gerbang revoked-since``: list revocations to repeat after restoring a backup, from the streamed audit log."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gateway.runtime import clock, moments

_POINT = re.compile(r"([0-9]{1,18})(?::([0-9a-f]{64}))?")
_ENDED = ("key_revoked", "key_deleted")
_STOPPED = {"account_frozen": ("frozen", True), "account_thawed": ("frozen", False)}


@click.command("revoked-since")
@click.argument("point", metavar="SEQ:HASH|TIME")
@click.option("--audit", "file", required=True, type=click.Path(path_type=Path), help="The file that the setting audit.file names.")
@click.option("--keys", "ids_alone", is_flag=True, help="Print nothing but the ids of keys, for gerbang keys revoke.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def revoked_since(point: str, file: Path, ids_alone: bool, as_json: bool) -> None:
    r"""List the keys that were revoked or deleted, and the accounts that were stopped, after a point of the audit.

    A restored database has keys again that ended after the backup. POINT is what gerbang audit verify prints of the restored database: that
    event must be in the file with this very hash, or the backup is of another system. It may also be a time before which the backup was not
    made. Revoke and freeze again what is listed, before a gateway serves from the restored database.

    \b
    Example: gerbang revoked-since 4711:5b94b14d3c596dcb1a687aa0827eda9efa463add8937f58e94555c349f6cf145 --audit audit.jsonl
             gerbang revoked-since 2026-11-24T21:00:00Z --audit audit.jsonl --keys | xargs gerbang keys revoke --reason "restored backup"
    """
    found = _stopped(_after(_events(file), point))
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for key in found["keys"]:
        click.echo(
            key["key_id"]
            if ids_alone
            else f"key      {key['key_id']}  {key['account_id']}  {key['event']}  {key['at']}  {key['reason'] or ''}".rstrip()
        )
    if not ids_alone:
        for account in found["accounts"]:
            click.echo(f"account  {account['account_id']}  {account['state']}  {account['at']}  {account['reason'] or ''}".rstrip())
    click.echo(f"{len(found['keys'])} keys and {len(found['accounts'])} accounts to stop again", err=True)


def _events(file: Path) -> Iterator[dict[str, Any]]:
    """:raises click.ClickException: it cannot be read, or is not a streamed audit, or lacks an event"""
    last = None
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith("\n"):
                    return  # it is being written
                event = json.loads(line)
                if last is not None and event["id"] != last + 1:
                    raise click.ClickException(
                        f"{file}, line {number}: event {last + 1} is missing; it would be missing from the list, too"
                    )
                last = event["id"]
                yield event
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise click.ClickException(f"{file} is not a streamed audit") from None


def _after(events: Iterator[dict[str, Any]], point: str) -> Iterator[dict[str, Any]]:
    """:raises click.ClickException: the event of the point is not in the file, or another one"""
    match = _POINT.fullmatch(point)
    if match is None:
        try:
            since = moments.rfc3339(moments.parse(point, clock.now_ms()))
        except ValueError:
            raise click.UsageError("POINT is SEQ:HASH, as gerbang audit verify prints it, or a time, e.g. 2026-11-24T21:00:00Z") from None
        yield from (event for event in events if event["at"] >= since)
        return
    seq, digest = int(match[1]), match[2]
    seen = seq == 0
    for event in events:
        if event["id"] == seq:
            seen = True
            if digest is not None and event["hash"] != digest:
                raise click.ClickException(f"event {seq} has another hash in this file: the backup is not of the system that streamed it")
        elif event["id"] > seq:
            if not seen:
                raise click.ClickException(f"event {seq} is not in this file, which begins later: give the file before it, too")
            yield event
    if not seen:
        raise click.ClickException(f"event {seq} is not in this file: the backup is younger than its end")


def _stopped(events: Iterator[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Keys that ended, in order; accounts by their last state, if that stops their keys."""
    keys, accounts = [], dict[tuple[str, str], dict[str, Any]]()
    for event in events:
        kind, account = event["event"], event["account_id"]
        told = {"account_id": account, "at": event["at"], "reason": event["detail"].get("reason")}
        if kind in _ENDED:
            keys.append({"key_id": event["key_id"], "event": kind, **told})
        elif kind in _STOPPED:
            state, stopped = _STOPPED[kind]
            accounts.pop((account, state), None)
            if stopped:
                accounts[account, state] = {**told, "state": state}
        elif kind == "kyc_changed":
            accounts.pop((account, "kyc"), None)
            if event["detail"].get("to") != "verified":
                accounts[account, "kyc"] = {**told, "state": f"kyc {event['detail'].get('to')}"}
        elif kind == "factors_reset":
            accounts[account, "factors"] = {**told, "state": "factors reset"}
    return {"keys": keys, "accounts": list(accounts.values())}
