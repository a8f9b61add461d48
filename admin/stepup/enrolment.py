"""Enrolment and removal of second factors.

The first factor is enrolled by a login alone, so the login must be recent; every later change needs a step-up with an
existing factor (or a recovery code). An account with keys must keep at least one factor, so that a login alone never
suffices to manage keys. Recovery codes are created with the first factor, removed with the last, and renewed with a step-up.
"""

from collections.abc import Sequence
from typing import NamedTuple

from admin import audit
from admin.audit import Actor, Entry, Event, Provenance
from admin.config import StepUp as StepUpSettings
from admin.errors import FactorLimitReached, FactorRequired, InvalidRequest, LastFactor, LoginTooOld, NotFound, StepUpFailed
from admin.identity import accounts
from admin.identity.accounts import Account
from admin.identity.caller import Caller
from admin.labels import clean_label, label_error
from admin.stepup import factors, recovery, totp
from admin.stepup.factors import Factor, Kind
from admin.stepup.intent import Action, Intent, add_factor, remove_factor, renew_recovery_codes
from admin.stepup.proof import Wrong
from admin.stepup.service import Attempt, Proof, StepUp
from admin.stores import Stores
from gateway.keys import store
from gateway.keys.postgres import Connection
from gateway.keys.secret import Secret
from gateway.keys.vault import Vault

MAX_FACTORS = 10
PENDING_MS = 600_000
"""How long a pending enrolment can be confirmed."""
_START = {Kind.TOTP: "/api/v1/factors/totp", Kind.PASSKEY: "/api/v1/factors/passkeys/options"}


class TotpStarted(NamedTuple):
    """The data for an authenticator app; shown once."""

    id: str
    secret: Secret
    otpauth_uri: Secret


