"""What systemd or a container engine would set up, by unshare and setpriv: a user, capabilities, mounts, a file system that is read-only.

It lives in a mount namespace of its own and is gone when the command ends. It needs root, as those do.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_SCRIPT = r"""
set -eu
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/etc
cp -a /etc/. /mnt/etc/
# What is wanted is held first: the folders that it comes from are covered next, so that nobody's mode keeps the user out.
number=0
printf '%s\n' "$MOUNTS" | while read -r source target mode; do
    number=$((number + 1))
    mkdir "/mnt/$number"
    mount --bind "$source" "/mnt/$number"
done
for folder in /opt /run /var/lib /root; do mount -t tmpfs -o mode=755 none "$folder"; done
mount -t tmpfs -o mode=1777 none /tmp
mount --bind /mnt/etc /etc
mkdir -p "$(dirname "$PROGRAM_FOLDER")"
ln -s "$VENV" "$PROGRAM_FOLDER"
number=0
printf '%s\n' "$MOUNTS" | while read -r source target mode; do
    number=$((number + 1))
    mkdir -p "$target"
    mount --bind "/mnt/$number" "$target"
    [ "$mode" = rw ] || mount -o remount,bind,ro "$target"
done
for folder in / /etc /opt /run /var/lib /root; do mount -o remount,bind,ro "$folder"; done
umask "$UMASK"
exec setpriv --reuid "$USER_ID" --regid "$USER_ID" --clear-groups --no-new-privs --inh-caps=-all --bounding-set="$CAPABILITIES" \
    env "PATH=$PROGRAM_FOLDER/bin:$PATH" "$@"
"""


class Mount(NamedTuple):
    """A folder of this machine, where the command sees it."""

    source: Path
    target: str
    writable: bool = False


def run(
    command: Sequence[str],
    mounts: Sequence[Mount],
    *,
    user: int,
    capabilities: Sequence[str] = (),
    umask: str = "0022",
    program_folder: str = "/opt/gerbang",
    environment: Mapping[str, str] | None = None,
    text: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a command as ``user`` with ``text`` as its standard input. ``program_folder`` is where it finds the tests' own environment.

    ``/``, ``/etc``, ``/opt``, ``/run``, ``/var/lib`` and ``/root`` are read-only and show nothing but what is mounted; ``/tmp`` is its own.
    """
    own = [Mount(Path(path), str(path)) for path in dict.fromkeys((Path(sys.base_prefix), ROOT, Path(sys.prefix)))]
    setting = {
        "PATH": os.environ["PATH"],
        "MOUNTS": "\n".join(f"{mount.source} {mount.target} {'rw' if mount.writable else 'ro'}" for mount in (*own, *mounts)),
        "PROGRAM_FOLDER": program_folder,
        "VENV": sys.prefix,
        "UMASK": umask,
        "USER_ID": str(user),
        "CAPABILITIES": ",".join(("-all", *(f"+{name.lower()}" for name in capabilities))),
    }
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "sandbox", *command]
    return subprocess.run(words, input=text, env=setting | dict(environment or {}), capture_output=True, text=True, timeout=60)
