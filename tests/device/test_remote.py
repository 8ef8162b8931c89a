"""Rooms and locks: what is stale goes, everything else stays. In this process, without ssh."""

from __future__ import annotations

import ast
import errno
import hashlib
import importlib.util
import json
import os
import sys
from io import BytesIO
from pathlib import Path

import pytest

from edgecv.device import remote
from edgecv.device.remote import Gone, Refused

STALE, HELD = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This user's base in a folder for temporary files of its own; it is not there yet."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp" / f"edgecv-{os.getuid()}"


def test_a_room_is_private_and_leaves_nothing(base: Path) -> None:
    room, lock = remote.enter(1)
    assert room.parent == base
    assert (base.stat().st_mode & 0o777, room.stat().st_mode & 0o777) == (0o700, 0o700)
    (room / "deep" / "er").mkdir(parents=True)
    remote.leave(room, lock)
    assert not base.exists()


def test_a_stale_room_goes_and_one_in_use_stays(base: Path) -> None:
    held, lock = remote.enter(1)
    (base / STALE).mkdir()
    (base / STALE / "kit.zip").write_text("")
    (base / f"{STALE}.lock").write_text("")
    (base / HELD).mkdir()  # its lock was tidied away with old files
    room, other = remote.enter(1)
    assert sorted(p.name for p in base.iterdir() if p.is_dir()) == sorted([held.name, room.name])
    remote.leave(room, other)
    assert held.is_dir()
    remote.leave(held, lock)
    assert not base.exists()


def test_nothing_else_is_touched(base: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    base.mkdir(0o700)
    (base / STALE).symlink_to(precious)
    (base / f"{HELD}.lock").symlink_to(precious / "file")
    (base / HELD).mkdir()
    (base / HELD / "link").symlink_to(precious)
    (base / "photos").mkdir()
    (base / "0123.txt").write_text("")
    remote.sweep(base)
    assert (precious / "file").read_text() == "kept"
    assert sorted(p.name for p in base.iterdir()) == sorted(
        # a lock that is a link is left alone, and so is what it would stand for
        [STALE, f"{STALE}.lock", HELD, f"{HELD}.lock", "photos", "0123.txt"]
    )
    (base / f"{HELD}.lock").unlink()
    remote.sweep(base)
    assert not (base / HELD).exists()
    assert (precious / "file").read_text() == "kept"


@pytest.mark.parametrize("how", ["link", "file", "writable by others"])
def test_a_base_that_is_not_ours_alone_is_not_used(base: Path, tmp_path: Path, how: str) -> None:
    if how == "file":
        base.write_text("")
    else:
        folder = base if how == "writable by others" else tmp_path / "trap"
        folder.mkdir()
        folder.chmod(0o777)
        (folder / STALE).mkdir()
        if how == "link":
            base.symlink_to(folder)
    room, lock = remote.enter(1)
    assert room.parent == tmp_path / "cache" / base.name
    remote.leave(room, lock)
    if how != "file":
        assert (base / STALE).is_dir()


def test_a_full_disk_is_said_before_anything_is_written(base: Path) -> None:
    with pytest.raises(Refused, match=r"no place for \d+ MB there: .*tmp: \d+ MB free"):
        remote.enter(1 << 60)
    assert not base.exists()


def test_a_contact_that_ends_early_leaves_nothing(base: Path) -> None:
    file = {"name": "kit.zip", "size": 10, "sha256": hashlib.sha256(b"x" * 10).hexdigest()}
    text = json.dumps({"python": [3], "packages": [], "files": [file]}).encode()
    with pytest.raises(Gone):
        remote.contact(BytesIO(b"%d\n%s%s" % (len(text), text, b"x" * 9)))
    with pytest.raises(Refused, match=r"kit\.zip arrived damaged"):
        remote.contact(BytesIO(b"%d\n%s%s" % (len(text), text, b"y" * 10)))
    assert not base.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_while_files_arrive(
    base: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(path: Path, _: bytes) -> int:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    file = {"name": "kit.zip", "size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    text = json.dumps({"python": [3], "packages": [], "files": [file]}).encode()
    with pytest.raises(Refused, match="no space left on its disk"):
        remote.contact(BytesIO(b"%d\n%sx" % (len(text), text)))
    assert not base.exists()


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "a/../../b", ""])
def test_a_file_stays_in_its_room(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="leaves its folder"):
        remote.receive(BytesIO(b""), tmp_path, {"name": name, "size": 0, "sha256": ""})


def test_an_old_python_and_a_bare_one_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="too old"):
        remote.check({"python": [99, 1], "packages": []})
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Refused) as e:
        remote.check({"python": [3, 7], "packages": ["numpy"]})
    assert e.value.args[0] == "its Python has no numpy"
    assert "pip install numpy" in e.value.args[1]


def test_placeholders_become_paths_at_any_depth() -> None:
    job = {"bundles": ["room:files/0/a", "b"], "plan": {"x": ["room:"]}, "n": 1}
    assert remote.placed(job, Path("/r")) == {
        "bundles": ["/r/files/0/a", "b"], "plan": {"x": ["/r"]}, "n": 1,
    }  # fmt: skip


def test_an_old_python_reads_it_and_it_needs_nothing() -> None:
    source = Path(remote.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 7))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
    assert imported <= {*sys.stdlib_module_names, "__future__"}