class Enrolment:
    """Manages the factors of an account for its holder."""

    def __init__(self, stores: Stores, vault: Vault, step_up: StepUp, settings: StepUpSettings) -> None:
        self._stores = stores
        self._vault = vault
        self._step_up = step_up
        self._settings = settings

    async def factors(self, account_id: str) -> tuple[list[Factor], int | None]:
        """Confirmed factors, and the number of recovery codes left (``None``: none were ever created)."""
        async with self._stores.transaction() as connection:
            return await factors.confirmed(connection, account_id), await factors.recovery_codes_left(connection, account_id)

    async def check(self, connection: Connection, account: Account, intent: Intent) -> None:
        """Check that an intent about factors would be allowed with a proof.

        :raises NotFound, LastFactor, FactorLimitReached, FactorRequired: it would not be allowed
        """
        owned = await factors.confirmed(connection, account.id)
        if intent.action is Action.ADD_FACTOR and len(owned) >= MAX_FACTORS:
            raise FactorLimitReached(f"An account has at most {MAX_FACTORS} factors. Remove one first.")
        if intent.action is Action.REMOVE_FACTOR:
            await self._check_removal(connection, account, owned, str(intent.members["factor_id"]))
        if intent.action is Action.RENEW_RECOVERY_CODES and not owned:
            raise FactorRequired("Recovery codes come with the first factor: enrol one.")

    async def begin(
        self, caller: Caller, kind: Kind, name: str, content: bytes, *, proof: Proof | None, provenance: Provenance
    ) -> tuple[Account, Factor]:
        """Begin an enrolment, which replaces a pending one. Returns the account, and the factor to be confirmed.

        :param content: what its confirmation is verified with
        :raises InvalidRequest, FactorLimitReached, LoginTooOld, StepUpRequired, StepUpFailed, RateLimited: not now
        """
        label = checked_name(name)
        async with self._stores.transaction() as connection:
            account = await accounts.lock(connection, caller.account_id)
            proven = await self._authorise(connection, account, Attempt(caller, add_factor(kind.value), proof, provenance))
            started = factors.new_factor(account.id, kind, label, content, self._vault, proven=proven, created_ms=provenance.now_ms)
            await factors.drop_pending(connection, account.id)
            await factors.insert(connection, started)
        return account, started

    async def _authorise(self, connection: Connection, account: Account, attempt: Attempt) -> bool:
        """The first factor needs a recent login, every other one a proof. Returns whether there was a proof."""
        await self.check(connection, account, attempt.intent)
        if await factors.confirmed(connection, account.id):
            await self._step_up.redeem(connection, account, attempt)
            return True
        if attempt.provenance.now_ms - attempt.caller.authenticated_ms > self._settings.first_factor_within_ms:
            minutes = self._settings.first_factor_within_ms // 60_000
            raise LoginTooOld(
                f"The first factor can be enrolled only within {minutes} minutes of a login: log out, log in, and try again.",
                extras={"max_age_ms": self._settings.first_factor_within_ms},
            )
        return False

    async def begun(self, connection: Connection, account_id: str, kind: Kind, now_ms: int) -> Factor:
        """The pending enrolment.

        :raises NotFound: there is none of this kind that can still be confirmed
        """
        factor = await factors.pending(connection, account_id)
        usable = factor is not None and factor.kind is kind and now_ms - factor.created_ms <= PENDING_MS
        # Begun without a proof because there was no factor: not valid if one has been added meanwhile.
        if factor is None or not usable or (not factor.proven and await factors.confirmed(connection, account_id)):
            raise NotFound(f"There is no such pending enrolment: start again at POST {_START[kind]}.")
        return factor

    async def begin_totp(self, caller: Caller, name: str | None, proof: Proof | None, provenance: Provenance) -> TotpStarted:
        """Begin to enrol an authenticator app, which is confirmed by its first code."""
        secret = totp.new_secret()
        account, started = await self.begin(caller, Kind.TOTP, name or "Authenticator", secret.reveal(), proof=proof, provenance=provenance)
        uri = totp.otpauth_uri(secret, account_name=account.email or account.id, issuer_name=self._settings.issuer_name)
        return TotpStarted(started.id, Secret(totp.base32(secret).encode()), Secret(uri.encode()))

    async def confirm_totp(self, caller: Caller, factor_id: str, code: str, provenance: Provenance) -> tuple[str, ...]:
        """Confirm the factor. Returns recovery codes if it is the first, else none.

        :raises NotFound: there is no such pending enrolment
        :raises StepUpFailed: a wrong code; the enrolment stays open
        """
        async with self._stores.transaction() as connection:
            account = await accounts.lock(connection, caller.account_id)
            started = await self.begun(connection, account.id, Kind.TOTP, provenance.now_ms)
            if started.id != factor_id:
                raise NotFound(f"This enrolment was replaced by a later one: start again at POST {_START[Kind.TOTP]}.")
            step = totp.accepted_step(Secret(started.open(self._vault)), code, now_ms=provenance.now_ms, last_step=started.counter)
            if isinstance(step, Wrong):
                raise StepUpFailed(step.detail, reason=step.value, extras={"reason": step.value})
            await factors.confirm(connection, started.id, counter=step, now_ms=provenance.now_ms)
            return await self.added(connection, started, provenance)

    async def added(self, connection: Connection, factor: Factor, provenance: Provenance) -> tuple[str, ...]:
        """Finish an enrolment: recovery codes for the first factor, and the audit row, which must come last."""
        codes: tuple[str, ...] = ()
        if await factors.recovery_codes_left(connection, factor.account_id) is None:
            codes = recovery.new_codes()
            await factors.replace_recovery_codes(connection, factor.account_id, codes)
        await audit.append(connection, _entry(Event.FACTOR_ADDED, factor.account_id, provenance, factor))
        return codes

    async def remove(self, caller: Caller, factor_id: str, proof: Proof | None, provenance: Provenance) -> None:
        """:raises NotFound, LastFactor, StepUpRequired, StepUpFailed, RateLimited: it was not removed"""
        async with self._stores.transaction() as connection:
            account = await accounts.lock(connection, caller.account_id)
            owned = await factors.confirmed(connection, account.id)
            removed = await self._check_removal(connection, account, owned, factor_id)
            await self._step_up.redeem(connection, account, Attempt(caller, remove_factor(factor_id), proof, provenance))
            await factors.remove(connection, account.id, factor_id)
            if len(owned) == 1:
                await factors.replace_recovery_codes(connection, account.id, ())
            await audit.append(connection, _entry(Event.FACTOR_REMOVED, account.id, provenance, removed))

    async def renew_recovery_codes(self, caller: Caller, proof: Proof | None, provenance: Provenance) -> tuple[str, ...]:
        """Create ten new codes and invalidate the old ones."""
        codes = recovery.new_codes()
        async with self._stores.transaction() as connection:
            account = await accounts.lock(connection, caller.account_id)
            await self._step_up.redeem(connection, account, Attempt(caller, renew_recovery_codes(), proof, provenance))
            await factors.replace_recovery_codes(connection, account.id, codes)
            await audit.append(connection, _entry(Event.RECOVERY_CODES_RENEWED, account.id, provenance))
        return codes

    async def _check_removal(self, connection: Connection, account: Account, owned: Sequence[Factor], factor_id: str) -> Factor:
        removed = next((factor for factor in owned if factor.id == factor_id), None)
        if removed is None:
            raise NotFound("This account has no such factor.")
        if len(owned) == 1 and await store.count(connection, account.id):
            raise LastFactor("This is the last factor of an account with keys: add another first, or delete the keys.")
        return removed


def checked_name(text: str) -> str:
    """A factor's name, cleaned; the same rules as a key's label.

    :raises InvalidRequest: it violates them
    """
    name = clean_label(text)
    error = label_error(name, field="name")
    if error is not None:
        raise InvalidRequest([error])
    return name


def _entry(event: Event, account_id: str, provenance: Provenance, factor: Factor | None = None) -> Entry:
    detail = {} if factor is None else {"factor_id": factor.id, "kind": factor.kind.value, "name": factor.name}
    return Entry(provenance=provenance, event=event, actor=Actor.ACCOUNT, account_id=account_id, detail=detail)
