"""Hints: told only to whoever holds the secret, seldom enough, and never telling an unknown key from a wrong signature."""

import base64
import hmac
import json
from timeit import repeat
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.admission import hints
from gateway.admission.dialects import DIALECTS, Credentials
from gateway.admission.dialects.rfc9421 import INPUT, SIGNATURE
from gateway.admission.hints import IN_ALL, PER_KEY, Hints
from gateway.admission.principal import Principal
from gateway.errors import InvalidCredentials
from gateway.keys.ids import new_secret
from tests.support.inside import remembered
from tests.support.signed import a_gate, fields_of, record_of, request_of, sign_with, vector, vectors, with_field

MOBEE = vectors("mobee")
KEYS = MOBEE["keys"]
HMAC = KEYS["hmac"]
ORDER = vector("mobee", "order with JSON content, hmac")
READ = vector("mobee", "read, hmac")


def refusal_of(request, *records):
    gate = a_gate(*records)
    route = gate.route(request)
    with pytest.raises(InvalidCredentials) as refused:
        gate.admit(request, route)
    return refused.value


def signed_over(given, message, key=HMAC, encode=base64.b64encode):
    return with_field(request_of(given), b"x-request-signature", encode(sign_with(key, message)))


def with_secret(secret: bytes):
    signature = hmac.digest(secret, READ["string_to_sign"].encode(), "sha256")
    return with_field(request_of(READ), b"x-request-signature", base64.b64encode(signature))


def in_milliseconds(request):
    return with_field(request, b"x-request-timestamp", dict(request.headers)[b"x-request-timestamp"] + b"000")


MISTAKES = [
    (
        "(hex, not the Base64 of 32 bytes)",
        lambda: signed_over(READ, READ["string_to_sign"].encode(), encode=lambda raw: raw.hex().encode()),
    ),
    ("standard Base64", lambda: signed_over(READ, READ["string_to_sign"].encode(), encode=lambda raw: base64.b64encode(raw).rstrip(b"="))),
    (
        "standard Base64",
        lambda: signed_over(READ, READ["string_to_sign"].encode(), encode=lambda raw: base64.b64encode(raw.hex().encode())),
    ),
    ("seconds and milliseconds", lambda: signed_over(READ, READ["string_to_sign"].encode() + b"000")),
    ("seconds and milliseconds", lambda: in_milliseconds(signed_over(READ, READ["string_to_sign"].encode()))),
    ("the query was signed", lambda: request_of(vector("mobee", "refused: the query was signed"))),
    ("newline", lambda: request_of(vector("mobee", "refused: a newline behind the timestamp"))),
    ("CRLF", lambda: signed_over(READ, READ["string_to_sign"].replace("\n", "\r\n").encode())),
    ("lower case", lambda: signed_over(READ, READ["string_to_sign"].lower().encode())),
    ("body was not signed", lambda: signed_over(ORDER, ORDER["string_to_sign"].encode().rpartition(b"\n")[0])),
    ("formatted differently", lambda: signed_over(ORDER, ORDER["string_to_sign"].replace(":", ": ").replace(",", ", ").encode())),
    ("trailing newline", lambda: signed_over(READ, READ["string_to_sign"].encode(), HMAC | {"secret": HMAC["secret"] + "\n"})),
    *(
        (advice, lambda around=around: signed_over(READ, READ["string_to_sign"].encode(), HMAC | {"secret": around % HMAC["secret"]}))
        for advice, around in (
            ("newline (CRLF)", "%s\r\n"),
            ("a trailing carriage return", "%s\r"),
            ("a trailing space", "%s "),
            ("a trailing tab", "%s\t"),
            ("a trailing no-break space", "%s\u00a0"),
            ("a leading space", " %s"),
            ("with its quotes", '"%s"'),
            ("with its quotes", "'%s'"),
            ("byte order mark", "\ufeff%s"),
        )
    ),
    ("Base64-decoded", lambda: with_secret(base64.urlsafe_b64decode(HMAC["secret"][:52]))),  # as Node.js decodes its 53 characters
    ("without its prefix", lambda: signed_over(READ, READ["string_to_sign"].encode(), HMAC | {"secret": HMAC["secret"][4:]})),
    ("used as the HMAC key", lambda: signed_over(READ, READ["string_to_sign"].encode(), HMAC | {"secret": HMAC["key_id"]})),
]


