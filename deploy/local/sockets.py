"""Unix socket paths: in the data directory, or below /tmp when that path would be too long."""

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from deploy.local.process import StartError

_LONGEST = 103  # sun_path holds 108 bytes on Linux, 104 on macOS, with the terminating zero (unix(7))


def socket_folder(data: Path, socket_name: str, *, owner: int | None = None) -> Path:
    """A folder for ``socket_name`` that only ``owner`` may enter and whose path is short enough; always the same for the same ``data``.

    :param owner: user id that will create the socket, if it is another (PostgreSQL, started by root)
    :raises StartError: somebody else owns the folder below /tmp
    """
    data = data.resolve()
    if len(os.fsencode(data / socket_name)) <= _LONGEST:
        return data
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"gerbang-{os.geteuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if owner is not None and found.st_uid == os.geteuid() != owner:
        os.chown(folder, owner, -1, follow_symlinks=False)
        found = folder.lstat()
    # Another user may have created this folder (or a link) first, and would own our sockets.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != (os.geteuid() if owner is None else owner) or stat.S_IMODE(found.st_mode) & 0o077:
        raise StartError(f"{folder} is needed for sockets (the path of {data} is too long), but is not ours alone: remove it")
    return folder
