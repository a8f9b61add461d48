"""The rfc9421 dialect: what is read, and what cannot be."""

from base64 import b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.admission.dialects import DIALECTS
from gateway.admission.dialects.rfc9421 import INPUT, SIGNATURE, Rfc9421, signature_base
from gateway.errors import AmbiguousCredentials, InvalidCredentials, MalformedRequest, MissingCredentials, UnsignedQuery
from tests.support.signed import a_gate, fields_of, record_of, request_of, sign_with, vector, vectors, with_field

READ = request_of(vector("rfc9421", "without alg, further parameters"))
ORDER = request_of(vector("rfc9421", "order, hmac"))
LEAST = b's=("@method" "@path");created=1790000000;keyid="k"'
TWO = b"s=:YWI=:"


def read(request):
    return Rfc9421().read(request, fields_of(Rfc9421(), request))


def given(described=LEAST, signature=TWO, request=READ):
    return with_field(with_field(request, INPUT, described), SIGNATURE, signature)


def test_the_least_that_may_be_sent_is_read():
    credentials = read(given())
    assert credentials.key_id == "k"
    assert credentials.signature == b"ab"
    assert credentials.timestamp_ms == 1_790_000_000_000
    assert credentials.algorithm == ""
    assert credentials.expires_ms == 0
    assert not credentials.unique
    assert (
        credentials.signed == b'"@method": GET\n"@path": /v1/wallets\n"@signature-params": ("@method" "@path");created=1790000000;keyid="k"'
    )


@pytest.mark.parametrize(("named", "ours"), [("hmac-sha256", "hmac-sha256"), ("ed25519", "ed25519"), ("rsa-v1_5-sha256", "rsa-sha256")])
def test_an_algorithm_that_is_named_is_told_by_our_name(named, ours):
    credentials = read(given(LEAST + f';alg="{named}";nonce="n";expires=1790000003'.encode()))
    assert credentials.algorithm == ours
    assert credentials.unique
    assert credentials.expires_ms == 1_790_000_003_000


def test_parameters_are_signed_as_received_and_never_serialised_anew():
    described = b's=(  "@method"   "@path" );created=1790000000;  keyid="k"'
    assert read(given(described)).signed.endswith(b'"@signature-params": ' + described[2:])


REFUSED = [
    (LEAST.replace(b'"@method" ', b""), TWO, MalformedRequest, "must cover @method"),
    (LEAST.replace(b' "@path"', b""), TWO, MalformedRequest, "must cover @path"),
    (b's=();created=1790000000;keyid="k"', TWO, MalformedRequest, "1 to 32 components"),
    (b's=("@method" "@path" "@path");created=1;keyid="k"', TWO, MalformedRequest, "twice"),
    (b's=("@method" "@path" "@status");created=1;keyid="k"', TWO, MalformedRequest, "unsupported component '@status'"),
    (b's=("@method" "@path" "@signature-params");created=1;keyid="k"', TWO, MalformedRequest, "unsupported component"),
    (b's=("@method" "@path" "@query-param";name="a");created=1;keyid="k"', TWO, MalformedRequest, "carries 0 times"),
    (b's=("@method" "@path" "@query-param");created=1;keyid="k"', TWO, MalformedRequest, "without parameters"),
    (b's=("@method" "@path" "@query-param";name="a";req);created=1;keyid="k"', TWO, MalformedRequest, "without parameters"),
    (b's=("@method";req "@path");created=1;keyid="k"', TWO, MalformedRequest, "without parameters"),
    (b's=("@method" "@path" "Host");created=1;keyid="k"', TWO, MalformedRequest, "lower-case"),
    (b's=("@method" "@path" token);created=1;keyid="k"', TWO, MalformedRequest, "lower-case"),
    (b's=("@method" "@path" "x-absent");created=1;keyid="k"', TWO, MalformedRequest, "does not carry"),
    (b's=("@method" "@path");keyid="k"', TWO, MissingCredentials, "no created"),
    (b's=("@method" "@path");created="1";keyid="k"', TWO, MalformedRequest, "created"),
    (b's=("@method" "@path");created=1.5;keyid="k"', TWO, MalformedRequest, "created"),
    (b's=("@method" "@path");created=?1;keyid="k"', TWO, MalformedRequest, "created"),
    (b's=("@method" "@path");created=1790000000000;keyid="k"', TWO, MalformedRequest, "created"),
    (b's=("@method" "@path");created=-1;keyid="k"', TWO, MalformedRequest, "created"),
    (LEAST + b";expires=?1", TWO, MalformedRequest, "expires"),
    (b's=("@method" "@path");created=1', TWO, MissingCredentials, "no keyid"),
    (b's=("@method" "@path");created=1;keyid=""', TWO, MissingCredentials, "no keyid"),
    (b's=("@method" "@path");created=1;keyid=k', TWO, MalformedRequest, "keyid"),
    (LEAST + b';alg="ecdsa-p256-sha256"', TWO, MalformedRequest, "unsupported alg 'ecdsa-p256-sha256'"),
    (LEAST + b";alg=ed25519", TWO, MalformedRequest, "alg"),
    (LEAST + b';keyid="other"', TWO, MalformedRequest, "twice"),
    (LEAST + b", " + LEAST, TWO, MalformedRequest, "twice"),
    (LEAST + b", t" + LEAST[1:], TWO, AmbiguousCredentials, "exactly one signature"),
    (b"", TWO, AmbiguousCredentials, "exactly one signature"),
    (b"s", TWO, MalformedRequest, "1 to 32 components"),
    (b's="@method"', TWO, MalformedRequest, "1 to 32 components"),
    (b's=("@method"', TWO, MalformedRequest, "structured dictionary"),
    (b"\xff", TWO, MalformedRequest, "structured dictionary"),
    (LEAST, b"t=:YWI=:", AmbiguousCredentials, "'s'"),
    (LEAST, b's="YWI="', MalformedRequest, "byte sequence"),
    (LEAST, b"s", MalformedRequest, "byte sequence"),
    (LEAST, b"s=:YW I=:", MalformedRequest, "structured dictionary"),
    (LEAST, b"", AmbiguousCredentials, "'s'"),
]


