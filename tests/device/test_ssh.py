"""Contacts with a real SSH server: what comes back, every refusal, and that nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgecv import child, device, errors
from edgecv.address import Address
from edgecv.device import refusals, ssh
from edgecv.device.remote import FRAME
from edgecv.errors import (
    BundleError,
    DeviceError,
    DeviceLostError,
    EdgecvError,
    EngineError,
    MissingExtraError,
)
from tests.device.server import KIND, PYTHON, ROOT, Background, Server, wait


def stop(pid: int, name: str = "SIGKILL") -> None:
    with suppress(ProcessLookupError):  # sshd's two processes take each other along
        os.kill(pid, getattr(signal, name))


# the work


def test_a_bundle_runs_on_the_device(board: Server, make_bundle: Callable[..., Path]) -> None:
    """Two of the same base name, the second with a blank and an umlaut in it."""
    pytest.importorskip("onnxruntime")
    first, second = make_bundle(), make_bundle(size=16, file="größer als")
    twin = first.parent / "twin" / first.name
    twin.parent.mkdir()
    twin.write_bytes(first.read_bytes())
    files, names = device.carry([first, second, twin])
    answer = board.call({"do": "verify", "bundles": names}, files)
    assert [(r["bundle"], r["ok"]) for r in answer["reports"]] == [
        (path.name, True) for path in (first, second, twin)
    ]
    assert board.idle()
    if KIND == "own-account":
        assert not (board.home / ".cache").exists(), "nor what an engine keeps for itself"


def test_latencies_are_measured_on_the_device(
    board: Server, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("EDGECV_SSH_CONFIG", str(board.config))
    files, names = device.carry([make_bundle(file="a"), make_bundle(file="b")])
    plan = {"rounds": 3, "burst_ms": 1, "budget_s": 1}
    job = {"bundles": names, "plan": plan, "starts": False}
    answer = device.call(
        board.address, "edgecv.benchmark.measure", job, files, "bench", python=board.python
    )
    assert [b["bundle"] for b in answer["bundles"]] == ["a.edgecv", "b.edgecv"]
    assert all(b["latency_ms"]["p50"] > 0 for b in answer["bundles"])
    assert board.idle()


@pytest.mark.parametrize("where", ["here", "on its device", "nowhere"])
def test_a_run_measures_a_target_where_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The same job here and there, but for where the bundles are."""
    from edgecv.measuring import facts, run
    from edgecv.measuring.facts import BundleFacts
    from edgecv.plan.makers import measure
    from edgecv.plan.makers.work import Work
    from edgecv.plan.recipe import Bench
    from edgecv.target import load

    target = load("cpu").model_copy(
        update={
            "here": {"device": "ssh://pi@rpi5"},
            "on its device": {"device": "ssh://pi@rpi5", "runs_on_host": False},
            "nowhere": {"runs_on_host": False},
        }[where]
    )
    paths, inputs, asked = [tmp_path / f"{i}" / "x.edgecv" for i in range(2)], {}, []
    for path in paths:
        path.parent.mkdir()
        inputs[path.parent.name] = path.parent
        facts.write(path.parent, BundleFacts(
            "x.edgecv", 1, 1, "onnxruntime", True, (), "", None, {"fp32": 1}, "", {}
        ))  # fmt: skip

    def ask(*arguments: object, **_: object) -> dict:
        asked.append(arguments)
        rows = [{"bundle": name} for name in ("dense", "small")]
        return {"bundles": rows, "profiles": [{"layers": [], "reason": ""}] * 2}

    monkeypatch.setattr(run.child, "call", lambda *a, **_: ask("here", *a))
    monkeypatch.setattr(device, "call", lambda *a, **_: ask(*a))
    expansion = SimpleNamespace(recipe=SimpleNamespace(bench=Bench(), seed=0, threads=1))
    node = SimpleNamespace(target=target, id="measure:cpu")
    measure.make(Work(expansion, node, inputs, {}, tmp_path, lambda *_: None))
    found = facts.measured(tmp_path)["bundles"]
    if where == "nowhere":
        assert (asked, found) == ([], [])
        return
    (place, module, job, *rest), (place_too, then, *_) = asked
    assert [row["bundle"] for row in found] == ["dense", "small"]
    assert (module, then, place_too) == (
        "edgecv.benchmark.measure",
        "edgecv.benchmark.profile",
        place,
    )
    if where == "here":
        assert (place, job["bundles"]) == ("here", [str(p) for p in paths])
    else:
        assert place == device.parse("ssh://pi@rpi5")
        assert rest[0] == {"0/x.edgecv": paths[0], "1/x.edgecv": paths[1]}
        assert job["bundles"] == ["room:files/0/x.edgecv", "room:files/1/x.edgecv"]


