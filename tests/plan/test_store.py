"""A result is whole or absent, one run writes at a time, and a full disk loses nothing."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgecv.errors import StoreError
from edgecv.files import digest, disk_errors, publish, write_atomic
from edgecv.plan.store import Store

KEY = {"kind": "train", "train": {"epochs": 6}}
NAME = digest(KEY)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def made(store: Store, node: str = "dense", key: dict = KEY) -> Path:
    folder = store.begin(digest(key), resumable=False)
    (folder / "weights").write_bytes(b"1234")
    (folder / "engine").mkdir()
    (folder / "engine" / "model.bin").write_bytes(b"56")
    return store.commit(node, digest(key), key)


@contextmanager
def file_limit(limit: int) -> Iterator[None]:
    """No file may grow beyond `limit` bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_a_result_is_absent_until_it_is_committed(store: Store) -> None:
    (store.begin(NAME, resumable=False) / "weights").write_bytes(b"1234")
    assert store.get(NAME) is None
    folder = made(store)
    assert store.get(NAME) == folder
    assert not (store.root / "partial" / NAME).exists()


@pytest.mark.parametrize("name", ["weights", "engine/model.bin", "key.json"])
def test_a_result_that_lacks_a_file_is_not_reused(store: Store, name: str) -> None:
    (made(store) / name).unlink()
    assert store.get(NAME) is None


@pytest.mark.parametrize("content", [b"123", b"12345"])
def test_a_result_with_a_file_of_another_size_is_not_reused(store: Store, content: bytes) -> None:
    (made(store) / "weights").write_bytes(content)
    assert store.get(NAME) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": []}', '{"files": 3}'])
def test_a_damaged_key_file_is_no_result(store: Store, text: str) -> None:
    (made(store) / "key.json").write_text(text)
    assert store.get(NAME) is None


def test_a_damaged_result_can_be_made_again(store: Store) -> None:
    (made(store) / "weights").unlink()
    assert store.get(NAME) is None
    again = made(store)
    assert store.get(NAME) == again


def test_what_a_killed_commit_left_does_not_spoil_the_next(store: Store) -> None:
    folder = store.begin(NAME, resumable=True)
    (folder / "weights").write_bytes(b"1234")
    (folder / "key.json").write_text("the key of a commit that never renamed")
    (folder / ".key.json.1.tmp").write_text("half of one")
    final = store.commit("dense", NAME, KEY)
    assert store.get(NAME) == final
    assert sorted(p.name for p in final.iterdir()) == ["key.json", "weights"]


def test_only_a_resumable_step_finds_what_a_killed_run_left(store: Store) -> None:
    (store.begin(NAME, resumable=True) / "checkpoint").write_text("epoch 3")
    assert (store.begin(NAME, resumable=True) / "checkpoint").read_text() == "epoch 3"
    assert not (store.begin(NAME, resumable=False) / "checkpoint").exists()


def test_discard_throws_away_only_what_is_in_the_making(store: Store) -> None:
    folder = made(store)
    store.begin("other", resumable=True)
    store.discard("other")
    assert not (store.root / "partial" / "other").exists()
    assert store.get(NAME) == folder


def test_the_last_key_of_a_node_is_remembered(store: Store) -> None:
    assert store.recall("bundle:dense@cpu") is None
    made(store, "bundle:dense@cpu")
    assert store.recall("bundle:dense@cpu") == KEY
    other = {**KEY, "seed": 1}
    made(store, "bundle:dense@cpu", other)
    assert store.recall("bundle:dense@cpu") == other
    assert store.get(NAME), "the older result is still there for the way back"


def test_a_second_process_cannot_write_at_the_same_time(store: Store) -> None:
    code = (
        "import sys; from pathlib import Path; from edgecv.plan.store import Store\n"
        "from edgecv.errors import StoreError\n"
        "try:\n"
        "    with Store(Path(sys.argv[1])).locked(): print('free')\n"
        "except StoreError as e: print(e)\n"
    )

    def other() -> str:
        return subprocess.run(
            [sys.executable, "-c", code, str(store.root)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    with store.locked():
        assert "another run is writing here" in other()
    assert other() == "free\n"


def test_a_store_that_is_a_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="cannot be written"), Store(tmp_path / "store").locked():
        pass


def test_a_write_is_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_atomic(path, "old")
    with file_limit(100), pytest.raises(StoreError, match="no space left"), disk_errors(tmp_path):
        write_atomic(path, "n" * 1000)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path], "no temporary file is left"
    write_atomic(path, "new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("folder", [False, True])
def test_publish_replaces_whole_things(tmp_path: Path, folder: bool) -> None:
    source, path = tmp_path / "source", tmp_path / "out" / "there"
    for content in ("one", "two"):
        if folder:
            source.mkdir(exist_ok=True)
            (source / "key.json").write_text("the store's own")
        (source / content if folder else source).write_text(content)
        publish(source, path)
    if folder:
        assert sorted(p.name for p in path.iterdir()) == ["one", "two"]
    else:
        assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["there"]


def test_publish_onto_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    source, path = tmp_path / "source", tmp_path / "out" / "there"
    source.write_text("short")
    publish(source, path)
    source.write_bytes(bytes(5000))
    with file_limit(1000), pytest.raises(StoreError, match="no space left"), disk_errors(tmp_path):
        publish(source, path)
    assert path.read_text() == "short"
    assert [p.name for p in path.parent.iterdir()] == ["there"]


def test_a_full_disk_is_told_whoever_wrote(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    with file_limit(1000), pytest.raises(StoreError, match="no space left"), disk_errors(tmp_path):
        save_file({"w": torch.zeros(5000)}, tmp_path / "weights.safetensors")


def test_other_errors_are_not_laid_to_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "nothing").read_text()
    with pytest.raises(ZeroDivisionError), disk_errors(tmp_path):
        raise ZeroDivisionError


def can_mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not can_mount(folder):
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_loses_nothing_and_the_run_goes_on(small_disk: Path) -> None:
    store = Store(small_disk / "store")
    first = made(store)
    ballast = small_disk / "ballast"
    second = {"kind": "prune"}

    def work() -> Path:
        with disk_errors(store.root):
            folder = store.begin(digest(second), resumable=True)
            (folder / "weights").write_bytes(bytes(20_000))
            return store.commit("small", digest(second), second)

    ballast.write_bytes(bytes(40_000))
    with pytest.raises(StoreError, match="no space left") as e:
        work()
    assert "finished steps are kept" in e.value.hint
    assert store.get(NAME) == first
    assert store.get(digest(second)) is None
    ballast.unlink()
    again = work()
    assert store.get(digest(second)) == again


def test_the_key_is_kept_beside_the_result(store: Store) -> None:
    data = json.loads((made(store) / "key.json").read_text())
    assert data["key"] == KEY
    assert data["files"] == {"engine/model.bin": 2, "weights": 4}
    # printf 1234 | sha256sum
    assert data["sha256"]["weights"][:16] == "03ac674216f3e15c"


def test_a_flipped_byte_is_damage_and_older_results_count_as_sound(store: Store) -> None:
    folder = made(store)
    assert Store(store.root).damage(NAME) == ""
    (folder / "engine" / "model.bin").write_bytes(b"57")
    assert store.get(NAME) == folder  # sizes are as they were
    assert Store(store.root).damage(NAME) == "engine/model.bin"
    data = json.loads((folder / "key.json").read_text())
    del data["sha256"]
    (folder / "key.json").write_text(json.dumps(data))
    assert Store(store.root).damage(NAME) == ""