@pytest.mark.parametrize(("advice", "make"), MISTAKES)
def test_a_common_mistake_is_named(advice, make):
    refusal = refusal_of(make(), record_of(HMAC))
    assert advice in refusal.extras["hint"]
    assert refusal.detail == refusal.extras["hint"]


@pytest.mark.parametrize("name", ["refused: Base64 in place of hex", "refused: hex in place of Base64"])
def test_the_wrong_encoding_for_the_kind_of_key_is_named(name):
    given = vector("binance", name)
    refusal = refusal_of(request_of(given), record_of(vectors("binance")["keys"][given["key"]]))
    assert "hex for HMAC, Base64 for Ed25519 and RSA" in refusal.extras["hint"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("refused: signed with an ampersand between query and content", "joined with &"),
        ("refused: signed before percent-encoding", "before percent-encoding"),
    ],
)
def test_mistakes_with_binance_parameters_are_named(name, advice):
    given = vector("binance", name)
    assert advice in refusal_of(request_of(given), record_of(vectors("binance")["keys"][given["key"]])).extras["hint"]


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        ('"@query": ?', '"@query": ', "question mark"),
        ('"@path": /v1/orders', '"@path": /v1/orders?status=open', "ends before the question mark"),
        ('"@signature-params": ', '"@signature-params": sig1=', "begins at the parenthesis"),
    ],
)
def test_mistakes_with_a_signature_base_are_named(old, new, advice):
    given = vector("rfc9421", "read with a query, hmac")
    key = vectors("rfc9421")["keys"]["hmac"]
    signature = base64.b64encode(sign_with(key, given["string_to_sign"].replace(old, new).encode()))
    request = with_field(request_of(given), SIGNATURE, b"sig1=:" + signature + b":")
    assert advice in refusal_of(request, record_of(key)).extras["hint"]


def test_a_scheme_that_the_gate_cannot_see_is_named():
    key = vectors("rfc9421")["keys"]["hmac"]
    params = f'("@method" "@path" "@target-uri");created=1790000000;keyid="{key["key_id"]}"'
    base = f'"@method": GET\n"@path": /v1/wallets\n"@target-uri": https://api.example.id/v1/wallets\n"@signature-params": {params}'
    request = request_of(vector("rfc9421", "without alg, further parameters"))
    request = with_field(request, INPUT, b"s=" + params.encode())
    request = with_field(request, SIGNATURE, b"s=:" + base64.b64encode(sign_with(key, base.encode())) + b":")
    assert "terminates TLS" in refusal_of(request, record_of(key)).extras["hint"]


def test_a_secret_that_was_empty_is_not_taken_for_a_decoded_one():
    assert "hint" not in refusal_of(with_secret(b""), record_of(HMAC)).extras


def test_a_secret_in_the_place_of_the_key_id_is_named():
    request = with_field(request_of(READ), b"x-api-key", HMAC["secret"].encode())
    assert "the secret was sent as the key id" in refusal_of(request).extras["hint"]


@pytest.mark.parametrize("name", ["ed25519", "rsa"])
def test_a_mistake_is_named_for_a_key_whose_secret_we_never_had(name):
    given = vector("mobee", f"read, {name}")
    request = signed_over(given, given["string_to_sign"].encode() + b"\n", KEYS[name])
    assert "newline" in refusal_of(request, record_of(KEYS[name])).extras["hint"]


@pytest.mark.parametrize(("advice", "make"), MISTAKES)
def test_the_same_mistake_with_another_secret_gets_no_hint_and_the_answer_of_an_unknown_key(advice, make):
    request = make()
    wrong = refusal_of(request, record_of(HMAC | {"secret": "gbs_another"}))
    unknown = refusal_of(request)
    assert ("hint" in wrong.extras) is (advice == "used as the HMAC key")  # which proves nothing, and tells nothing of the key
    assert a_gate().render(wrong, request).body == a_gate().render(unknown, request).body


