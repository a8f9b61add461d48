"""The step-up service: opens a challenge for an intent, and accepts or refuses its proof.

Both work in the caller's transaction (:meth:`admin.stores.Stores.transaction`), which is committed when a proof is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from admin import audit
from admin.audit import Actor, Entry, Event, Provenance
from admin.errors import FactorRequired, StepUpFailed, StepUpRequired
from admin.identity.accounts import Account
from admin.identity.caller import Caller
from admin.stepup import challenges, factors, lockout, totp
from admin.stepup.challenges import Challenge
from admin.stepup.factors import Factor, Kind
from admin.stepup.intent import Action, Intent
from admin.stepup.lockout import LockoutState
from admin.stepup.proof import Wrong
from gateway.keys.postgres import Connection
from gateway.keys.secret import Secret
from gateway.keys.vault import Vault

RECOVERY_CODE = "recovery_code"


@dataclass(frozen=True, slots=True)
class Proof:
    """The customer's answer to a challenge, by one method."""

    challenge_id: str
    method: str
    """``totp``, ``passkey`` or ``recovery_code``."""
    answer: Any
    """A code as text, or the browser's WebAuthn response as JSON."""


class Attempt(NamedTuple):
    """A caller's attempt to perform an action, with its proof."""

    caller: Caller
    intent: Intent
    proof: Proof | None
    provenance: Provenance


class Offer(NamedTuple):
    """A challenge and the ways to answer it."""

    challenge: Challenge
    methods: tuple[str, ...]
    passkey: Mapping[str, Any] | None
    """``PublicKeyCredentialRequestOptionsJSON``, if the account has passkeys."""


class Method(Protocol):
    """Verification of one kind of factor."""

    kind: Kind

    def options(self, challenge: Challenge, owned: Sequence[Factor]) -> Mapping[str, Any] | None:
        """Data that the customer's device needs for its answer, if any."""

    async def accept(self, connection: Connection, challenge: Challenge, owned: Sequence[Factor], answer: Any, now_ms: int) -> Wrong | None:
        """Verify an answer and record its use, so that it is accepted only once. ``None``: accepted.

        :param owned: the account's confirmed factors of this kind
        """


class TotpMethod:
    """Verifies codes of authenticator apps."""

    kind = Kind.TOTP

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def options(self, challenge: Challenge, owned: Sequence[Factor]) -> None:  # noqa: ARG002  # the app needs nothing
        return None

    async def accept(self, connection: Connection, challenge: Challenge, owned: Sequence[Factor], answer: Any, now_ms: int) -> Wrong | None:
        del challenge  # not part of a code, which is bound to the intent by the challenge sent with it
        verdict = Wrong.WRONG_CODE
        for factor in owned:
            accepted = totp.accepted_step(Secret(factor.open(self._vault)), str(answer), now_ms=now_ms, last_step=factor.counter)
            if isinstance(accepted, int):
                return None if await factors.advance(connection, factor.id, counter=accepted, now_ms=now_ms) else Wrong.CODE_ALREADY_USED
            if accepted is Wrong.CODE_ALREADY_USED:
                verdict = accepted
        return verdict


