"""Validated fields that configuration models are built from: rates, addresses, networks, URLs, paths."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from gateway.config.values import PERIODS, Address, Rate, is_host

_RATE = re.compile(r"([1-9][0-9]{0,8})/(second|minute|hour|day)")
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:\s]+)):([0-9]{1,5})")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def _rate(value: object) -> Rate:
    if isinstance(value, Rate):
        return value
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('write a rate as "COUNT/second", "/minute", "/hour" or "/day", e.g. "1200/minute"')
    return Rate(int(match[1]), PERIODS[match[2]])


def _address(value: object) -> Address:
    if isinstance(value, Address):
        return value
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[3]) > 65535 or not is_host(match[1] or match[2]):
        raise ValueError('write an address as "HOST:PORT", IPv6 in brackets, e.g. "127.0.0.1:8080" or "[::1]:8080"')
    return Address(match[1] or match[2], int(match[3]))


def _network(value: object) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        return ip_network(str(value), strict=True)  # as text: a number would be an address, 5 is 0.0.0.5
    except ValueError as error:
        raise ValueError(f'{error}; write a network as "10.0.0.0/8" or "2001:db8::/32"') from None


def _url(value: str) -> SplitResult | None:
    """An absolute HTTP URL without user and fragment; ``None`` for anything else."""
    try:
        url = urlsplit(value)
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0 and "@" not in url.netloc and not url.fragment
    except ValueError:  # a port or an IPv6 address that is none
        return None
    return url if usable and is_host(url.hostname or "") else None


def _server(value: str) -> str:
    url = _url(value)
    if url is None or url.path not in ("", "/") or url.query:
        raise ValueError('write a server as "http://HOST:PORT" or "https://HOST:PORT", without a path or user')
    return url.geturl().rstrip("/")  # the scheme in lower case: others compare the text


def _endpoint(value: str) -> str:
    url = _url(value)
    if url is None:
        raise ValueError('write an endpoint as "http://HOST:PORT/PATH" or "https://…", without a user')
    return url.geturl()


def _origin(value: str) -> str:
    url = _url(value)
    if url is None or url.port == {"http": 80, "https": 443}[url.scheme] or value != f"{url.scheme}://{url.netloc}".lower():
        raise ValueError('write an origin as browsers do: "https://HOST" or "https://HOST:PORT", in lower case, without a path')
    return value


def _path(value: Path, info: ValidationInfo) -> Path:
    """A relative path is relative to the configuration file's folder, like that of a ``file:`` reference."""
    if "\0" in str(value):
        raise ValueError("contains NUL")
    folder: Path = (info.context or {}).get("folder", Path())
    return folder / value


def _header_name(value: str) -> str:
    if not _HEADER_NAME.fullmatch(value):
        raise ValueError("not a header field name (RFC 9110 §5.1)")
    if sum(map(value.count, "-_.")) > 8:
        raise ValueError("more than eight dashes, underscores and dots in a header field name")
    return value


RateField = Annotated[Rate, BeforeValidator(_rate, json_schema_input_type=str)]
AddressField = Annotated[Address, BeforeValidator(_address, json_schema_input_type=str)]
NetworkField = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network, json_schema_input_type=str)]
ServerField = Annotated[str, AfterValidator(_server)]
OriginField = Annotated[str, AfterValidator(_origin)]
EndpointField = Annotated[str, AfterValidator(_endpoint)]
PathField = Annotated[Path, AfterValidator(_path)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
MethodName = Annotated[str, Field(pattern=r"^[!-~]{1,64}( [!-~]{1,64})?$")]
"""``order.place``, or ``subscribe BL``."""
Milliseconds = Annotated[int, Field(ge=1, le=86_400_000)]


class Section(BaseModel):
    """A table of the file: frozen, without unknown keys, without type coercion."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
