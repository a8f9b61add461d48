"""Executes a program that ends with its parent, optionally as another user. Runs as a script.

    python -I -S launch.py PARENT SIGNAL USER PROGRAM [ARGUMENT…]

``PARENT`` is the parent's process id; ``SIGNAL`` (a number) is what the kernel sends when the parent dies
(prctl(2), PR_SET_PDEATHSIG); ``USER`` is a user name to become, or ``-``.

PostgreSQL refuses to run as root. For root (in a container) it is started as an unprivileged user that keeps one capability,
CAP_DAC_OVERRIDE, so that it can reach its binaries and data in folders that only root may enter; the alternative would be to open
those folders to everybody.
"""

import ctypes
import os
import pwd
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def become(libc: ctypes.CDLL, user: str) -> None:
    """Change to ``user``, keeping CAP_DAC_OVERRIDE across the exec (capabilities(7), ambient set) where the kernel allows it."""
    entry = pwd.getpwnam(user)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    # Otherwise access(2), with which initdb checks for other programs, would ignore the capability.
    libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    keep = 1 << CAP_DAC_OVERRIDE
    sets = (_Sets * 2)(_Sets(keep, keep, keep), _Sets(0, 0, 0))
    if libc.capset(ctypes.byref(_Header(CAPABILITY_VERSION_3, 0)), sets) == 0:
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


def main() -> None:
    parent, death_signal, user, *command = sys.argv[1:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if user != "-":
            become(libc, user)
        # After the change of user, which clears it (prctl(2)).
        libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)  # the parent died before the death signal was set
    os.execv(command[0], command)  # noqa: S606  # a program with its arguments, no shell


if __name__ == "__main__":
    main()