class StepUp:
    """Challenges and proofs for every action.

    :param methods: one for each supported kind of factor
    """

    def __init__(self, methods: Sequence[Method]) -> None:
        self._methods = {method.kind: method for method in methods}

    async def begin(self, connection: Connection, account: Account, caller: Caller, intent: Intent, now_ms: int) -> Offer:
        """Open a challenge for an intent that the caller has already checked.

        :raises FactorRequired: the account has no confirmed factor
        :raises RateLimited: too many wrong codes, and the account has no passkey, which could still be used
        """
        owned = await self.owned(connection, account)
        passkeys = [factor for factor in owned if factor.kind is Kind.PASSKEY]
        locked = (await lockout.state(connection, account, caller)).refusal(now_ms)
        if locked is not None and not passkeys:
            raise locked
        challenge = await challenges.open_challenge(connection, caller, intent, now_ms)
        methods = [kind.value for kind in self._methods if any(factor.kind is kind for factor in owned)]
        if takes_recovery_codes(intent.action) and await factors.recovery_codes_left(connection, account.id):
            methods.append(RECOVERY_CODE)
        if locked is not None:
            methods = [Kind.PASSKEY.value]
        method = self._methods.get(Kind.PASSKEY)
        return Offer(challenge, tuple(methods), method.options(challenge, passkeys) if method is not None and passkeys else None)

    async def owned(self, connection: Connection, account: Account) -> list[Factor]:
        """:raises FactorRequired: the account has no confirmed factor"""
        owned = await factors.confirmed(connection, account.id)
        if not owned:
            raise FactorRequired("Enrol an authenticator app or a passkey first: POST /api/v1/factors/totp, shortly after a login.")
        return owned

    async def redeem(self, connection: Connection, account: Account, attempt: Attempt) -> None:
        """Verify the proof; the commit uses up challenge and code. Call it before any write of the transaction.

        :param account: locked in this transaction (``accounts.lock``), which serializes guesses
        :raises FactorRequired, StepUpRequired, RateLimited: the proof was not examined
        :raises StepUpFailed: it was refused, which is counted and audited
        """
        owned = await self.owned(connection, account)
        if attempt.proof is None:
            raise StepUpRequired(
                "Confirm with 2FA: request a challenge for exactly this intent at POST /api/v1/step-up, and send its answer as step_up.",
                extras={"action": attempt.intent.action.value},
            )
        state = await lockout.state(connection, account, attempt.caller)
        locked = state.refusal(attempt.provenance.now_ms)
        if locked is not None and attempt.proof.method != Kind.PASSKEY.value:
            raise locked
        wrong = await self._try(connection, attempt, attempt.proof, owned)
        if wrong is not None:
            await _note_failure(connection, state, attempt, attempt.proof.method, wrong)
            raise StepUpFailed(wrong.detail, reason=wrong.value, extras={"reason": wrong.value})
        await lockout.forget(connection, state)

    async def _try(self, connection: Connection, attempt: Attempt, proof: Proof, owned: list[Factor]) -> Wrong | None:
        caller, intent, now_ms = attempt.caller, attempt.intent, attempt.provenance.now_ms
        challenge = await challenges.read(connection, caller, intent, proof.challenge_id, now_ms)
        if isinstance(challenge, Wrong):
            return challenge
        if proof.method == RECOVERY_CODE:
            wrong = await _accept_recovery_code(connection, attempt, proof)
        else:
            wrong = await self._accept(connection, challenge, proof, owned, now_ms)
        if wrong is None and not await challenges.use(connection, caller, intent, challenge.id, now_ms):
            wrong = Wrong.CHALLENGE_USED
        return wrong

    async def _accept(self, connection: Connection, challenge: Challenge, proof: Proof, owned: list[Factor], now_ms: int) -> Wrong | None:
        for kind, method in self._methods.items():
            candidates = [factor for factor in owned if factor.kind is kind]
            if kind.value == proof.method and candidates:
                return await method.accept(connection, challenge, candidates, proof.answer, now_ms)
        return Wrong.METHOD_NOT_ALLOWED


def takes_recovery_codes(action: Action) -> bool:
    """Whether a recovery code is accepted: for recovering factors and removing access, but never for creating a key."""
    return action is not Action.CREATE_KEY


async def _accept_recovery_code(connection: Connection, attempt: Attempt, proof: Proof) -> Wrong | None:
    if not takes_recovery_codes(attempt.intent.action):
        return Wrong.METHOD_NOT_ALLOWED
    account_id, now_ms = attempt.caller.account_id, attempt.provenance.now_ms
    used = await factors.use_recovery_code(connection, account_id, str(proof.answer), now_ms=now_ms)
    if used is None:
        return Wrong.WRONG_CODE
    return None if used else Wrong.CODE_ALREADY_USED


async def _note_failure(connection: Connection, state: LockoutState, attempt: Attempt, method: str, wrong: Wrong) -> None:
    failures = await lockout.note_guess(connection, state, attempt.provenance.now_ms) if wrong.is_guess else state.failures
    entry = Entry(
        provenance=attempt.provenance,
        event=Event.STEP_UP_FAILED,
        actor=Actor.ACCOUNT,
        account_id=state.account.id,
        detail={"action": attempt.intent.action.value, "method": method, "reason": wrong.value, "failures": failures},
    )
    await audit.append(connection, entry)