@pytest.mark.parametrize(("described", "signature", "refusal", "why"), REFUSED)
def test_what_cannot_be_read_is_refused_with_its_reason(described, signature, refusal, why):
    with pytest.raises(refusal, match=why.replace("'", ".")):
        read(given(described, signature))


def test_stray_bits_behind_a_signature_make_it_nobodys():
    assert read(given(signature=b"s=:YWJ=:")).signature == b""


@pytest.mark.parametrize("name", [INPUT, SIGNATURE])
def test_half_of_the_credentials_is_told_to_be_half(name):
    request = READ.replace(headers=tuple(line for line in READ.headers if line[0] != name))
    with pytest.raises(MissingCredentials, match="both Signature-Input and Signature"):
        read(request)


@pytest.mark.parametrize("query", [b"", b"a=b"])
def test_a_query_must_be_covered_even_an_empty_one(query):
    with pytest.raises(UnsignedQuery, match="must cover @query"):
        read(given().replace(query=query))


def test_content_must_be_covered_by_its_digest():
    with pytest.raises(MalformedRequest, match="must cover content-digest"):
        read(given(request=ORDER))


@pytest.mark.parametrize(
    "digest",
    [b"sha-256=:AAAA:", b"sha-512=:AAAA:", b"sha-256=?1", b"sha-256=AAAA",
     b"sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:, sha-512=:AAAA:"],
)  # fmt: skip
def test_content_that_is_not_what_a_digest_says_is_a_wrong_signature(digest):
    with pytest.raises(InvalidCredentials, match="does not match Content-Digest") as refused:
        read(with_field(ORDER, b"content-digest", digest).replace(body=b"abc"))
    assert str(refused.value.extras["string_to_sign"]).startswith('"@method": POST\n')


@pytest.mark.parametrize("digest", [b"md5=:AAAA:", b"sha-1=:AAAA:", b""])
def test_a_digest_that_nobody_trusts_does_not_count(digest):
    with pytest.raises(MalformedRequest, match="none of sha-256, sha-512"):
        read(with_field(ORDER, b"content-digest", digest))


def test_a_digest_of_nothing_is_checked_when_it_is_covered():
    request = given(b's=("@method" "@path" "content-digest");created=1;keyid="k"')
    right = b"sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
    assert read(request.replace(headers=(*request.headers, (b"content-digest", right))))
    with pytest.raises(InvalidCredentials):
        read(request.replace(headers=(*request.headers, (b"content-digest", right.replace(b"47", b"48")))))


