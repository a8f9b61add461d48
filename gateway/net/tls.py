"""Server TLS: version 1.2 or later, HTTP/1.1 by ALPN, certificates that can be renewed without a restart."""

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.errors import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from gateway.config.settings import Tls


def server_context(settings: "Tls") -> ssl.SSLContext:
    """A context for the public port.

    :raises ConfigError: the files cannot be read, or the key does not match the certificate
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _load(context, settings.certificate, settings.key)
    return context


class ServerTls:
    """The current context. New handshakes use what :meth:`reload` has loaded; open connections are not affected."""

    def __init__(self, settings: "Tls") -> None:
        self._settings = settings
        self.context = server_context(settings)

    def reload(self) -> None:
        """Load the certificate and key again from their files.

        :raises ConfigError: they cannot be used; the old ones are kept
        """
        server_context(self._settings)  # fails first: a mismatched pair would leave the new certificate with the old key
        _load(self.context, self._settings.certificate, self._settings.key)


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([ConfigProblem("listen.tls", f"{certificate}, {key}: {error.strerror or error}")]) from None


def _no_password() -> str:
    """Without this, OpenSSL would prompt on the terminal for an encrypted key's passphrase."""
    raise ssl.SSLError("the key is encrypted; give it without a passphrase")
