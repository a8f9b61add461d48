"""Code examples for a new key, shown beside its secret.

The page replaces ``KEY_ID`` and ``KEY_FILE`` in the browser. Examples read the secret from the file that
the page offers for download: on a command line every user of the machine could read it.
"""

from typing import NamedTuple


class Example(NamedTuple):
    """One program for one algorithm, in the ``mobee`` dialect."""

    algorithm: str
    place: str
    """Id of the HTML element."""
    text: str


_BASH_HMAC = r"""FILE='KEY_FILE'
member() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" "$FILE"; }
KEY=$(member key_id) SECRET=$(member secret) TIME=$(date +%s)
# HMAC of two SHA-256: openssl would show its key in the command line
pad() { for ((i = 0; i < 64; i++)); do b=0; ((i < ${#SECRET})) && printf -v b %d "'${SECRET:i:1}"; printf '\\x%02x' $((b ^ $1)); done; }
sha256() { openssl dgst -sha256 -binary; }
inner() { { printf '%b' "$(pad 0x36)"; printf 'GET\n/gateway/v1/key\n%s' "$TIME"; } | sha256; }
SIGNATURE=$({ printf '%b' "$(pad 0x5c)"; inner; } | sha256 | openssl base64 -A)
"""

_BASH_OWN = r"""KEY='KEY_ID'
TIME=$(date +%s)
printf 'GET\n/gateway/v1/key\n%s' "$TIME" > message.txt
SIGNATURE=$(openssl {how} | openssl base64 -A)
"""

_BASH = {
    "hmac-sha256": _BASH_HMAC,
    # OpenSSL signs with Ed25519 from a file only.
    "ed25519": _BASH_OWN.replace("{how}", "pkeyutl -sign -inkey private.pem -rawin -in message.txt"),
    "rsa-sha256": _BASH_OWN.replace("{how}", "dgst -sha256 -sign private.pem -binary message.txt"),
}

_BASH_CALL = """\
curl -sS {gateway}/gateway/v1/key -H "X-API-Key: $KEY" \\
  -H "X-Request-Timestamp: $TIME" -H "X-Request-Signature: $SIGNATURE"
"""

_PYTHON_OWN = """\
import base64, time, urllib.request
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

key_id = "KEY_ID"
with open("private.pem", "rb") as file:
    private_key = serialization.load_pem_private_key(file.read(), None)
timestamp = str(int(time.time()))
message = f"GET\\n/gateway/v1/key\\n{timestamp}".encode()
signature = private_key.sign({arguments})
"""

_PYTHON = {
    "hmac-sha256": """\
import base64, hashlib, hmac, json, time, urllib.request

with open("KEY_FILE") as file:
    key = json.load(file)
key_id = key["key_id"]
timestamp = str(int(time.time()))
message = f"GET\\n/gateway/v1/key\\n{timestamp}".encode()
signature = hmac.digest(key["secret"].encode(), message, hashlib.sha256)
""",
    "ed25519": _PYTHON_OWN.replace("{arguments}", "message").replace(
        "import hashes, serialization\nfrom cryptography.hazmat.primitives.asymmetric import padding", "import serialization"
    ),
    "rsa-sha256": _PYTHON_OWN.replace("{arguments}", "message, padding.PKCS1v15(), hashes.SHA256()"),
}

_PYTHON_CALL = """\
headers = {
    "X-API-Key": key_id,
    "X-Request-Timestamp": timestamp,
    "X-Request-Signature": base64.b64encode(signature).decode(),
}
request = urllib.request.Request("{gateway}/gateway/v1/key", headers=headers)
try:
    print(urllib.request.urlopen(request).read().decode())
except urllib.error.HTTPError as refusal:
    raise SystemExit(refusal.read().decode())
"""

_NODE_START = """\
// save as try.mjs, run: node try.mjs
import { {what} } from "node:crypto";
import { readFileSync } from "node:fs";

{key}
const timestamp = String(Math.floor(Date.now() / 1000));
const message = `GET\\n/gateway/v1/key\\n${timestamp}`;
const signature = {sign};
"""


def _node(what: str, key: str, sign: str) -> str:
    return _NODE_START.replace("{what}", what).replace("{key}", key).replace("{sign}", sign)


_NODE_OWN = 'const key_id = "KEY_ID";\nconst privateKey = readFileSync("private.pem");'
_NODE = {
    "hmac-sha256": _node(
        "createHmac",
        'const { key_id, secret } = JSON.parse(readFileSync("KEY_FILE", "utf8"));',
        'createHmac("sha256", secret).update(message).digest("base64")',
    ),
    "ed25519": _node("sign", _NODE_OWN, 'sign(null, Buffer.from(message), privateKey).toString("base64")'),
    "rsa-sha256": _node("sign", _NODE_OWN, 'sign("sha256", Buffer.from(message), privateKey).toString("base64")'),
}

_NODE_CALL = """\
const headers = { "X-API-Key": key_id, "X-Request-Timestamp": timestamp, "X-Request-Signature": signature };
const answer = await fetch("{gateway}/gateway/v1/key", { headers });
console.log(await answer.text());
process.exitCode = answer.ok ? 0 : 1;
"""

_PROGRAMS = (("example", _BASH, _BASH_CALL), ("example-python", _PYTHON, _PYTHON_CALL), ("example-node", _NODE, _NODE_CALL))


def signed_requests(gateway_url: str) -> tuple[Example, ...]:
    """A program for each algorithm, in bash, Python and Node."""
    gateway = gateway_url.rstrip("/")
    return tuple(
        Example(algorithm, place, start + call.replace("{gateway}", gateway))
        for place, starts, call in _PROGRAMS
        for algorithm, start in starts.items()
    )
