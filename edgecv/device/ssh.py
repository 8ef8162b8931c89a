"""One contact with a device: start ssh, send a parcel, hear progress and the answer.

ssh stdin    remote.py | header | kit.zip, files      kept open: its end tells the device to stop
ssh stdout   what the job prints, with child.MARK and remote.FRAME lines among it
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import IO, Any

from edgecv import child
from edgecv.address import Address, check_python, shell_word
from edgecv.child import Progress
from edgecv.device import kit, refusals
from edgecv.device.remote import FRAME
from edgecv.errors import (
    BundleError,
    DeviceError,
    DeviceLostError,
    EdgecvError,
    EngineError,
    MissingExtraError,
)
from edgecv.installation import distribution
from edgecv.runtime.shape import NUMBER, wrong

PYTHON = (3, 11)  # the oldest that runs the kit
CONNECT_S = 10
# A device that says nothing for ALIVE_S * ALIVE_COUNT seconds has vanished.
ALIVE_S = 5
ALIVE_COUNT = 3
# Runs what comes next on stdin. No character of it means anything to sh, csh or fish.
# -c searches the login's own folder first: a json.py there is not to be run.
_LOADER = (
    "import sys;sys.path=[p for p in sys.path if p];"
    "exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
)
_LINE = 256 << 20  # bytes of one answer at the most
_PROGRESS = [NUMBER, NUMBER, str]
_ANSWER = {"answer?": dict, "error?": [str, str, str, str]}
_FRAME = {"refused?": [str, str], "died?": int, "data?": _ANSWER, "room?": str}
_GRACE_S = 3.0  # for the device to tidy up when the work is called off here


def carry(paths: Sequence[Path]) -> tuple[dict[str, Path], list[str]]:
    """(files for `call`, what stands for each of them in the job). Equal base names may meet."""
    files = {f"{i}/{path.name}": path for i, path in enumerate(paths)}
    return files, [f"room:files/{name}" for name in files]


def call(
    address: Address,
    module: str,
    job: dict[str, Any],
    files: Mapping[str, Path],
    where: str,
    *,
    python: str = "python3",
    ssh_config: Path | str | None = None,
    progress: Progress | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 3600.0,
) -> dict[str, Any]:
    """`edgecv.child.call`, on the device: run `python -m module` there and return its answer.

    job:        as for the child; a string "room:files/NAME" in it becomes the path there of the
                file that `files` has under NAME (`carry` makes both)
    files:      relative name -> file here, copied there for the time of the call
    python:     the device's Python: a name or a path
    ssh_config: ssh -F; default the variable EDGECV_SSH_CONFIG, else the user's own
    progress:   called as progress(done, total, note) while it works there
    environment: variables on top of those that a login there has
    timeout_s:  give up after this long

    Raises whatever EdgecvError the job raised there (its `where` names the device); EngineError
    when it crashed; DeviceError when the device cannot be reached or lacks what is needed;
    DeviceLostError when it vanished or timeout_s passed; MissingExtraError without an ssh here.
    """
    config = ssh_config or os.environ.get("EDGECV_SSH_CONFIG")
    command = _command(address, check_python(python), config)
    parcel = _parcel(module, job, files, dict(environment or {}))
    contact = Contact(command, parcel)
    try:
        contact.hear(progress, timeout_s)
    except BaseException:  # also Ctrl-C: nothing goes on measuring unseen
        contact.hang_up()
        raise
    return _answer(contact, address, python, where, files, timeout_s)


def _command(address: Address, python: str, config: Path | str | None) -> list[str]:
    program = shutil.which("ssh")
    if program is None:
        raise MissingExtraError("ssh", "is not installed", "apt install openssh-client")
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "ConnectTimeout": CONNECT_S,
        "ServerAliveInterval": ALIVE_S,
        "ServerAliveCountMax": ALIVE_COUNT,
        "ClearAllForwardings": "yes",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "RemoteCommand": "none",
        "ControlMaster": "no",  # an open master is used; none is left behind
        "LogLevel": "INFO",  # which tells why a connection ended
    }
    command = [program, "-T", *(["-F", str(config)] if config else [])]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    command += ["-l", address.user] if address.user else []
    command += ["-p", str(address.port)] if address.port else []
    return [*command, "--", address.host, f'{shell_word(python)} -c "{_LOADER}"']


def _parcel(
    module: str, job: dict[str, Any], files: Mapping[str, Path], environment: dict[str, str]
) -> list[bytes]:
    """All that goes to the device, in order. Raises BundleError for a file that cannot be read."""
    contents = {"kit.zip": kit.build(module)}
    for name, path in files.items():
        try:
            contents[f"files/{name}"] = Path(path).read_bytes()
        except OSError as e:
            raise BundleError(str(path), f"cannot be read: {e.strerror}") from None
    header = {
        "python": PYTHON,
        "packages": ["numpy"],
        "module": module,
        "job": job,
        "environment": environment,
        "files": [
            {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in contents.items()
        ],
    }
    parts = [
        resources.files("edgecv.device").joinpath("remote.py").read_bytes(),
        json.dumps(header).encode(),
    ]
    return [*(b"%d\n%s" % (len(part), part) for part in parts), *contents.values()]


@dataclass
class Contact:
    """A running ssh, what it is sent, and what was heard of it.

    started: the device's side said hello
    end:     its last frame, None while there is none
    said:    the job's own words
    errors:  lines of stderr: ssh's, and what the device said before its side began
    """

    command: list[str]
    parcel: list[bytes]
    started: bool = False
    end: dict[str, Any] | None = None
    expired: bool = False
    said: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=50))

    def __post_init__(self) -> None:
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Messages in English. No terminal: ssh asks nothing, and Ctrl-C comes to us alone.
            env={**os.environ, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"},
            start_new_session=True,
        )
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._sender.start()
        self._reader.start()

    def hear(self, progress: Progress | None, timeout_s: float) -> None:
        """Listen until the device has said its last."""
        timer = threading.Timer(timeout_s, self._expire)
        timer.daemon = True
        timer.start()
        try:
            assert self.process.stdout is not None
            for line in iter(partial(self.process.stdout.readline, _LINE), b""):
                self._take(line, progress)
            self._finish()
        finally:
            timer.cancel()

    def hang_up(self) -> None:
        """End the contact: give the device a moment to tidy up, then cut."""
        try:
            if not self._sender.is_alive():  # else it is in the middle of the files
                self._close_input()
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(_GRACE_S)
        finally:
            self.process.kill()
            self.process.wait()

    def _take(self, line: bytes, progress: Progress | None) -> None:
        if line.startswith(FRAME):
            if not line.endswith(b"\n"):  # cut off in the middle
                return
            frame = _json(line[len(FRAME) :])
            if not isinstance(frame, dict):
                return
            if "hello" in frame:
                self.started = True
                self.said.clear()  # greetings of a login shell
                self.errors.clear()
            else:
                self.end = frame
                self._close_input()
            return
        text = line.decode(errors="replace")
        if text.startswith(child.MARK):
            told = _json(line[len(child.MARK) :])
            if progress and text.endswith("\n") and not wrong(told, _PROGRESS):
                progress(*told)
        elif text.strip():
            self.said.append(text.strip())

    def _finish(self) -> None:
        """ssh has closed its stdout: see it end, and what it complained of."""
        try:
            self.process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(_GRACE_S)
        self._close_input()

    def _send(self) -> None:
        assert self.process.stdin is not None
        with suppress(OSError, ValueError):  # refused before all of it was sent, or hung up
            for part in self.parcel:
                self.process.stdin.write(part)
            self.process.stdin.flush()

    def _read_errors(self) -> None:
        stream: IO[bytes] | None = self.process.stderr
        assert stream is not None
        for line in stream:
            if text := line.decode(errors="replace").strip():
                self.errors.append(text)

    def _close_input(self) -> None:
        with suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()

    def _expire(self) -> None:
        self.expired = True
        self.process.kill()


def _json(text: bytes) -> Any:
    """JSON of the device's; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _answer(
    contact: Contact,
    address: Address,
    python: str,
    where: str,
    files: Mapping[str, Path],
    timeout_s: float,
) -> dict[str, Any]:
    """The job's answer. Raises the error that the contact came to instead."""
    errors, last = list(contact.errors), contact.said[-1] if contact.said else ""
    frame, code = contact.end, contact.process.returncode
    if frame is None:
        if contact.expired:
            what = f"no answer in {timeout_s:g} s"
            raise DeviceLostError(str(address), what, "is the device busy, or the job too large?")
        if contact.started:
            raise refusals.lost(address, code, errors)
        raise refusals.unreached(address, python, code, errors, last)
    if wrong(frame, _FRAME) or not {"refused", "died", "data"} & frame.keys():
        hint = "is something else printing into the connection?"
        raise DeviceError(str(address), "answered what edgecv does not", hint)
    if "refused" in frame:
        what, hint = frame["refused"]
        raise DeviceError(str(address), what, hint)
    if "died" in frame:
        if library := child.absent("edgecv", last):
            what, hint = (
                f"{library} is not installed",
                f"there: pip install {distribution(library)}",
            )
            raise MissingExtraError(f"{where} on {address}", what, hint)
        hint = "run `edgecv doctor` there"
        raise EngineError(f"{where} on {address}", child.death(frame["died"], last), hint)
    try:
        return child.unpack(frame["data"])
    except EdgecvError as e:
        room = f"{frame['room']}/files/"
        facts = [e.where, e.what, e.hint]
        for name, path in files.items():
            facts = [text.replace(room + name, str(path)) for text in facts]
        raise type(e)(f"{facts[0]} on {address}", *facts[1:]) from None
