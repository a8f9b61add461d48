"""Creates the demo key through the admin API, as a customer would."""

import json
import secrets
from typing import Any
from urllib.parse import urlencode

import pyotp

from admin.stepup.totp import STEP_MS
from deploy.client import Reply, ask
from deploy.local.files import write_private
from deploy.local.folder import DataFolder
from deploy.local.process import StartError
from gateway.runtime import clock

SCOPES = ["read", "trade"]


def make(folder: DataFolder, *, identity_url: str, admin_url: str) -> None:
    """Create the demo key and write ``demo-key.json``, and ``demo-account.json`` with its owner's authenticator secret and recovery codes.

    :raises StartError: a step was refused; says which
    :raises Unanswered: a service did not answer
    """
    account = "demo"
    customer = _Customer(admin_url, _token(identity_url, account))
    if customer.call("GET", "account")["factors"]:
        # An earlier start was interrupted after enrolling a factor, whose secret is lost.
        account = f"demo-{secrets.token_hex(3)}"
        customer = _Customer(admin_url, _token(identity_url, account))
    enrolled = customer.call("POST", "factors/totp")
    code = _Codes(enrolled["secret"])
    confirmed = customer.call("POST", f"factors/totp/{enrolled['id']}/confirm", {"code": code.previous()})
    wish = {
        "label": "Demo key",
        "scopes": SCOPES,
        "ip_access": "unrestricted",
        "ip_allowlist": [],
        "algorithm": "hmac-sha256",
        "public_key": None,
        "expires_in_days": None,
    }
    challenge = customer.call("POST", "step-up", {"intent": {"action": "create_key", **wish}})
    made = customer.call("POST", "keys", {**wish, "step_up": {"challenge_id": challenge["challenge_id"], "totp": code.now()}})
    owner = {"account": account, "totp_secret": enrolled["secret"], "otpauth_uri": enrolled["otpauth_uri"]}
    write_private(
        folder.path / "demo-account.json", json.dumps(owner | {"recovery_codes": confirmed.get("recovery_codes", [])}, indent=2) + "\n"
    )
    key = {"key_id": made["key"]["id"], "secret": made["secret"], "scopes": SCOPES, "dialect": "mobee"}
    write_private(folder.demo_key, json.dumps(key, indent=2) + "\n")


class _Codes:
    """One-time codes of the current and the previous time step: two are needed, and each works once."""

    def __init__(self, secret: str) -> None:
        self._totp = pyotp.TOTP(secret)

    def previous(self) -> str:
        return self._totp.generate_otp(clock.now_ms() // STEP_MS - 1)

    def now(self) -> str:
        return self._totp.generate_otp(clock.now_ms() // STEP_MS)


class _Customer:
    """A client of the admin API for one account holder."""

    def __init__(self, admin_url: str, token: str) -> None:
        self._url = admin_url
        self._token = token

    def call(self, method: str, path: str, body: object = None) -> Any:
        return _expect(ask(method, f"{self._url}/api/v1/{path}", body=body, token=self._token), f"{method} /api/v1/{path}")


def _token(identity_url: str, account: str) -> str:
    form = urlencode({"account": account}).encode()
    return str(_expect(ask("POST", f"{identity_url}/demo-token", form=form), "POST /demo-token")["id_token"])


def _expect(reply: Reply, where: str) -> Any:
    if reply.status >= 400 or not isinstance(reply.content, dict):
        raise StartError(f"the demo key could not be created: {where} answered {reply.status} {reply.content}")
    return reply.content
