"""Certificate expiry, for the metric of both services and for ``gerbang doctor``."""

from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

if TYPE_CHECKING:
    from gateway.config.settings import Tls


def ends_ms(certificate: Path) -> int:
    """When the first certificate of a PEM file, which is the server's own (RFC 8446 §4.4.2), expires, in Unix milliseconds.

    :raises OSError: the file cannot be read
    :raises ValueError: it contains no certificate
    """
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    return int(found.not_valid_after_utc.timestamp() * 1000)


def end_or_zero(tls: "Tls | None") -> int:
    """The same for a metric: 0 if there is no readable certificate."""
    if tls is None:
        return 0
    try:
        return ends_ms(tls.certificate)
    except (OSError, ValueError):
        return 0
