"""Request and response models of the internal API."""

from collections.abc import Mapping
from dataclasses import fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, field_validator, model_validator

from admin.api.answers import AccountState, Answer, FactorView, Key, Time
from admin.api.bodies import Body
from admin.audit import Event, EventFilters, OfficeEvent
from admin.identity.accounts import Account
from admin.labels import clean_label
from admin.lifecycle.operations import RefusedRequest
from admin.lifecycle.service import KeyView
from admin.search import Filters, FoundAccount, Page
from admin.stepup.factors import Factor
from gateway.runtime import clock, moments
from gateway.runtime.moments import rfc3339


def _moment(value: object) -> object:
    return moments.parse(value, clock.now_ms()) if isinstance(value, str) else value


def _network(value: object) -> IPv4Network | IPv6Network:
    try:
        return ip_network(str(value), strict=False)
    except ValueError:
        raise ValueError('Write an address or a network, e.g. "203.0.113.7" or "2001:db8::/32".') from None


Moment = Annotated[int, BeforeValidator(_moment, json_schema_input_type=str), Field(ge=0, le=253_402_300_799_999)]
"""Unix milliseconds up to the end of the year 9999, written as RFC 3339, a date, or a time ago."""
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(_network, json_schema_input_type=str), PlainSerializer(str)]
Text = Annotated[str, Field(min_length=1, max_length=320)]
AnyId = Annotated[str, Field(pattern=r"^[!-~]{1,255}$")]
FiltersT = TypeVar("FiltersT", Filters, EventFilters)


class Decision(Body):
    """The back office's decision on an account; omitted members are unchanged."""

    kyc: Literal["verified", "revoked"] | None = None
    tier: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Whose limits apply; null: no tier.")] = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.kyc is None and "tier" not in self.model_fields_set:
            raise ValueError("Send kyc, tier or both.")
        return self


class OptionalReason(Body):
    """A reversible action, which may be urgent, and so needs no reason."""

    reason: Annotated[str | None, Field(min_length=1, max_length=500, description="Kept in the audit; operators alone see it.")] = None

    @field_validator("reason")
    @classmethod
    def _readable(cls, reason: str | None) -> str | None:
        cleaned = None if reason is None else clean_label(reason)
        if cleaned is not None and (not cleaned or not cleaned.isprintable()):
            raise ValueError("Give a reason, in printable characters.")
        return cleaned


class RequiredReason(OptionalReason):
    """An irreversible action, which requires a reason."""

    reason: Annotated[str, Field(min_length=1, max_length=500, description="Shown to the account's holder.")]


class Filtered(Body):
    """The filters of every search. All given ones must match; text matches a part, case-insensitively."""

    account: AnyId | None = None
    email: Text | None = None
    since_ms: Annotated[Moment | None, Field(alias="since")] = None
    until_ms: Annotated[Moment | None, Field(alias="until", description="Before then.")] = None

    @property
    def filters(self) -> Filters:
        """The value for the search."""
        return self._as(Filters)

    def _as(self, kind: type[FiltersT]) -> FiltersT:
        return kind(**{field.name: getattr(self, field.name) for field in fields(kind) if field.name in type(self).model_fields})


class KeyFilters(Filtered):
    """Filters for keys; times are those of their creation."""

    label: Text | None = None
    ip: Annotated[Network | None, Field(description="An address or network; keys whose allow list has one in it.")] = None
    scope: Literal["read", "trade"] | None = None
    unrestricted: bool | None = None
    unused_since_ms: Annotated[
        Moment | None, Field(alias="unused_since", description="Not admitted since then; a key that never was is unused, a new one too.")
    ] = None


class Paged(Body):
    limit: Annotated[int, Field(ge=1, le=1_000)] = 100
    cursor: Annotated[str | None, Field(max_length=1_000, description="next_cursor of the page before.")] = None

    @property
    def page(self) -> Page:
        """The value for the search."""
        return Page(self.limit, self.cursor)


class KeyQuery(KeyFilters, Paged):
    """``GET /internal/v1/keys``."""


class AccountQuery(Filtered, Paged):
    frozen: bool | None = None
    kyc: Literal["verified", "unverified", "revoked"] | None = None


def _event(value: str) -> str:
    known = sorted([*Event, *OfficeEvent])
    if value not in known:
        raise ValueError(f"There is no such event. There are: {', '.join(known)}.")
    return value


class AuditQuery(Filtered):
    key: AnyId | None = None
    event: Annotated[Text, AfterValidator(_event)] | None = None
    actor: Text | None = None
    ip: Network | None = None
    limit: Annotated[int, Field(ge=1, le=1_000)] = 100
    cursor: Annotated[int | None, Field(ge=1, le=2**62, description="next_cursor of the page before.")] = None

    @property
    def wanted(self) -> EventFilters:
        """The value for the audit search."""
        return self._as(EventFilters)


