"""The ``rfc9421`` dialect: HTTP Message Signatures (RFC 9421) with Content-Digest (RFC 9530). Pure.

A signature covers ``@method``; ``@path``, and ``@query`` when there is one, or ``@target-uri`` or ``@request-target`` for both; and
``content-digest`` when there is content. Further components are accepted, but only ``@query-param`` with parameters. Of several
signatures the one whose ``keyid`` is a key id of this gate is verified; the others are ignored (§3.2).
"""

import hashlib
import re
from binascii import b2a_base64
from collections.abc import Callable, Iterator, Mapping
from hmac import compare_digest
from typing import NamedTuple, NoReturn
from urllib.parse import parse_qsl, quote

import http_sf

from gateway.admission.dialects.base import Credentials, Dialect, Mistake, invalid, loosely_decoded, urls
from gateway.errors import AmbiguousCredentials, MalformedRequest, MissingCredentials, UnsignedQuery
from gateway.http1.message import Request
from gateway.keys.ids import is_key_id
from gateway.keys.record import Algorithm

INPUT, SIGNATURE, DIGEST = b"signature-input", b"signature", b"content-digest"
ALGORITHMS = {
    "hmac-sha256": Algorithm.HMAC_SHA256,
    "ed25519": Algorithm.ED25519,
    "rsa-v1_5-sha256": Algorithm.RSA_SHA256,
    "rsa-pss-sha512": Algorithm.RSA_SHA256,
}
"""RFC 9421 §3.3 names to key algorithms. A request need not name one; the name is only compared with the key's algorithm."""
MAX_COMPONENTS = 32
MAX_BYTES = 4_096
"""Maximum size of each structured field."""
MAX_PARTS = 192
"""Maximum number of delimiters in such a field: each can begin a member, item or parameter and costs about 8 µs to parse."""
_MARKS = re.compile(rb"[;, ]")
_KEY_ID = re.compile(rb"gbk_[0-9A-Za-z]+")
_QUERY_PARAM = '@query-param";name="'
"""The beginning of a query parameter's identifier, the only component that may have a parameter."""


class _Input(NamedTuple):
    """A parsed ``Signature-Input`` (§4.1)."""

    label: str
    components: list[str]
    parameters: Mapping[str, object]
    text: bytes
    """The member's value as received, which the signature base contains as it is (§2.3)."""


class Rfc9421(Dialect):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("rfc9421", {INPUT, SIGNATURE}, signs_uri=True)

    def read(self, request: Request, fields: Mapping[bytes, bytes]) -> Credentials:
        if INPUT not in fields or SIGNATURE not in fields:
            raise MissingCredentials("a signed request carries both Signature-Input and Signature (RFC 9421 §4)")
        given = _input(fields[INPUT])
        _check_coverage(given, request)
        signed = signature_base(given.components, given.text, request)
        if DIGEST.decode() in given.components:
            _check_digest(request, signed)
        parameters = given.parameters
        algorithm = _text(parameters, "alg")
        if algorithm and algorithm not in ALGORITHMS:
            raise MalformedRequest(f"unsupported alg {algorithm[:40]!r}: use {', '.join(ALGORITHMS)}, or leave it out")
        return Credentials(
            _text(parameters, "keyid"),
            _signature(fields[SIGNATURE], given.label),
            signed,
            _milliseconds(parameters, "created"),
            expires_ms=_milliseconds(parameters, "expires") if "expires" in parameters else 0,
            algorithm=ALGORITHMS[algorithm].value if algorithm else "",
            unique="nonce" in parameters,
            pss=algorithm == "rsa-pss-sha512",
        )

    def key_id(self, request: Request, fields: Mapping[bytes, bytes]) -> str:  # noqa: ARG002  # its content is still to come
        if INPUT not in fields or SIGNATURE not in fields:
            raise MissingCredentials("a signed request carries both Signature-Input and Signature (RFC 9421 §4)")
        return _text(_input(fields[INPUT]).parameters, "keyid")

    def named(self, fields: Mapping[bytes, bytes]) -> list[str]:
        found = [text.decode("ascii") for text in _KEY_ID.findall(fields.get(INPUT, b""))]
        return [text for text in found if is_key_id(text)]

    def mistakes(self, request: Request, fields: Mapping[bytes, bytes], credentials: Credentials) -> Iterator[Mistake]:
        given, signature = _input(fields[INPUT]), credentials.signature
        if credentials.algorithm:  # the signature is otherwise correct, so there is no other mistake
            yield Mistake(
                "alg names another algorithm than the one that the request was signed with: name that one, or leave it out",
                credentials.signed, signature,
            )  # fmt: skip
        if not credentials.pss:
            yield Mistake('it was signed with RSASSA-PSS: name alg="rsa-pss-sha512"', credentials.signed, signature, pss=True)
        for decoded in loosely_decoded(signature):
            yield Mistake(
                "Signature holds text instead of the signature's bytes: write the bytes in Base64 between colons",
                credentials.signed,
                decoded,
            )
        other = request.replace(secure=not request.secure)
        yield Mistake(
            f"the gateway saw {'https' if request.secure else 'http'}: the proxy that terminates TLS must be trusted and send "
            "X-Forwarded-Proto; otherwise do not cover @scheme or @target-uri",
            signature_base(given.components, given.text, other), signature,
        )  # fmt: skip
        without_query = credentials.signed.replace(b'"@query": ?', b'"@query": ')
        yield Mistake("@query was signed without its question mark", without_query, signature)
        with_query = credentials.signed.replace(b'"@path": ' + request.path, b'"@path": ' + request.target)
        yield Mistake("@path was signed with the query: it ends before the question mark", with_query, signature)
        for url in urls(request, request.target):
            with_url = credentials.signed.replace(b'"@path": ' + request.path, b'"@path": ' + url)
            yield Mistake("@path was signed as the entire URL: cover @target-uri for that", with_url, signature)
        named = credentials.signed.replace(b'"@signature-params": ', b'"@signature-params": ' + given.label.encode() + b"=")
        yield Mistake("@signature-params was signed with the label: it begins at the parenthesis", named, signature)

    def refusal(self, problem: Mapping[str, object]) -> None:
        """Plain problems."""


