"""However a command ends, nothing of it is left: no process, no temporary folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecv.runtime.archive import write_bundle
from tests.runtime.conftest import described, golden, network

ROOT = Path(__file__).parents[1]
SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
PARENT = """
import sys
from edgecv.child import call
from edgecv.interrupts import stoppable
with stoppable():
    call("tests.crashing", {"do": sys.argv[1], "tell": sys.argv[2]}, "parent")
"""


def until(true: Callable[[], object], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.05)
    return bool(found)


def gone(pid: int) -> bool:
    """No such process, or one that has ended and that nobody has asked about."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def of_room(room: Path) -> list[int]:
    """Processes whose temporary files go into the room."""
    mark, found = f"TMPDIR={room}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes() and not gone(int(process.name)):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def heed_interrupts() -> None:
    """A shell starts what runs in its background deaf to Ctrl-C, nohup deaf to the terminal's end,
    and these tests may be there."""
    for name in SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def start(room: Path, *command: str) -> subprocess.Popen[str]:
    room.mkdir()
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_interrupts,
        env={**os.environ, "TMPDIR": str(room), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("do", ["wait", "nest"])
@pytest.mark.parametrize("name", ["SIGKILL", *SIGNALS])
def test_a_child_and_what_it_started_end_with_the_parent(
    tmp_path: Path, do: str, name: str
) -> None:
    room, tell = tmp_path / "room", tmp_path / "told"
    parent = start(room, "-c", PARENT, do, str(tell))
    try:
        assert until(tell.exists), parent.communicate(timeout=5)
        child, other, scratch = json.loads(tell.read_text())
        assert room in Path(scratch).parents
        parent.send_signal(getattr(signal, name))
        parent.wait(60)
        assert until(lambda: gone(child) and gone(other)), "orphans"
        assert until(lambda: not any(room.iterdir())), list(room.rglob("*"))
    finally:
        parent.kill()
        parent.communicate()


@pytest.mark.parametrize("name", SIGNALS)
def test_a_command_that_measures(tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnxruntime")
    model, manifest = network(8), described(8)
    bundle = write_bundle(
        tmp_path / "net.edgecv", manifest, {"model.onnx": model}, *golden(model, manifest)
    )
    room = tmp_path / "room"
    command = start(room, "-m", "edgecv", "bench", str(bundle), "--budget", "10m", "--rounds",
                    "900000", "--precision", "0.6")  # fmt: skip
    try:
        assert until(lambda: len(of_room(room)) > 1), "it measures in a process of its own"
        command.send_signal(getattr(signal, name))
        out, err = command.communicate(timeout=60)
        assert command.returncode == SIGNALS[name]
        assert out == ""
        assert err.strip() == ("interrupted" if name == "SIGINT" else "stopped")
        assert until(lambda: not of_room(room)), "orphans"
        assert list(room.iterdir()) == []
    finally:
        command.kill()
        command.communicate()


def test_what_nohup_ignores_stays_ignored() -> None:
    code = (
        "import os, signal\nfrom edgecv.interrupts import stoppable\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with stoppable():\n    os.kill(os.getpid(), signal.SIGHUP)\nprint('on')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "on\n"
