"""Files that are no network, or not whole, and pins of a whole file: from the disk to a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv.errors import ModelError, RecipeError
from edgecv.graphs.onnx.pins import Pins
from edgecv.methods.export._onnx_file import read_file
from edgecv.methods.export.onnx import load_onnx
from edgecv.plan.graph import file_digest
from edgecv.quick_export import Request, export
from tests.methods.export.test_onnx_entry import answer, head, normal, save

LAST, HELD = head("c", 4)


def network(path: Path, shape: tuple[Any, ...] = (1, 3, 8, 8), **given: Any) -> Path:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], "stem", pads=[1, 1, 1, 1]), *LAST]
    return save(path, nodes, shape, w=normal(4, 3, 3, 3), **HELD, **given)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>not found</html>", "web page"),
        (b'{"message": "Not Found"}', "JSON"),
        (b"PK\x03\x04" + bytes(40), "zip archive, as PyTorch"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(40), "TFLite"),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"w":{}}', "safetensors"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"", "not a whole ONNX file"),
        (b"\x00\xff" * 40, "not a whole ONNX file"),
    ],
)
def test_a_file_that_is_no_onnx_says_what_it_is(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=says) as e:
        load_onnx(path, tmp_path / "out")
    assert "\n" not in str(e.value)
    assert e.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_three_gigabytes_are_refused_without_being_read(tmp_path: Path) -> None:
    """Sparse files: neither takes room on the disk, and reading one would take minutes."""
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(ModelError, match=r"large\.onnx: is 3\.2 GB"):
        read_file(path)

    path = network(tmp_path / "net.onnx")
    model = onnx.load(str(path))
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "net.data")
    model.graph.initializer[0].ClearField("raw_data")
    onnx.save(model, str(path))
    with (tmp_path / "net.data").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(ModelError, match=r"net\.onnx: holds 3\.2 GB of weights"):
        load_onnx(path, tmp_path / "out")


def test_weights_that_are_not_beside_the_file_are_named(tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx")
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location="net.data", size_threshold=0)
    before = file_digest(path)
    whole = (tmp_path / "net.data").read_bytes()
    (tmp_path / "net.data").write_bytes(whole[:-4])
    assert file_digest(path) != before
    with pytest.raises(ModelError, match=r"its weights are not in 'net\.data', which has"):
        load_onnx(path, tmp_path / "out")
    (tmp_path / "net.data").unlink()
    with pytest.raises(ModelError, match=r"in 'net\.data', and there is no such file"):
        load_onnx(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize(
    ("domain", "says"), [("my.own", "is of domain 'my.own'"), ("", "no operator of ONNX's opset")]
)
def test_an_operator_of_another_library_goes_where_the_graph_is_cut(
    domain: str, says: str, opset: int, tmp_path: Path
) -> None:
    """With what reads it, whose shapes nobody knows."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("NMS_TRT", ["c"], ["n"], "decode", domain=domain),
        helper.make_node("MaxPool", ["n"], ["y"], kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
    ]
    path = save(tmp_path / "net.onnx", nodes, (1, 3, 8, 8), opset=opset, w=normal(4, 3, 3, 3))
    with pytest.raises(ModelError, match=rf"'decode' \(NMS_TRT\): .*{says}.*--until c"):
        load_onnx(path, tmp_path / "out")
    graph = load_onnx(path, tmp_path / "out", Pins(until=("c",)))
    assert [(t.name, t.shape) for t in graph.outputs] == [("c", (1, 4, 6, 6))]
    assert (graph.inputs[0].name, graph.facts["ops"]) == ("x", {"Conv": 1})


def test_weights_that_are_stored_by_their_places_are_whole(tmp_path: Path) -> None:
    def sparse(name: str, *places: Any) -> Any:
        values = numpy_helper.from_array(normal(3), name)
        at = numpy_helper.from_array(np.array(places, np.int64), f"{name}/places")
        return helper.make_sparse_tensor(values, at, (4, 3, 1, 1))

    held = helper.make_node("Constant", [], ["v"], sparse_value=sparse("v", 0, 5, 11))
    nodes = [held, helper.make_node("Conv", ["x", "w"], ["c"]),
             helper.make_node("Conv", ["x", "v"], ["d"]),
             helper.make_node("Add", ["c", "d"], ["y"])]  # fmt: skip
    path = save(tmp_path / "net.onnx", nodes, (1, 3, 8, 8))
    model = onnx.load(str(path))
    rows = ([0, 1, 0, 0], [1, 1, 0, 0], [3, 2, 0, 0])
    model.graph.sparse_initializer.append(sparse("w", *rows))
    onnx.save(model, str(path))
    graph = load_onnx(path, tmp_path / "out")
    assert graph.facts["ops"] == {"Add": 1, "Conv": 2}
    x = normal(1, 3, 8, 8)
    np.testing.assert_allclose(answer(graph.path, x), answer(path, x), rtol=1e-5, atol=1e-6)


