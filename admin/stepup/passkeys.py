"""WebAuthn ceremonies: options for the browser, and verification of its response. Pure.

Contains the relying party's rules (WebAuthn Level 2 §7.1, §7.2); not storage, sessions, or the
intent of a challenge. Cryptography and parsing are done by the ``webauthn`` package.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NamedTuple

import webauthn
from pydantic import ConfigDict, TypeAdapter
from webauthn.helpers import base64url_to_bytes, parse_registration_credential_json
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

CEREMONY_MS = 120_000
"""How long the browser waits for the customer: the challenge's lifetime."""

_MAX_CREDENTIAL_ID = 1023  # WebAuthn §4, "Credential ID"


class PasskeyRefused(Exception):
    """The browser's response is invalid. The message is for the log, never for the client."""


class RelyingParty(NamedTuple):
    """The relying party, which the browser binds into every signature, so that no other site can use it."""

    id: str
    """Registrable domain, e.g. ``exchange.example``; ``localhost`` on one machine. Never an IP address (WebAuthn §5.1.2)."""
    origin: str
    """The only accepted origin, e.g. ``https://exchange.example``."""
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Passkey:
    """One registered credential. Contains no secret: the private key never leaves the authenticator."""

    __pydantic_config__ = ConfigDict(ser_json_bytes="hex", val_json_bytes="hex")

    credential_id: bytes
    public_key: bytes
    """COSE_Key (RFC 9052 §7)."""
    sign_count: int
    """The last seen signature counter; 0 for authenticators without one."""
    transports: tuple[str, ...] = ()
    """How the browser reaches it (``internal``, ``hybrid``, ``usb`` …): only a hint."""

    def to_json(self) -> bytes:
        """Serialize for storage; see ``from_json``."""
        return _PASSKEY.dump_json(self)

    @staticmethod
    def from_json(text: bytes) -> "Passkey":
        """:raises ValueError: for anything that ``to_json`` did not write"""
        return _PASSKEY.validate_json(text)


_PASSKEY = TypeAdapter(Passkey)


def possible_at(host: str) -> bool:
    """Whether pages at this host can use passkeys: an IP address cannot be a relying party (WebAuthn §5.1.2)."""
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


def new_challenge() -> bytes:
    """32 random bytes (WebAuthn §13.4.3)."""
    return secrets.token_bytes(32)


def registration_options(
    relying_party: RelyingParty, *, account_id: str, user_name: str, challenge: bytes, existing: Iterable[Passkey]
) -> dict[str, Any]:
    """``PublicKeyCredentialCreationOptionsJSON`` for ``navigator.credentials.create``.

    ``existing`` prevents an authenticator that has a passkey of this account from creating a second one.
    """
    options = webauthn.generate_registration_options(
        rp_id=relying_party.id,
        rp_name=relying_party.name,
        user_id=user_handle(account_id),
        user_name=user_name or account_id,
        challenge=challenge,
        timeout=CEREMONY_MS,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
        exclude_credentials=_descriptors(existing),
    )
    return _as_json(options)


def verify_registration(response: Mapping[str, Any], *, expected_challenge: bytes, relying_party: RelyingParty) -> Passkey:
    """The new passkey (WebAuthn §7.1).

    :param response: ``RegistrationResponseJSON`` as the browser's ``toJSON()`` gives it
    :raises PasskeyRefused: anything except a new credential, created for this origin and relying party by a verified user
    """
    # Translate foreign exceptions: the parsers also raise ValueError, KeyError and cbor2's own on malicious input.
    try:
        credential = parse_registration_credential_json(dict(response))
        verified = webauthn.verify_registration_response(
            credential=credential,
            expected_challenge=expected_challenge,
            expected_rp_id=relying_party.id,
            expected_origin=relying_party.origin,
            require_user_verification=True,
        )
    except Exception as error:
        raise PasskeyRefused(_reason(error)) from error
    if len(verified.credential_id) > _MAX_CREDENTIAL_ID:
        raise PasskeyRefused("credential id too long")
    return Passkey(
        credential_id=verified.credential_id,
        public_key=verified.credential_public_key,
        sign_count=verified.sign_count,
        transports=tuple(transport.value for transport in credential.response.transports or ()),
    )


def assertion_options(relying_party: RelyingParty, *, challenge: bytes, allowed: Iterable[Passkey]) -> dict[str, Any]:
    """``PublicKeyCredentialRequestOptionsJSON`` for ``navigator.credentials.get``."""
    options = webauthn.generate_authentication_options(
        rp_id=relying_party.id,
        challenge=challenge,
        timeout=CEREMONY_MS,
        allow_credentials=_descriptors(allowed),
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return _as_json(options)


def claimed_credential_id(response: Mapping[str, Any]) -> bytes:
    """The credential id in an unverified response, only used to select the passkey to verify with.

    :raises PasskeyRefused: the response contains none
    """
    claimed = response.get("id")
    if not isinstance(claimed, str) or not claimed.isascii() or len(claimed) > 2 * _MAX_CREDENTIAL_ID:
        raise PasskeyRefused("no credential id")
    try:
        return base64url_to_bytes(claimed)
    except ValueError as error:
        raise PasskeyRefused("credential id is not base64url") from error


def verify_assertion(
    response: Mapping[str, Any], *, expected_challenge: bytes, relying_party: RelyingParty, passkey: Passkey, expected_account: str
) -> int:
    """Verify a response (WebAuthn §7.2). Returns the new signature counter, which must be stored before the proof is accepted.

    :param response: ``AuthenticationResponseJSON`` as the browser's ``toJSON()`` gives it
    :raises PasskeyRefused: wrong challenge, origin, relying party, credential, account or signature; the user was not verified; or
        the counter did not increase (§6.1.1: the authenticator may have been cloned)
    """
    if claimed_credential_id(response) != passkey.credential_id:
        raise PasskeyRefused("another credential")
    try:
        _check_user_handle(response, expected_account)
        verified = webauthn.verify_authentication_response(
            credential=dict(response),
            expected_challenge=expected_challenge,
            expected_rp_id=relying_party.id,
            expected_origin=relying_party.origin,
            credential_public_key=passkey.public_key,
            credential_current_sign_count=passkey.sign_count,
            require_user_verification=True,
        )
    except PasskeyRefused:
        raise
    except Exception as error:  # as in verify_registration
        raise PasskeyRefused(_reason(error)) from error
    return verified.new_sign_count


def user_handle(account_id: str) -> bytes:
    """The WebAuthn user handle of an account: stable, without personal data (WebAuthn §14.6.1)."""
    return hashlib.sha256(b"gerbang passkey user\0" + account_id.encode()).digest()


def _check_user_handle(response: Mapping[str, Any], expected_account: str) -> None:
    # WebAuthn §7.2 step 6: optional with allowCredentials, but if present it must be the account's.
    inner = response.get("response")
    handle = inner.get("userHandle") if isinstance(inner, Mapping) else None
    if isinstance(handle, str) and handle and base64url_to_bytes(handle) != user_handle(expected_account):
        raise PasskeyRefused("user handle of another account")


def _descriptors(passkeys: Iterable[Passkey]) -> list[PublicKeyCredentialDescriptor]:
    known = {transport.value: transport for transport in AuthenticatorTransport}
    return [
        PublicKeyCredentialDescriptor(
            id=passkey.credential_id,
            transports=[known[name] for name in passkey.transports if name in known] or None,
        )
        for passkey in passkeys
    ]


def _as_json(options: Any) -> dict[str, Any]:
    rendered: dict[str, Any] = json.loads(webauthn.options_to_json(options))
    return rendered


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, WebAuthnException) else type(error).__name__
