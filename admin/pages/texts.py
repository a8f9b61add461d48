"""Translated texts chosen by a code: statuses, field errors, refusals, audit events.

Each function takes the ``_`` of a language; codes are those of ``lifecycle.policy``, ``errors`` and ``audit``.
"""

from pathlib import Path

from admin.lifecycle.leaks import LEAKED
from admin.pages.i18n import Translate

TEMPLATES = Path(__file__).parent / "templates"

Sentences = dict[str, str]


def labels(_: Translate) -> dict[str, Sentences]:
    """Labels by kind and code."""
    return {
        "status": {
            "active": _("Active"),
            "expired": _("Expired"),
            "suspended": _("Suspended"),
            "revoked": _("Revoked by the exchange"),
            "idle": _("Ended unused"),
        },
        "scope": {"read": _("Read Only"), "trade": _("Spot Trading")},
        "algorithm": {"hmac-sha256": _("HMAC with a Secret Key"), "ed25519": _("Ed25519 key pair"), "rsa-sha256": _("RSA key pair")},
        "why_not": {
            "frozen": _("Off while your account is frozen."),
            "kyc": _("Off until your identity is verified."),
            "factor": _("Off until you have set up 2FA."),
            "limit": _("Off: you have reached the maximum number of keys. Delete one first."),
        },
        "reason": {LEAKED: _("its Secret Key was found in public")},
        "factor": {"totp": _("Authenticator app"), "passkey": _("Passkey")},
    }


def field_errors(_: Translate) -> Sentences:
    """Texts of field errors: ``field.code`` takes precedence over ``code``."""
    return {
        "required": _("Please fill this in."),
        "label.required": _("Enter a name for the key that you will recognise later."),
        "name.required": _("Enter a name that you will recognise later."),
        "scopes.required": _("Choose at least one permission."),
        "ip_allowlist.required": _("Enter at least one address, or choose unrestricted access."),
        "public_key.required": _("Paste your public key."),
        "too_long": _("At most 64 characters."),
        "expires_in_days.too_long": _("An unrestricted trading key cannot be valid for that long. Choose a shorter time."),
        "not_printable": _("Letters, digits, spaces and symbols only: no control or invisible characters."),
        "not_an_address": _("Not an IP address. Write one like 8.8.8.8 or 2606:4700::1111, without port or network."),
        "not_public": _("Not a public address. Enter the one that your bot's requests come from, as seen from the internet."),
        "duplicate": _("Already in the list."),
        "too_many": _("At most 3 addresses."),
        "unexpected": _("Leave this empty for the option chosen above."),
        "not_a_choice": _("Choose one of the options."),
        "out_of_range": _("Between 1 and 3,650 days."),
        "not_a_public_key": _("Not a public key in PEM. Paste all of it, including the lines BEGIN PUBLIC KEY and END PUBLIC KEY."),
        "wrong_key_type": _("This key does not match the signature type chosen above."),
        "weak_key": _("This key is too weak. Use a new Ed25519 key, or RSA with 2048 to 4096 bits and exponent 65537."),
        "private_key": _("This is your private key! We did not keep it, but make a new pair now and paste only the public half."),
        "wrong_code": _("The code is wrong. Enter the one that the app shows now, and check the clock of your phone."),
        "six_digits": _("The code has six digits."),
        "code_already_used": _("This code was already used. Wait for the next one."),
        "other_label": _("This is not the label of the key."),
        "confirm_unrestricted": _("Tick this if you really want a trading key without IP restriction, or list your addresses."),
        "invalid": _("This cannot be used here."),
    }


def problems(_: Translate) -> Sentences:
    """Texts of refusals: ``code.reason`` takes precedence over ``code``."""
    return {
        "unknown": _("Something went wrong on our side. Please try again."),
        "offline": _("The service cannot be reached. Check your connection and try again."),
        "unauthenticated": _("Your session has ended. Please sign in again."),
        "cross_site_request": _("This page is out of date. Please reload it."),
        "kyc_required": _("API keys are for customers whose identity is verified. Please verify yours first."),
        "account_frozen": _("Your account is frozen. Please contact support."),
        "factor_required": _("Set up 2FA first, on the Security page: a passkey or an authenticator app."),
        "step_up_required": _("Confirm with a passkey or a code first."),
        "step_up_failed": _("The confirmation was not accepted. Please try again."),
        "step_up_failed.wrong_code": _("The code is wrong. Enter the one that the app shows now, and check the clock of your phone."),
        "step_up_failed.code_already_used": _("This code was already used. Wait for the next one."),
        "step_up_failed.wrong_passkey": _("This passkey was not accepted. Try again, or use another way."),
        "step_up_failed.challenge_expired": _("The confirmation has expired after two minutes. Please confirm again."),
        "step_up_failed.challenge_used": _("This confirmation was already used. Please confirm again."),
        "step_up_failed.challenge_unknown": _("This confirmation belongs to another session. Please confirm again."),
        "step_up_failed.other_intent": _("Something was changed after the confirmation. Please check and confirm again."),
        "step_up_failed.method_not_allowed": _("This way to confirm cannot be used here. Use another one."),
        "login_too_old": _("This needs a recent sign-in. Sign in again, then set up your first way to confirm."),
        "key_limit_reached": _("You have reached the maximum number of keys. Delete one to create another."),
        "last_factor": _("This is your last way to confirm. Add another one first, or delete your keys."),
        "factor_limit_reached": _("You have reached the maximum number of ways to confirm. Remove one first."),
        "invalid_request": _("Please correct the marked fields."),
        "not_found": _("It no longer exists. Please reload the page."),
        "not_found.page": _("There is nothing at this address. If there was a key, it has been deleted."),
        "method_not_allowed.page": _("There is nothing at this address. If there was a key, it has been deleted."),
        "rate_limited": _("Too many attempts. Please wait a moment and try again."),
        "service_unavailable": _("The service is not available at the moment, and nothing was changed. Please try again shortly."),
        "identity_provider_unavailable": _("Signing in is not possible at the moment. Please try again shortly."),
    }


