"""Prevents optional imports by third-party packages in a worker, to save memory. A worker imports this module first.

structlog imports greenlet, which SQLAlchemy brings for the admin service: 1 MiB. redis-py imports OpenTelemetry's metrics, which the extra
``traces`` brings for spans: 2.5 MiB. Importing them fails until :func:`allow_imports` is called, as if they were not installed.
"""

import sys
from typing import Final

UNUSED: Final = ("greenlet", "opentelemetry.sdk.metrics")

_kept_out: Final = [name for name in UNUSED if name not in sys.modules]
sys.modules.update(dict.fromkeys(_kept_out))  # type: ignore[arg-type]  # None: "the import machinery raises ModuleNotFoundError" (reference, 5.3.1)


def allow_imports() -> None:
    """Allow these imports from now on."""
    for name in _kept_out:
        if sys.modules.get(name) is None:
            sys.modules.pop(name, None)
    _kept_out.clear()
