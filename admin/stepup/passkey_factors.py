"""Passkeys as second factors: enrolment, and verification of a proof.

The sealed content of a pending enrolment is the challenge; that of a confirmed factor is the passkey, including its counter.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg
import structlog

from admin.audit import Provenance
from admin.errors import FieldError, InvalidRequest, NotFound, StepUpFailed
from admin.identity import accounts
from admin.identity.browser import origin_of
from admin.identity.caller import Caller
from admin.stepup import factors, passkeys
from admin.stepup.challenges import Challenge
from admin.stepup.enrolment import PENDING_MS, Enrolment, checked_name
from admin.stepup.factors import Factor, Kind
from admin.stepup.intent import add_factor
from admin.stepup.passkeys import Passkey, PasskeyRefused, RelyingParty
from admin.stepup.proof import Wrong
from admin.stepup.service import Attempt, Proof
from admin.stores import Stores
from gateway.keys.postgres import Connection
from gateway.keys.vault import Vault

_log = structlog.get_logger(__name__)


class Added(NamedTuple):
    """A confirmed factor."""

    factor: Factor
    recovery_codes: tuple[str, ...]
    """Recovery codes, for the first factor; shown once."""


def relying_party(public_url: str, name: str) -> RelyingParty:
    """The relying party of the pages at this URL: their host is the RP id, their origin the only accepted one."""
    return RelyingParty(urlsplit(public_url).hostname or "", origin_of(public_url), name)


class PasskeyMethod:
    """A :class:`~admin.stepup.service.Method`."""

    kind = Kind.PASSKEY

    def __init__(self, vault: Vault, party: RelyingParty) -> None:
        self._vault = vault
        self._party = party

    def options(self, challenge: Challenge, owned: Sequence[Factor]) -> Mapping[str, Any] | None:
        allowed = [read(factor, self._vault) for factor in owned]
        return passkeys.assertion_options(self._party, challenge=challenge.nonce, allowed=allowed)

    async def accept(self, connection: Connection, challenge: Challenge, owned: Sequence[Factor], answer: Any, now_ms: int) -> Wrong | None:
        """The caller holds the account's lock, so that of two answers with the same counter only one is accepted."""
        try:
            factor, sign_count = self._verify(challenge, owned, answer)
        except PasskeyRefused as refused:
            _log.info("passkey_refused", reason=str(refused))
            return Wrong.WRONG_PASSKEY
        passkey = replace(read(factor, self._vault), sign_count=sign_count)
        await factors.touch(connection, factor, sealed=factors.seal(factor, passkey.to_json().encode(), self._vault), now_ms=now_ms)
        return None

    def _verify(self, challenge: Challenge, owned: Sequence[Factor], answer: Any) -> tuple[Factor, int]:
        if not isinstance(answer, Mapping):
            raise PasskeyRefused("not an object")
        claimed = passkeys.claimed_credential_id(answer)
        for factor in owned:
            passkey = read(factor, self._vault)
            if passkey.credential_id == claimed:
                sign_count = passkeys.verify_assertion(
                    answer,
                    expected_challenge=challenge.nonce,
                    relying_party=self._party,
                    passkey=passkey,
                    expected_account=factor.account_id,
                )
                return factor, sign_count
        raise PasskeyRefused("no passkey of this account")


class PasskeyEnrolment:
    """Enrols passkeys, by the rules of :class:`~admin.stepup.enrolment.Enrolment`."""

    def __init__(self, stores: Stores, vault: Vault, enrolment: Enrolment, party: RelyingParty) -> None:
        self._stores = stores
        self._vault = vault
        self._enrolment = enrolment
        self._party = party

    async def begin(self, caller: Caller, name: str | None, proof: Proof | None, provenance: Provenance) -> dict[str, Any]:
        """``PublicKeyCredentialCreationOptionsJSON``. Replaces a pending enrolment.

        :raises InvalidRequest, FactorLimitReached, LoginTooOld, StepUpRequired, StepUpFailed, RateLimited: not now
        """
        label = checked_name(name or "Passkey")
        challenge = passkeys.new_challenge()
        async with self._stores.transaction() as connection:
            account = await accounts.lock(connection, caller.account_id)
            attempt = Attempt(caller, add_factor(Kind.PASSKEY.value), proof, provenance)
            refused = await self._enrolment.authorise(connection, account, attempt)
            if refused is None:
                existing = await self._existing(connection, account.id)
                await factors.drop_pending(connection, account.id)
                await factors.insert(
                    connection,
                    factors.new_factor(
                        account.id,
                        Kind.PASSKEY,
                        label,
                        challenge,
                        self._vault,
                        proven=proof is not None,
                        created_ms=provenance.now_ms,
                        confirmed_ms=None,
                    ),
                )
        if refused is not None:
            raise refused
        return passkeys.registration_options(
            self._party, account_id=account.id, user_name=account.email or account.id, challenge=challenge, existing=existing
        )

    async def finish(self, caller: Caller, response: Mapping[str, Any], name: str | None, provenance: Provenance) -> Added:
        """Confirm the passkey.

        :raises NotFound: there is no such pending enrolment
        :raises StepUpFailed: the response does not prove a new passkey
        :raises InvalidRequest: the passkey is in use already, or its name cannot be used
        """
        async with self._stores.transaction() as connection:
            account = await accounts.lock(connection, caller.account_id)
            started = await self._started(connection, account.id, provenance.now_ms)
            passkey = self._verify(started, response)
            await factors.drop_pending(connection, account.id)
            factor = factors.new_factor(
                account.id,
                Kind.PASSKEY,
                started.name if name is None else checked_name(name),
                passkey.to_json().encode(),
                self._vault,
                proven=started.proven,
                created_ms=started.created_ms,
                confirmed_ms=provenance.now_ms,
            )
            try:
                await factors.insert(connection, factor, credential_digest=hashlib.sha256(passkey.credential_id).digest())
            except asyncpg.UniqueViolationError:
                raise InvalidRequest([FieldError("id", "duplicate", "This passkey is already in use.")]) from None
            return Added(factor, await self._enrolment.added(connection, factor, provenance))

    async def _started(self, connection: Connection, account_id: str, now_ms: int) -> Factor:
        started = await factors.under_way(connection, account_id)
        unusable = started is None or started.kind is not Kind.PASSKEY or now_ms - started.created_ms > PENDING_MS
        # Begun without a proof because there was no factor: not valid if one has been added meanwhile.
        if started is None or unusable or (not started.proven and await factors.confirmed(connection, account_id)):
            raise NotFound("There is no such pending enrolment: start again at POST /api/v1/factors/passkeys/options.")
        return started

    def _verify(self, started: Factor, response: Mapping[str, Any]) -> Passkey:
        try:
            return passkeys.verify_registration(response, expected_challenge=started.open(self._vault), relying_party=self._party)
        except PasskeyRefused as refused:
            wrong = Wrong.WRONG_PASSKEY
            raise StepUpFailed(wrong.detail, reason=f"{wrong.value}: {refused}", extras={"reason": wrong.value}) from refused

    async def _existing(self, connection: Connection, account_id: str) -> list[Passkey]:
        owned = await factors.confirmed(connection, account_id)
        return [read(factor, self._vault) for factor in owned if factor.kind is Kind.PASSKEY]


def read(factor: Factor, vault: Vault) -> Passkey:
    """The passkey of a confirmed factor.

    :raises SealBroken: the vault cannot open it
    """
    return Passkey.from_json(factor.open(vault))