@pytest.mark.parametrize(
    ("component", "secure", "host", "value"),
    [
        ("@authority", False, b"API.Example.ID:80", b"api.example.id"),
        ("@authority", True, b"api.example.id:443", b"api.example.id"),
        ("@authority", True, b"api.example.id:80", b"api.example.id:80"),
        ("@authority", False, b"[2001:db8::1]:8080", b"[2001:db8::1]:8080"),
        ("@scheme", False, b"a", b"http"),
        ("@scheme", True, b"a", b"https"),
        ("@target-uri", True, b"A:443", b"https://a/v1/wallets"),
        ("@request-target", False, b"a", b"/v1/wallets"),
        ("@query", False, b"a", b"?"),
    ],
)
def test_derived_components_are_those_of_section_2_2(component, secure, host, value):
    request = with_field(READ, b"host", host).replace(secure=secure)
    assert signature_base([component], b"()", request) == b'"%b": %b\n"@signature-params": ()' % (component.encode(), value)


OURS = b'"gbk_g7B5aKW6T8qMGAAWIAolwb01YidV"'


def test_a_second_signature_of_somebody_else_is_not_ours_to_judge():
    theirs = b'proxy=("@authority" "x, y");created=1;keyid="their, key";alg="theirs"'
    mine = LEAST.replace(b'"k"', OURS)
    alone = read(given(mine))
    for described, signature in (
        (theirs + b", " + mine, b"proxy=:AAAA:, s=:YWI=:"),
        (mine + b" ,\t" + theirs, b"s=:YWI=: , proxy=:AAAA:"),
        (mine, b"proxy=:AAAA:,s=:YWI=:"),
    ):
        found = read(given(described, signature))
        assert (found.key_id, found.signed, found.signature) == (alone.key_id, alone.signed, alone.signature)
    with pytest.raises(AmbiguousCredentials, match="exactly one"):
        read(given(mine + b", t" + mine[1:], b"s=:YWI=:, t=:YWI=:"))
    with pytest.raises(AmbiguousCredentials, match="exactly one"):
        read(given(theirs + b", t" + theirs[5:], b"proxy=:YWI=:, t=:YWI=:"))


THEIRS = b'"gbk_g7B5aKW6T8qMGAAWIAolwb01YidW"'
"""With a wrong checksum: no key's."""


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, []),
        ({SIGNATURE: b"s=:YWI=:"}, []),
        ({INPUT: LEAST}, []),
        ({INPUT: LEAST.replace(b'"k"', THEIRS)}, []),
        ({INPUT: LEAST.replace(b'"k"', THEIRS) + b", t" + LEAST[1:].replace(b'"k"', OURS)}, [OURS.strip(b'"').decode()]),
        ({INPUT: OURS + OURS}, [OURS.strip(b'"').decode()] * 2),
    ],
)
def test_key_ids_are_found_at_a_glance_whatever_stands_around_them(fields, named):
    assert Rfc9421().named(fields) == named


def test_it_goes_by_the_name_that_configurations_use():
    assert DIALECTS["rfc9421"].name == Rfc9421().name == "rfc9421"


@pytest.mark.parametrize(
    ("covered", "query", "admitted"),
    [
        (b'"@target-uri"', b"a=b", True),
        (b'"@request-target"', b"a=b", True),
        (b'"@path" "@query"', b"a=b", True),
        (b'"@path"', b"a=b", False),
        (b'"@path" "@query-param";name="a"', b"a=b", True),
        (b'"@path" "@query-param";name="a" "@query-param";name="c"', b"a=b&c=%20%C3%A9", True),
        (b'"@path" "@query-param";name="c" "@query-param";name="a"', b"a=b&c=d", False),
        (b'"@path" "@query-param";name="a"', b"a=b&c=d", False),
        (b'"@path" "@query-param";name="a"', b"a=%62", False),
        (b'"@path" "@query-param";name="c"', b"c=a+b", False),
        (b'"@path" "@query-param";name="a"', b"a=b&", False),
    ],
)
def test_what_covers_the_query(covered, query, admitted):
    request = given(b's=("@method" %b);created=1;keyid="k"' % covered).replace(query=query, target=b"/v1/wallets?" + query)
    if admitted:
        assert read(request).signed.endswith(b';keyid="k"')
    else:
        with pytest.raises(UnsignedQuery):
            read(request)


@pytest.mark.parametrize(
    ("name", "query", "value"),
    [("var", b"var=this%20is%20a%20big%0Amultiline%20value&bar=x", b"this%20is%20a%20big%0Amultiline%20value"),
     ("bar", b"var=1&bar=with+plus%20whitespace", b"with%20plus%20whitespace"),
     ("fa%C3%A7ade%22%3A%20", b"fa%C3%A7ade%22%3A%20=something", b"something")],
)  # fmt: skip
def test_a_query_parameter_is_that_of_section_2_2_8(name, query, value):
    component = f'@query-param";name="{name}'
    base = signature_base([component], b"()", READ.replace(query=query))
    assert base == b'"@query-param";name="%b": %b\n"@signature-params": ()' % (name.encode(), value)


