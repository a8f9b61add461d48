"""What a table was measured on: the machine, and which Python, built how, which makes a third of the gate's speed."""

import json
import os
import platform
import subprocess
from pathlib import Path

_ASK = """
import json, platform, sysconfig
args = sysconfig.get_config_var("CONFIG_ARGS") or ""
print(json.dumps([platform.python_version(), args]))
"""
_DEBIAN = "/usr/share/python-wheels"
"""In Debian's and Ubuntu's CONFIG_ARGS. They build with both, by targets of their own makefile that ``sysconfig`` does not tell."""


def built(arguments: str) -> str:
    """How an interpreter was built, from ``CONFIG_ARGS`` of its ``sysconfig``."""
    pgo, lto = "--enable-optimizations" in arguments, "--with-lto" in arguments
    if _DEBIAN in arguments and not (pgo or lto):
        return "PGO and LTO, as Debian packages it"
    return " and ".join(name for name, there in (("PGO", pgo), ("LTO", lto)) if there) or "built plainly, without PGO and LTO"


def described(python: Path) -> str:
    """The interpreter in a few words: ``Python 3.11.2 (PGO and LTO, as Debian packages it)``.

    :raises subprocess.CalledProcessError: it does not run
    """
    version, arguments = json.loads(subprocess.run([python, "-c", _ASK], capture_output=True, text=True, check=True).stdout)
    return f"Python {version} ({built(arguments)})"


def machine() -> str:
    """What this ran on, in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}"
