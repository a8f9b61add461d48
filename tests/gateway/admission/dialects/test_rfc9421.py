"""The rfc9421 dialect: what is read, and what cannot be."""

import pytest

from gateway.admission.dialects.rfc9421 import INPUT, SIGNATURE, Rfc9421, signature_base
from gateway.errors import AmbiguousCredentials, InvalidCredentials, MalformedRequest, MissingCredentials, UnsignedQuery
from tests.support.signed import fields_of, request_of, vector, with_field

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
    (b's=("@method" "@path" "@status");created=1;keyid="k"', TWO, MalformedRequest, "'@status' is not spoken here"),
    (b's=("@method" "@path" "@signature-params");created=1;keyid="k"', TWO, MalformedRequest, "not spoken here"),
    (b's=("@method" "@path" "@query-param";name="a");created=1;keyid="k"', TWO, MalformedRequest, "without parameters"),
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
    (LEAST + b';alg="rsa-pss-sha512"', TWO, MalformedRequest, "'rsa-pss-sha512' is not spoken here"),
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
    (LEAST, b"s=:YWI=:, t=:YWI=:", AmbiguousCredentials, "'s'"),
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
    with pytest.raises(InvalidCredentials, match="not what Content-Digest says") as refused:
        read(with_field(ORDER, b"content-digest", digest).replace(body=b"abc"))
    assert refused.value.extras["string_to_sign"].startswith('"@method": POST\n')


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
