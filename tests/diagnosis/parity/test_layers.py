"""Names, cuts, matching and halving, on real ONNX graphs of any length."""

from __future__ import annotations

from math import ceil, log2
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.diagnosis.parity.layers import INPUT, Layer, cuts, module_path, sources

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from edgecv.diagnosis.parity.bisection import first_divergence  # noqa: E402
from edgecv.diagnosis.parity.matching import match  # noqa: E402
from edgecv.diagnosis.parity.onnx_network import OnnxNetwork  # noqa: E402


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/stage1/stage1.0/conv1/Conv", ("stage1", "0", "conv1")),
        ("/stage2/stage2.0/shortcut/shortcut.0/Conv", ("stage2", "0", "shortcut", "0")),
        ("stage2.0.shortcut.0.weight", ("stage2", "0", "shortcut", "0")),
        ("head.0.weight_quantized", ("head", "0")),
        ("stem.0", ("stem", "0")),
        ("stem.weight", ("stem",)),
        ("conv_2d_1", ()),
    ],
)
def test_a_module_is_told_from_the_name_of_its_layer(name: str, path: tuple) -> None:
    assert module_path(name) == path


@st.composite
def dags(draw: st.DrawFn) -> list[Layer]:
    """Layers that each read one or two earlier tensors; the last is the answer."""
    layers: list[Layer] = []
    for i in range(draw(st.integers(1, 12))):
        names = [INPUT, *(x.tensor for x in layers)]
        picked = draw(st.lists(st.integers(0, len(names) - 1), min_size=1, max_size=2))
        layers.append(Layer(f"l{i}", "add", f"t{i}", tuple(names[k] for k in picked)))
    return layers


@given(dags())
def test_every_path_leads_through_a_cut(layers: list[Layer]) -> None:
    """Without a cut's tensor the answer cannot be reached from the image."""
    made = {x.tensor: x for x in layers}
    answer = layers[-1].tensor

    def reaches(name: str, without: str) -> bool:
        if name == without:
            return False
        return name == INPUT or any(reaches(n, without) for n in made[name].inputs)

    found = {layers[i].tensor for i in cuts(layers)}
    assert answer in found
    assert not any(reaches(answer, t) for t in found)


@given(dags())
def test_sources_are_the_nearest_that_are_known(layers: list[Layer]) -> None:
    reads = {x.tensor: x.inputs for x in layers}
    every = {INPUT, *reads}
    for layer in layers:
        assert sources(layer.tensor, every, reads) == tuple(sorted(set(layer.inputs)))
        assert sources(layer.tensor, {INPUT}, reads) == (INPUT,)


def chain(weights: list[np.ndarray], rename: str = "") -> bytes:
    """Convolutions 3x3 of 4 channels in a row, a ReLU behind each, a mean at the end."""
    make = onnx.helper.make_node
    nodes, held, last = [], [], "x"
    for i, w in enumerate(weights):
        held.append(onnx.numpy_helper.from_array(w, f"{rename}w{i}"))
        conv, relu = f"{rename}c{i}", f"{rename}r{i}"
        nodes.append(make("Conv", [last, f"{rename}w{i}"], [conv], name=conv, pads=[1, 1, 1, 1]))
        nodes.append(make("Relu", [conv], [relu], name=relu))
        last = relu
    nodes.append(make("GlobalAveragePool", [last], ["pool"], name="pool"))
    nodes.append(make("Flatten", ["pool"], ["y"], name="flat"))
    value = onnx.helper.make_tensor_value_info
    float_ = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes, "chain", [value("x", float_, [1, 4, 6, 6])], [value("y", float_, [1, 4])], held
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return bytes(model.SerializeToString())


def weights(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    return [rng.normal(0.05, 0.25, (4, 4, 3, 3)).astype(np.float32) for _ in range(count)]


def images(count: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(1, 4, 6, 6)).astype(np.float32) for _ in range(count)]


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 24).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_halving_finds_the_layer_wherever_it_is(given_: tuple[int, int]) -> None:
    count, wrong = given_
    good = weights(count)
    bad = [w.copy() for w in good]
    bad[wrong][1] *= -1.5
    found = first_divergence(
        OnnxNetwork(chain(good), "a"), OnnxNetwork(chain(bad), "b"), images(), 50.0
    )
    assert found is not None
    assert found.pair.b.name == f"c{wrong}"
    assert found.looked_at <= ceil(log2(found.layers)) + 3  # not all of them
    if wrong:
        assert found.inputs_db is not None
        assert found.inputs_db > 100
    else:
        assert found.inputs_db is None


def test_the_same_file_does_not_diverge() -> None:
    forms = [OnnxNetwork(chain(weights(5)), name) for name in "ab"]
    assert first_divergence(*forms, images(), 50.0) is None


def test_layers_of_other_names_are_matched_by_order_and_size() -> None:
    a, b = OnnxNetwork(chain(weights(6)), "a"), OnnxNetwork(chain(weights(6), "other/"), "b")
    pairs, way = match(a, b)
    assert way == "order"
    assert [(p.a.name, p.b.name) for p in pairs if p.b.kind == "conv"] == [
        (f"c{i}", f"other/c{i}") for i in range(6)
    ]
    # what reads matched layers is matched too
    assert ("r3", "other/r3") in [(p.a.name, p.b.name) for p in pairs]


def test_a_layer_that_one_side_lacks_is_left_out() -> None:
    short: Any = OnnxNetwork(chain(weights(6)[:5]), "a")
    pairs, _ = match(short, OnnxNetwork(chain(weights(6)), "b"))
    assert "c5" not in [p.b.name for p in pairs]


def test_memory_does_not_grow_with_the_images(
    made: Any,
) -> None:
    """Peak of numpy's own memory while layers are compared over 8 images, and over 64."""
    import tracemalloc

    from edgecv.diagnosis.parity.distance import inside
    from edgecv.diagnosis.parity.images import Inputs, of_run
    from edgecv.runtime.archive import read_bundle
    from tests.diagnosis.parity.conftest import PREPROCESS

    pictures = of_run(made.root / "images")
    content = read_bundle(made["fp32.cpu"]).files["model.onnx"]
    a, b = OnnxNetwork(content, "a"), OnnxNetwork(content, "b")
    pairs, _ = match(a, b)
    peaks = []
    for count in (8, 48):
        xs = Inputs(pictures.spread(count), PREPROCESS)
        inside(a, b, xs[:1], pairs)  # sessions are open
        tracemalloc.start()
        inside(a, b, xs, pairs)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_truth_values_and_indices_are_on_no_grid() -> None:
    from edgecv.diagnosis.parity.for_tflite import integers

    none = {"scales": np.zeros(0, np.float32), "zero_points": np.zeros(0, np.int32)}
    for kind, real in ((np.bool_, [1.0, 0.0]), (np.int32, [7.0, -2.0])):
        detail = {"shape": (1, 2), "dtype": kind, "quantization_parameters": none}
        assert integers(np.array(real), detail).tolist() == [[kind(v) for v in real]]
