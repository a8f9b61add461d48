"""Structured logging: one JSON object per line on standard error, without secrets, signatures or query strings.

Everything logged, by structlog or by a library through ``logging``, passes :func:`redact`. A line that cannot be written (a full
disk, a closed pipe, a reader that hangs) is dropped and counted: logging never blocks a request.
"""

import logging
import os
import re
import socket
import stat
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

import structlog

HIDDEN = frozenset({
    "secret", "signature", "authorization", "cookie", "set_cookie", "password", "passwd", "token", "id_token", "query", "dsn", "body",
    "totp", "recovery_code", "assertion",
})  # fmt: skip
"""Names of values that are never logged, in lower case with ``_`` for ``-``."""

_SECRET = re.compile(r"gbs_[0-9A-Za-z]+")
_USERINFO = re.compile(r"(?<=://)[^/@\s\"']+@")
_QUERY = re.compile(r"\?[^\s\"'?]*=[^\s\"']*")
_log = structlog.get_logger("access")
REFUSALS_PER_SECOND = 20
"""Refusals per second that each process logs when no share of requests is logged."""


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: hides values by name, and secrets, passwords in URLs and query strings inside any text."""
    return {name: "***" if name.lower().replace("-", "_") in HIDDEN else _clean(value) for name, value in event.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _QUERY.sub("?***", _USERINFO.sub("***@", _SECRET.sub("gbs_***", value)))
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, bytes):
        return _clean(value.decode("latin-1"))
    if isinstance(value, dict):
        return redact(None, "", {str(name): item for name, item in value.items()})
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value]
    return _clean(str(value))


class LineSink:
    """Writes whole lines to a file descriptor without blocking, whatever errors occur."""

    dropped: ClassVar[int] = 0
    """Lines dropped by this process; a probe copies the count into the metrics."""
    _installed: ClassVar["LineSink | None"] = None

    def __init__(self, descriptor: int = 2) -> None:
        # The descriptor is shared with other processes, so it is reopened (or sent to) without blocking instead of being made non-blocking.
        mode = os.fstat(descriptor).st_mode
        self._opened: int | socket.socket | None = None
        self._write: Callable[[bytes], int] = partial(os.write, descriptor)
        if stat.S_ISFIFO(mode):
            with suppress(OSError):
                self._opened = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self._write = partial(os.write, self._opened)
        elif stat.S_ISSOCK(mode):
            self._opened = connected = socket.socket(fileno=os.dup(descriptor))
            self._write = lambda data: connected.send(data, socket.MSG_DONTWAIT)
        self._cut = False

    @classmethod
    def install(cls, descriptor: int) -> "LineSink":
        """Replace this process's sink."""
        if cls._installed is not None:
            cls._installed.close()
        cls._installed = cls(descriptor)
        return cls._installed

    def close(self) -> None:
        """Close what it has opened in addition to the given descriptor."""
        if isinstance(self._opened, socket.socket):
            self._opened.close()
        elif self._opened is not None:
            os.close(self._opened)
        self._opened = None

    def msg(self, line: str) -> None:
        """Write one line in one call, so that lines of several processes do not mix."""
        data = line.encode(errors="backslashreplace") + b"\n"
        if self._cut:
            data = b"\n" + data
        try:
            written = self._write(data)
        except OSError:
            # Another process's line may have been truncated: begin on a new line, at worst after a blank one.
            self._cut = True
            LineSink.dropped += 1
            return
        self._cut = written < len(data)
        LineSink.dropped += self._cut

    log = debug = info = warning = warn = error = critical = exception = fatal = msg


class _Bridge(logging.Handler):
    """Passes the log records of libraries to structlog, for the same format and redaction."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).log(record.levelno, record.getMessage(), exc_info=record.exc_info)


def configure_logging(level: str, *, descriptor: int = 2, **always: object) -> None:
    """Set up logging of this process.

    :param level: ``debug``, ``info``, ``warning`` or ``error``
    :param always: values of every line, e.g. ``service="gateway", worker=0``
    """

    def common(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**always, **event}

    sink = LineSink.install(descriptor)
    structlog.configure(
        processors=[
            common,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_args: sink,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=max(logging.getLevelNamesMapping()[level.upper()], logging.INFO), handlers=[_Bridge()], force=True)


class AccessLog:
    """Which requests are logged, one line each: refusals, and the configured share of admitted requests.

    With a share above 0 every refusal is logged; otherwise :data:`REFUSALS_PER_SECOND`, then the number of omitted ones, so that
    refused clients cannot fill a disk. Callers check :meth:`takes` (refusals), or :attr:`enabled` and :meth:`sampled` (admitted),
    before they collect any values, so that disabled logging costs nothing.
    """

    __slots__ = ("_credit", "_left_out", "_second", "_share", "_taken", "enabled")

    def __init__(self, share: float) -> None:
        self._share = share
        self._credit = 0.0
        self._second = self._taken = self._left_out = 0
        self.enabled = share > 0.0

    def takes(self, now_ms: int) -> bool:
        """Whether a refusal is to be logged.

        :param now_ms: monotonic milliseconds
        """
        if self.enabled:
            return True
        second = now_ms // 1000
        if second != self._second:
            if self._left_out:
                _log.warning("refusals_not_logged", count=self._left_out)
            self._second, self._taken, self._left_out = second, 0, 0
        if self._taken == REFUSALS_PER_SECOND:
            self._left_out += 1
            return False
        self._taken += 1
        return True

    def sampled(self) -> bool:
        """Whether the current admitted request is in the sample: every n-th, without random numbers."""
        self._credit += self._share
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True
