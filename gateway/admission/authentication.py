"""Authenticates a request: finds its dialect and its key, and verifies the signature.

Nothing here awaits: a key that is not in memory raises :class:`KeyNeeded`. An unknown key and a wrong signature get the same answer after
the same work. From an address with too many failures, only requests that name an existing key are verified.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from gateway.admission.dialects import Credentials, Dialect, Mistake, by_field
from gateway.admission.dialects.base import invalid
from gateway.admission.hints import Hints
from gateway.admission.outcome import KeyNeeded
from gateway.admission.principal import Principal, pretend_to_verify
from gateway.admission.services import Services
from gateway.admission.sessions import Message
from gateway.errors import AmbiguousCredentials, InternalError, InvalidCredentials, MissingCredentials, Refusal
from gateway.http1.memo import remember
from gateway.http1.message import Inbound, Request
from gateway.http1.shape import Shape
from gateway.keys.cache import ABSENT
from gateway.keys.ids import is_key_id
from gateway.net.client_ip import ClientIpRule

if TYPE_CHECKING:
    from gateway.admission.failures import FailureLimiter
    from gateway.config.settings import GatewaySettings
    from gateway.keys.lookup import KeyLookup

_SHAPES: Final = 256


class Authentication:
    """Authentication per one configuration version."""

    __slots__ = (
        "_auth", "_client_ip", "_dialect_of", "_failure_rate", "_failures", "_hints", "_lookup", "_max_clock_window_ms",
        "_of_shape",
    )  # fmt: skip

    def __init__(self, settings: "GatewaySettings", services: Services, client_ip: ClientIpRule) -> None:
        self._auth = settings.auth
        self._max_clock_window_ms = settings.auth.max_clock_window_ms
        self._client_ip = client_ip
        self._lookup: KeyLookup[Principal] = services.lookup
        self._failures: FailureLimiter = services.failures
        self._failure_rate = settings.limits.per_ip_failures
        self._hints = Hints()
        self._dialect_of = by_field(settings.auth.dialects)
        self._of_shape: dict[Shape, tuple[Dialect, list[int]]] = {}
        """For header sections seen before: the dialect, and the positions of its fields."""

    # -- what a request claims

    def dialect(self, request: Request) -> tuple[Dialect, dict[bytes, bytes]]:
        """The dialect of a request, and its credential fields.

        :raises MissingCredentials: it matches no dialect
        :raises AmbiguousCredentials: it matches two, or a credential field is repeated
        """
        shape = request.shape
        if shape is not None:
            known = self._of_shape.get(shape)
            if known is not None:
                fields: dict[bytes, bytes] = {}
                headers = request.headers
                for place in known[1]:
                    name, value = headers[place]
                    fields[name] = value
                return known[0], fields
        dialect_of = self._dialect_of
        fields = {}
        dialect: Dialect | None = None
        for name, value in request.headers:
            if name in dialect_of:
                if name in fields:
                    raise AmbiguousCredentials(f"the header field {name.decode()} is repeated")
                fields[name] = value
                if dialect is None:
                    dialect = dialect_of[name]
                elif dialect is not dialect_of[name]:
                    raise AmbiguousCredentials(
                        f"the request is signed in two dialects, {dialect.name} and {dialect_of[name].name}; use one"
                    )
        if dialect is None:
            raise self._unsigned(request)
        if shape is not None:
            places = [index for index, (name, _) in enumerate(request.headers) if name in fields]
            remember(self._of_shape, shape, (dialect, places), _SHAPES)
        return dialect, fields

    def _unsigned(self, request: Request) -> MissingCredentials:
        names = self._auth.dialects
        advice = "sign the request with an API key"
        if "binance" in names and b"signature=" in (request.query or b""):
            advice = "the parameter signature was sent without the header field X-MBX-APIKEY, which carries the key id"
        return MissingCredentials(f"{advice}; supported dialects: {', '.join(names)}")

    def dialects(self, inbound: Inbound) -> list[str]:
        """The dialects that a request may use; a message may only use its session's."""
        return [inbound.dialect.name] if isinstance(inbound, Message) else list(self._auth.dialects)

    def read(self, inbound: Inbound) -> Credentials | None:
        """The credentials of a request or message; ``None`` for a message that relies on its session's log-in.

        :raises Refusal: the credentials are missing, ambiguous or malformed
        """
        if isinstance(inbound, Request):
            dialect, fields = self.dialect(inbound)
            return dialect.read(self._client_ip.as_sent(inbound) if dialect.signs_uri else inbound, fields)
        if isinstance(inbound, Message):
            return inbound.dialect.credentials(inbound, self._max_clock_window_ms)
        raise InternalError("neither a request nor a message")

    def claimed_id(self, read: str, inbound: Inbound) -> str | None:
        """The key id that a request claims: as the dialect read it or, if it was refused before that, from a credential field.
        A message without credentials claims the key that its session has logged in with.

        Only a well-formed key id is returned: anything else may be a misplaced secret.
        """
        if is_key_id(read):
            return read
        if isinstance(inbound, Message):
            return inbound.key_id if is_key_id(inbound.key_id) else None
        values = [value.decode("latin-1") for name, value in request_of(inbound).headers if name in self._dialect_of]
        return next((value for value in values if is_key_id(value)), None)

    # -- addresses with too many failures

    def may_name_known_key(self, inbound: Inbound, address: str, now_ms: int) -> bool:
        """Whether a request or message names a key that exists or may still be looked up, or needs none: the first check of what a
        throttled address sends.

        :raises Refusal: the credentials are missing or ambiguous, or those of a message malformed
        """
        if isinstance(inbound, Message):
            credentials = self.read(inbound)
            return credentials is None or self.may_be_known([credentials.key_id], address, now_ms)
        dialect, fields = self.dialect(request_of(inbound))
        return self.may_be_known(dialect.named(fields), address, now_ms)

    def may_be_known(self, named: list[str], address: str, now_ms: int) -> bool:
        """Whether one of these key ids exists, or may still be looked up."""
        for key_id in named:
            found = self._lookup.peek(key_id, now_ms)
            if found is not None:
                if found is not ABSENT:
                    return True
            elif is_key_id(key_id) and self._failures.may_look_up(address, self._failure_rate, now_ms):
                return True
        return False

    # -- the key, and its signature

    def known(self, key_id: str, now_ms: int) -> Principal | None:
        """The key, if it exists. A malformed id is rejected without a look-up.

        :raises KeyNeeded: it must be fetched first
        """
        found = self._lookup.peek(key_id, now_ms)
        if found is None:
            if is_key_id(key_id):
                raise KeyNeeded(key_id)
            return None
        return None if found is ABSENT else found

    def signer(self, credentials: Credentials, now_ms: int, otherwise: Refusal | None = None) -> Principal | None:
        """The key that signed it; ``None`` for an unknown key and for a wrong signature, after the same work.

        :param otherwise: see :attr:`KeyNeeded.otherwise`
        :raises KeyNeeded: the key must be fetched first
        """
        found = self._lookup.peek(credentials.key_id, now_ms)
        if found is None and is_key_id(credentials.key_id):
            raise KeyNeeded(credentials.key_id, otherwise=otherwise)
        principal = None if found is None or found is ABSENT else found
        if principal is not None and not credentials.algorithm and not credentials.pss:  # true of most dialects; see verifies
            return principal if principal.verify(credentials.signed, credentials.signature) else None
        return principal if self.verifies(principal, credentials) else None

    def knows(self, principal: Principal, now_ms: int) -> bool:
        """Whether memory still holds the same record of its key as when it was found."""
        return self._lookup.peek(principal.key_id, now_ms) is principal

    def logged_in(self, inbound: Inbound, now_ms: int) -> Principal:
        """The key that a session has logged in with, looked up again.

        :raises MissingCredentials: it has not
        :raises InvalidCredentials: the key no longer exists
        """
        key_id = inbound.key_id if isinstance(inbound, Message) else ""
        if not key_id:
            raise MissingCredentials(inbound.dialect.log_in_first if isinstance(inbound, Message) else "log in with an API key first")
        principal = self.known(key_id, now_ms)
        if principal is None:
            raise InvalidCredentials("the key that this session logged in with no longer exists", reason="deleted key")
        return principal

    def verifies(self, principal: Principal | None, credentials: Credentials) -> bool:
        """Whether the signature verifies under the key, by the key's own algorithm. As slow without a key as for a wrong signature."""
        if principal is not None and (not credentials.algorithm or credentials.algorithm == principal.algorithm):
            verify = principal.verify_pss if credentials.pss else principal.verify
            if verify is not None:
                return verify(credentials.signed, credentials.signature)
        return pretend_to_verify(credentials.signed, credentials.signature)

    def explained(self, principal: Principal | None, credentials: Credentials, inbound: Inbound, now_ms: int) -> Refusal:
        """The refusal of an unknown key or a wrong signature: same work and same answer, unless a hint proves that the caller holds
        the secret.
        """
        hint = self._hints.find(self._mistakes(inbound, credentials), credentials=credentials, principal=principal, now_ms=now_ms)
        refusal = invalid(
            hint or "unknown key, or the signature does not match: compare string_to_sign with what you signed",
            credentials.signed,
            reason="wrong signature" if principal is not None else "unknown key",
        )
        if hint:
            refusal.extras = {**refusal.extras, "hint": hint}
        return refusal

    def _mistakes(self, inbound: Inbound, credentials: Credentials) -> Iterator[Mistake]:
        """Mistakes that the sender may have made."""
        if isinstance(inbound, Message):
            return inbound.dialect.mistakes(inbound, credentials)
        request = request_of(inbound)
        dialect, fields = self.dialect(request)
        return dialect.mistakes(self._client_ip.as_sent(request) if dialect.signs_uri else request, fields, credentials)


def request_of(inbound: Inbound) -> Request:
    """The request itself; for a message, the request that opened its session."""
    if isinstance(inbound, Message):
        return inbound.client
    if isinstance(inbound, Request):
        return inbound
    raise InternalError("neither a request nor a message")
