"""Sources, end to end: what materialise makes of them, and what they refuse."""

import errno
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from edgecv import data
from edgecv.errors import DataError, StoreError


def make_folder(root, classes=("ant", "bee"), per_class=3, size=(40, 30)):
    """An image folder of PNGs whose grey level is 10 * label + index."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            Image.new("RGB", size, (10 * label + index,) * 3).save(root / name / f"{index}.png")
    return root


def materialise(source, out, split="train", size=(16, 16), channels=None):
    return data.materialise(
        source, split, size, channels, {"crop_pct": 0.875, "interpolation": "bilinear"}, out
    )


def refusal(source, out, **keys):
    with pytest.raises(DataError) as caught:
        materialise(source, out, **keys)
    return str(caught.value)


# --- imagefolder ---------------------------------------------------------------------------


def test_imagefolder_labels_follow_sorted_names(tmp_path):
    root = make_folder(tmp_path / "in", classes=("cat", "ant", "bee"))
    seen = []
    images = data.materialise(
        f"imagefolder:{root}",
        "train",
        (16, 12),
        None,
        {"crop_pct": 0.875, "interpolation": "bicubic"},
        tmp_path / "out",
        lambda done, total: seen.append((done, total)),
    )
    assert images.classes == ("ant", "bee", "cat")
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert images.pixels.shape == (9, 16, 12, 3)
    # made as cat, ant, bee: the level tells which file each row came from
    assert images.pixels[:, 0, 0, 0].tolist() == [10, 11, 12, 20, 21, 22, 0, 1, 2]
    assert isinstance(images.pixels, np.memmap)
    assert seen == [(k, 9) for k in range(1, 10)]


def test_imagefolder_formats_sizes_nesting_and_hidden_files(tmp_path):
    root = make_folder(tmp_path / "in", per_class=1)
    Image.new("L", (300, 20), 77).save(root / "ant" / "z1.JPG", quality=100)
    Image.new("P", (9, 9)).save(root / "ant" / "z2.bmp")
    (root / "bee" / "more").mkdir()
    Image.new("RGBA", (50, 60), (5, 6, 7, 0)).save(root / "bee" / "more" / "z3.webp", lossless=True)
    (root / "bee" / ".hidden.png").write_bytes(b"no image")
    (root / "bee" / "notes.txt").write_text("no image")
    (root / ".cache").mkdir()
    images = materialise(f"imagefolder:{root}", tmp_path / "out")
    assert len(images) == 5
    assert images.labels.tolist() == [0, 0, 0, 1, 1]
    assert images.pixels[1, 8, 8].tolist() == [77, 77, 77]


def test_exif_orientation_is_applied(tmp_path):
    root = make_folder(tmp_path / "in", per_class=1)
    upright = np.zeros((20, 20, 3), np.uint8)
    upright[:10] = 200  # bright above
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn 90 degrees clockwise to see it upright"
    stored = Image.fromarray(np.rot90(upright))
    stored.save(root / "ant" / "turned.png", exif=exif)
    assert np.array_equal(data.decode(root / "ant" / "turned.png"), upright)


def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path):
    values = np.array([[0, 255, 256, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert data.decode(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 0, 1, 255]


def test_decode_converts_channels(tmp_path):
    Image.new("RGB", (4, 5), (255, 0, 0)).save(tmp_path / "red.png")
    assert data.decode(tmp_path / "red.png").shape == (5, 4, 3)
    grey = data.decode(tmp_path / "red.png", channels=1)
    assert grey.shape == (5, 4, 1)
    assert grey[0, 0, 0] == 76  # 0.299 * 255, ITU-R 601


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png"])
def test_truncated_image_is_named(tmp_path, name):
    root = make_folder(tmp_path / "in", size=(64, 64))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(root / "bee" / name)
    whole = (root / "bee" / name).read_bytes()
    (root / "bee" / name).write_bytes(whole[: len(whole) // 2])
    assert name in refusal(f"imagefolder:{root}", tmp_path / "out")


def test_a_file_that_is_no_image_is_named(tmp_path):
    root = make_folder(tmp_path / "in")
    (root / "ant" / "text.jpg").write_text("hello")
    assert "text.jpg" in refusal(f"imagefolder:{root}", tmp_path / "out")


def test_imagefolder_refusals(tmp_path):
    assert "no such folder" in refusal(f"imagefolder:{tmp_path}/absent", tmp_path / "out")
    one = make_folder(tmp_path / "one", classes=("ant",))
    assert "only one class, 'ant'" in refusal(f"imagefolder:{one}", tmp_path / "out")
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "flat" / "a.png")
    assert "no class folders" in refusal(f"imagefolder:{tmp_path}/flat", tmp_path / "out")
    empty = make_folder(tmp_path / "empty")
    (empty / "cow").mkdir()
    assert "cow: class folder without images" in refusal(f"imagefolder:{empty}", tmp_path / "out")


def test_imagefolder_fingerprint_sees_names_and_bytes(tmp_path):
    root = make_folder(tmp_path / "in")
    first = data.fingerprint(f"imagefolder:{root}", "train")
    copy = make_folder(tmp_path / "elsewhere")
    assert data.fingerprint(f"imagefolder:{copy}", "train") == first
    (copy / "ant" / "0.png").rename(copy / "ant" / "9.png")
    renamed = data.fingerprint(f"imagefolder:{copy}", "train")
    with (root / "bee" / "2.png").open("ab") as file:
        file.write(b"x")
    changed = data.fingerprint(f"imagefolder:{root}", "train")
    assert len({first, renamed, changed}) == 3


def test_fingerprint_does_not_decode(tmp_path):
    root = make_folder(tmp_path / "in")
    (root / "ant" / "text.jpg").write_text("hello")
    assert len(data.fingerprint(f"imagefolder:{root}", "train")) == 64


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    root = make_folder(tmp_path / "in")
    (root / "ant" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(DataError, match=r"gone\.jpg: cannot be read"):
        data.fingerprint(f"imagefolder:{root}", "train")
    assert "gone.jpg" in refusal(f"imagefolder:{root}", tmp_path / "out")


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve blocks")
def test_a_full_disk_is_an_error_not_a_crash(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    root = make_folder(tmp_path / "in")
    with pytest.raises(StoreError, match="No space left"):
        materialise(f"imagefolder:{root}", tmp_path / "out")
    assert not (tmp_path / "out" / "pixels.npy").exists()


# --- npz -----------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (6, 10, 10), np.uint8)
Y = np.array([0, 1, 2, 0, 1, 2])


def save_npz(path, **arrays):
    np.savez(path, **arrays)
    return f"npz:{path}"


@pytest.mark.parametrize("keys", [("images", "labels"), ("x", "y"), ("x_test", "y_test")])
def test_npz_keys(tmp_path, keys):
    source = save_npz(tmp_path / "d.npz", **dict(zip(keys, (X, Y.astype(np.uint8)), strict=True)))
    images = data.materialise(
        source,
        "test",
        (10, 10),
        None,
        {"crop_pct": 1.0, "interpolation": "bilinear"},
        tmp_path / "out",
    )
    assert np.array_equal(images.pixels[..., 0], X)
    assert images.labels.tolist() == Y.tolist()
    assert images.classes == ("0", "1", "2")


def test_npz_splits_share_their_classes(tmp_path):
    source = save_npz(tmp_path / "d.npz", x_train=X, y_train=Y, x_test=X[:2], y_test=Y[:2])
    train = materialise(source, tmp_path / "train")
    test = materialise(source, tmp_path / "test", split="test")
    assert (len(train), len(test)) == (6, 2)
    assert train.classes == test.classes
    assert data.fingerprint(source, "train") != data.fingerprint(source, "test")


def test_npz_channels(tmp_path):
    source = save_npz(tmp_path / "d.npz", x=X[..., None], y=Y, classes=np.array(["a", "b", "c"]))
    assert materialise(source, tmp_path / "own").pixels.shape == (6, 16, 16, 1)
    images = materialise(source, tmp_path / "three", channels=3)
    assert images.pixels.shape == (6, 16, 16, 3)
    assert images.classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": X, "y": Y[:5]}, "5 labels for 6 images"),
        ({"x": X, "y": Y - 1}, "label -1 of image 0"),
        ({"x": X, "y": Y, "classes": np.array(["a", "b"])}, "label 2 of image 2 is not in 0..1"),
        ({"x": X, "y": Y + 10**9}, "out of range"),
        ({"x": X, "y": Y.astype(float)}, "labels must be integers"),
        ({"x": X, "y": np.eye(6, dtype=int)}, "labels must be integers (N,)"),
        ({"x": X / 255, "y": Y}, "must be uint8, not float64"),
        ({"x": X[0], "y": Y}, "has shape (10, 10)"),
        ({"x": X.reshape(6, 2, 10, 5), "y": Y}, "has shape (6, 2, 10, 5)"),
        ({"x": X[:0], "y": Y[:0]}, "holds no images"),
        ({"pictures": X}, "holds pictures"),
        ({"x": X, "y": np.array([object()] * 6)}, "y: holds Python objects"),
    ],
)
def test_npz_refusals(tmp_path, arrays, says):
    source = save_npz(tmp_path / "d.npz", **arrays)
    assert says in refusal(source, tmp_path / "out")


def test_npz_arrays_are_what_their_file_can_hold(tmp_path):
    head = b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 32, 32, 3), }"
    with zipfile.ZipFile(tmp_path / "tall.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00\x76\x00" + head.ljust(117) + b"\n")
    assert "and holds 0 bytes" in refusal(f"npz:{tmp_path}/tall.npz", tmp_path / "out")
    x = np.zeros((9000, 90, 90), np.uint8)
    np.savez_compressed(tmp_path / "bomb.npz", x=x, y=np.zeros(9000, np.int64))
    assert "unpacks to 72,900,000 bytes" in refusal(f"npz:{tmp_path}/bomb.npz", tmp_path / "out")


def test_npz_file_refusals(tmp_path):
    assert "no such file" in refusal(f"npz:{tmp_path}/absent.npz", tmp_path / "out")
    (tmp_path / "text.npz").write_text("hello")
    assert "not an .npz file" in refusal(f"npz:{tmp_path}/text.npz", tmp_path / "out")
    save_npz(tmp_path / "d.npz", x=X, y=Y)
    whole = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    assert "cut.npz" in refusal(f"npz:{tmp_path}/cut.npz", tmp_path / "out")
    (tmp_path / "bent.npz").write_bytes(whole[:200] + b"\xff" + whole[201:])
    assert "bent.npz" in refusal(f"npz:{tmp_path}/bent.npz", tmp_path / "out")


# --- module:function -----------------------------------------------------------------------

MODULE = """
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

