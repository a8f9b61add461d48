"""Ignores SIGHUP from a service's first moment until it can reload; the command line imports this module first.

It would end the process while its modules are imported, which systemd counts as a clean end: ``systemctl reload`` just after ``start``
would leave no service, and ``Restart=on-failure`` would not start another.
"""

import signal
import sys

if sys.argv[1:2] in (["gateway"], ["admin"]):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
