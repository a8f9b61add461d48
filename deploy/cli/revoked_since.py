"""``gerbang revoked-since``: list, and repeat, the revocations and freezes made since a restored backup, from the streamed audit log."""

import json
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from deploy.cli.operator import Internal, Tell, internal, telling
from deploy.plural import counted
from gateway.runtime import clock, moments

_POINT = re.compile(r"([0-9]{1,18})(?::([0-9a-f]{64}))?")
_ENDED = ("key_revoked", "key_deleted", "key_idle")
_FACTORS = {
    "factor_removed": "factor removed",
    "factors_reset": "factors reset",
    "recovery_codes_renewed": "recovery codes renewed",
}
_KINDS = ("keys", "frozen", "kyc", "factors")


@click.command("revoked-since")
@click.argument("point", metavar="SEQ:HASH|TIME")
@click.option("--audit", "file", required=True, type=click.Path(path_type=Path), help="The file that the setting audit.file names.")
@click.option("--keys", "only", flag_value="keys", help="Print only the ids of keys that ended, for gerbang keys revoke.")
@click.option("--frozen", "only", flag_value="frozen", help="Print only the accounts that were frozen, for gerbang accounts freeze.")
@click.option("--kyc", "only", flag_value="kyc", help="Print only the accounts that lost their verification.")
@click.option("--factors", "only", flag_value="factors", help="Print only the accounts whose second factors or recovery codes ended.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--apply", is_flag=True, help="Repeat all of them through the admin service, each with its original reason.")
@internal
def revoked_since(*, office: Internal, point: str, file: Path, only: str | None, as_json: bool, apply: bool) -> None:
    r"""List what was revoked or frozen after a point in the audit log and, with --apply, revoke and freeze it again.

    In a restored database, keys that ended after the backup exist again; accounts frozen or no longer verified since then are active, and
    removed second factors are valid. POINT is the output of gerbang audit verify for the restored database: the file must contain that
    event with the same hash. It may also be a time not later than the backup.

    --apply revokes the keys, freezes the accounts, revokes their verification, and resets the factors of accounts that removed one, which
    freezes them, too. Run it before a gateway uses the restored database. It can be repeated.

    \b
    Example: gerbang revoked-since 4711:5b94b14d3c596dcb1a687aa0827eda9efa463add8937f58e94555c349f6cf145 --audit audit.jsonl
             gerbang revoked-since 2026-11-24T21:00:00Z --audit audit.jsonl --apply
             gerbang revoked-since 2026-11-24T21:00:00Z --audit audit.jsonl --frozen
    """
    if apply and (only or as_json):
        raise click.UsageError("--apply repeats all of them: do not combine it with --keys, --frozen, --kyc, --factors or --json")
    found = _stopped(_after(_events(file), point))
    if as_json:
        click.echo(json.dumps(found if only is None else found[only], indent=2, ensure_ascii=False))
        return
    accounts = {one["account_id"] for kind in _KINDS[1:] for one in found[kind]}
    with telling() if apply else nullcontext(click.echo) as tell:
        for kind in _KINDS if only is None else (only,):
            for one in found[kind]:
                tell(one[_ID[kind]] if only else f"{_line(kind, one)}  {one['at']}  {one['reason'] or ''}".rstrip())
        tell(f"{counted(len(found['keys']), 'key')} and {counted(len(accounts), 'account')} to stop again", err=True)
        if apply:
            _apply(office, found, tell)


_ID = {"keys": "key_id"} | dict.fromkeys(_KINDS[1:], "account_id")


def _line(kind: str, one: dict[str, Any]) -> str:
    return (
        f"key      {one['key_id']}  {one['account_id']}  {one['event']}"
        if kind == "keys"
        else f"account  {one['account_id']}  {one['state']}"
    )


def _apply(office: Internal, found: dict[str, list[dict[str, Any]]], tell: Tell) -> None:
    """Apply the list, accounts first, since each call stops several keys.

    :raises click.ClickException: something failed; the rest was applied
    """
    failures, gone = [], 0
    for kind in ("frozen", "kyc", "factors", "keys"):
        for one in found[kind]:
            try:
                if kind == "keys":
                    gone += not _revoke(office, one)
                else:
                    _stop(office, kind, one)
            except click.ClickException as error:
                failures.append(f"{_line(kind, one)}: {error.message}")
    if gone:
        tell(f"{gone} of the keys are not in this database: they were created after the backup", err=True)
    if failures:
        raise click.ClickException("not stopped again:\n" + "\n".join(failures))
    tell("all of them are stopped again", err=True)


def _revoke(office: Internal, key: dict[str, Any]) -> bool:
    """Revoke a key. Returns whether it exists in the database."""
    reason = key["reason"] or (f"{key['event'].removeprefix('key_')} before a backup was restored")
    return office.call("POST", f"keys/{quote(key['key_id'], safe='')}/revoke", {"reason": reason}, or_none=True) is not None


def _stop(office: Internal, kind: str, one: dict[str, Any]) -> None:
    """Freeze an account or revoke its verification. An account created after the backup is created again, for its next login."""
    path = f"accounts/{quote(one['account_id'], safe='')}"
    reason = {"reason": one["reason"] or f"{one['state']} before a backup was restored"}
    if kind == "kyc":
        office.call("PUT", path, {"kyc": "revoked"})
        return
    action = f"{path}/{'freeze' if kind == 'frozen' else 'reset-factors'}"
    if office.call("POST", action, reason, or_none=True) is None:
        office.call("PUT", path, {"kyc": "verified"})  # leaves the state to the provider's claim: this only creates the account
        office.call("POST", action, reason)


def _events(file: Path) -> Iterator[dict[str, Any]]:
    """:raises click.ClickException: it cannot be read, is not a streamed audit log, or lacks an event"""
    last = None
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith("\n"):
                    return  # still being written
                event = json.loads(line)
                if last is not None and event["id"] != last + 1:
                    raise click.ClickException(f"{file}, line {number}: event {last + 1} is missing, so the list would be incomplete")
                last = event["id"]
                yield event
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise click.ClickException(f"{file} is not a streamed audit log") from None


def _after(events: Iterator[dict[str, Any]], point: str) -> Iterator[dict[str, Any]]:
    """:raises click.ClickException: the file does not contain the event, or contains it with another hash"""
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
                raise click.ClickException(f"event {seq} has another hash in this file: the backup is from another system")
        elif event["id"] > seq:
            if not seen:
                raise click.ClickException(f"event {seq} is not in this file, which begins later: give the previous file, too")
            yield event
    if not seen:
        raise click.ClickException(f"event {seq} is not in this file, which ends before the backup")


def _stopped(events: Iterator[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Keys that ended, in order; and accounts that are frozen, not verified, or had factors removed, each by its last such event."""
    found = {kind: dict[str, dict[str, Any]]() for kind in _KINDS}
    for event in events:
        name, account = event["event"], event["account_id"]
        common = {"account_id": account, "at": event["at"], "reason": event["detail"].get("reason")}
        if name in _ENDED:
            found["keys"][event["key_id"]] = {"key_id": event["key_id"], "event": name, **common}
        elif name == "account_frozen":
            found["frozen"][account] = {**common, "state": "frozen"}
        elif name == "account_thawed":
            found["frozen"].pop(account, None)
        elif name == "kyc_changed":
            found["kyc"].pop(account, None)
            if (state := event["detail"].get("to")) != "verified":
                found["kyc"][account] = {**common, "state": f"kyc {state}"}
        elif name in _FACTORS:
            found["factors"][account] = {**common, "state": _FACTORS[name]}
    return {kind: list(each.values()) for kind, each in found.items()}
