"""Fashion-MNIST: the sample in the checkout, and the road of the full set, without a network."""

import gzip
import hashlib
import runpy
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from edgecv import data
from edgecv.data import fashion_mnist
from edgecv.errors import DataError


@pytest.mark.parametrize(("split", "per_class"), [("train", 1200), ("test", 300)])
def test_sample_is_balanced_and_interleaved(tmp_path, split, per_class):
    images = data.materialise(
        "fashion-mnist-sample",
        split,
        (28, 28),
        None,
        {"crop_pct": 1.0, "interpolation": "bilinear"},
        tmp_path,
    )
    assert images.pixels.shape == (10 * per_class, 28, 28, 1)
    assert np.bincount(images.labels).tolist() == [per_class] * 10
    assert images.labels[:20].tolist() == [*range(10), *range(10)]
    assert images.classes == fashion_mnist.CLASSES
    assert 60 < images.pixels.mean() < 85  # the published mean is 72.9


def test_sample_has_its_licence():
    assert "Zalando SE" in (fashion_mnist.SAMPLE / "LICENSE").read_text()
    size = sum(path.stat().st_size for path in fashion_mnist.SAMPLE.iterdir())
    assert size < 8_000_000


def idx(array):
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


IMAGES = np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 28, 28)
LABELS = np.array([3, 1, 0, 9], np.uint8)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A four-image set in the place of the published one: its checksums, an empty cache."""
    files = tuple(
        (name, len(raw), hashlib.sha256(raw).hexdigest())
        for name, raw in (("images-idx3-ubyte", idx(IMAGES)), ("labels-idx1-ubyte", idx(LABELS)))
    )
    monkeypatch.setattr(fashion_mnist, "FILES", {"train": files, "test": files})
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES)))
    (mirror / "labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS)))
    monkeypatch.setattr(fashion_mnist, "URLS", (f"{mirror.as_uri()}/",))
    monkeypatch.setenv("EDGECV_DATA", str(tmp_path / "data"))
    return tmp_path


def load(tmp_path):
    return data.materialise(
        "fashion-mnist",
        "test",
        (28, 28),
        None,
        {"crop_pct": 1.0, "interpolation": "bilinear"},
        tmp_path / "out",
    )


def test_download_is_checked_and_kept(tiny, monkeypatch):
    images = load(tiny)
    assert np.array_equal(images.pixels[..., 0], IMAGES)
    assert images.labels.tolist() == LABELS.tolist()
    kept = sorted(path.name for path in (tiny / "data" / "fashion-mnist").iterdir())
    assert kept == ["images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"]
    monkeypatch.setattr(fashion_mnist, "URLS", ())  # now from the cache
    assert len(load(tiny)) == 4


def test_the_second_address_is_tried(tiny, monkeypatch):
    good = fashion_mnist.URLS[0]
    monkeypatch.setattr(fashion_mnist, "URLS", ((tiny / "nowhere").as_uri() + "/", good))
    assert len(load(tiny)) == 4


@pytest.mark.parametrize(
    "content",
    [gzip.compress(idx(IMAGES + 1)), b"<html>not found</html>", b"\x1f\x8bbroken", b""],
)
def test_an_altered_download_is_refused_and_not_kept(tiny, content):
    (tiny / "mirror" / "images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError) as caught:
        load(tiny)
    assert "images-idx3-ubyte" in str(caught.value)
    assert "fashion-mnist-sample" in caught.value.hint
    assert not (tiny / "data").exists()


def test_a_bomb_is_not_unpacked():
    """A gzip of 50 MB of zeros is cut one byte after the size that is expected."""
    packed = gzip.compress(bytes(50_000_000), 1)
    tracemalloc.start()
    with pytest.raises(DataError, match="SHA-256"):
        fashion_mnist._verified("bomb.gz", packed, 100, "0" * 64)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1_000_000


@pytest.mark.parametrize("packed", [True, False])
def test_local_copy_comes_first(tiny, monkeypatch, packed):
    monkeypatch.setattr(fashion_mnist, "URLS", ())
    folder = tiny / "debian"
    folder.mkdir()
    for name, array in (("images-idx3-ubyte", IMAGES), ("labels-idx1-ubyte", LABELS)):
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    assert len(load(tiny)) == 4


def test_a_damaged_local_copy_is_named(tiny):
    folder = tiny / "data" / "fashion-mnist"
    folder.mkdir(parents=True)
    (folder / "images-idx3-ubyte").write_bytes(idx(IMAGES)[:-1])
    with pytest.raises(DataError, match=r"data/fashion-mnist/images-idx3-ubyte: SHA-256"):
        load(tiny)


def test_nothing_anywhere_says_what_to_do(tiny, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "URLS", ((tiny / "nowhere").as_uri() + "/",))
    with pytest.raises(DataError) as caught:
        load(tiny)
    assert "dataset-fashion-mnist" in caught.value.hint


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x09\x01\0\0\0\x01a",
        b"\0\0\x08\x03\0\0",
        idx(LABELS)[:-1],
        idx(LABELS) + b"x",
        b"\0\0\x08\x03" + b"\xff" * 12,
    ],
)
def test_idx_refusals(raw):
    with pytest.raises(DataError, match="somewhere"):
        fashion_mnist.read_idx(raw, "somewhere")


def test_full_set_fingerprint_needs_no_files(monkeypatch):
    monkeypatch.setattr(fashion_mnist, "content", lambda *_: pytest.fail("it read the files"))
    prints = {data.fingerprint("fashion-mnist", split) for split in ("train", "test")}
    assert len(prints) == 2


needs_full_set = pytest.mark.skipif(
    not fashion_mnist.DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)


@needs_full_set
def test_the_script_makes_the_committed_sample(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECV_DATA", str(tmp_path / "none"))
    root = Path(__file__).parents[2]
    script = runpy.run_path(str(root / "scripts" / "make_fashion_sample.py"))
    for split in ("train", "test"):
        images, labels = script["sample"](split)
        with np.load(fashion_mnist.SAMPLE / f"{split}.npz", allow_pickle=False) as committed:
            assert np.array_equal(committed["images"], images)
            assert np.array_equal(committed["labels"], labels)


@needs_full_set
def test_full_test_split_and_that_the_sample_is_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECV_DATA", str(tmp_path / "none"))

    def make(name):
        return data.materialise(
            name,
            "test",
            (28, 28),
            None,
            {"crop_pct": 1.0, "interpolation": "bilinear"},
            tmp_path / name,
        )

    full, sample = make("fashion-mnist"), make("fashion-mnist-sample")
    assert len(full) == 10_000
    known = {
        (image.tobytes(), label) for image, label in zip(full.pixels, full.labels, strict=True)
    }
    mine = {
        (image.tobytes(), label) for image, label in zip(sample.pixels, sample.labels, strict=True)
    }
    assert mine <= known
    assert len(mine) == 3000  # drawn without replacement
