"""The published messages: what is signed, what is asked, and what goes on."""

import json

import pytest

from gateway.admission.principal import Principal
from gateway.admission.sessions import SESSIONS
from gateway.errors import Refusal
from gateway.http1.message import Request
from tests.support.signed import record_of, vectors

FILES = {name: vectors(f"{name}-session") for name in SESSIONS}
CASES = [(name, each) for name, file in FILES.items() for each in file["vectors"]]
HANDSHAKE = Request(b"GET", b"/ws", b"/ws", None, (), b"", "192.0.2.1", False, 0, "request-1")


@pytest.mark.parametrize(("name", "vector"), CASES, ids=[f"{name}: {each['name']}" for name, each in CASES])
def test_a_message_is_read_as_published(name, vector):
    dialect = SESSIONS[name]
    message = dialect.read(vector["message"].encode(), HANDSHAKE, "", vector["timestamp_ms"], "request-1")
    assert (message.wrong, message.names) == ("", vector["methods"])
    credentials = dialect.credentials(message, 60_000)
    key = FILES[name]["keys"][vector["key"]]
    assert credentials.key_id == key["key_id"]
    assert credentials.signed.decode() == vector["string_to_sign"]
    assert (credentials.timestamp_ms, credentials.window_ms) == (vector["timestamp_ms"], vector["window_ms"])
    verifies = Principal.of(record_of(key)).verify(credentials.signed, credentials.signature)
    assert verifies is vector["valid"]
    assert message.rest.decode() == vector["forwarded"]
    whole = json.loads(message.forwarded(b'"gateway":{"client_ip":"192.0.2.1"}'))
    assert next(iter(whole)) == "gateway"
    assert key["key_id"] not in message.rest.decode()


@pytest.mark.parametrize(
    ("name", "vector"), [case for case in CASES if case[1]["valid"]], ids=lambda value: value if isinstance(value, str) else ""
)
def test_no_byte_of_what_is_signed_can_be_changed(name, vector):
    """Each byte of a message, changed to another: it is refused, reads as another message, or does not verify."""
    dialect, text = SESSIONS[name], vector["message"].encode()
    key = FILES[name]["keys"][vector["key"]]
    verify = Principal.of(record_of(key)).verify
    original = dialect.read(text, HANDSHAKE, "", 0, "")
    for position in range(0, len(text), 3 if key["algorithm"] == "rsa-sha256" else 1):
        changed = text[:position] + bytes([text[position] ^ 1]) + text[position + 1 :]
        try:
            changed.decode()
            message = dialect.read(changed, HANDSHAKE, "", 0, "")
            credentials = dialect.credentials(message, 60_000)
        except (UnicodeDecodeError, Refusal):
            continue
        if message.wrong or credentials is None or not verify(credentials.signed, credentials.signature):
            continue
        assert {member for member in _params(message.rest) ^ _params(original.rest) if name == "binance"} == set(), changed


def _params(rest: bytes) -> set[str]:
    """What of a message is signed, as it is forwarded."""
    params = json.loads(b"{%b}" % rest).get("params")
    return {f"{name}={json.dumps(value)}" for name, value in params.items()} if isinstance(params, dict) else set()
