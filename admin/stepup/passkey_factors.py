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
from admin.errors import FieldError, InvalidRequest, StepUpFailed
from admin.identity import accounts
from admin.identity.browser import origin_of
from admin.identity.caller import Caller
from admin.stepup import factors, passkeys
from admin.stepup.challenges import Challenge
from admin.stepup.enrolment import Enrolment
from admin.stepup.factors import Factor, Kind
from admin.stepup.passkeys import Passkey, PasskeyRefused, RelyingParty
from admin.stepup.proof import Wrong
from admin.stepup.service import Proof
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
        await factors.touch(connection, factor, sealed=factors.seal(factor, passkey.to_json(), self._vault), now_ms=now_ms)
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
        """``PublicKeyCredentialCreationOptionsJSON``. See :meth:`~admin.stepup.enrolment.Enrolment.begin`."""
        challenge = passkeys.new_challenge()
        # Before the proof is used up, which a failure afterwards would waste.
        owned, _ = await self._enrolment.factors(caller.account_id)
        existing = [read(factor, self._vault) for factor in owned if factor.kind is Kind.PASSKEY]
        account, _ = await self._enrolment.begin(caller, Kind.PASSKEY, name or "Passkey", challenge, proof=proof, provenance=provenance)
        return passkeys.registration_options(
            self._party, account_id=account.id, user_name=account.email or account.id, challenge=challenge, existing=existing
        )

    async def finish(self, caller: Caller, response: Mapping[str, Any], provenance: Provenance) -> Added:
        """Confirm the passkey.

        :raises NotFound: there is no such pending enrolment
        :raises StepUpFailed: the response does not prove a new passkey
        :raises InvalidRequest: the passkey is in use already
        """
        async with self._stores.transaction() as connection:
            account = await accounts.lock(connection, caller.account_id)
            started = await self._enrolment.begun(connection, account.id, Kind.PASSKEY, provenance.now_ms)
            passkey = self._verify(started, response)
            await factors.drop_pending(connection, account.id)
            factor = factors.new_factor(
                account.id,
                Kind.PASSKEY,
                started.name,
                passkey.to_json(),
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

    def _verify(self, started: Factor, response: Mapping[str, Any]) -> Passkey:
        try:
            return passkeys.verify_registration(response, expected_challenge=started.open(self._vault), relying_party=self._party)
        except PasskeyRefused as refused:
            wrong = Wrong.WRONG_PASSKEY
            raise StepUpFailed(wrong.detail, reason=f"{wrong.value}: {refused}", extras={"reason": wrong.value}) from refused


def read(factor: Factor, vault: Vault) -> Passkey:
    """The passkey of a confirmed factor.

    :raises SealBroken: the vault cannot open it
    """
    return Passkey.from_json(factor.open(vault))
