"""A device for the tests: a real OpenSSH server on this machine, on a free port of 127.0.0.1.

Run by root, the server has an account of its own (no privileges, its home in a temporary folder,
removed at the end) whose Python has numpy and ONNX Runtime and nothing else, as a board has. Run by
anybody else, or where no Python of this version is open to other users, the device is this user
with this Python. `KIND` says which, and stands in the tests' ids.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgecv import device
from edgecv.device.remote import MARK

ROOT = Path(__file__).parents[2]
SBIN = os.pathsep.join(("/usr/sbin", "/usr/local/sbin", "/sbin", os.environ.get("PATH", "")))
SSHD = shutil.which("sshd", path=SBIN)
SSH = shutil.which("ssh")
USERADD = shutil.which("useradd", path=SBIN)
PACKAGES = ("numpy", "numpy.libs", "onnxruntime")


def open_python() -> str | None:
    """A Python of this version that every user of this machine may run."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for name in (
        os.path.realpath(sys.executable),
        f"/usr/bin/{version}",
        f"/usr/local/bin/{version}",
    ):
        path = Path(name)
        if not path.is_file() or not all(p.stat().st_mode & 0o1 for p in (path, *path.parents)):
            continue
        if not subprocess.run([name, "-c", "import venv"], capture_output=True).returncode:
            return name
    return None


PYTHON = open_python()
KIND = "own-account" if os.getuid() == 0 and USERADD and PYTHON else "this-user"


def wait(until: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What `until` returns once it is true; fails when it does not become so."""
    end = time.monotonic() + seconds
    while not (found := until()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return found


def children(pid: int) -> list[int]:
    """Processes that a process started and that are still there (zombies are not)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(stat.parent.name))
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@dataclass
class Server:
    """The device. home: of its account; config: for ssh -F, with key and known host."""

    process: subprocess.Popen[bytes]
    address: device.Address
    home: Path
    config: Path
    python: str
    host_key: str

    def call(
        self, job: dict[str, Any], files: dict[str, Path] | None = None, **options: Any
    ) -> Any:
        """device.call of tests/device/jobs.py."""
        options = {"python": self.python, "ssh_config": self.config, "timeout_s": 20, **options}
        address = options.pop("address", self.address)
        return device.call(address, "tests.device.jobs", job, files or {}, "job", **options)

    def left(self) -> list[str]:
        """Names of what is in the folder for temporary files there, base and rooms."""
        return sorted(str(p.relative_to(self.tmp)) for p in self.tmp.glob("edgecv-*/*"))

    @property
    def tmp(self) -> Path:
        return self.home / "tmp"

    def jobs(self) -> list[int]:
        """Processes of jobs on the device, also those that their parents have left."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"{MARK}={self.tmp}".encode() in (process / "environ").read_bytes():
                    found.append(int(process.name))
        return found

    def idle(self) -> bool:
        """Whether nothing runs there any more and nothing is left."""
        return not self.jobs() and not list(self.tmp.iterdir())

    def variant(self, name: str, **changes: str) -> Path:
        """A configuration that differs in some options."""
        lines = [
            line for line in self.config.read_text().splitlines() if line.split()[0] not in changes
        ]
        path = self.config.with_name(f"config-{name}")
        path.write_text("\n".join([*lines, *(f"{k} {v}" for k, v in changes.items())]) + "\n")
        return path


class Background:
    """A call that holds, in a thread; `with` ends when the job has begun on the device."""

    def __init__(self, server: Server, **options: Any) -> None:
        self.server, self.options = server, options
        self.error: BaseException | None = None
        self.begun = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        before = set(server.jobs()), set(children(os.getpid()))
        self.thread.start()
        wait(lambda: self.begun.is_set() or self.error)
        assert self.error is None, self.error
        self.jobs = set(server.jobs()) - before[0]
        (self.ssh,) = set(children(os.getpid())) - before[1]

    def _run(self) -> None:
        try:
            self.server.call({"do": "hold"}, progress=lambda *_: self.begun.set(), **self.options)
        except BaseException as e:
            self.error = e

    @property
    def helper(self) -> int:
        """remote.py's process: the one whose child is the job."""
        parents = {parent(pid) for pid in self.jobs}
        return min(parents - self.jobs - {1})

    @property
    def sessions(self) -> list[int]:
        """sshd's processes of this contact, the nearest to the job first."""
        found, pid = [], self.helper
        while (pid := parent(pid)) not in (self.server.process.pid, 1, 0):
            if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
                found.append(pid)
        return found

    def ended(self) -> BaseException | None:
        """The error that the call ended in."""
        self.thread.join(15)
        assert not self.thread.is_alive()
        return self.error


