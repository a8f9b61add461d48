"""Every dialect against the published vectors, and the vectors against themselves."""

from typing import Any

import pytest

from gateway.admission.dialects import DIALECTS
from gateway.admission.dialects.rfc9421 import _input, signature_base
from gateway.admission.principal import Principal
from gateway.errors import InvalidCredentials
from tests.support.signed import a_gate, fields_of, record_of, request_of, sign_with, vectors

FILES = {name: vectors(name) for name in DIALECTS}
EACH: list[tuple[str, Any]] = [(name, each) for name, file in FILES.items() for each in file["vectors"]]
ALL = [pytest.param(name, each, id=f"{name}: {each['name']}") for name, each in EACH]
OURS = [param for param, (_, each) in zip(ALL, EACH, strict=True) if "base_only" not in each]


def test_every_dialect_has_its_file_of_vectors_with_accepted_and_refused_ones():
    for file in FILES.values():
        assert {each["valid"] for each in file["vectors"]} == {True, False}
        assert {key["algorithm"] for key in file["keys"].values()} == {"hmac-sha256", "ed25519", "rsa-sha256"}


@pytest.mark.parametrize(("dialect", "given"), OURS)
def test_the_gate_decides_as_the_vector_says(dialect, given):
    gate = a_gate(record_of(FILES[dialect]["keys"][given["key"]]))
    request = request_of(given)
    route = gate.route(request)
    if given["valid"]:
        assert gate.admit(request, route).identity.key_id == FILES[dialect]["keys"][given["key"]]["key_id"]
    else:
        with pytest.raises(InvalidCredentials) as refused:
            gate.admit(request, route)
        assert refused.value.extras["string_to_sign"] == given["string_to_sign"]


@pytest.mark.parametrize(("dialect", "given"), [param for param in OURS if param.values[1]["valid"]])
def test_credentials_are_read_as_the_vector_says(dialect, given):
    request = request_of(given)
    read = DIALECTS[dialect].read(request, fields_of(DIALECTS[dialect], request))
    assert read.key_id == FILES[dialect]["keys"][given["key"]]["key_id"]
    assert read.signed == given["string_to_sign"].encode()
    assert read.signature.hex() == given["signature_hex"]
    assert read.timestamp_ms == given["timestamp_ms"]
    assert read.window_ms == given.get("window_ms", 0)


@pytest.mark.parametrize("given", [each for _, each in EACH if "base_only" in each], ids=lambda given: given["name"])
def test_the_rfcs_own_bases_and_signatures_hold(given):
    request = request_of(given)
    read = _input(dict(request.headers)[b"signature-input"])
    base = signature_base(read.components, read.text, request)
    assert base == given["string_to_sign"].encode()
    principal = Principal.of(record_of(FILES["rfc9421"]["keys"][given["key"]]))
    assert principal.verify(base, bytes.fromhex(given["signature_hex"]))


@pytest.mark.parametrize(("dialect", "given"), [param for param in OURS if param.values[1]["valid"]])
def test_whoever_holds_the_key_makes_the_same_signature(dialect, given):
    key, message = FILES[dialect]["keys"][given["key"]], given["string_to_sign"].encode()
    assert sign_with(key, message).hex() == given["signature_hex"]