def signature_base(components: list[str], parameters: bytes, request: Request) -> bytes:
    """The signature base (RFC 9421 §2.5).

    :param parameters: the value of ``@signature-params``
    :raises MalformedRequest: a component is missing from the request, or not supported
    """
    covered = any(component.startswith(_QUERY_PARAM) for component in components)
    pairs = _parameters(request) if covered else []  # parsed once, however many are covered
    lines = [b'"%b": %b' % (component.encode("ascii"), _value(component, request, pairs)) for component in components]
    return b"\n".join([*lines, b'"@signature-params": ' + parameters])


def _value(component: str, request: Request, pairs: list[tuple[str, str]]) -> bytes:
    if component.startswith(_QUERY_PARAM):
        return _query_param(component.removeprefix(_QUERY_PARAM), pairs)
    if component.startswith("@"):
        derive = _DERIVED.get(component)
        if derive is None:
            raise MalformedRequest(f"unsupported component {component[:40]!r}: use {', '.join(_DERIVED)}, @query-param or header fields")
        return derive(request)
    lines = request.field_lines(component.encode("ascii"))
    if not lines:
        raise MalformedRequest(f"the signature covers the header field {component[:80]!r}, which the request does not carry")
    return b", ".join(lines)


def _authority(request: Request) -> bytes:
    """``@authority`` (§2.2.3): in lower case, without the scheme's default port."""
    host = b"".join(request.field_lines(b"host")[:1]).lower()
    return host.removesuffix(b":443" if request.secure else b":80")


def _scheme(request: Request) -> bytes:
    return b"https" if request.secure else b"http"


_DERIVED: dict[str, Callable[[Request], bytes]] = {
    "@method": lambda request: request.method,
    "@path": lambda request: request.path,
    "@query": lambda request: b"?" + (request.query or b""),
    "@authority": _authority,
    "@scheme": _scheme,
    "@request-target": lambda request: request.target,
    "@target-uri": lambda request: _scheme(request) + b"://" + _authority(request) + request.target,
}


def _query_param(name: str, pairs: list[tuple[str, str]]) -> bytes:
    """``@query-param`` (§2.2.8): parsed as a form (WHATWG URL) and encoded again; a repeated name cannot be covered."""
    values = [value for found, value in pairs if found == name]
    if len(values) != 1:
        raise MalformedRequest(f"the signature covers the query parameter {name[:40]!r}, which the request carries {len(values)} times")
    return values[0].encode("ascii")


def _parameters(request: Request) -> list[tuple[str, str]]:
    """The query's parameters, names and values encoded per §2.2.8. At most twice as many as could be covered."""
    try:
        pairs = parse_qsl(
            (request.query or b"").decode("ascii", "replace"), keep_blank_values=True, errors="replace", max_num_fields=2 * MAX_COMPONENTS
        )
    except ValueError:
        raise MalformedRequest("the query has too many parameters") from None
    return [(quote(name, safe="*"), quote(value, safe="*")) for name, value in pairs]


def _input(value: bytes) -> _Input:
    members = _dictionary(value, "Signature-Input")
    ours = [label for label, member in members.items() if isinstance(member, tuple) and is_key_id(str(member[1].get("keyid", "")))]
    if len(members) != 1 and len(ours) != 1:
        raise AmbiguousCredentials("Signature-Input must carry exactly one signature with a keyid of this gate")
    label = ours[0] if ours else next(iter(members))
    member = members[label]
    items, parameters = member if isinstance(member, tuple) else (None, {})
    if not isinstance(items, list) or not 0 < len(items) <= MAX_COMPONENTS:
        raise MalformedRequest(f"Signature-Input is not a list of 1 to {MAX_COMPONENTS} components (RFC 9421 §4.1)")
    components = [_component(name, own) for name, own in items]
    if len(set(components)) != len(components):
        raise MalformedRequest("Signature-Input names a component twice (RFC 9421 §2.5)")
    return _Input(label, components, parameters, _member(value, label))


