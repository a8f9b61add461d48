"""The field lines that describe the client to an upstream: its address, its scheme, the host it requested."""


class ClientLines:
    """The lines of one connection, rendered again only when one of them changes."""

    __slots__ = ("_client_ip", "_host", "_lines", "_secure")

    def __init__(self) -> None:
        self._client_ip, self._host, self._secure = "", b"", False
        self._lines = b""

    def render(self, client_ip: str, host: bytes, secure: bool) -> bytes:
        """The lines for a request to this host.

        :param secure: whether the client came over TLS, to this gate or to a trusted proxy
        """
        if self._client_ip != client_ip or self._host != host or self._secure is not secure or not self._lines:
            self._client_ip, self._host, self._secure = client_ip, host, secure
            ip = client_ip.encode()
            proto = b"https" if secure else b"http"
            lines = b"x-client-ip: " + ip + b"\r\nx-forwarded-for: " + ip + b"\r\nx-forwarded-proto: " + proto + b"\r\n"
            self._lines = lines + (b"x-forwarded-host: " + host + b"\r\n" if host else b"")
        return self._lines
