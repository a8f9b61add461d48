"""A machine of its own in namespaces: systemd as its first process, over the real machine's programs, with its own folders and network.

It needs root and systemd, and no container engine. Its processes and mounts are gone when it ends.
"""

import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SITE = "/opt/site"
"""Where the tests' own packages are in there."""
_ENTER = r"""
echo $$ >"$GROUP/cgroup.procs"
exec unshare --mount --propagation private --pid --fork --kill-child --ipc --uts --net --cgroup sh -euc "$BOOT"
"""
_BOOT = r"""
mount -t proc proc /proc
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/etc /mnt/checkout /mnt/site /mnt/python /mnt/given
cp -a /etc/. /mnt/etc/
# Nothing of the real machine is started, and nothing waits for hardware.
rm -rf /mnt/etc/systemd/system /mnt/etc/fstab /mnt/etc/gerbang
mkdir -p /mnt/etc/systemd/system
for unit in systemd-udevd systemd-udev-trigger systemd-timesyncd systemd-resolved systemd-networkd getty@tty1 console-getty; do
    ln -s /dev/null "/mnt/etc/systemd/system/$unit.service"
done
# What is wanted is held first: the folders that it comes from are covered next.
mount --bind "$CHECKOUT" /mnt/checkout
mount --bind "$PACKAGES" /mnt/site
mount --bind "$PYTHON" /mnt/python
mount --bind "$GIVEN" /mnt/given
for folder in /run /var/lib /var/log /opt; do mount -t tmpfs -o mode=755 none "$folder"; done
for folder in /tmp /var/tmp; do mount -t tmpfs -o mode=1777 none "$folder"; done
mkdir -p /run/lock /opt/gerbang /opt/site /opt/python
mount --bind /mnt/etc /etc
mount --bind /mnt/checkout /opt/gerbang
mount --bind /mnt/site /opt/site
mount --bind /mnt/python /opt/python
for folder in /opt/gerbang /opt/site /opt/python; do mount -o remount,bind,ro "$folder"; done
cp -a /mnt/given /etc/gerbang
# An environment that no unit's ProtectHome= hides, whose packages are the tests' own.
mount -t tmpfs -o mode=755 none /opt/gerbang/.venv
mkdir -p /opt/gerbang/.venv/bin "/opt/gerbang/.venv/lib/python$VERSION/site-packages"
printf 'home = /opt/python/bin\n' >/opt/gerbang/.venv/pyvenv.cfg
printf '/opt/site\n/opt/gerbang\n' >"/opt/gerbang/.venv/lib/python$VERSION/site-packages/checkout.pth"
mkdir -p /etc/ld.so.conf.d
echo /opt/python/lib >/etc/ld.so.conf.d/00-python.conf # a shared libpython that was built for another place
ldconfig
ln -s "/opt/python/bin/python$VERSION" /opt/gerbang/.venv/bin/python
printf '#!/opt/gerbang/.venv/bin/python\nfrom deploy.cli import main\nmain()\n' >/opt/gerbang/.venv/bin/gerbang
chmod 755 /opt/gerbang/.venv/bin/gerbang
mount --make-rshared / # credentials of units are mounted by a process of their own
exec env -i container=namespaces "PATH=$PATH" /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal --show-status=0
"""


def missing() -> str:
    """What keeps one from being made here; nothing when one can be."""
    if os.geteuid() != 0:
        return "only root may make namespaces"
    if not Path("/lib/systemd/systemd").exists():
        return "systemd is not here: apt-get install systemd"
    above = _control_groups()
    return "" if above and os.access(above, os.W_OK) else "no cgroup2 file system can be written to"


def _control_groups() -> str:
    command = ["findmnt", "--noheadings", "--types", "cgroup2", "--output", "TARGET", "--first-only"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


class Machine:
    """See the module. Gerbang is in /opt/gerbang, as the units expect it.

    :param given: becomes /etc/gerbang
    """

    def __init__(self, given: Path) -> None:
        self._group = Path(_control_groups()) / f"gerbang-test-{os.getpid()}"
        self._group.mkdir()
        setting = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "GROUP": str(self._group),
            "BOOT": _BOOT,
            "CHECKOUT": str(ROOT),
            "PACKAGES": sysconfig.get_path("purelib"),
            "PYTHON": sys.base_prefix,
            "GIVEN": str(given),
            "VERSION": f"{sys.version_info[0]}.{sys.version_info[1]}",
        }
        self._outside = subprocess.Popen(["sh", "-euc", _ENTER], env=setting, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._first = ""

    def boot(self, seconds: float = 300) -> None:
        """Wait until it has started."""
        children = Path(f"/proc/{self._outside.pid}/task/{self._outside.pid}/children")
        deadline = time.monotonic() + seconds
        state = ""
        while state not in ("running", "degraded"):
            assert self._outside.poll() is None, self._outside.communicate()[0]
            assert time.monotonic() < deadline, f"it is {state or 'not there'}"
            self._first = children.read_text().strip()
            state = self.run("systemctl is-system-running --wait").stdout.strip() if self._first else ""
            time.sleep(0.05)

    def run(self, line: str, *, cwd: str = "/") -> subprocess.CompletedProcess[str]:
        """A line of a shell in there, as root."""
        words = ["nsenter", "--all", "--target", self._first, f"--wdns={cwd}", "sh", "-euc", line]
        return subprocess.run(words, capture_output=True, text=True, timeout=300)

    def expect(self, line: str, *, cwd: str = "/") -> str:
        """What a line prints that must end with status 0."""
        done = self.run(line, cwd=cwd)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout

    def journal(self, *units: str) -> str:
        """The latest lines of its log."""
        return self.run(f"journalctl --no-pager --lines=80 --output=cat {' '.join(f'--unit={unit}' for unit in units)}").stdout

    def end(self) -> None:
        """Cut it off: with the first process of a PID namespace all of them end."""
        if self._first:
            os.kill(int(self._first), signal.SIGKILL)
        self._outside.kill()
        self._outside.communicate()
        deadline = time.monotonic() + 30
        while "populated 1" in (self._group / "cgroup.events").read_text():
            assert time.monotonic() < deadline, "its processes are still there"
            time.sleep(0.02)
        for folder in sorted((path for path in self._group.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        self._group.rmdir()
