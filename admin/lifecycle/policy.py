"""The creation policy: every rule that a new key must satisfy, with all violations reported at once. Pure: no I/O, no clock.

Shapes and types are checked by the request models (``api.bodies``); these rules are shared with the pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from admin.errors import FieldError, InvalidRequest
from admin.labels import clean_label, label_error
from admin.lifecycle.addresses import parse_allowlist
from admin.lifecycle.public_keys import parse_public_key, private_key_error
from admin.stepup.intent import Action, Intent
from gateway.keys.record import Algorithm, Scope
from gateway.net.addresses import Address

MAX_EXPIRY_DAYS = 3_650

ChoiceT = TypeVar("ChoiceT", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDraft:
    """A requested creation: types are correct, rules are not checked yet."""

    label: str
    scopes: Sequence[str]
    ip_access: str
    ip_allowlist: Sequence[str] = ()
    algorithm: str = Algorithm.HMAC_SHA256.value
    public_key: str | None = None
    expires_in_days: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A valid creation, which a step-up is bound to and which is stored."""

    label: str
    scopes: frozenset[Scope]
    ip_allowlist: tuple[Address, ...] | None
    """``None`` is unrestricted."""
    algorithm: Algorithm
    public_key: bytes | None
    """DER, for ``ed25519`` and ``rsa-sha256``."""
    expires_in_days: int | None

    def intent(self) -> Intent:
        """The step-up intent of this creation: every member, with addresses in any order."""
        members = {
            "label": self.label,
            "scopes": sorted(self.scopes),
            "ip_allowlist": None if self.ip_allowlist is None else sorted(map(str, self.ip_allowlist)),
            "algorithm": self.algorithm.value,
            "public_key": None if self.public_key is None else self.public_key.hex(),
            "expires_in_days": self.expires_in_days,
        }
        return Intent(Action.CREATE_KEY, members)


def check(draft: KeyDraft, *, unrestricted_trade_days: int = 0) -> NewKey:
    """Check the rules.

    :param unrestricted_trade_days: maximum lifetime of an unrestricted key with ``trade``; 0: unlimited
    :raises InvalidRequest: with every rule that the draft violates
    """
    errors: list[FieldError] = []
    label = _label(draft.label, errors)
    scopes = _scopes(draft.scopes, errors)
    allowlist = _ip_access(draft.ip_access, draft.ip_allowlist, errors)
    algorithm = _choice(Algorithm, "algorithm", draft.algorithm, errors)
    public_key = _public_key(draft.public_key, algorithm, errors) if algorithm is not None else None
    longest = unrestricted_trade_days if Scope.TRADE in scopes and draft.ip_access == "unrestricted" else 0
    expires_in_days = _expiry(draft.expires_in_days, longest, errors)
    if errors or algorithm is None:
        raise InvalidRequest(errors)
    return NewKey(
        label=label,
        scopes=scopes,
        ip_allowlist=allowlist,
        algorithm=algorithm,
        public_key=public_key,
        expires_in_days=expires_in_days,
    )


def _label(text: str, errors: list[FieldError]) -> str:
    label = clean_label(text)
    error = label_error(label)
    if error is not None:
        errors.append(error)
    return label


def _scopes(names: Sequence[str], errors: list[FieldError]) -> frozenset[Scope]:
    if not names:
        errors.append(FieldError("scopes", "required", "Choose at least one permission: read, trade."))
    scopes: set[Scope] = set()
    for index, name in enumerate(names[: 2 * len(Scope)]):
        scope = _choice(Scope, f"scopes[{index}]", name, errors)
        if scope in scopes:
            errors.append(FieldError(f"scopes[{index}]", "duplicate", f"{name} is already in the list."))
        elif scope is not None:
            scopes.add(scope)
    return frozenset(scopes)


def _ip_access(access: str, texts: Sequence[str], errors: list[FieldError]) -> tuple[Address, ...] | None:
    if access == "whitelisted":
        addresses, problems = parse_allowlist(texts)
        errors += problems
        if not texts:
            errors.append(FieldError("ip_allowlist", "required", "Enter at least one address, or choose unrestricted access."))
        return addresses
    if access != "unrestricted":
        errors.append(FieldError("ip_access", "not_a_choice", "Choose whitelisted or unrestricted."))
    elif texts:
        errors.append(
            FieldError("ip_allowlist", "unexpected", "Unrestricted access takes no addresses: choose whitelisted, or remove them.")
        )
    return None


def _public_key(pem: str | None, algorithm: Algorithm, errors: list[FieldError]) -> bytes | None:
    if algorithm is Algorithm.HMAC_SHA256:
        if pem is not None:
            unexpected = FieldError("public_key", "unexpected", "hmac-sha256 takes no public key: we make the secret.")
            errors.append(private_key_error(pem) or unexpected)
        return None
    if not pem:
        errors.append(FieldError("public_key", "required", f"{algorithm} needs your public key in PEM."))
        return None
    parsed = parse_public_key(pem, algorithm)
    if isinstance(parsed, FieldError):
        errors.append(parsed)
        return None
    return parsed


def _expiry(days: int | None, longest: int, errors: list[FieldError]) -> int | None:
    if days is not None and not 1 <= days <= MAX_EXPIRY_DAYS:
        errors.append(
            FieldError("expires_in_days", "out_of_range", f"Between 1 and {MAX_EXPIRY_DAYS} days, or null for a key that never expires.")
        )
    elif longest and (days is None or days > longest):
        errors.append(
            FieldError(
                "expires_in_days", "too_long", f"An unrestricted trading key is valid for at most {longest} days: set 1 to {longest}."
            )
        )
    return days


def _choice(kind: type[ChoiceT], field: str, value: str, errors: list[FieldError]) -> ChoiceT | None:
    try:
        return kind(value)
    except ValueError:
        errors.append(FieldError(field, "not_a_choice", f"Choose from: {', '.join(kind)}."))
        return None