def refusals(_: Translate) -> Sentences:
    """Texts of the gate's refusals, by code."""
    return {
        "ip_not_allowed": _("Address not in the list of this key"),
        "scope_not_granted": _("Permission missing"),
        "invalid_credentials": _("Signature did not match"),
        "timestamp_out_of_window": _("Clock difference too large"),
        "replayed_request": _("Request sent twice"),
        "rate_limited": _("Too many requests"),
        "key_expired": _("Key expired"),
        "account_frozen": _("Account frozen"),
        "unsigned_query": _("Query not covered by the signature"),
    }


def advice(_: Translate) -> Sentences:
    """What the owner of a key can do about a refusal."""
    return {
        "ip_not_allowed": _(
            "Was this you? Then create a new key with this address and delete this one, since a key cannot be changed. "
            "If it was not you, delete this key now: someone else has its secret."
        ),
        "scope_not_granted": _("The bot made a call that this key does not allow. If it should, create a key with that permission."),
        "invalid_credentials": _(
            "Check that the bot uses this key's secret, unchanged. The answer that it received contains the string to sign."
        ),
        "timestamp_out_of_window": _("Synchronize the clock of the bot's machine with the internet (NTP)."),
        "replayed_request": _("The bot must sign each request again, including retries."),
        "rate_limited": _("Reduce the bot's request rate; the answer says when it may send again."),
        "key_expired": _("Create a new key and delete this one."),
    }


def events(_: Translate) -> Sentences:
    """Texts of audit events for the account's holder."""
    return {
        "login": _("Signed in"),
        "logins_ended": _("Signed out everywhere"),
        "other_logins_ended": _("Every other sign-in ended"),
        "kyc_changed": _("Identity verification changed"),
        "tier_changed": _("Tier changed by the exchange"),
        "account_frozen": _("Account frozen by the exchange"),
        "account_thawed": _("Account unfrozen by the exchange"),
        "factor_added": _("Way to confirm added"),
        "factor_removed": _("Way to confirm removed"),
        "factors_reset": _("All ways to confirm removed by the exchange"),
        "recovery_codes_renewed": _("New recovery codes created"),
        "step_up_failed": _("Confirmation failed"),
        "key_created": _("Key created"),
        "key_creation_refused": _("Key creation refused"),
        "key_deleted": _("Key deleted"),
        "key_revoked": _("Key revoked by the exchange"),
        "key_idle": _("Key ended because it was unused"),
    }


def login_outcomes(_: Translate) -> Sentences:
    """Why the customer is back on the sign-in page."""
    return {
        "denied": _("You did not sign in. Try again when you are ready."),
        "stale": _("This sign-in took too long or was started elsewhere. Please sign in again."),
        "failed": _("Signing in did not work. Please try again; if it keeps failing, contact support."),
    }


def scripts(_: Translate) -> dict[str, object]:
    """Texts of the pages' scripts."""
    return {
        "errors": field_errors(_),
        "problems": problems(_),
        **{kind: names for kind, names in labels(_).items() if kind in ("scope", "algorithm")},
        "unrestricted": _("Unrestricted"),
        "copied": _("Copied."),
        "copy_failed": _("Copying is not possible here. The text is selected: please copy it yourself."),
        "again": _("Sign in again"),
        "busy": _("Processing…"),
        "deleted": _("The key is deleted. It no longer works."),
        "others_ended": _("Every other sign-in has ended."),
        "wait_seconds": {
            "one": _("Too many wrong attempts. Try again in {count} second."),
            "other": _("Too many wrong attempts. Try again in {count} seconds."),
        },
        "wait_minutes": {"other": _("Too many wrong attempts. Try again in {count} minutes.")},
        "found": _("Found: {count}"),
        "page_of": _("Page {page} of {pages}"),
        "removing": _("Removing {name}"),
        "adding_passkey": _("Adding a passkey"),
        "adding_totp": _("Adding an authenticator app"),
        "renewing_codes": _("Creating new recovery codes"),
        "recovery": {
            "wrong_code": _("This is not one of your recovery codes."),
            "code_already_used": _("This recovery code was already used. Use another one."),
        },
        "passkey": {
            "NotAllowedError": _("Nothing was confirmed: it was cancelled, or took too long. Try again when you are ready."),
            "SecurityError": _("Passkeys cannot be used at this address."),
            "NotSupportedError": _("This device cannot create a passkey."),
            "failed": _("The passkey could not be used. Try again, or use another way."),
            "unsupported": _("This browser cannot use passkeys. An authenticator app works everywhere."),
            "register": {"InvalidStateError": _("This device already has a passkey for your account.")},
        },
    }
