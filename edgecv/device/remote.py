"""The device's side of a contact: sent along, and run by whatever Python is there.

    stdin    size and header (JSON), then the files, in the header's order; nothing after them,
             and its end means that the connection is gone
    stdout   what the job's process prints, as it comes; FRAME lines: {"hello"}, then one of
             {"refused": [what, hint]}, {"data": the job's answer}, {"died": exit code}

    <tmp>/edgecv-<uid>/<16 hex digits>/        a room: the files and all that the job writes
    <tmp>/edgecv-<uid>/<16 hex digits>.lock    held (flock) for as long as its contact lasts

A room is removed on every way out, and by the next contact after a power cut: a lock that can be
had belongs to nobody. Standard library only, no edgecv, and Python 3.7's syntax, so that an old
Python can say that it is old.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import secrets
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

FRAME = b"\x1eedgecv-device "
MARK = "EDGECV_ROOM"  # in the environment of every process of a job, to find them all by
_NAME = re.compile("[0-9a-f]{16}")
_SPARE = 1 << 20  # bytes, for what the job writes itself


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """This device cannot do it: (what, hint)."""


class Gone(BaseException):
    """The connection is gone, or this process was told to end."""


def main() -> int:
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        signal.signal(getattr(signal, name), _stop)
    try:
        _say(hello=sys.version.split()[0])
        try:
            _say(**contact(sys.stdin.buffer))
        except Refused as e:
            _say(refused=list(e.args))
    except (Gone, ConnectionError):
        return 1
    return 0


def contact(stream: BinaryIO) -> dict[str, Any]:
    """Take the files, do the job, leave nothing; the last frame's contents."""
    header = json.loads(_exactly(stream, _length(stream)))
    check(header)
    try:
        room, lock = enter(sum(f["size"] for f in header["files"]) + _SPARE)
        try:
            for file in header["files"]:
                receive(stream, room, file)
            return work(room, header["module"], header["job"], header["environment"])
        finally:
            end(room)
            leave(room, lock)
    except ConnectionError:
        raise
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "no space left on its disk" if full else f"{e.filename}: {e.strerror}"
        raise Refused(what, "free some space there" if full else "") from None


def check(header: dict[str, Any]) -> None:
    """Raises Refused where the Python here cannot run the job."""
    needed = tuple(header["python"])
    if sys.version_info[: len(needed)] < needed:
        least = ".".join(map(str, needed))
        what = f"its Python is {sys.version.split()[0]}, too old"
        raise Refused(what, f"name a Python {least} or newer there: device_python")
    for package in header["packages"]:
        if importlib.util.find_spec(package) is None:
            install = f"{sys.executable} -m pip install {package}"
            hint = f"there: {install}, or name another Python: device_python"
            raise Refused(f"its Python has no {package}", hint)


# rooms


