"""A passkey authenticator in software (WebAuthn §6): signs what a browser would hand it, honestly or not."""

import hashlib
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Authenticator:
    """One credential on one device. Set ``counter``, ``verified``, ``origin`` and ``rp_id`` to misbehave."""

    rp_id: str = "exchange.example"
    origin: str = "https://exchange.example"
    counter: int = 0
    verified: bool = True
    present: bool = True
    credential_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    user_handle: str | None = None

    def register(self, options: dict[str, Any]) -> dict[str, Any]:
        """``navigator.credentials.create``."""
        self.user_handle = options["user"]["id"]
        self.counter += 1
        attested = bytes(16) + len(self.credential_id).to_bytes(2) + self.credential_id + self._cose()
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": self._data(attested=True) + attested})
        client_data = self._client_data("webauthn.create", options["challenge"])
        return self._envelope(
            {"clientDataJSON": b64(client_data), "attestationObject": b64(attestation), "transports": ["internal", "hybrid"]}
        )

    def assertion(self, options: dict[str, Any]) -> dict[str, Any]:
        """``navigator.credentials.get``."""
        self.counter += 1
        client_data, data = self._client_data("webauthn.get", options["challenge"]), self._data()
        signature = self.key.sign(data + hashlib.sha256(client_data).digest(), ec.ECDSA(hashes.SHA256()))
        response = {"clientDataJSON": b64(client_data), "authenticatorData": b64(data), "signature": b64(signature)}
        return self._envelope(response | ({"userHandle": self.user_handle} if self.user_handle else {}))

    def _envelope(self, response: dict[str, Any]) -> dict[str, Any]:
        identifier = b64(self.credential_id)
        return {"id": identifier, "rawId": identifier, "type": "public-key", "clientExtensionResults": {}, "response": response}

    def _client_data(self, kind: str, challenge: str) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}).encode()

    def _data(self, *, attested: bool = False) -> bytes:
        flags = (0x01 if self.present else 0) | (0x04 if self.verified else 0) | (0x40 if attested else 0)
        return hashlib.sha256(self.rp_id.encode()).digest() + bytes([flags]) + self.counter.to_bytes(4)

    def _cose(self) -> bytes:
        point = self.key.public_key().public_numbers()
        return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: point.x.to_bytes(32), -3: point.y.to_bytes(32)})