def test_a_query_parameter_that_stands_twice_cannot_be_covered():
    with pytest.raises(MalformedRequest, match="2 times"):
        read(given(b's=("@method" "@target-uri" "@query-param";name="a");created=1;keyid="k"').replace(query=b"a=1&a=2"))


@pytest.mark.parametrize("salt", [64, 32])
def test_rsa_pss_is_verified_with_the_salt_of_the_rfc(salt):
    key = vectors("rfc9421")["keys"]["rsa"]
    params = f'("@method" "@path");created=1790000000;keyid="{key["key_id"]}";alg="rsa-pss-sha512"'
    base = f'"@method": GET\n"@path": /v1/wallets\n"@signature-params": {params}'.encode()
    private: Any = load_pem_private_key(key["private_key"].encode(), None)
    signature = b64encode(private.sign(base, PSS(MGF1(SHA512()), salt_length=salt), SHA512()))
    request = given(b"s=" + params.encode(), b"s=:" + signature + b":")
    gate = a_gate(record_of(key))
    route = gate.route(request)
    if salt == 64:
        assert gate.admit(request, route).identity.key_id == key["key_id"]
    else:
        with pytest.raises(InvalidCredentials):
            gate.admit(request, route)
    named = given(b"s=" + params.replace("rsa-pss-sha512", "rsa-v1_5-sha256").encode(), b"s=:" + signature + b":")
    with pytest.raises(InvalidCredentials):
        gate.admit(named, route)


def pss_signature(key, base):
    private: Any = load_pem_private_key(key["private_key"].encode(), None)
    return b64encode(private.sign(base, PSS(MGF1(SHA512()), salt_length=64), SHA512()))


@pytest.mark.parametrize(
    ("key", "alg", "randomized"),
    [("hmac", "hmac-sha256", False), ("ed25519", "ed25519", False), ("rsa", "rsa-v1_5-sha256", False), ("rsa", "rsa-pss-sha512", True)],
)
def test_a_trade_that_is_signed_again_over_the_same_bytes_is_claimed_as_the_same_in_every_scheme(key, alg, randomized):
    key = vectors("rfc9421")["keys"][key]
    gate = a_gate(record_of(key), routes=[{"match": "POST /v1/orders", "scope": "trade", "upstream": "spot"}])

    def claimed(nonce):
        (digest,) = ORDER.field_lines(b"content-digest")
        params = f'("@method" "@path" "content-digest");created=1790000000;keyid="{key["key_id"]}";alg="{alg}";nonce="{nonce}"'
        lines = (f'"@method": POST\n"@path": {ORDER.path.decode()}\n"content-digest": {digest.decode()}', f'"@signature-params": {params}')
        base = "\n".join(lines).encode()
        signature = pss_signature(key, base) if randomized else b64encode(sign_with(key, base))
        sent.append(signature)
        request = given(b"s=" + params.encode(), b"s=:" + signature + b":", ORDER)
        return gate.admit(request, gate.route(request)).replay.signature

    sent: list[bytes] = []
    assert claimed("a") == claimed("a") != claimed("b")
    assert (sent[0] != sent[1]) is randomized


def test_authority_and_scheme_behind_a_trusted_proxy_are_those_the_client_used():
    key = vectors("rfc9421")["keys"]["hmac"]
    params = f'("@method" "@target-uri" "@authority" "@scheme");created=1790000000;keyid="{key["key_id"]}"'
    lines = ['"@method": GET', '"@target-uri": https://api.example/v1/wallets', '"@authority": api.example', '"@scheme": https']
    signature = b64encode(sign_with(key, "\n".join([*lines, f'"@signature-params": {params}']).encode()))
    sent = given(b"s=" + params.encode(), b"s=:" + signature + b":", with_field(READ, b"host", b"inside:8080"))
    told = ((b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"api.example"))
    request = sent.replace(headers=(*sent.headers, *told), peer="10.0.0.1")
    gate = a_gate(record_of(key), client_ip={"trusted_proxies": ["10.0.0.0/8"]})
    admitted = gate.admit(request, gate.route(request))
    assert admitted.secure is True
    for other in (request.replace(peer="192.0.2.1"), request.replace(believed=False)):
        with pytest.raises(InvalidCredentials):
            gate.admit(other, gate.route(other))