def test_a_search_for_an_unknown_key_does_the_work_of_one_for_a_known_key(monkeypatch):
    request = signed_over(READ, b"nothing that is tried")
    work = []
    dialect, fields = DIALECTS["mobee"], fields_of(DIALECTS["mobee"], request)
    credentials = dialect.read(request, fields)
    known = Principal.of(record_of(HMAC))
    known.verify = lambda message, signature: bool(work.append((message, signature)))
    monkeypatch.setattr(hints, "pretend_to_verify", known.verify)
    tried = []
    for principal in (known, None):
        assert not Hints().find(dialect.mistakes(request, fields, credentials), credentials=credentials, principal=principal, now_ms=0)
        tried.append(list(work))
        work.clear()
    assert tried[0] == tried[1]
    assert len(tried[0]) > 3


def search(finder, request, now_ms, key_id=None):
    if key_id is not None:
        request = with_field(request, b"x-api-key", key_id.encode())
    dialect, fields = DIALECTS["mobee"], fields_of(DIALECTS["mobee"], request)
    credentials = dialect.read(request, fields)
    principal = Principal.of(record_of(HMAC | {"key_id": key_id or HMAC["key_id"]}))
    return finder.find(dialect.mistakes(request, fields, credentials), credentials=credentials, principal=principal, now_ms=now_ms)


def test_a_key_is_searched_for_a_few_times_a_minute():
    finder, request = Hints(), MISTAKES[0][1]()
    found = [bool(search(finder, request, now_ms)) for now_ms in range(0, 60_000, 6_000)]
    assert found == [True] * PER_KEY + [False] * (10 - PER_KEY)
    assert search(finder, request, 60_000)


def test_all_keys_together_are_searched_for_so_many_times_a_second():
    finder, request = Hints(), MISTAKES[0][1]()
    found = [bool(search(finder, request, 500, f"key-{number}")) for number in range(IN_ALL + 3)]
    assert found == [True] * IN_ALL + [False] * 3
    assert search(finder, request, 1_000, "key-0")


def test_what_is_remembered_is_bounded():
    finder, request = Hints(), MISTAKES[0][1]()
    for number in range(320):
        search(finder, request, number * 25, f"key-{number}")  # 40 a second
    assert len(remembered(finder)) == 8 * IN_ALL
    search(finder, request, 60_000, "another")
    assert len(remembered(finder)) == 1


def test_no_answer_shows_a_secret_or_an_expected_signature():
    for _, make in MISTAKES:
        request = make()
        refusal = refusal_of(request, record_of(HMAC))
        body = a_gate().render(refusal, request).body.decode()
        assert HMAC["secret"] not in body
        assert base64.b64encode(sign_with(HMAC, refusal.extras["string_to_sign"].encode())).decode() not in json.dumps(body)


QUERY = b"symbols=[%22BTCIDR%22]&note=a+b%20c%e5%E5&timestamp=1790000000000"


