"""Bundles: the same bytes twice, damage is always noticed, and a call costs next to nothing."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.errors import BundleError, DataError, StoreError
from edgecv.runtime import Bundle, Prediction, open_bundle
from edgecv.runtime import archive as archive_module
from edgecv.runtime.archive import read_bundle, write_bundle
from edgecv.runtime.spec import TensorSpec
from edgecv.tasks.segmentation import SegmentationTask
from tests.calls import calls
from tests.runtime.conftest import CLASSES, described, golden, network

pytest.importorskip("onnxruntime")


def rewritten(path: Path, change=None, **options) -> Path:
    """The bundle with members changed by `change(dict of bytes)`, digests not updated."""
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    if change:
        change(members)
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def remade(path: Path, change) -> Path:
    """The bundle with its manifest changed by `change(manifest)`."""

    def edit(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"])
        change(manifest)
        members["manifest.json"] = json.dumps(manifest).encode()

    return rewritten(path, edit)


def refused(path: Path, *says: str) -> BundleError:
    with pytest.raises(BundleError) as e:
        open_bundle(path)
    text = str(e.value)
    assert str(path) in text
    assert "\n" not in text
    assert e.value.hint
    for part in says:
        assert part in text
    return e.value


# writing


def test_the_same_contents_give_the_same_bytes(make_bundle) -> None:
    first, second = make_bundle(file="a"), make_bundle(file="b")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        infos = archive.infolist()
    assert [i.filename for i in infos] == [
        "manifest.json",
        "engine/model.onnx",
        "golden/inputs/image.npy",
        "golden/outputs/scores.npy",
    ]
    assert {i.compress_type for i in infos} == {zipfile.ZIP_STORED}
    assert {i.date_time for i in infos} == {(1980, 1, 1, 0, 0, 0)}


def test_what_is_written_is_read(make_bundle) -> None:
    path = make_bundle(metric={"name": "top1", "value": 0.9, "samples": 10, "reference": 0.91})
    contents = read_bundle(path)
    assert contents.files == {"model.onnx": network()}
    assert contents.manifest["metric"]["value"] == 0.9
    assert contents.manifest["size_bytes"] == len(network())
    digest = sha256(network()).hexdigest()
    assert contents.manifest["members"]["engine/model.onnx"] == digest
    inputs, outputs = golden(network(), described())
    np.testing.assert_array_equal(contents.golden_inputs["image"], inputs["image"])
    np.testing.assert_array_equal(contents.golden_outputs["scores"], outputs["scores"])
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444 & ~_umask()


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def test_the_engines_own_order_of_files_is_kept(tmp_path: Path) -> None:
    files = {"z.xml": b"main", "a.bin": b"weights"}
    write_bundle(tmp_path / "b.edgecv", described(), files, {}, {})
    assert list(read_bundle(tmp_path / "b.edgecv").files.items()) == list(files.items())


def test_any_tensor_name_has_a_member(tmp_path: Path) -> None:
    name = "../serving/default:0 é"
    manifest = described()
    manifest["input"]["name"] = manifest["inputs"][0]["name"] = name
    inputs, outputs = golden(network(), described())
    path = tmp_path / "b.edgecv"
    write_bundle(path, manifest, {"model.onnx": b"x"}, {name: inputs["image"]}, outputs)
    np.testing.assert_array_equal(read_bundle(path).golden_inputs[name], inputs["image"])


def test_a_full_disk_leaves_nothing_and_the_old_bundle(make_bundle, monkeypatch) -> None:
    path = make_bundle()
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive_module.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        make_bundle(name="other")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="could not be written"):
        write_bundle(tmp_path / "no" / "b.edgecv", described(), {"m": b""}, {}, {})


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "../evil"},
        {"engine": None},
        {"task": "detection"},
        {"labels": ["one"]},
        {"labels": [1, 2, 3, 4, 5]},
        {"inputs": []},
        {"outputs": []},
        {"input": {"name": "image"}},
        {"input": {"name": "other", "preprocess": described()["input"]["preprocess"]}},
        {"scores": "votes"},
        {"metric": {"value": float("nan")}},
        {"notes": [object()]},
    ],
)
def test_what_could_not_be_read_is_not_written(tmp_path: Path, change: dict) -> None:
    with pytest.raises(BundleError):
        write_bundle(tmp_path / "b.edgecv", {**described(), **change}, {"m": b""}, {}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("files", [{}, {"../up": b""}, {"a/b": b""}, {"a\\b": b""}])
def test_files_have_base_names_and_there_is_one(tmp_path: Path, files: dict) -> None:
    with pytest.raises(BundleError, match="files"):
        write_bundle(tmp_path / "b.edgecv", described(), files, {}, {})
    assert not list(tmp_path.iterdir())


def test_golden_arrays_of_another_shape_are_not_written(tmp_path: Path) -> None:
    inputs, outputs = golden(network(), described())
    for wrong in (inputs["image"][:, :1], inputs["image"].astype(np.float64), inputs["image"][:1]):
        with pytest.raises(BundleError, match="golden"):
            write_bundle(tmp_path / "b.edgecv", described(), {"m": b""}, {"image": wrong}, outputs)
    with pytest.raises(BundleError, match="golden"):
        write_bundle(tmp_path / "b.edgecv", described(), {"m": b""}, inputs, {})
    assert not list(tmp_path.iterdir())


# damage


def test_no_file_no_zip_a_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none.edgecv", "no such file")
    (tmp_path / "text.edgecv").write_text("hello")
    refused(tmp_path / "text.edgecv", "not a readable bundle")
    refused(tmp_path, "is a folder")


def test_every_truncation_is_refused(make_bundle) -> None:
    path = make_bundle()
    whole = path.read_bytes()
    for length in range(0, len(whole), 41):
        path.write_bytes(whole[:length])
        with pytest.raises(BundleError):
            read_bundle(path)


def test_a_changed_byte_is_refused_or_harmless(make_bundle) -> None:
    path = make_bundle()
    whole, contents = path.read_bytes(), read_bundle(path)
    headers = whole.find(b"PK\x01\x02")  # the directory is short and has the most to get wrong

    @settings(max_examples=600, deadline=None)
    @given(st.integers(0, headers) | st.integers(headers, len(whole) - 1), st.integers(0, 255))
    def check(at: int, value: int) -> None:
        path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
        try:
            found = read_bundle(path)
        except BundleError:
            return
        assert (found.manifest, found.files) == (contents.manifest, contents.files)
        for name, array in contents.golden_inputs.items():
            np.testing.assert_array_equal(found.golden_inputs[name], array)

    check()


def test_a_changed_member_is_named(make_bundle) -> None:
    path = make_bundle()
    rewritten(path, lambda m: m.update({"engine/model.onnx": m["engine/model.onnx"] + b"!"}))
    refused(path, "engine/model.onnx", "SHA-256")


def test_missing_and_extra_members_are_named(make_bundle) -> None:
    refused(rewritten(make_bundle(), lambda m: m.pop("manifest.json")), "manifest.json", "missing")
    refused(rewritten(make_bundle(), lambda m: m.pop("engine/model.onnx")), "engine/model.onnx")
    refused(rewritten(make_bundle(), lambda m: m.update({"extra": b"1"})), "extra")


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:/evil", "a//b", "folder/", "./a"],
)
def test_names_that_leave_their_folder_are_refused(make_bundle, name: str) -> None:
    refused(rewritten(make_bundle(), lambda m: m.update({name: b"1"})), "leave its folder")


def test_links_doubles_and_compression_are_refused(make_bundle) -> None:
    path = make_bundle()
    link = zipfile.ZipInfo("engine/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(path, "link")
    path = make_bundle()
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("engine/model.onnx", b"other")
    refused(path, "twice")
    refused(rewritten(make_bundle(), compression=zipfile.ZIP_DEFLATED), "stored")


def test_a_bomb_is_refused_before_it_is_read(make_bundle) -> None:
    path = make_bundle()
    whole = bytearray(path.read_bytes())
    at = whole.rfind(b"PK\x01\x02")  # the last member's entry: sizes at 20 and 24
    whole[at + 20 : at + 28] = (3 << 30).to_bytes(4, "little") * 2
    path.write_bytes(bytes(whole))
    refused(path, "declares")


def test_manifests_that_are_not_one(make_bundle) -> None:
    for data in (b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"schema": true}', b'{"schema": 0}'):
        path = rewritten(make_bundle(), lambda m, d=data: m.update({"manifest.json": d}))
        refused(path, "manifest.json")
    refused(remade(make_bundle(), lambda m: m.update(schema=3)), "newer", "take a newer edgecv")
    refused(remade(make_bundle(), lambda m: m.pop("outputs")), "outputs")
    refused(remade(make_bundle(), lambda m: m.update(members=3)), "members")
    refused(remade(make_bundle(), lambda m: m.update(files=["gone"])), "engine/gone")


def test_a_pickle_is_never_loaded(make_bundle) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], object), allow_pickle=True)
    huge = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 3, 8, 8)}
    np.lib.format.write_array_header_1_0(huge, header)
    for data in (buffer.getvalue(), huge.getvalue(), b"\x93NUMPY", b""):

        def change(members: dict[str, bytes], data: bytes = data) -> None:
            manifest = json.loads(members["manifest.json"])
            manifest["members"]["golden/inputs/image.npy"] = sha256(data).hexdigest()
            members["golden/inputs/image.npy"] = data
            members["manifest.json"] = json.dumps(manifest).encode()

        refused(rewritten(make_bundle(), change), "golden/inputs/image.npy", "plain .npy")


# running


@pytest.mark.parametrize("integer", [False, True])
def test_predictions_are_the_engines_softmax(make_bundle, integer: bool) -> None:
    import onnxruntime as ort

    bundle = open_bundle(make_bundle(integer=integer))
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    x = (image.astype(np.float32) - 127) / 64
    if integer:
        x = np.clip(np.rint(x * 64) + 128, 0, 255).astype(np.uint8)
    raw = ort.InferenceSession(network(integer=integer)).run(
        None, {"image": x.transpose(2, 0, 1)[None]}
    )
    z = raw[0][0].astype(np.float64)
    z = (z - 128) / 32 if integer else z
    want = np.exp(z) / np.exp(z).sum()
    got = bundle(image)
    assert [type(p) for p in got] == [Prediction] * CLASSES
    assert [p.index for p in got] == np.argsort(-want, kind="stable").tolist()
    np.testing.assert_allclose([p.score for p in got], np.sort(want)[::-1], rtol=1e-5)
    assert [p.label for p in got] == [bundle.labels[p.index] for p in got]
    assert bundle(image, top=2) == got[:2]
    assert bundle(image, top=None) == got


def test_images_of_any_size_and_kind(make_bundle) -> None:
    bundle = open_bundle(make_bundle())
    for shape in ((8, 8, 3), (8, 8), (100, 70, 3), (3, 5, 1), (20, 20, 4)):
        image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
        assert abs(sum(p.score for p in bundle(image)) - 1) < 1e-5
    with pytest.raises(DataError):
        bundle(np.full((8, 8, 3), 255.0, np.float32))


def test_labels_and_probabilities(make_bundle) -> None:
    bundle = open_bundle(make_bundle(labels=None, scores="probabilities"))
    image = np.zeros((8, 8, 3), np.uint8)
    raw = bundle.run({"image": bundle.preprocess(image)})["scores"][0]
    best = bundle(image)[0]
    assert best == (int(raw.argmax()), str(raw.argmax()), float(raw.max()))


def test_a_network_without_a_task_has_no_labels_that_nobody_named(make_bundle) -> None:
    assert len(open_bundle(make_bundle(labels=None)).labels) > 0
    assert list(open_bundle(make_bundle(labels=None, task=None)).labels) == []


def test_run_takes_real_values_on_an_integer_grid(make_bundle) -> None:
    bundle = open_bundle(make_bundle(integer=True))
    q = np.random.default_rng(2).integers(0, 256, (1, 3, 8, 8), dtype=np.uint8)
    raw = bundle.session.run({"image": q})["scores"]
    assert raw.dtype == np.uint8
    got = bundle.run({"image": q})["scores"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, (raw.astype(np.float32) - 128) / 32, rtol=1e-6)
    real = (q.astype(np.float32) - 128) / 64
    np.testing.assert_array_equal(bundle.run({"image": real})["scores"], got)
    far = bundle.run({"image": np.full((1, 3, 8, 8), 1e9, np.float32)})["scores"]
    top = bundle.run({"image": np.full((1, 3, 8, 8), 255, np.uint8)})["scores"]
    np.testing.assert_array_equal(far, top)


@pytest.mark.parametrize(
    ("feeds", "says"),
    [
        ({}, "none"),
        ({"x": np.zeros((1, 3, 8, 8), np.float32)}, "'image'"),
        ({"image": np.zeros((3, 8, 8), np.float32)}, "float32 (1, 3, 8, 8)"),
        ({"image": np.zeros((1, 3, 8, 8))}, "float64"),
        ({"image": [[1.0]]}, "list is not an array"),
    ],
)
def test_run_refuses_what_does_not_fit(make_bundle, feeds: dict, says: str) -> None:
    with pytest.raises(DataError) as e:
        open_bundle(make_bundle()).run(feeds)
    assert says in str(e.value)


def test_nan_is_not_quantized(make_bundle) -> None:
    bundle = open_bundle(make_bundle(integer=True))
    with pytest.raises(DataError, match="NaN"):
        bundle.run({"image": np.full((1, 3, 8, 8), np.nan, np.float32)})


def test_an_engine_with_other_tensors_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "b.edgecv"
    write_bundle(path, described(size=8), {"model.onnx": network(size=16)}, {}, {})
    with pytest.raises(BundleError, match="in the engine"):
        open_bundle(path)


def test_engine_and_threads(make_bundle) -> None:
    path = make_bundle()
    image = np.zeros((8, 8, 3), np.uint8)
    assert open_bundle(path, threads=2)(image)[0].index == open_bundle(path)(image)[0].index
    with pytest.raises(BundleError, match="unknown engine"):
        open_bundle(path, engine="abacus")


def test_close(make_bundle) -> None:
    bundle = open_bundle(make_bundle())
    assert isinstance(bundle, Bundle)
    bundle.close()


@pytest.mark.parametrize("integer", [False, True])
def test_a_call_does_little(make_bundle, integer: bool) -> None:
    """Its microseconds are in `benchmarks/runtime_overhead.py`; here what they are made of."""
    import onnxruntime as ort

    bundle = open_bundle(make_bundle(28, 1, integer))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    bare = ort.InferenceSession(network(28, 1, integer), options).run
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 1), dtype=np.uint8)
    feeds = {"image": bundle.preprocess(image)}
    bundle.run(feeds), bundle(image)
    least = calls(lambda: bare(["scores"], feeds))
    assert calls(lambda: bundle.run(feeds)) - least < 30
    assert calls(lambda: bundle(image)) - least < 70


# which test images were answered rightly


def judged(correct: np.ndarray, **metric: Any) -> dict[str, Any]:
    found = {"name": "top1", "value": float(correct.mean()), "samples": len(correct), **metric}
    return {**described(), "metric": found}


def test_answers_come_back_image_by_image(tmp_path: Path) -> None:
    model, correct = network(), np.arange(13) % 3 > 0
    path = tmp_path / "judged.edgecv"
    write_bundle(path, judged(correct), {"model.onnx": model}, {}, {}, correct)
    assert np.array_equal(read_bundle(path).correct, correct)
    plain = write_bundle(tmp_path / "plain.edgecv", described(), {"model.onnx": model}, {}, {})
    assert read_bundle(plain).correct is None


@pytest.mark.parametrize("metric", [{"samples": 99}, {"value": 0.5}])
def test_answers_that_do_not_fit_the_metric_are_refused(tmp_path: Path, metric: dict) -> None:
    correct, path = np.arange(13) % 3 > 0, tmp_path / "judged.edgecv"
    with pytest.raises(BundleError, match=r"evaluation/correct\.npy"):
        write_bundle(path, judged(correct, **metric), {"model.onnx": network()}, {}, {}, correct)
    assert not path.exists()
    with pytest.raises(BundleError, match=r"evaluation/correct\.npy"):
        write_bundle(path, described(), {"model.onnx": network()}, {}, {}, correct)


def with_answers(path: Path, array: np.ndarray, **metric: Any) -> Path:
    """A bundle of 13 judged images whose packed answers are `array`, its digest updated."""
    correct = np.arange(13) % 3 > 0
    write_bundle(path, judged(correct), {"model.onnx": network()}, {}, {}, correct)

    def change(members: dict[str, bytes]) -> None:
        buffer = io.BytesIO()
        np.save(buffer, array)
        manifest = json.loads(members["manifest.json"])
        manifest["metric"] |= metric
        manifest["members"][archive_module.CORRECT] = sha256(buffer.getvalue()).hexdigest()
        members[archive_module.CORRECT] = buffer.getvalue()
        members["manifest.json"] = json.dumps(manifest).encode()

    return rewritten(path, change)


PACKED = np.packbits(np.arange(13) % 3 > 0)


@pytest.mark.parametrize(
    "array",
    [
        np.unpackbits(PACKED),
        PACKED.astype(np.int8),
        PACKED.astype(np.float32),
        PACKED[:1],
        np.append(PACKED, np.uint8(0)),
        PACKED[None],
        PACKED ^ np.array([0x80, 0], np.uint8),  # one right answer more
    ],
)
def test_answers_that_are_not_packed_bits_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "judged.edgecv"
    assert read_bundle(with_answers(path, PACKED)).correct is not None
    refused(with_answers(path, array), "evaluation/correct.npy")


@pytest.mark.parametrize("metric", [{"samples": None}, {"samples": 1e400}, {"value": "good"}])
def test_a_metric_without_its_numbers_does_not_fit_answers(tmp_path: Path, metric: dict) -> None:
    refused(with_answers(tmp_path / "j.edgecv", PACKED, **metric), "manifest.json")


def test_a_metric_without_answers_needs_none(make_bundle) -> None:
    path = make_bundle(metric={"name": "top1", "value": 0.9, "samples": 13})
    assert read_bundle(path).correct is None


@pytest.mark.parametrize("given", [np.arange(12) < 5, (np.arange(13) < 5).astype(np.float32)])
def test_answers_are_truth_values_one_for_each_image(tmp_path: Path, given: np.ndarray) -> None:
    manifest, path = judged(np.arange(13) < 5), tmp_path / "j.edgecv"
    with pytest.raises(BundleError, match=r"correct\.npy"):
        write_bundle(path, manifest, {"m": b""}, {}, {}, given)


def test_a_negative_number_of_images_is_damage(tmp_path: Path) -> None:
    refused(with_answers(tmp_path / "j.edgecv", PACKED[:0], samples=-5, value=0.0), "samples")


@pytest.mark.parametrize("last", [False, True])
def test_a_task_reads_channels_first_whatever_the_files_layout(tmp_path: Path, last: bool) -> None:
    """As .tflite files answer, with channels last: a map of classes by name "seen"."""
    from onnx import TensorProto, helper, numpy_helper

    onnx = pytest.importorskip("onnx")
    weight = np.random.default_rng(1).normal(0, 1, (CLASSES, 3, 2, 2)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["image", "w"], ["map"], strides=[2, 2])]
    shape, layout, name = (1, CLASSES, 4, 4), "NCHW", "map"
    if last:
        nodes.append(helper.make_node("Transpose", ["map"], ["turned"], perm=[0, 2, 3, 1]))
        shape, layout, name = (1, 4, 4, CLASSES), "NHWC", "turned"
    ends = [("image", (1, 3, 8, 8)), (name, shape)]
    tensors = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in ends]
    graph = helper.make_graph(nodes, "maps", *tensors, [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    said = described()
    image, seen = (
        TensorSpec.from_json(said["inputs"][0]),
        TensorSpec(name, "float32", shape, layout),
    )
    own = {"inputs": [image.to_json()], "outputs": [replace(seen, name="seen").to_json()]}
    manifest = said | {
        "task": "segmentation", "decode": {"input": [8, 8], "output": "seen"}, "graph": own,
        "outputs": [seen.to_json()],
    }  # fmt: skip
    files = {"model.onnx": model.SerializeToString()}
    bundle = open_bundle(write_bundle(tmp_path / "a.edgecv", manifest, files, {}, {}))
    pixels = np.random.default_rng(2).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    x = bundle.preprocess(pixels)[0]
    cells = x.reshape(3, 4, 2, 4, 2).transpose(1, 3, 0, 2, 4).reshape(4, 4, -1)
    wanted = (cells @ weight.reshape(CLASSES, -1).T).transpose(2, 0, 1)[None]
    lies = bundle.preprocess.placement(8, 8)
    expected = SegmentationTask((8, 8)).read({"map": wanted}, lies, (8, 8)).map
    np.testing.assert_array_equal(bundle(pixels), expected)
    assert bundle.outputs[0].shape == shape
    assert bundle.run({"image": bundle.preprocess(pixels)})["seen"].shape == shape