def test_the_runtime_is_the_one_that_was_sent(board: Server, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"123")
    files, names = device.carry([tmp_path / "x"])
    job = {"do": "nothing", "files": names, "n": [1, "é", None]}
    answer = board.call(job, files, environment={"EDGECV_X": "7 and é"})
    assert answer["variable"] == "7 and é"
    assert answer["sizes"] == [3]
    assert answer["echo"]["n"] == [1, "é", None]
    assert answer["edgecv"].startswith(str(board.tmp))
    if KIND == "own-account":
        assert answer["uid"] != os.getuid()


def test_progress_arrives_before_the_end(board: Server) -> None:
    seen: list[tuple] = []
    board.call({"do": "steps"}, progress=lambda *a: seen.append((*a, time.monotonic())))
    assert [s[:3] for s in seen] == [(i, 3, "step") for i in (1, 2, 3)]
    assert seen[1][3] - seen[0][3] > 0.1
    assert time.monotonic() - seen[0][3] > 0.5


def test_temporary_files_of_a_job_go_with_the_room(board: Server) -> None:
    assert board.call({"do": "litter"})["folder"].startswith(str(board.tmp))
    assert board.idle()


def test_errors_travel_and_name_the_file_here_and_the_device(board: Server, tmp_path: Path) -> None:
    path = tmp_path / "a.edgecv"
    path.write_bytes(b"not a zip")
    files, names = device.carry([path])
    with pytest.raises(BundleError, match="not a readable bundle") as e:
        board.call({"do": "verify", "bundles": names}, files)
    assert e.value.where == f"{path} on {board.address}"
    with pytest.raises(MissingExtraError) as missing:
        board.call({"do": "raise", "type": "MissingExtraError"})
    facts = (missing.value.where, missing.value.what, missing.value.hint)
    assert facts == (f"where on {board.address}", "what", "hint")


def test_a_crash_is_an_engine_error_that_names_the_signal(board: Server) -> None:
    with pytest.raises(EngineError, match=r"job on ssh://.*died of SIGSEGV: last words"):
        board.call({"do": "signal", "name": "SIGSEGV"})


def test_a_file_that_is_not_here_is_said_before_any_contact() -> None:
    files, _ = device.carry([Path("/no/such.edgecv")])
    with pytest.raises(BundleError, match=r"/no/such\.edgecv: cannot be read: No such file"):
        device.call(device.parse("ssh://nowhere.invalid"), "tests.device.jobs", {}, files, "job")


def test_a_login_that_greets_and_a_home_path(board: Server) -> None:
    script = board.home / "python of mine"
    script.write_text(f'#!/bin/sh\necho Welcome\necho to all >&2\nexec "{board.python}" "$@"\n')
    script.chmod(0o755)
    python = "~/python of mine" if KIND == "own-account" else str(script)
    assert board.call({"do": "nothing"}, python=python)["echo"] == {"do": "nothing"}


# refusals


def refused(board: Server, **options: object) -> str:
    """The error's line; the device was not asked to do anything."""
    with pytest.raises(DeviceError) as e:
        board.call({"do": "nothing"}, **options)
    assert e.value.hint
    assert "\n" not in str(e.value)
    return str(e.value)