def _key(path: Path) -> str:
    """Make a key pair; the public half."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "edgecv test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path.with_name(f"{path.name}.pub").read_text()


ACCOUNT = "edgecv-test-"


def _remove(name: str) -> None:
    """An account of the tests, and whatever runs under it."""
    uid = pwd.getpwnam(name).pw_uid
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if process.stat().st_uid == uid:
                os.kill(int(process.name), signal.SIGKILL)
    userdel = str(Path(USERADD or "").with_name("userdel"))
    subprocess.run([userdel, "--force", name], check=True, capture_output=True)


@contextmanager
def _account(home: Path) -> Iterator[str]:
    """An account that is there for as long as the tests: no password, no privileges."""
    assert USERADD
    for user in pwd.getpwall():  # of tests that were killed
        pid = user.pw_name.removeprefix(ACCOUNT).partition("-")[0]
        if user.pw_name.startswith(ACCOUNT) and not Path(f"/proc/{pid}").exists():
            _remove(user.pw_name)
    name = f"{ACCOUNT}{os.getpid()}-{secrets.token_hex(2)}"  # a process may ask for several
    command = [USERADD, "--no-create-home", "--home-dir", str(home), "--shell", "/bin/sh"]
    subprocess.run([*command, "--password", "*", name], check=True, capture_output=True)
    try:
        yield name
    finally:
        _remove(name)


def _board_python(folder: Path) -> str:
    """A Python with numpy and ONNX Runtime alone; a blank in its path, as paths may have."""
    assert PYTHON
    venv = folder / "a venv"
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", str(venv)], check=True)
    (site,) = venv.glob("lib/python3*/site-packages")
    installed = Path((find_spec("numpy").submodule_search_locations or [""])[0]).parent
    for name in PACKAGES:
        if (installed / name).is_dir():
            ignored = shutil.ignore_patterns("tests", "__pycache__", "transformers", "*.pyi")
            shutil.copytree(installed / name, site / name, ignore=ignored)
    return str(venv / "bin" / "python")


def _sshd(folder: Path, user: str, home: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A server that answers, and its port."""
    assert SSHD
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)  # a server left it to boot
    for _ in range(5):  # the port may be taken between looking and listening
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = folder / "sshd_config"
        config.write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            f"AllowUsers {user}\nPrintMotd no\nMaxStartups 50\nSetEnv TMPDIR={home}/tmp\n"
        )
        with (folder / "sshd.log").open("wb") as log:
            process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=log)
        while process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return process, port
            time.sleep(0.02)
    raise RuntimeError(f"no sshd: {(folder / 'sshd.log').read_text()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The server with the sessions that a failed test left, stopped ones too."""
    sessions = children(process.pid)
    for pid in sessions + [inner for outer in sessions for inner in children(outer)]:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    process.terminate()
    process.wait()


@contextmanager
def running() -> Iterator[Server]:
    """The server with everything it needs; nothing of it stays."""
    with ExitStack() as stack:
        made = tempfile.mkdtemp(prefix="edgecv-device-test-", dir="/tmp")
        folder = Path(made)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)  # the account reads authorized and Python; private keys are 0600
        home = folder / "home"
        (home / "tmp").mkdir(parents=True)
        user, python = pwd.getpwuid(os.getuid()).pw_name, sys.executable
        if KIND == "own-account":
            user, python = stack.enter_context(_account(home)), _board_python(folder)
            for path in (home, home / "tmp"):
                shutil.chown(path, user)
        host_key = " ".join(_key(folder / "host").split()[:2])
        (folder / "authorized").write_text(_key(folder / "key"))
        process, port = _sshd(folder, user, home)
        stack.callback(_end, process)
        (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key}\n")
        (folder / "config").write_text(
            f"IdentityFile {folder}/key\nIdentitiesOnly yes\nIdentityAgent none\n"
            f"UserKnownHostsFile {folder}/known\nGlobalKnownHostsFile /dev/null\n"
        )
        address = device.parse(f"ssh://{user}@127.0.0.1:{port}")
        yield Server(process, address, home, folder / "config", python, host_key)
