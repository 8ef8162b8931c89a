"""Device profiles: extending, grids, and every wrong profile as one line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv import target
from edgecv.errors import TargetError
from edgecv.target import Grid, Target


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """profile(name, text): write ./targets/NAME.yaml in a working folder of its own."""
    (tmp_path / "targets").mkdir()
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> None:
        (tmp_path / "targets" / f"{name}.yaml").write_text(text)

    return write


@pytest.mark.parametrize("name", target.names())
def test_every_profile_loads_and_says_what_it_is(name: str) -> None:
    found = target.load(name)
    assert found.name == name
    assert found.description
    assert found.precisions
    assert (found.graph == "tflite") == (found.backend in ("tflite", "edgetpu"))


def test_extends_takes_everything_and_changes_some(profile) -> None:
    profile("phone", "extends: tflite\nthreads: 3\n")
    phone, tflite = target.load("phone"), target.load("tflite")
    assert phone == tflite.model_copy(update={"name": "phone", "threads": 3})


def test_a_grid_is_merged_key_by_key_through_every_ancestor(profile) -> None:
    profile("a", "backend: onnxruntime\ngraph: onnx\ngrid: {activations: int8, symmetric: true}\n")
    profile("b", "extends: a\ngrid: {symmetric: false}\n")
    profile("c", "extends: b\ngrid: {reduce_range: true}\n")
    assert target.load("c").grid == Grid(activations="int8", symmetric=False, reduce_range=True)


def test_the_working_folder_comes_first(profile) -> None:
    profile("cpu", "backend: tflite\ngraph: tflite\ndescription: mine\n")
    assert target.load("cpu").description == "mine"
    assert target.load("openvino").description != "mine"


def test_a_profile_of_ones_own_is_listed(profile) -> None:
    profile("shoe", "extends: cpu\n")
    assert "shoe" in target.names()


def test_a_path_names_a_profile_too(profile) -> None:
    profile("shoe", "extends: cpu\nalignment: 4\n")
    found = target.load("targets/shoe.yaml")
    assert (found.name, found.alignment) == ("shoe", 4)


def test_a_circle_is_refused_and_drawn(profile) -> None:
    profile("a", "extends: b\n")
    profile("b", "extends: a\n")
    with pytest.raises(TargetError, match="a -> b -> a"):
        target.load("a")


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(TargetError, match=r"'openvinno': unknown target .*did you mean 'openvino'"):
        target.load("openvinno")


def test_an_unknown_parent_is_named(profile) -> None:
    profile("a", "extends: nucc\n")
    with pytest.raises(TargetError, match=r"'nucc': unknown target .*did you mean 'nuc'"):
        target.load("a")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("extends: cpu\nalignement: 8\n", "alignement"),
        ("extends: cpu\nalignment: 0\n", "alignment"),
        ("extends: cpu\ngrid: {activation: int8}\n", "grid.activation"),
        ("extends: cpu\ngrid: {activations: int4}\n", "grid.activations"),
        ("extends: cpu\ngrid: 3\n", "grid"),
        ("extends: cpu\ngrid:\n", "grid"),
        ("extends: cpu\nprecisions: [fp8]\n", "precisions"),
        ("extends: cpu\n3: 4\n", "3"),
        ("extends: [cpu]\n", "extends"),
        ("extends: 3\n", "extends"),
        ("graph: onnx\n", "backend"),
        ("- cpu\n", "a mapping"),
        ("a: [", "not valid YAML"),
        ("alignment: 2001-13-40\n", "not valid YAML"),
        ("", "a mapping"),
    ],
)
def test_a_wrong_profile_is_one_line_that_names_the_key(profile, text: str, named: str) -> None:
    profile("wrong", text)
    with pytest.raises(TargetError) as e:
        target.load("wrong")
    assert named in str(e.value)
    assert "wrong" in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a" * 5000, "no\0name", "no.yaml", "é"])
def test_any_name_that_is_none_is_an_unknown_target(name: str) -> None:
    with pytest.raises(TargetError, match="unknown target"):
        target.load(name)


def test_a_profile_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        target.load("cpu").threads = 2
    assert Target(**target.load("cpu").model_dump()) == target.load("cpu")


def test_a_latency_here_speaks_only_for_a_device_like_this() -> None:
    assert target.load("cpu").not_here([]) == ""
    assert target.load("x86-avx2").not_here(["avx2"]) == ""
    assert "avx512_vnni" in target.load("x86-avx512-vnni").not_here(["avx2", "avx512f"])
    assert "edgecv bench" in target.load("rpi5").not_here(["neon", "asimddp"])


def test_seven_bits_where_the_profile_leaves_it_to_a_machine_without_vnni(profile) -> None:
    base = "backend: onnxruntime\ngraph: onnx\ngrid: {reduce_range: auto}\n"
    profile("open", base)
    assert target.load("open", ["avx", "avx2"]).grid.reduce_range is True
    assert target.load("open", ["avx", "avx2", "avx512_vnni"]).grid.reduce_range is False
    assert target.load("open", ["asimd"]).grid.reduce_range is False  # Arm does not saturate
    assert target.load("open").grid.reduce_range is target.saturates()
    profile("named", f"{base}cpu_features: [avx2, avx_vnni]\n")
    assert target.load("named", ["avx2"]).grid.reduce_range is False
    for name in ("cpu", "openvino"):
        assert target.load(name, ["avx2"]).grid.reduce_range is True
