"""A customer with a phone: logs in at the demo provider, enrols TOTP, makes and deletes keys through the admin API."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import pyotp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from deploy.client import Reply, ask
from gateway.runtime import clock

STEP_MS = 30_000
_AT_HAND_MS = 5_000
"""How long a code that is given out stays good at least."""
_numbers = itertools.count(1)
WISH = {
    "label": "A bot",
    "scopes": ["read", "trade"],
    "ip_access": "unrestricted",
    "ip_allowlist": [],
    "algorithm": "hmac-sha256",
    "public_key": None,
    "expires_in_days": None,
}
PRIVATE_KEYS: dict[str, Callable[[], Ed25519PrivateKey | RSAPrivateKey]] = {
    "ed25519": Ed25519PrivateKey.generate,
    "rsa-sha256": lambda: generate_private_key(65537, 2048),
}


def next_step(last: int) -> int:
    """The next step (Unix time / 30 s) whose code was not used. One that is about to be too old is left out; one that is not good yet is
    waited for.
    """
    step = max(last + 1, (clock.now_ms() + _AT_HAND_MS) // STEP_MS - 1)
    too_early_ms = (step - 1) * STEP_MS - clock.now_ms()
    if 0 < too_early_ms <= _AT_HAND_MS:
        time.sleep(too_early_ms / 1_000)
    return step


class Customer:
    """One account. Its codes come from the time step before the present one, the present one, the next one: three, each good once."""

    def __init__(self, admin_url: str, identity_url: str, account: str | None = None, *, enrol: bool = True) -> None:
        self.account = account or f"customer-{clock.now_ms()}-{next(_numbers)}"
        self._url = admin_url
        self.token = ask("POST", f"{identity_url}/demo-token", form=f"account={self.account}".encode()).content["id_token"]
        self._step = clock.now_ms() // STEP_MS - 2
        self.totp: pyotp.TOTP | None = None
        if enrol:
            self.enrol()

    def call(self, method: str, path: str, body: object = None) -> Reply:
        return ask(method, f"{self._url}/api/v1/{path}", body=body, token=self.token)

    def enrol(self) -> None:
        factor = self.expect(201, "POST", "factors/totp")
        self.totp = pyotp.TOTP(factor["secret"])
        self.expect(200, "POST", f"factors/totp/{factor['id']}/confirm", {"code": self.code()})

    def expect(self, status: int, method: str, path: str, body: object = None) -> Any:
        reply = self.call(method, path, body)
        assert reply.status == status, (method, path, reply)
        return reply.content

    def code(self, *, step: int | None = None) -> str:
        """A code that was not used yet, or the one of ``step`` (Unix time / 30 s)."""
        if step is None:
            self._step = step = next_step(self._step)
        return self.totp.generate_otp(step)

    def step_up(self, **intent: object) -> dict[str, str]:
        """A proof for this intent."""
        challenge = self.expect(201, "POST", "step-up", {"intent": intent})
        return {"challenge_id": challenge["challenge_id"], "totp": self.code()}

    def create_key(self, **wish: object) -> dict[str, str]:
        """A key as a key file holds it."""
        wish = WISH | wish
        made = self.expect(201, "POST", "keys", wish | {"step_up": self.step_up(action="create_key", **wish)})
        return {"key_id": made["key"]["id"], "secret": made.get("secret")}

    def create_key_of(self, algorithm: str, **wish: object) -> dict[str, str]:
        """A key as other people's clients want it: its ``secret`` is the secret, or the private key in PEM."""
        if algorithm not in PRIVATE_KEYS:
            return self.create_key(**wish)
        private = PRIVATE_KEYS[algorithm]()
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        made = self.create_key(algorithm=algorithm, public_key=public, **wish)
        return made | {"secret": private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()}

    def delete_key(self, key_id: str) -> None:
        self.expect(204, "DELETE", f"keys/{key_id}", {"step_up": self.step_up(action="delete_key", key_id=key_id)})
