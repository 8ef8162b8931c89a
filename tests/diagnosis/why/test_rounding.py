"""Tiny networks with one planted trouble each: `why` names the mechanism and the tensor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgecv.backends import facts
from edgecv.data.images import Images
from edgecv.diagnosis.why.rounding.ablation import Ablation
from edgecv.diagnosis.why.rounding.judge import Judge
from edgecv.diagnosis.why.rounding.qdq import QdqNetwork
from edgecv.errors import ModelError, UnsupportedError
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.spec import TensorSpec
from tests.diagnosis.why import troubled

COUNT = 12


def pictures(channels: int, spread: int) -> np.ndarray:
    """uint8 (COUNT, HW, HW, channels) around 128."""
    rng = np.random.default_rng(3)
    shape = (COUNT, troubled.HW, troubled.HW, channels)
    return rng.integers(128 - spread, 128 + spread, shape).astype(np.uint8)


def real(pixels: np.ndarray) -> np.ndarray:
    return ((pixels.astype(np.float32) - 128) / 64).transpose(0, 3, 1, 2)


def explained(
    model: Any, seen: np.ndarray, calibrated: np.ndarray | None = None, engine: str = "onnxruntime",
    groups: tuple[int, ...] = (),
) -> dict[str, Any]:  # fmt: skip
    """The report on a network that was quantized on some pictures and is judged on others."""
    channels = seen.shape[3]
    made = troubled.quantized(model, real(seen if calibrated is None else calibrated))
    floats = model.SerializeToString()
    network = QdqNetwork(made.SerializeToString(), floats, "net")
    end = model.graph.output[0]
    shape = tuple(d.dim_value for d in end.type.tensor_type.shape.dim)
    out = TensorSpec(end.name, "float32", shape, "NCHW", kind="values", groups=groups)
    into = Preprocess((troubled.HW, troubled.HW), channels, (128.0,), (64.0,))
    contents: Any = SimpleNamespace(
        manifest={"task": None}, outputs=(out,), graph=((), (out,)), preprocess=into
    )
    images = Images(seen, np.zeros(len(seen), np.int64), ())
    session: Any = _session(floats)
    judge = Judge(contents, images, "images")
    return Ablation(network, session, judge, facts(engine), into).run()


def _session(content: bytes) -> Any:
    from edgecv.backends.onnxruntime.run import plain

    return plain({"net.onnx": content})


def blamed(data: dict[str, Any]) -> list[tuple[str, str]]:
    """(mechanism, worst tensor) of the guilty ones."""
    return [(g["kind"], g["worst"][0]["tensor"]) for g in data["groups"] if g["guilty"]]


def test_an_innocent_network_gets_no_blame() -> None:
    data = explained(troubled.plain(), pictures(4, 120))
    assert blamed(data) == []
    assert not data["weights"]["guilty"]
    assert data["all"]["db"] > 25
    assert data["notes"] == []


@pytest.mark.parametrize(
    ("net", "channels", "found", "words"),
    [
        ("wide_silu", 4, ("inside", "wide"), "is what SiLU reads: it spans -"),
        ("uneven", 8, ("uneven", "scaled/relu"), "7 of 8 have fewer than 4 levels"),
    ],
)
def test_the_planted_trouble_is_named(
    net: str, channels: int, found: tuple[str, str], words: str
) -> None:
    data = explained(getattr(troubled, net)(), pictures(channels, 120))
    assert blamed(data) == [found]
    group = data["groups"][0]
    assert words in group["worst"][0]["what"]
    assert group["alone"]["db"] < 20 < group["without"]["db"]
    assert not data["weights"]["guilty"]


def test_boxes_beside_probabilities() -> None:
    data = explained(troubled.joined(), pictures(4, 120), groups=(1, 0, 4, 8))
    assert blamed(data) == [("joined", "answer")]
    said = data["groups"][0]["worst"][0]["what"]
    assert "joins boxes to " in said
    assert "scores (probabilities) to 0.89 on one scale: the latter has 0 levels" in said


def test_one_picture_that_sets_the_range() -> None:
    usual = pictures(4, 4)
    other = pictures(4, 120)[:1]
    data = explained(troubled.plain(), usual, np.concatenate([usual, other]))
    (found,) = {kind for kind, _ in blamed(data)}
    assert found == "outlier"
    assert "0 of 12 images come to half of it" in data["groups"][0]["worst"][0]["what"]


def test_the_cure_is_the_engine_s_own() -> None:
    change = {
        engine: explained(troubled.wide_silu(), pictures(4, 120), engine=engine)["groups"][0][
            "change"
        ]
        for engine in ("onnxruntime", "openvino", "edgetpu")
    }
    assert "SiLU is a table for each channel" in change["onnxruntime"]
    assert "has no SiLU in int8" in change["edgetpu"]
    assert "computes a layer and its SiLU as one" in change["openvino"]


def test_roundings_go_in_and_out() -> None:
    model, images = troubled.wide_silu(), real(pictures(4, 120))
    made = troubled.quantized(model, images)
    network = QdqNetwork(made.SerializeToString(), model.SerializeToString(), "net")
    feed = {"x": images[:1]}
    names = [t.name for t in network.tensors]
    ends = {
        "float": _session(model.SerializeToString()).run(feed),
        "none": network.session([], False).run(feed),
        "file": _session(made.SerializeToString()).run(feed),
        "all": network.session(names, True).run(feed),
        "weights": network.session([], True).run(feed),
    }
    found = {k: v["end"] for k, v in ends.items()}
    assert np.array_equal(found["float"], found["none"])
    assert np.array_equal(found["file"], found["all"])
    assert not np.array_equal(found["float"], found["weights"])
    values = network.values(feed, ["wide", "x"])
    assert np.array_equal(values["x"], feed["x"])
    assert values["wide"].min() < -100


def test_what_cannot_be_taken_apart_is_refused() -> None:
    model, images = troubled.plain(), real(pictures(4, 120))
    floats, made = model.SerializeToString(), troubled.quantized(model, images)
    with pytest.raises(UnsupportedError, match="rounds no activation"):
        QdqNetwork(floats, floats, "net")
    other = troubled.Build(4)
    other.rng = np.random.default_rng(1)
    x = other.node("Relu", [other.conv("x", "one")], "one/relu")
    end = other.conv(other.node("Relu", [other.conv(x, "two")], "two/relu"), "end")
    with pytest.raises(ModelError, match="no roundings of the float ones"):
        QdqNetwork(made.SerializeToString(), other.model(end).SerializeToString(), "net")