class RefusalQuery(Filtered, Paged):
    """Times and address are those of the request."""

    label: Text | None = None
    key: AnyId | None = None
    code: Text | None = None
    ip: Network | None = None
    scope: Literal["read", "trade"] | None = None


class BulkRevocation(RequiredReason):
    """A revocation of all matching keys, if their number is the expected one."""

    where: KeyFilters
    expected_count: Annotated[int | None, Field(ge=0, description="Required unless dry_run.")] = None
    dry_run: Annotated[bool, Field(description="Only say which and how many.")] = False
    reason: Annotated[str, Field(max_length=500, description="Shown to the accounts' holders. Required unless dry_run.")] = ""

    @field_validator("where")
    @classmethod
    def _narrowed(cls, where: KeyFilters) -> KeyFilters:
        if not where.model_dump(exclude_none=True):
            raise ValueError("Give at least one filter.")
        return where

    @field_validator("reason")
    @classmethod
    def _readable(cls, reason: str | None) -> str | None:
        return reason if reason is None else clean_label(reason)

    @model_validator(mode="after")
    def _with_other_slash(self) -> Self:
        if not self.dry_run and self.expected_count is None:
            raise ValueError("Send expected_count, the number that was shown.")
        if not self.dry_run and (not self.reason or not self.reason.isprintable()):
            raise ValueError("Send a reason, in printable characters.")
        return self


class OperatorKey(Key):
    """A key, with its account, for the back office."""

    account_id: str
    revoked_at: Time | None

    @classmethod
    def of(cls, view: KeyView, **more: Any) -> Self:
        own = Key.of(view).model_dump()
        revoked_ms = view.key.revoked_ms
        return cls(**own, account_id=view.key.account_id, revoked_at=None if revoked_ms is None else rfc3339(revoked_ms), **more)


class RevokedKey(OperatorKey):
    changed: bool = Field(description="false: it was revoked before, for revoked_reason; this reason is in the audit.")


class OperatorAccount(AccountState):
    tier: str | None
    factors: list[FactorView]
    keys: list[OperatorKey]

    @classmethod
    def of(cls, account: Account, keys: list[KeyView], factors: list[Factor], **more: Any) -> Self:
        return cls(
            id=account.id,
            email=account.email,
            kyc=account.kyc.value,
            frozen=account.frozen,
            tier=account.tier,
            factors=[FactorView.of(factor) for factor in factors],
            keys=[OperatorKey.of(view) for view in keys],
            **more,
        )


class ChangedAccount(OperatorAccount):
    changed: bool = Field(description="false: it was so already.")


class OperatorKeys(Answer):
    keys: list[OperatorKey]
    count: int = Field(description="Of all that match.")
    next_cursor: str | None


class AccountSummary(AccountState):
    tier: str | None
    created_at: Time
    keys: int = Field(description="How many; revoked and expired ones included.")

    @classmethod
    def of(cls, found: FoundAccount) -> Self:
        created = rfc3339(int(found.created_at.timestamp() * 1000))
        return cls(**{**found._asdict(), "created_at": created})


class OperatorAccounts(Answer):
    accounts: list[AccountSummary]
    count: int
    next_cursor: str | None


class OperatorEvent(Answer):
    id: int
    at: Time
    event: str
    actor: str = Field(description="account, provider, or the name of an operator's token.")
    account_id: str | None
    key_id: str | None
    client_ip: str | None
    detail: dict[str, Any]
    hash: str = Field(description="Of the chain, up to here: hexadecimal.")


class OperatorEvents(Answer):
    events: list[OperatorEvent] = Field(description="Latest first.")
    count: int
    next_cursor: int | None


class Refused(Answer):
    at: Time
    account_id: str
    key_id: str
    code: str
    client_ip: str
    route: str = Field(description="As in the gateway's configuration; empty when that is not known.")

    @classmethod
    def of(cls, refused: RefusedRequest) -> Self:
        return cls(**refused._asdict(), at=rfc3339(refused.at_ms), route=refused.call)


class Refusals(Answer):
    refusals: list[Refused] = Field(description="Latest first; the latest fifty of each key, for seven days.")
    count: int
    next_cursor: str | None


class Revoked(Answer):
    count: int
    revoked: bool = Field(description="false for a dry run.")
    keys: list[str]


def written(where: KeyFilters) -> Mapping[str, object]:
    """The filters as JSON, for the audit."""
    return where.model_dump(mode="json", exclude_none=True, by_alias=True)