class Made(Dataset):
    def __init__(self, item, count=4):
        self.item, self.count = item, count
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        return self.item(index)

def grey(k): return np.full((12, 8), k, np.uint8)

def arrays(split): return Made(lambda i: (grey(i + (100 if split == "test" else 0)), i % 2))
def pillow(): return Made(lambda i: (Image.fromarray(grey(i)), torch.tensor(i % 2)))
def tensors():
    made = Made(lambda i: (torch.full((3, 12, 8), i / 255), i % 2))
    made.classes = ["no", "yes"]
    return made
def normalised(): return Made(lambda i: (torch.full((3, 12, 8), -0.5), 0))
def lonely(): return Made(lambda i: grey(i)[0, 0])
def named(): return Made(lambda i: (grey(i), "cat"))
def negative(): return Made(lambda i: (grey(i), i - 1))
def empty(): return Made(None, 0)
def number(): return 5
def broken(): raise KeyError("no such column")
def broken_item(): return Made(lambda i: 1 / 0)
def random(): return Made(lambda i: (torch.rand(3, 8, 8), 0))
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module outside the package, found in the working folder."""
    (tmp_path / "my_own_data.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield "my_own_data"
    sys.modules.pop("my_own_data", None)


@pytest.mark.parametrize("name", ["arrays", "pillow", "tensors"])
def test_function_items(mine, tmp_path, name):
    images = materialise(f"{mine}:{name}", tmp_path / "out")
    assert images.labels.tolist() == [0, 1, 0, 1]
    assert images.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert images.pixels.shape[3] == (3 if name == "tensors" else 1)
    assert images.classes == (("no", "yes") if name == "tensors" else ("0", "1"))


def test_function_is_told_the_split(mine, tmp_path):
    images = materialise(f"{mine}:arrays", tmp_path / "out", split="test")
    assert images.pixels[:, 0, 0, 0].tolist() == [100, 101, 102, 103]
    prints = [data.fingerprint(f"{mine}:arrays", split) for split in ("train", "test", "train")]
    assert prints[0] == prints[2] != prints[1]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("normalised", "reaches from -0.5 to -0.5"),
        ("lonely", "item 0: is uint8, not a pair"),
        ("broken", "it raised KeyError: 'no such column'"),
        ("broken_item", "item 0: it raised ZeroDivisionError"),
        ("named", "the label 'cat' is not an integer"),
        ("negative", "label -1 of image 0"),
        ("empty", "is empty"),
        ("number", "returned int"),
        ("absent", "has no function 'absent'"),
    ],
)
def test_function_refusals(mine, tmp_path, name, says):
    assert says in refusal(f"{mine}:{name}", tmp_path / "out")


def test_a_module_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imports_absent.py").write_text("import absent_library")
    assert "No module named 'absent_library'" in refusal("imports_absent:f", tmp_path / "out")
    (tmp_path / "no_python.py").write_text("def f(:")
    assert "it raised SyntaxError" in refusal("no_python:f", tmp_path / "out")
    assert sys.path.count(str(tmp_path)) == 0


def test_augmented_data_are_refused(mine):
    with pytest.raises(DataError, match="differs between two reads"):
        data.fingerprint(f"{mine}:random", "train")


def test_data_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['PIL'] = None\n"
        "from edgecv import data; print(data.parse('fashion-mnist-sample').items('test').count)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3000\n"


# --- parse ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("fashion-mnst", "did you mean fashion-mnist"),
        ("imagefoldr:images/train", "did you mean imagefolder"),
        ("imagefolder:", "names no path"),
        ("zzz", "a source is one of"),
        ("", "a source is one of"),
    ],
)
def test_parse_refusals(source, says):
    with pytest.raises(DataError) as caught:
        data.parse(source)
    assert says in str(caught.value)


def test_unknown_split_and_module(tmp_path):
    with pytest.raises(DataError, match="no split 'validation'"):
        data.fingerprint("fashion-mnist-sample", "validation")
    assert "no module named 'no_such_module'" in refusal("no_such_module:f", tmp_path)


# --- calibration ---------------------------------------------------------------------------


def test_calibration_images(tmp_path):
    root = make_folder(tmp_path / "in", per_class=2)
    Image.new("RGB", (8, 8)).save(root / "flat.jpg")
    found = [path.relative_to(root).as_posix() for path in data.calibration_images(root)]
    assert found == ["ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png", "flat.jpg"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        data.calibration_images(tmp_path / "empty")
    with pytest.raises(DataError, match="no such folder"):
        data.calibration_images(tmp_path / "absent")


@pytest.mark.parametrize("source", ["os:getcwd", "json:loads", "importlib.util:find_spec"])
def test_python_itself_gives_no_images(tmp_path, source):
    assert "is a part of Python and gives no images" in refusal(source, tmp_path)