@pytest.mark.parametrize(
    ("advice", "sent", "signed"),
    [
        ("signed as %5B", QUERY, QUERY.replace(b"[", b"%5B").replace(b"]", b"%5D")),
        ("signed as %20 and sent as +", QUERY, QUERY.replace(b"+", b"%20")),
        ("signed as + and sent as %20", QUERY, QUERY.replace(b"%20", b"+")),
        ("signed in upper case", QUERY, QUERY.replace(b"%e5", b"%E5")),
        ("signed in lower case", QUERY, QUERY.replace(b"%E5", b"%e5")),
        ("the entire URL was signed", QUERY, b"/api/v3/account?" + QUERY),
        ("the entire URL was signed", QUERY, b"https://api.example/api/v3/account?" + QUERY),
        ("the entire URL was signed", QUERY, b"http://api.example/api/v3/account?" + QUERY),
        ("after signature", QUERY + b"&signature=%b&recvWindow=5000", QUERY),
    ],
)
def test_what_people_really_do_with_binances_parameters_is_named(advice, sent, signed):
    key = vectors("binance")["keys"]["hmac"]
    signature = sign_with(key, signed).hex().encode()
    query = sent.replace(b"%b", signature) if b"signature" in sent else sent + b"&signature=" + signature
    request = request_of(vector("binance", "account, hmac"), query=query)
    request = request.replace(headers=(*request.headers, (b"host", b"api.example")))
    assert advice in refusal_of(request, record_of(key)).extras["hint"]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("dialect", "name", "path"), [("mobee", "read, hmac", "\n{}\n"), ("rfc9421", "read with a query, hmac", 'path": {}\n')]
)
def test_a_url_that_was_signed_in_place_of_the_path_is_named(scheme, dialect, name, path):
    given = vector(dialect, name)
    request = request_of(given)
    request = request.replace(headers=((b"host", b"api.example:8080"), *(line for line in request.headers if line[0] != b"host")))
    url = f"{scheme}://api.example:8080{request.target.decode()}"
    signed = given["string_to_sign"].replace(path.format(request.path.decode()), path.format(url)).encode()
    assert url.encode() in signed
    key = vectors(dialect)["keys"]["hmac"]
    signature = base64.b64encode(sign_with(key, signed))
    field, value = (b"x-request-signature", signature) if dialect == "mobee" else (SIGNATURE, b"sig1=:" + signature + b":")
    assert "entire URL" in refusal_of(with_field(request, field, value), record_of(key)).extras["hint"]


@pytest.mark.parametrize("leading", [("", ""), ("\ufeff", "byte order mark"), (" ", "leading space")])
@pytest.mark.parametrize("quotes", [("", ""), ('"', "its quotes"), ("'", "its quotes")])
@pytest.mark.parametrize(
    "trailing",
    [("", ""), ("\n", "a trailing newline:"), ("\r\n", "(CRLF)"), ("\r", "carriage return"), (" ", "a trailing space:"),
     (" \n", "space and newline"), ("\t", "a trailing tab"), ("\u00a0", "no-break space")],
)  # fmt: skip
def test_several_faults_of_a_secret_are_named_together(leading, quotes, trailing):
    used = f"{leading[0]}{quotes[0]}{HMAC['secret']}{quotes[0]}{trailing[0]}"
    if used == HMAC["secret"]:
        return
    found = refusal_of(signed_over(READ, READ["string_to_sign"].encode(), HMAC | {"secret": used}), record_of(HMAC)).extras["hint"]
    assert all(fault in found for _, fault in (leading, quotes, trailing)), found


def pss_signed(alg, *, key="rsa"):
    """A read that is signed by RSASSA-PSS with SHA-512, whatever its ``alg`` says."""
    keys = vectors("rfc9421")["keys"]
    params = f'("@method" "@path");created=1790000000;keyid="{keys[key]["key_id"]}"{alg}'
    base = f'"@method": GET\n"@path": /v1/wallets\n"@signature-params": {params}'.encode()
    private: Any = load_pem_private_key(keys["rsa"]["private_key"].encode(), None)
    signature = base64.b64encode(private.sign(base, PSS(MGF1(SHA512()), salt_length=64), SHA512()))
    request = request_of(vector("rfc9421", "without alg, further parameters"))
    return with_field(with_field(request, INPUT, b"s=" + params.encode()), SIGNATURE, b"s=:" + signature + b":")


@pytest.mark.parametrize("alg", ["", ';alg="rsa-v1_5-sha256"', ';alg="ed25519"', ';alg="hmac-sha256"'])
def test_rsassa_pss_under_no_name_or_another_is_named(alg):
    rsa = record_of(vectors("rfc9421")["keys"]["rsa"])
    assert 'alg="rsa-pss-sha512"' in refusal_of(pss_signed(alg), rsa).extras["hint"]
    for others in ((), (record_of(vectors("rfc9421")["keys"]["hmac"]),)):
        assert "hint" not in refusal_of(pss_signed(alg, key="hmac" if others else "rsa"), *others).extras


