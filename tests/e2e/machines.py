"""Machines of a test: each has its own address, process ids, shared memory, home and /tmp, and answers by a real SSH server.

They are namespaces of this machine, joined by a bridge, with the disk in common; so they have one Python, one `.venv` and, as if by
NFS, one data root. Wants root, `ip` (iproute2), `sshd` (openssh-server) and `rsync`.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
WANTED = ("ip", "sshd", "ssh", "ssh-keygen", "rsync", "unshare", "mount")
STARTS_S = 30


def missing() -> str:
    """What this machine lacks to make others of it; empty where nothing does."""
    lacks = [] if os.geteuid() == 0 else ["root"]
    return ", ".join(lacks + [name for name in WANTED if not which(name)])


def which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Machines:
    """`laptop` at 10.77.0.1, without an SSH server, and `node1` to `node<count>` from 10.77.0.11 on; gone when the block ends.

    `folder` is the same on all of them. Raises RuntimeError where a step of the set-up fails.
    """

    def __init__(self, count: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="deepred-", dir="/var/tmp"))
        self.addresses = {f"node{number}": f"10.77.0.{10 + number}" for number in range(1, count + 1)}
        self.servers: list[subprocess.Popen[bytes]] = []
        self.prefix = f"dr{os.getpid()}"

    def __enter__(self) -> "Machines":
        try:
            self.build()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def build(self) -> None:
        key = self.home("laptop") / ".ssh" / "id_ed25519"
        for name in ("laptop", *self.addresses):
            (self.home(name) / ".ssh").mkdir(parents=True)
            (self.folder / name / "tmp").mkdir()
            (self.folder / name / "tmp").chmod(0o1777)
        host_key = self.folder / "host_key"
        for file in (key, host_key):
            call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file)
        Path("/run/sshd").mkdir(exist_ok=True)

        laptop = self.space("laptop")
        call("ip", "netns", "add", laptop)
        call("ip", "-n", laptop, "link", "set", "lo", "up")
        call("ip", "-n", laptop, "link", "add", "switch", "type", "bridge")
        call("ip", "-n", laptop, "addr", "add", "10.77.0.1/24", "dev", "switch")
        call("ip", "-n", laptop, "link", "set", "switch", "up")
        for name, address in self.addresses.items():
            shutil.copy(key.with_suffix(".pub"), self.home(name) / ".ssh" / "authorized_keys")
            space = self.space(name)
            call("ip", "netns", "add", space)
            call("ip", "-n", space, "link", "set", "lo", "up")
            call("ip", "link", "add", "net0", "netns", space, "type", "veth", "peer", "name", name, "netns", laptop)
            call("ip", "-n", laptop, "link", "set", name, "master", "switch", "up")
            call("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "net0")
            call("ip", "-n", space, "link", "set", "net0", "up")
            call("ip", "-n", space, "route", "add", "default", "via", "10.77.0.1")
            options = ("PidFile=none", "StrictModes=no", "UsePAM=no", "PasswordAuthentication=no")
            server = [which("sshd") or "sshd", "-D", "-e", "-f", "/dev/null", "-h", str(host_key)]
            server += [word for option in options for word in ("-o", option)]
            shm = "mount -t tmpfs -o size=1g tmpfs /dev/shm"
            with (self.folder / name / "sshd.log").open("wb") as log:
                command = self.inside(name, server, f"hostname {name}; {shm}", "--pid", "--fork", "--kill-child", "--mount-proc")
                self.servers.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        for name in self.addresses:
            deadline = time.monotonic() + STARTS_S
            while self.ssh(name, "true").returncode != 0:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"no SSH to {name}: {(self.folder / name / 'sshd.log').read_text()}")
                time.sleep(0.2)

    def home(self, name: str) -> Path:
        """Where the home of the user on a machine lies on this one."""
        return self.folder / name / "home"

    def space(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def inside(self, name: str, command: Sequence[str], first: str, *more: str) -> list[str]:
        """`command` as it runs on a machine, after the shell commands `first`; `more` are options of `unshare`."""
        user = Path.home()
        mounts = []
        # What the tests run from stays visible below the machine's own home and /tmp.
        for hidden, own in ((user, self.home(name)), (Path("/tmp"), self.folder / name / "tmp")):
            for kept in (Path(sys.base_prefix), ROOT):
                if kept.is_relative_to(hidden):
                    place = own / kept.relative_to(hidden)
                    place.mkdir(parents=True, exist_ok=True)
                    mounts.append(f"mount --bind {kept} {place}")
            mounts.append(f"mount --rbind {own} {hidden}")
        script = "; ".join(["set -e", *mounts, first, 'cd ~; exec "$@"'])
        entered = ["ip", "netns", "exec", self.space(name), "unshare", "--mount", "--uts", "--ipc", *more]
        clean = {"HOME": str(user), "PATH": f"{ROOT}/.venv/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
        return [*entered, "env", "-i", *(f"{key}={value}" for key, value in clean.items()), "bash", "-c", script, "_", *command]

    def on_laptop(self, command: str, timeout: float) -> "subprocess.CompletedProcess[str]":
        """Run a shell command on the laptop, whose home is the working directory. `timeout` in seconds."""
        full = self.inside("laptop", ["bash", "-c", command], "hostname laptop")
        return subprocess.run(
            full, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout
        )

    def ssh(self, name: str, command: str, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        """Run a shell command on a machine, from the laptop through SSH. `timeout` in seconds."""
        quiet = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        return self.on_laptop(f"ssh {quiet} {self.addresses[name]} {shlex.quote(command)}", timeout)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for server in self.servers:
            # Killing the first process of a process namespace ends all of them; `unshare --kill-child` sees to that.
            server.send_signal(signal.SIGKILL)
            server.wait()
        for name in ("laptop", *self.addresses):
            subprocess.run(["ip", "netns", "del", self.space(name)], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def call(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