def _component(name: object, own: Mapping[str, object]) -> str:
    parameter = own.get("name")
    if name == "@query-param" and set(own) == {"name"} and isinstance(parameter, str) and not set(parameter) & {'"', "\\"}:
        return _QUERY_PARAM + parameter
    if own or not isinstance(name, str) or name != name.lower() or name == "@query-param":
        raise MalformedRequest(f"the component {str(name)[:40]!r} is not a lower-case name in quotes without parameters")
    return name


def _member(value: bytes, label: str) -> bytes:
    """A member's value as received, from a valid dictionary (RFC 8941 §3.2)."""
    found = b""
    for match in _MEMBER.finditer(value):
        key, _, text = match[0].strip(b" \t").partition(b"=")
        if key == label.encode():
            found = text
    return found


_MEMBER = re.compile(rb'(?:"(?:\\.|[^"\\])*"|[^",])+')
"""A member: everything up to a comma outside quotes."""


def _check_coverage(given: _Input, request: Request) -> None:
    names = given.components
    whole = "@target-uri" in names or "@request-target" in names
    needed = ["@method"] + ([] if whole else ["@path"]) + (["content-digest"] if request.body else [])
    missing = [name for name in needed if name not in names]
    if missing:
        raise MalformedRequest(f"the signature must cover {' and '.join(missing)}")
    if request.query is not None and not (whole or "@query" in names or _covers_parameters(given, request)):
        raise UnsignedQuery("the request has a query: the signature must cover @query, or @query-param for each parameter in order")


def _covers_parameters(given: _Input, request: Request) -> bool:
    """Whether every parameter is covered, in the order and spelling that it was sent in, so that the query cannot be varied."""
    covered = [component.removeprefix(_QUERY_PARAM) for component in given.components if component.startswith(_QUERY_PARAM)]
    pairs = _parameters(request) if covered else []
    spelled = "&".join(f"{name}={value}" for name, value in pairs)
    return bool(pairs) and covered == [name for name, _ in pairs] and spelled.encode("ascii") == request.query


def _check_digest(request: Request, signed: bytes) -> None:
    """Check ``Content-Digest`` (RFC 9530 §2): it must have a supported digest, and all supported ones must be correct."""
    members = _dictionary(b", ".join(request.field_lines(DIGEST)), "Content-Digest")
    known = [(digest, members[name]) for name, digest in _DIGESTS.items() if name in members]
    if not known:
        raise MalformedRequest(f"Content-Digest carries none of {', '.join(_DIGESTS)} (RFC 9530)")
    for digest, member in known:
        stated = member[0] if isinstance(member, tuple) else member
        if not isinstance(stated, bytes) or not compare_digest(stated, digest(request.body)):
            raise invalid("the body does not match Content-Digest: compute it over the bytes that are sent", signed)


_DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "sha-256": lambda body: hashlib.sha256(body).digest(),
    "sha-512": lambda body: hashlib.sha512(body).digest(),
}


def _signature(value: bytes, label: str) -> bytes:
    members = _dictionary(value, "Signature")
    if label not in members:
        raise AmbiguousCredentials(f"Signature must carry the signature that Signature-Input describes, {label[:40]!r}")
    member = members[label]
    signature = member[0] if isinstance(member, tuple) else member
    if not isinstance(signature, bytes):
        raise MalformedRequest("Signature is not a byte sequence between colons (RFC 8941 §3.3.5)")
    # The parser ignores stray bits at the end of Base64; here each signature has exactly one encoding.
    return signature if b2a_base64(signature, newline=False) in _member(value, label) else b""


def _dictionary(value: bytes, name: str) -> Mapping[str, object]:
    if len(value) > MAX_BYTES or len(_MARKS.findall(value)) > MAX_PARTS:
        raise MalformedRequest(f"{name} is longer than {MAX_BYTES} bytes or has more than {MAX_PARTS} parts")
    try:
        parsed = http_sf.parse(value, tltype="dictionary", on_duplicate_key=_refuse_duplicate)
    except (http_sf.StructuredFieldError, ValueError) as error:
        raise MalformedRequest(f"{name} is not a structured dictionary (RFC 8941 §3.2): {str(error)[:120]}") from None
    return parsed if isinstance(parsed, dict) else {}


def _refuse_duplicate(key: str, _context: str) -> NoReturn:
    raise MalformedRequest(f"a structured field has the key {key[:40]!r} twice")


def _text(parameters: Mapping[str, object], name: str) -> str:
    value = parameters.get(name, "")
    if not isinstance(value, str):  # a token is not a str here
        raise MalformedRequest(f"the parameter {name} of Signature-Input is not text in quotes")
    if not value and name == "keyid":
        raise MissingCredentials("Signature-Input has no keyid parameter: set it to the key id")
    return value


def _milliseconds(parameters: Mapping[str, object], name: str) -> int:
    seconds = parameters.get(name)
    if seconds is None:
        raise MissingCredentials(f"Signature-Input carries no {name}: Unix time in seconds (RFC 9421 §2.3)")
    if type(seconds) is not int or not 0 < seconds < 100_000_000_000:
        raise MalformedRequest(f"the parameter {name} of Signature-Input is not a Unix time in seconds")
    return seconds * 1000
