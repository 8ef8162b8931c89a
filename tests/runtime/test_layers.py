"""Names of layers from names in files, and one time from many."""

from __future__ import annotations

import pytest

from edgecv.runtime.layers import from_scope, from_weight, layer_of, typical_ms


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("stage1.0.conv1.weight", "stage1.0.conv1"),
        ("head.bias", "head"),
        ("0.weight", "0"),
        ("head.weight_quantized", "head"),
        ("head.weight_scale", "head"),
        ("ConvBnFusion_W_stem.0.weight", "stem.0"),
        ("onnx::Conv_89", ""),
        ("onnx::Conv_89_quantized", ""),
        ("val_12", ""),
        ("weight", ""),
        ("conv_2d_5.1", ""),
        ("model/conv1/kernel:0", ""),
        ("/a/b/Conv_output_0.weight", ""),
        ("", ""),
    ],
)
def test_names_of_weights(name: str, layer: str) -> None:
    assert from_weight(name) == layer


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("/conv/Conv", "conv"),
        ("/conv/Conv_1", "conv"),  # called twice
        ("/0/Conv", "0"),
        ("/1/1.1/1.1.0/Conv", "1.1.0"),
        ("/stage2/stage2.0/shortcut/shortcut.0/Conv", "stage2.0.shortcut.0"),
        ("/convs.1.0/Conv", "convs.1.0"),  # lists that are indexed, not called
        ("/blocks.0/mlp/mlp.2/Gemm", "blocks.0.mlp.2"),
        ("/stem/stem.0/Conv/WithoutBiases", "stem.0"),
        ("/head/Gemm/WithoutBiases/DequantizationMultiply", "head"),
        ("/GlobalAveragePool", ""),
        ("/stem/stem.2/Relu_output_0_DequantizeLinear", ""),
        ("node_Conv_138", ""),
        ("Conv_12", ""),
        ("StatefulPartitionedCall/model/conv1/Conv2D", ""),
        ("/a b/Conv", ""),
        ("/", ""),
        ("", ""),
    ],
)
def test_names_of_scopes(name: str, layer: str) -> None:
    assert from_scope(name) == layer


def test_a_weights_name_goes_first() -> None:
    """ "/x/Conv" is all that TorchScript writes of `d.x`, an entry of a ModuleDict."""
    assert layer_of(["", "d.x.weight"], ["/x/Conv"]) == "d.x"
    assert layer_of(["onnx::Conv_3"], ["node", "/x/Conv"]) == "x"
    assert layer_of([], []) == ""


@pytest.mark.parametrize(
    ("calls", "ms"),
    [
        ([5], 0.005),
        ([2, 2, 3, 3], 0.0025),
        ([1, 2, 2, 3, 3, 3, 4, 900], 0.00275),  # an interrupted call is left out
        ([0, 0, 0, 1], 0.0),
    ],
)
def test_the_typical_call_by_hand(calls: list[float], ms: float) -> None:
    assert typical_ms(calls) == pytest.approx(ms)