def test_an_image_whose_layout_the_shape_does_not_tell_is_what_the_user_says(
    tmp_path: Path,
) -> None:
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
             helper.make_node("Conv", ["t", "w"], ["c"]), *LAST]  # fmt: skip
    path = save(tmp_path / "last.onnx", nodes, (1, 4, 4, 4), w=normal(4, 4, 3, 3), **HELD)
    x = normal(1, 4, 4, 4)
    for layout, given in (("NHWC", x.transpose(0, 3, 1, 2)), ("NCHW", x)):
        graph = load_onnx(path, tmp_path / layout, Pins(layout=layout))
        assert ("Transpose" in graph.facts["ops"]) == (layout == "NCHW")
        got = answer(graph.path, np.ascontiguousarray(given))
        np.testing.assert_allclose(got, answer(path, x), rtol=1e-4, atol=1e-5)


def test_an_open_graph_of_two_inputs_takes_the_batch_that_is_asked_for(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Cast", ["tokens"], ["t"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["f", "t"], ["y"], axis=1),
    ]
    path = save(tmp_path / "net.onnx", nodes, ("N", 3, "S", "S"), w=normal(4, 3, 3, 3))
    model = onnx.load(str(path))
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ("N", "L"))
    model.graph.input.append(tokens)
    onnx.save(model, str(path))
    with pytest.raises(ModelError, match=r"'tokens': dimension 1 is dynamic \('L'\) .*tokens:2x\?"):
        load_onnx(path, tmp_path / "out", Pins(batch=2, size=(8, 8)))
    graph = load_onnx(path, tmp_path / "out", Pins({"tokens": (2, 5)}, size=(8, 8)))
    assert [(t.name, t.shape) for t in graph.inputs] == [("x", (2, 3, 8, 8)), ("tokens", (2, 5))]
    assert [(t.name, t.shape) for t in graph.outputs] == [("y", (2, 9))]
    alone = load_onnx(path, tmp_path / "alone", Pins(until=("p",), size=(8, 8)))
    assert [(t.name, t.shape) for t in alone.inputs] == [("x", (1, 3, 8, 8))]


def test_inputs_and_outputs_keep_their_own_names(tmp_path: Path) -> None:
    """What goes away in front of an output or behind an input leaves its name."""
    names = ["a b", "x:0", "été", "out;1", "7", "/head/Sigmoid_output_0"]
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Conv", ["same", "w"], ["stem"], "stem"),
        helper.make_node("BatchNormalization", ["stem", "g", "g", "g", "v"], [names[0]]),
        helper.make_node("Identity", [names[0]], [names[1]]),
        helper.make_node("Dropout", [names[0]], [names[2]]),
        helper.make_node("Relu", [names[1]], [names[3]]),
        helper.make_node("Cast", [names[3]], [names[4]], to=TensorProto.FLOAT),
        helper.make_node("Sigmoid", [names[4]], [names[5]]),
    ]
    path = save(tmp_path / "net.onnx", nodes, (1, 3, 8, 8), w=normal(4, 3, 3, 3), g=normal(4),
                v=np.ones(4, np.float32))  # fmt: skip
    model = onnx.load(str(path))
    model.graph.input[0].name = "pixel values:0"
    model.graph.node[0].input[0] = "pixel values:0"
    del model.graph.output[:]
    ends = names[::-1]
    model.graph.output.extend(
        helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ends
    )
    onnx.save(model, str(path))
    graph = load_onnx(path, tmp_path / "out")
    assert [t.name for t in graph.inputs] == ["pixel values:0"]
    assert [t.name for t in graph.outputs] == ends
    assert "BatchNormalization" not in graph.facts["ops"]
    kept = load_onnx(path, tmp_path / "kept", Pins(outputs=("été", "7"), until=("stem",)))
    assert [t.name for t in kept.outputs] == ["été", "7", "stem"]


def test_pins_are_for_onnx_files(tmp_path: Path) -> None:
    request = Request("resnet8", ("cpu",), pins=Pins(until=("x",)))
    with pytest.raises(RecipeError, match=r"--until: is for .onnx files"):
        export(request, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_cut_graph_is_exported_under_its_own_names(tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx", ("N", 3, "H", "W"))
    request = Request(str(path), ("cpu",), pins=Pins({"x": (1, 3, 8, 8)}, until=("pooled",)))
    (made,) = export(request, tmp_path / "out").values()
    assert not isinstance(made, Exception)
    (file,) = made.files
    engine = onnx.load(str(file))
    assert [i.name for i in engine.graph.input] == ["x"]
    assert [o.name for o in engine.graph.output] == ["pooled"]
    kinds = [o.type.tensor_type.elem_type for o in engine.graph.output]
    assert kinds == [TensorProto.FLOAT]