def test_an_unknown_host_key(board: Server, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    config = board.variant("unknown", UserKnownHostsFile=str(tmp_path / "empty"))
    line = refused(board, ssh_config=config)
    assert "its host key is not known here" in line
    assert f"ssh -p {board.address.port} {board.address.user}@127.0.0.1" in line
    assert (tmp_path / "empty").read_text() == "", "nor did it become known"


def test_another_host_key(board: Server, tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "k"], check=True
    )
    other = " ".join((tmp_path / "k.pub").read_text().split()[:2])
    (tmp_path / "known").write_text(f"[127.0.0.1]:{board.address.port} {other}\n")
    config = board.variant("changed", UserKnownHostsFile=str(tmp_path / "known"))
    line = refused(board, ssh_config=config)
    assert "its host key has changed" in line
    assert f"ssh-keygen -R '[127.0.0.1]:{board.address.port}'" in line


def test_no_key_that_is_accepted(board: Server, tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "k"], check=True
    )
    line = refused(board, ssh_config=board.variant("key", IdentityFile=str(tmp_path / "k")))
    assert "accepts none of the keys offered" in line
    assert "ssh-copy-id" in line


def test_nobody_listens(board: Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = device.parse(f"ssh://x@127.0.0.1:{free.getsockname()[1]}")
        assert "refuses connections" in refused(board, address=address)


def test_something_else_listens(board: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = device.parse(f"ssh://x@127.0.0.1:{other.getsockname()[1]}")
        import threading

        threading.Thread(target=lambda: other.accept()[0].close(), daemon=True).start()
        assert "ended the connection before it began" in refused(board, address=address)


def test_a_configuration_that_ssh_cannot_use(board: Server, tmp_path: Path) -> None:
    assert "ssh cannot use its configuration" in refused(board, ssh_config=tmp_path / "none")
    assert "ssh cannot use its configuration" in refused(
        board, ssh_config=board.variant("bad", NoSuchOption="1")
    )


@pytest.mark.parametrize("python", ["no-such-python", "/no/such/python3", "/etc/passwd"])
def test_a_python_that_is_not_there(board: Server, python: str) -> None:
    assert f"{python} cannot be run there" in refused(board, python=python)


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("echo 'SyntaxError: future feature annotations is not defined' >&2; exit 1", "too old"),
        (
            "echo This account is not available.; exit 1",
            "did not start there, code 1: This account",
        ),
    ],
)
def test_a_python_that_is_none(board: Server, says: str, why: str) -> None:
    script = board.home / "none"
    script.write_text(f"#!/bin/sh\n{says}\n")
    script.chmod(0o755)
    with pytest.raises(DeviceError, match=why):
        board.call({"do": "nothing"}, python=str(script))


