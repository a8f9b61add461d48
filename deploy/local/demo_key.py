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
    token = _token(identity_url, account)

    def call(method: str, path: str, body: object = None) -> Any:
        return _expect(ask(method, f"{admin_url}/api/v1/{path}", body=body, token=token), f"{method} /api/v1/{path}")

    if call("GET", "account")["factors"]:
        # An earlier start was interrupted after enrolling a factor, whose secret is lost.
        account = f"demo-{secrets.token_hex(3)}"
        token = _token(identity_url, account)
    enrolled = call("POST", "factors/totp")
    totp = pyotp.TOTP(enrolled["secret"])
    # Two codes are needed, and each works once: that of the previous time step, and the current one.
    confirmed = call("POST", f"factors/totp/{enrolled['id']}/confirm", {"code": totp.generate_otp(clock.now_ms() // STEP_MS - 1)})
    wish = {
        "label": "Demo key",
        "scopes": SCOPES,
        "ip_access": "unrestricted",
        "ip_allowlist": [],
        "algorithm": "hmac-sha256",
        "public_key": None,
        "expires_in_days": None,
    }
    challenge = call("POST", "step-up", {"intent": {"action": "create_key", **wish}})
    proof = {"challenge_id": challenge["challenge_id"], "totp": totp.generate_otp(clock.now_ms() // STEP_MS)}
    made = call("POST", "keys", {**wish, "step_up": proof})
    owner = {"account": account, "totp_secret": enrolled["secret"], "otpauth_uri": enrolled["otpauth_uri"]}
    write_private(
        folder.path / "demo-account.json", json.dumps(owner | {"recovery_codes": confirmed.get("recovery_codes", [])}, indent=2) + "\n"
    )
    key = {"key_id": made["key"]["id"], "secret": made["secret"], "scopes": SCOPES, "dialect": "mobee"}
    write_private(folder.demo_key, json.dumps(key, indent=2) + "\n")


def _token(identity_url: str, account: str) -> str:
    form = urlencode({"account": account}).encode()
    return str(_expect(ask("POST", f"{identity_url}/demo-token", form=form), "POST /demo-token")["id_token"])


def _expect(reply: Reply, where: str) -> Any:
    if reply.status >= 400 or not isinstance(reply.content, dict):
        raise StartError(f"the demo key could not be created: {where} answered {reply.status} {reply.content}")
    return reply.content
