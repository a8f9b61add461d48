"""A signed request to paste into a terminal, for the very key that was just made: what the page shows beside a new secret.

``KEY_ID`` and ``SECRET`` are put in by the page itself, in the browser.
"""

_START = """\
KEY='KEY_ID'
TIME=$(date +%s)
"""

_MESSAGE = "printf 'GET\\n/gateway/v1/key\\n%s' \"$TIME\""

_SIGN = {
    "hmac-sha256": f"""\
SECRET='SECRET'
SIGNATURE=$({_MESSAGE} | openssl dgst -sha256 -hmac "$SECRET" -binary | openssl base64 -A)
""",
    # OpenSSL signs with Ed25519 from a file only.
    "ed25519": f"""\
{_MESSAGE} > /tmp/message
SIGNATURE=$(openssl pkeyutl -sign -inkey private.pem -rawin -in /tmp/message | openssl base64 -A)
""",
    "rsa-sha256": f"""\
SIGNATURE=$({_MESSAGE} | openssl dgst -sha256 -sign private.pem -binary | openssl base64 -A)
""",
}

_CALL = """\
curl -sS {gateway}/gateway/v1/key -H "X-API-Key: $KEY" \\
  -H "X-Request-Timestamp: $TIME" -H "X-Request-Signature: $SIGNATURE"
"""


def signed_requests(gateway_url: str) -> dict[str, str]:
    """One shell script for each algorithm, in the ``mobee`` dialect."""
    call = _CALL.format(gateway=gateway_url.rstrip("/"))
    return {algorithm: _START + sign + call for algorithm, sign in _SIGN.items()}