def test_an_old_python_and_one_without_numpy(
    board: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = board.home / "bare"
    subprocess.run([PYTHON or sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    large = tmp_path / "large"  # refused long before all of it was sent
    large.write_bytes(bytes(8 << 20))
    line = refused(board, python=str(bare / "bin" / "python"), files={"large": large})
    assert "its Python has no numpy" in line
    assert f"{bare}/bin/python -m pip install numpy" in line
    monkeypatch.setattr(ssh, "PYTHON", (9, 9))
    assert "too old" in refused(board)


def test_a_full_disk_there(board: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent with more announced than any disk holds."""
    real = ssh.json.dumps
    monkeypatch.setattr(
        ssh.json, "dumps", lambda x: real(x).replace('"size": ', '"size": 99999999999999')
    )
    assert "no place for" in refused(board)


def test_no_ssh_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingExtraError, match="apt install openssh-client"):
        device.call(device.parse("ssh://x"), "tests.device.jobs", {}, {}, "job")


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("ssh: Could not resolve hostname x: Name or service not known", "name is not known"),
        ("ssh: connect to host x port 22: Connection timed out", "does not answer"),
        ("ssh: connect to host x port 22: No route to host", "does not answer"),
        ("Connection timed out during banner exchange", "does not answer"),
        ("Received disconnect from x: 2: Too many authentication failures", "none of the keys"),
        ("something new", "ssh failed: something new"),
    ],
)
def test_what_ssh_says_is_understood(said: str, what: str) -> None:
    error = refusals.unreached(device.Address("x"), "python3", 255, [said], "")
    assert isinstance(error, DeviceError)
    assert what in error.what
    assert error.hint


# a device, or a connection, that goes away


def lost(error: BaseException | None) -> EdgecvError:
    assert isinstance(error, DeviceLostError), error
    assert error.exit_code == 4
    assert "\n" not in str(error)
    return error


def test_the_connection_is_cut_on_the_device(board: Server) -> None:
    holding = Background(board)
    assert len(holding.jobs) == 2, "the job, and a process of its own"
    for pid in holding.sessions:
        stop(pid)
    assert "vanished in the middle of the work" in lost(holding.ended()).what
    wait(board.idle)


def test_ssh_is_killed_here(board: Server) -> None:
    holding = Background(board)
    stop(holding.ssh)
    lost(holding.ended())
    wait(board.idle)


def test_a_device_that_falls_silent(board: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "ALIVE_S", 1)
    monkeypatch.setattr(ssh, "ALIVE_COUNT", 1)
    holding = Background(board)
    sessions = holding.sessions
    for pid in sessions:
        stop(pid, "SIGSTOP")
    try:
        assert "not responding" in lost(holding.ended()).what
    finally:
        for pid in sessions:
            stop(pid)


def test_the_helper_is_told_to_end(board: Server) -> None:
    holding = Background(board)
    stop(holding.helper, "SIGTERM")
    assert "ended from outside" in lost(holding.ended()).what
    assert board.idle()


def test_after_a_power_cut_the_next_contact_tidies_up(board: Server) -> None:
    """And touches no contact that is at work beside it."""
    cut, beside = Background(board), Background(board)
    stop(cut.helper)
    lost(cut.ended())
    assert len(board.left()) == 4, "two rooms, two locks"
    assert cut.jobs <= set(board.jobs()), "what ran in the room lives on"
    assert board.call({"do": "nothing"})
    assert len(board.left()) == 2
    wait(lambda: set(board.jobs()) == beside.jobs)
    stop(beside.ssh)
    lost(beside.ended())
    wait(board.idle)


def test_a_job_that_takes_too_long(board: Server) -> None:
    with pytest.raises(DeviceLostError, match="no answer in 1 s"):
        board.call({"do": "hold"}, timeout_s=1)
    wait(board.idle)


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_stopping_here_stops_it_there(board: Server, name: str) -> None:
    # A process started in the background ignores SIGINT, and so would what it starts.
    code = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from edgecv import device
address = device.parse({str(board.address)!r})
device.call(address, "tests.device.jobs", {{"do": "hold"}}, {{}}, "job",
    python={board.python!r}, ssh_config={str(board.config)!r},
    progress=lambda *a: print("begun", flush=True))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=10)
    if name == "SIGINT":
        assert said.rstrip().endswith(b"KeyboardInterrupt")
        assert board.idle(), "it was tidied up before the prompt came back"
    wait(board.idle)


def test_progress_that_fails_ends_the_work(board: Server) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        board.call({"do": "hold"}, progress=broken)
    assert board.idle()


def test_every_error_of_the_tree_survives_the_way_back() -> None:
    """`call` makes each anew with the device's name in it."""
    for kind in EdgecvError.__subclasses__():
        made = getattr(errors, kind.__name__)("where", "what", "hint")
        assert str(type(made)(f"{made.where} on x", made.what, made.hint)) == (
            "where on x: what (hint)"
        )


@pytest.mark.parametrize(
    "said",
    [
        b"[1]", b"{", b'{"data": 3}', b'{"data": {"answer": []}}', b'{"refused": "no"}', b"{}",
        b'{"died": "x"}', b'{"data": {"error": ["missing", 1]}}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_device_that_says_something_else_is_an_error_of_ours(said: bytes) -> None:
    """Whatever comes down the line: no exception of Python's."""
    lines = (
        b"\n" + FRAME + b'{"hello": 1}\n' + child.MARK.encode() + b"[1]\n" + FRAME + said + b"\n"
    )
    echo = [sys.executable, "-c", f"import sys; sys.stdout.buffer.write({lines!r})"]
    contact = ssh.Contact(echo, [])
    contact.hear(print, 30.0)
    with pytest.raises((DeviceError, DeviceLostError)):
        ssh._answer(contact, Address("board"), "python3", "bench", {}, 30.0)