@pytest.mark.parametrize("alg", ["ed25519", "rsa-v1_5-sha256", "rsa-pss-sha512"])
def test_an_algorithm_that_is_not_the_keys_is_named(alg):
    given = vector("rfc9421", "read with a query, hmac")
    request, named = request_of(given), f'alg="{alg}"'
    (parameters,) = request.field_lines(b"signature-input")
    key = vectors("rfc9421")["keys"]["hmac"]
    signature = base64.b64encode(sign_with(key, given["string_to_sign"].replace('alg="hmac-sha256"', named).encode()))
    parameters = parameters.replace(b'alg="hmac-sha256"', named.encode())
    request = with_field(with_field(request, b"signature-input", parameters), SIGNATURE, b"sig1=:" + signature + b":")
    assert "alg names another algorithm" in refusal_of(request, record_of(key)).extras["hint"]


AROUND = (
    '"%s"', "'%s'", "`%s`", "\ufeff%s", "\u201c%s\u201d", "<%s>", "{%s}", "[%s]", "(%s)", "%s,", "%s;", "Bearer %s", "key=%s", "%%22%s%%22",
    "%s\\n", "%s\u00a0", "%s\u200b", "\u202a%s\u202c", "%s %s",
)  # fmt: skip


@pytest.mark.parametrize("around", AROUND)
def test_a_key_id_among_other_characters_is_named(around):
    sent = around.replace("%s", HMAC["key_id"]).replace("%%", "%").encode()
    request = with_field(request_of(READ), b"x-api-key", sent)
    for records in ((), (record_of(HMAC),)):
        assert "is quoted or" in refusal_of(request, *records).extras["hint"]


@pytest.mark.parametrize("around", ["%s", *AROUND])
def test_a_secret_in_place_of_the_key_id_is_named_and_not_repeated(around):
    secret = new_secret().reveal().decode()
    request = with_field(request_of(READ), b"x-api-key", around.replace("%s", secret).replace("%%", "%").encode())
    refused = refusal_of(request, record_of(HMAC))
    assert "the secret was sent as the key id" in refused.extras["hint"]
    assert secret not in str(a_gate().render(refused, request))


@pytest.mark.parametrize("repeated", ["x", "gb", "gbk", "gbk_!", "gbs_\u00a0"])
def test_looking_for_a_key_id_takes_time_in_proportion_to_the_characters(repeated):
    """Everybody can send a key id that is none, and each refusal that is explained looks through it."""
    finder = Hints()

    def took_us(characters):
        named = (repeated * characters)[:characters]
        credentials = Credentials(named, b"", b"x" * (hints.MAX_BYTES + 1), 0)
        assert finder.find((), credentials=credentials, principal=None, now_ms=0) == ""
        return min(repeat(lambda: finder.find((), credentials=credentials, principal=None, now_ms=0), number=50, repeat=7))

    assert took_us(240) < 24 * took_us(30)  # 64 times as much if each character led to another look at all behind it


def test_of_a_long_key_id_little_is_remembered():
    finder = Hints()
    search(finder, MISTAKES[0][1](), 0, "x" * 16_000)
    assert sum(map(len, remembered(finder))) <= 256


def test_what_only_contains_half_a_key_id_is_no_key_id():
    request = with_field(request_of(READ), b"x-api-key", b'"' + HMAC["key_id"][:-1].encode() + b'"')
    assert "hint" not in refusal_of(request).extras


def test_two_equal_requests_in_one_second_are_told_what_makes_them_differ():
    for digits, advised in ((b"1790000000", True), (b"1790000000000", False)):
        request = with_field(request_of(READ), b"x-request-timestamp", digits)
        advice = DIALECTS["mobee"].read(request, fields_of(DIALECTS["mobee"], request)).replay_advice
        assert ("milliseconds" in advice) is advised


def test_a_key_is_searched_for_as_often_in_its_next_minute():
    finder, request = Hints(), MISTAKES[0][1]()
    for begun in (0, 60_000):
        found = [bool(search(finder, request, begun + number * 1_000)) for number in range(PER_KEY + 1)]
        assert found == [True] * PER_KEY + [False]
