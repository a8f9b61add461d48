"""Browser sessions: an opaque cookie, a sealed record in Redis, idle and absolute lifetimes.

Contains sessions; not logins in progress (``attempts``), authorization (``identity`` and ``lifecycle``) or HTML.

``aiohttp-session`` is not used: each write restarts its lifetime, so there is no absolute limit; an
id cannot be changed and the old record is not deleted; and the cookie's value is the Redis key, so that anyone who can read
Redis has every session. Here Redis stores a hash of the cookie and a sealed record (``architecture.md``, decision 3).
"""

import hashlib
import re
import secrets
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter
from redis.asyncio import Redis

from admin.identity.caller import Caller
from gateway.keys.redis_client import translated
from gateway.keys.vault import SealBroken, Vault

_TOUCH_MS = 30_000  # the time of last use is written at most this often

_MAX_KEPT, _MAX_LISTED = 200, 50
"""Sessions in an account's list, and how many of them are shown; sessions beyond the list are ended with the others, too."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A logged-in browser. Immutable: changes go through the store."""

    caller: Caller
    """Who logged in, per the provider at that login. ``session_id`` stays when the cookie is rotated."""
    csrf_token: str
    created_ms: int
    seen_ms: int
    client_ip: str | None = None
    """The client IP of the login, for its holder to recognize."""
    device: str = ""
    """Browser and system of that login (:mod:`admin.identity.devices`)."""


_RECORD = TypeAdapter(Session)


class SessionStore:
    """Sessions in Redis.

    :param idle_ms: how long a session may be unused
    :param absolute_ms: maximum lifetime of a session after its login

    Every method raises ``StoreUnavailable`` when Redis cannot answer.
    """

    def __init__(self, redis: "Redis", vault: Vault, *, idle_ms: int, absolute_ms: int) -> None:
        self._redis = redis
        self._vault = vault
        self._idle_ms = idle_ms
        self._absolute_ms = absolute_ms

    async def open(self, caller: Caller, now_ms: int, *, client_ip: str | None = None, device: str = "") -> tuple[str, Session]:
        """Create a session. Returns its cookie value (43 characters, 256 random bits) and the session."""
        caller = replace(caller, session_id=secrets.token_urlsafe(16), token_id="")
        session = Session(caller=caller, csrf_token=new_token(), created_ms=now_ms, seen_ms=now_ms, client_ip=client_ip, device=device)
        token = new_token()
        await self._write(token, session, now_ms)
        await self._add_to_list(token, session, now_ms)
        return token, session

    async def of_account(self, account_id: str, now_ms: int) -> list[Session]:
        """The account's sessions, latest first, as listed in Redis: for display only."""
        names = [
            _text(name) for name in await self._command(("ZREVRANGEBYSCORE", _index(account_id), "+inf", now_ms, "LIMIT", 0, _MAX_LISTED))
        ]
        sealed = await self._pipeline([("GET", f"gerbang:session:{name}") for name in names])
        found = [self._unseal(each, name) for name, each in zip(names, sealed, strict=True)]
        live = [session for session in found if session is not None and session.caller.account_id == account_id]
        return sorted((each for each in live if self._remaining_ms(each, now_ms) > 0), key=lambda each: -each.seen_ms)

    async def find(self, token: str, now_ms: int) -> Session | None:
        """The valid session of a cookie; ``None`` if it is malformed, unknown, tampered with or expired."""
        if not _TOKEN.fullmatch(token):
            return None
        session = self._unseal(await self._get(_key(token)), digest(token))
        if session is None or self._remaining_ms(session, now_ms) <= 0:
            return None
        if now_ms - session.seen_ms >= _TOUCH_MS:
            session = replace(session, seen_ms=now_ms)
            # XX: a session that was closed or rotated in the meantime must not come back
            await self._write(token, session, now_ms, only_existing=True)
        return session

    async def rotate(self, token: str, session: Session, now_ms: int) -> str | None:
        """Give the session a new cookie value and invalidate the old one. Call it after each proof of presence.

        :returns: ``None`` if it was closed or rotated in the meantime, by another request of the same browser: it must not come back
        """
        fresh = new_token()
        session = replace(session, seen_ms=now_ms)
        await self._write(fresh, session, now_ms)
        if not await self.close(token):
            await self.close(fresh)
            return None
        await self._add_to_list(fresh, session, now_ms)
        return fresh

    async def keep(self, token: str, session: Session, now_ms: int) -> str | None:
        """The same for the session that is kept when the account's other logins are ended."""
        return await self.rotate(token, replace(session, caller=replace(session.caller, renewed_ms=now_ms + 1)), now_ms)

    async def close(self, token: str) -> bool:
        """End the session of a cookie. Returns whether there was one."""
        with translated():
            return bool(await self._redis.delete(_key(token)))

    async def _add_to_list(self, token: str, session: Session, now_ms: int) -> None:
        """Add it to its account's list, and remove expired sessions. Closed ones are detected when the list is read."""
        index, end_ms = _index(session.caller.account_id), session.created_ms + self._absolute_ms
        await self._pipeline([
            ("ZREMRANGEBYSCORE", index, "-inf", now_ms),
            ("ZADD", index, end_ms, digest(token)),
            ("ZREMRANGEBYRANK", index, 0, -_MAX_KEPT - 1),
            ("PEXPIRE", index, self._absolute_ms),
        ])  # fmt: skip

    async def _command(self, command: tuple[Any, ...]) -> Any:
        with translated():
            return await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]

    async def _pipeline(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = await pipeline.execute() if commands else []
        return answers

    async def _get(self, key: str) -> Any:
        with translated():
            return await self._redis.get(key)

    async def _write(self, token: str, session: Session, now_ms: int, *, only_existing: bool = False) -> None:
        remaining_ms = self._remaining_ms(session, now_ms)
        if remaining_ms <= 0:
            return
        with translated():
            await self._redis.set(_key(token), self._seal(session, digest(token)), px=remaining_ms, xx=only_existing)

    def _remaining_ms(self, session: Session, now_ms: int) -> int:
        return min(session.seen_ms + self._idle_ms, session.created_ms + self._absolute_ms) - now_ms

    def _seal(self, session: Session, name: str) -> bytes:
        return self._vault.seal(_RECORD.dump_json(session), context=f"Session:{name}")

    def _unseal(self, sealed: object, name: str) -> Session | None:
        if not isinstance(sealed, bytes):
            return None
        try:
            return _RECORD.validate_json(self._vault.open(sealed, context=f"Session:{name}"))
        except (SealBroken, ValueError):
            # Written by someone else, or by a version of this service with other fields: not accepted.
            return None


def new_token() -> str:
    """256 random bits as 43 URL-safe characters: cookie values, ``state``, ``nonce``, PKCE verifiers (RFC 7636 §4.1)."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """The hash that is stored in place of a secret value."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()  # a cookie may hold any bytes


def _index(account_id: str) -> str:
    """Sorted set of one account: digest of a session's cookie → when the session is over at the latest, Unix ms."""
    return f"gerbang:sessions:{digest(account_id)}"


def _text(value: bytes | str) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


def _key(token: str) -> str:
    return f"gerbang:session:{digest(token)}"
