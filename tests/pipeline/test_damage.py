"""A byte that flips on the disk is noticed before what it is part of is used."""

import numpy as np
import pytest

from edgecv.plan import pipeline, recipe
from edgecv.plan.store import Store

TEXT = """model: {zoo: resnet8, width: 4}
data: {train: "npz:d.npz", test: "npz:d.npz", size: 16}
stages:
  - train: {name: dense, epochs: 1, batch_size: 8}
targets: [cpu]
"""


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    rng = np.random.default_rng(0)
    np.savez(folder / "d.npz", images=rng.integers(0, 256, (16, 16, 16, 3), np.uint8),
             labels=np.arange(16) % 2)  # fmt: skip
    (folder / "r.yaml").write_text(TEXT)
    return folder


def run(room, *settings):
    loaded = recipe.load(room / "r.yaml", settings)
    return pipeline.run(loaded, room / "out", store=Store(room / "store"), compare=False)


def flip(path):
    """The lowest bit of the byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture
def first(room):
    return run(room)


@pytest.mark.usefixtures("first")
def test_what_is_sound_is_reused_and_nothing_is_said(room, caplog):
    assert not run(room).made
    assert not caplog.records


@pytest.mark.parametrize(
    ("node", "file"),
    [("dense", "weights.safetensors"), ("bundle:dense@cpu", "dense.cpu.edgecv")],
)
def test_a_result_with_a_flipped_byte_is_made_again(room, first, caplog, node, file):
    path = first.folders[node] / file
    whole = path.read_bytes()
    flip(path)
    again = run(room)
    assert again.made == [node]
    assert f"{node}: {file} was damaged on the disk: made again" in caplog.text
    assert path.read_bytes() == whole


def test_images_with_a_flipped_byte_are_decoded_again_before_they_are_read(room, first, caplog):
    path = first.folders["data:train"] / "pixels.npy"
    whole = path.read_bytes()
    flip(path)
    assert not run(room).made  # nothing reads them: they are not looked at
    again = run(room, "dense.epochs=2")
    assert again.made[:2] == ["data:train", "dense"]
    assert "data:train: pixels.npy was damaged" in caplog.text
    assert path.read_bytes() == whole


def test_every_file_of_a_result_counts(room, first):
    for folder in first.folders.values():
        for path in (p for p in folder.rglob("*") if p.is_file()):
            before = path.read_bytes()
            flip(path)
            store = Store(room / "store")
            found = store.get(folder.name) is None or store.damage(folder.name)
            # of key.json only what says how to check the files decides
            assert found or path.name == "key.json", path
            path.write_bytes(before)


@pytest.mark.usefixtures("first")
def test_a_rerun_reads_no_result_that_it_does_not_use(room, monkeypatch):
    read = []
    hashed = Store.damage
    monkeypatch.setattr(Store, "damage", lambda s, d: read.append(d) or hashed(s, d))
    again = run(room)
    digests = {n.digest: n.kind for n in again.expansion.nodes.values()}
    assert {digests[d] for d in read} == {"stage", "bundle"}