def bases() -> list[Path]:
    """Folders that may hold this user's rooms, the preferred first."""
    parents = [os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")]  # noqa: PTH111
    with suppress(OSError):  # no folder for temporary files can be written: a full disk
        parents.insert(0, tempfile.gettempdir())
    return [p / f"edgecv-{os.getuid()}" for p in map(Path, parents) if p.is_absolute()]


def enter(size: int) -> tuple[Path, int]:
    """A new room and its lock, where `size` bytes fit. Raises Refused."""
    for base in bases():
        sweep(base)
    reasons = []
    for base in bases():
        try:
            base.parent.mkdir(0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(str(base.parent)).free
            if free >= size:
                return _make(base)
            reasons.append(f"{base.parent}: {free >> 20} MB free")
        except OSError as e:
            reasons.append(f"{e.filename}: {e.strerror}")
    what = f"no place for {-(-size >> 20)} MB there: {', '.join(reasons)}"
    raise Refused(what, "free some space, or set TMPDIR there")


def _make(base: Path) -> tuple[Path, int]:
    """The lock first, the room after it: whoever sweeps sees no room without its lock."""
    for _ in range(100):
        room = base / secrets.token_hex(8)
        with suppress(FileExistsError):
            base.mkdir(0o700)
        if not _is_mine(base):
            raise OSError(errno.EACCES, "belongs to somebody else", str(base))
        try:
            lock = _locked(room, os.O_EXCL)
        except FileNotFoundError:  # another contact ended just now and took the base along
            continue
        if lock is not None:
            try:
                room.mkdir(0o700)
            except OSError:
                leave(room, lock)
                raise
            return room, lock
    raise OSError(errno.EBUSY, "too many contacts at once", str(base))


def sweep(base: Path) -> None:
    """Remove rooms that nobody holds, and end what still runs in them. Follows no link."""
    if not _is_mine(base):
        return
    for name in {entry.name.split(".")[0] for entry in os.scandir(str(base))}:
        if _NAME.fullmatch(name):
            with suppress(OSError):
                lock = _locked(base / name)
                if lock is not None:
                    end(base / name)
                    leave(base / name, lock)


def leave(room: Path, lock: int) -> None:
    """Remove a room whose lock is held, then the lock; the base too when it was the last."""
    if _is_mine(room):
        shutil.rmtree(str(room), ignore_errors=True)  # which follows no link either
    with suppress(OSError):
        if not room.exists():
            _lock_of(room).unlink()
    os.close(lock)
    with suppress(OSError):
        room.parent.rmdir()


def _locked(room: Path, flags: int = 0) -> int | None:
    """The lock of a room, held, as a file descriptor; None when another process holds it."""
    flags |= os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(str(_lock_of(room)), flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # the file may have been removed between open and flock, by whoever held it
        if os.fstat(lock).st_ino == _lock_of(room).stat().st_ino:
            return lock
    except OSError:
        pass
    os.close(lock)
    return None


def _lock_of(room: Path) -> Path:
    return room.with_suffix(".lock")


def _is_mine(folder: Path) -> bool:
    """Whether it is a folder (no link to one) of this user that others cannot write to."""
    try:
        info = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid() and not info.st_mode & 0o022


def receive(stream: BinaryIO, room: Path, file: dict[str, Any]) -> None:
    """One file of the header into the room. Raises Refused when it is not what was announced."""
    path = room / file["name"]
    if not all(part not in ("", ".", "..") for part in file["name"].split("/")):
        raise Refused(f"file name {file['name']!r} leaves its folder", "")
    path.parent.mkdir(parents=True, exist_ok=True)
    data = _exactly(stream, file["size"])
    if hashlib.sha256(data).hexdigest() != file["sha256"]:
        raise Refused(f"{file['name']} arrived damaged", "try again")
    path.write_bytes(data)


# the job


def work(room: Path, module: str, job: dict[str, Any], variables: dict[str, str]) -> dict[str, Any]:
    """Run `python -m module` on the job in the room; raises Gone when the connection is."""
    task, answer, scratch = room / "job.json", room / "answer.json", room / "tmp"
    task.write_text(json.dumps(placed(job, room)))
    scratch.mkdir()
    paths = [str(room / "kit.zip"), os.environ.get("PYTHONPATH", "")]
    environment = dict(os.environ, **variables)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    # What engines write beside the work goes with the room (ONNX Runtime: an id in the cache).
    environment.update({"TMPDIR": str(scratch), "XDG_CACHE_HOME": str(scratch), MARK: str(room)})
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(task), str(answer)],
        cwd=str(scratch),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        _pass_on(child)
        code = child.wait()
    finally:
        with suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    try:
        return {"data": json.loads(answer.read_text()), "room": str(room)}
    except (OSError, ValueError):
        return {"died": code}


def placed(value: Any, room: Path) -> Any:
    """The job with every "room:NAME" made the path of NAME in the room."""
    if isinstance(value, dict):
        return {key: placed(v, room) for key, v in value.items()}
    if isinstance(value, list):
        return [placed(v, room) for v in value]
    if isinstance(value, str) and value.startswith("room:"):
        return str(room / value[len("room:") :])
    return value


def _pass_on(child: subprocess.Popen[bytes]) -> None:
    """What the child prints, until it prints no more. Raises Gone."""
    assert child.stdout is not None
    ours, theirs = sys.stdin.fileno(), child.stdout.fileno()
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    poll.register(theirs, select.POLLIN)
    while True:
        for found, _ in poll.poll():
            data = os.read(found, 1 << 16)
            if found == theirs:
                if not data:
                    return
                _write(data)
            elif not data:
                raise Gone


def end(room: Path) -> None:
    """Kill every process of this user that carries the room's name in its environment."""
    mark = f"{MARK}={room}".encode()
    for _ in range(10):  # a process may have just begun another
        found = [int(p.name) for p in Path("/proc").glob("[0-9]*") if _carries(p, mark)]
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def _carries(process: Path, mark: bytes) -> bool:
    try:
        mine = process.stat().st_uid == os.getuid()
        return mine and mark in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


# the stream


def _length(stream: BinaryIO) -> int:
    line = stream.readline(20)
    if not line.endswith(b"\n"):
        raise Gone
    return int(line)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise Gone
    return data


def _say(**frame: Any) -> None:
    """One frame, on a line of its own whatever the job printed before it."""
    _write(b"\n" + FRAME + json.dumps(frame).encode() + b"\n")


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def _stop(*_: object) -> NoReturn:
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):  # cleaning up is not interrupted
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    raise Gone


if __name__ == "__main__":
    sys.exit(main())
