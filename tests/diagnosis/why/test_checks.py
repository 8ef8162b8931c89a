"""Checks over profiles written by hand: what each names, where, and what it leaves alone."""

from __future__ import annotations

import dataclasses

import pytest

from edgecv.diagnosis.why import data_movement, fallbacks, one_bit, precision, roofline
from edgecv.diagnosis.why.explain import _executed
from edgecv.measuring.clock import Clock
from edgecv.measuring.product import Product
from tests.diagnosis.why.cases import case, row

A = Product("a", "conv", (16, 16), activations="uint8", weights="int8")
B = Product("b", "conv", (16, 16), activations="uint8", weights="int8")


def kinds(found) -> list[str]:
    return [f.kind for f in found]


# precision


def test_all_in_int8_is_nothing_to_say() -> None:
    ran = [row("a", "QLinearConv", "int8"), row("b", "QLinearConv", "int8")]
    assert kinds(precision.check(case(*ran, products=(A, B)))) == []


def test_a_quantized_layer_that_ran_in_float_is_named_with_its_time() -> None:
    unfused = Product("b", "conv", (16, 16), activations="uint8", weights="int8", unfused="reason")
    ran = [row("a", "QLinearConv", "int8"), row("b", "Conv", "fp32", 0.4)]
    (found,) = precision.check(case(*ran, products=(A, unfused)))
    assert (found.kind, found.where, found.ms) == ("not-fused", ("b",), 0.4)
    assert "reason" in found.what


def test_without_a_profile_the_file_is_judged() -> None:
    floats = Product("c", "conv", (16, 16))
    (found,) = precision.check(case(products=(A, floats)))
    assert (found.kind, found.where, found.ms) == ("left-in-float", ("c",), None)


def test_a_layer_that_was_kept_float_is_told_as_such() -> None:
    floats = Product("c", "conv", (16, 16))
    (found,) = precision.check(case(products=(A, floats), keep_float=["c"]))
    assert (found.kind, found.where) == ("kept-float", ("c",))
    assert "kept so by the recipe or the search" in found.what


def test_signed_activations_are_a_matter_of_onnxruntime_on_x86() -> None:
    signed = Product("a", "conv", (16, 16), activations="int8", weights="int8")
    ran = row("a", "QLinearConv", "int8")
    assert kinds(precision.check(case(ran, products=(signed,)))) == ["s8s8"]
    arm = {"architecture": "aarch64", "features": ["neon", "asimddp"]}
    assert kinds(precision.check(case(ran, products=(signed,), **arm))) == []
    assert kinds(precision.check(case(ran, products=(signed,), engine="tflite"))) == []


def test_a_processor_without_dot_products_is_named() -> None:
    ran = row("a", "QLinearConv", "int8")
    (found,) = precision.check(case(ran, products=(A,), features=["avx2"]))
    assert (found.kind, found.wrong) == ("no-vnni", True)
    assert "saturate" in found.what
    reduced = precision.check(
        case(ran, products=(A,), features=["avx2"], grid={"reduce_range": True})
    )
    assert [f.wrong for f in reduced] == [False], "7-bit weights do not saturate"
    floats = {"precision": "fp32", "products": (Product("a", "conv", (16, 16)),)}
    assert kinds(precision.check(case(row("a"), features=["avx2"], **floats))) == []


def test_bf16_that_ran_in_float_is_named() -> None:
    asked = {"precision": "bf16", "products": (Product("a", "conv", (16, 16)),)}
    (found,) = precision.check(case(row("a", "Convolution", "fp32"), **asked))
    assert (found.kind, found.wrong) == ("no-bf16", True)
    assert kinds(precision.check(case(row("a", "Convolution", "bf16"), **asked))) == []


# moves


def test_conversions_between_layers_are_named_by_what_runs_in_float_there() -> None:
    ran = [
        row("", "QuantizeLinear", "", 0.01), row("a", "QLinearConv", "int8", 0.5),
        row("", "DequantizeLinear", "", 0.02), row("act", "HardSwish", "fp32", 0.2),
        row("", "QuantizeLinear", "", 0.03), row("b", "QLinearConv", "int8", 0.5),
        row("", "DequantizeLinear", "", 0.01),
    ]  # fmt: skip
    (found,) = data_movement.check(case(*ran, products=(A, B)))
    assert found.kind == "conversions"
    assert found.ms == pytest.approx(0.25), "the ends are not counted"
    assert "HardSwish act" in found.what


def test_layout_changes_count_between_layers_and_not_at_the_ends() -> None:
    ends = [row("", "ReorderInput", "", 0.2), row("a"), row("b"), row("", "ReorderOutput", "", 0.2)]
    options = {"products": (A, B), "precision": "fp32"}
    assert kinds(data_movement.check(case(*ends, **options))) == []
    ends.insert(2, row("", "ReorderOutput", "", 0.05))
    (found,) = data_movement.check(case(*ends, **options))
    assert (found.kind, found.ms) == ("reorders", 0.05)


# fallbacks


def test_operators_outside_the_delegate() -> None:
    ran = [
        row("a", "Convolution (NHWC, QC8) IGEMM", "int8", 0.1),
        row("", "HARD_SWISH", "int8", 0.3),
    ]
    (found,) = fallbacks.check(case(*ran, engine="tflite", target="tflite"))
    assert (found.ms, found.where) == (0.3, ("HARD_SWISH",))
    assert "1 of 2" in found.what
    (found,) = fallbacks.check(case(ran[1], engine="tflite", target="tflite"))
    assert "none" in found.what
    assert kinds(fallbacks.check(case(ran[0], engine="tflite", target="tflite"))) == []


def test_reference_kernels_of_openvino() -> None:
    options = {"engine": "openvino", "target": "openvino"}
    quick = row("a", "Convolution brgconv_avx512_f32")
    assert kinds(fallbacks.check(case(quick, **options))) == []
    slow = [row("b", "Convolution ref_any_f32", ms=0.7), row("c", "Eltwise ref", ms=0.1)]
    (found,) = fallbacks.check(case(quick, *slow, **options))
    assert (found.where, found.ms) == (("b", "c"), pytest.approx(0.8))


# limits


def limited() -> roofline.Limits:
    """A machine of 1e9 MACs and 1e6 bytes a millisecond."""
    made = roofline.Limits({"fp32": 1e9, "int8": 4e9}, call_ms=0.01, layer_ms=0.001)
    made.memory_ms = lambda size: size / 1e6  # type: ignore[method-assign]
    return made


def test_what_bounds_a_layer() -> None:
    found = limited()
    assert found.bound(row("a", ms=1.0, size=800_000), macs=1000) == "memory"
    assert found.bound(row("a", ms=1.0, size=100_000), macs=800_000_000) == "compute"
    assert found.bound(row("a", ms=10.0, size=100_000), macs=800_000_000) == "", "neither"
    assert found.bound(row("", "Transpose", "", 1.0, 10**6), macs=0) == "", "computes nothing"


def test_memory_bound_layers_cost_what_is_above_their_arithmetic() -> None:
    products = (Product("a", "conv", (1000, 100), result=(10, 10)),)  # 10 million MACs: 0.01 ms
    ran = [row("a", ms=1.0, size=800_000), row("b", ms=0.5, size=100)]
    options = {"precision": "fp32", "products": products}
    (found,) = roofline.check(case(*ran, **options), limited())
    assert (found.kind, found.where) == ("memory-bound", ("a",))
    assert found.ms == pytest.approx(0.99)
    assert "int8" in found.change


def test_a_network_of_microseconds_is_overhead() -> None:
    ran = [row(f"l{i}", ms=0.001, size=10) for i in range(10)]
    (found,) = roofline.check(case(*ran, call_ms=0.03, precision="fp32"), limited())
    assert (found.kind, found.ms) == ("call-overhead", pytest.approx(0.019))
    assert kinds(roofline.check(case(*ran, call_ms=0.3, precision="fp32"), limited())) == []


def test_bandwidth_is_measured_once_for_each_size() -> None:
    found = roofline.Limits()
    one = found.memory_ms(1 << 16)
    assert 0.0 < one < 10.0
    assert found.memory_ms(1 << 16) == one
    assert found.memory_ms(1 << 15) > 0.0


# one bit

BIT = Product("b", "conv", (256, 256), (14, 14), (14, 14), (3, 3), pads=(1, 1, 1, 1),
              activations="binary", weights="binary")  # fmt: skip
TINY = Product("t", "conv", (32, 8), (3, 3), (3, 3), (1, 1), activations="binary",
               weights="binary")  # fmt: skip


def counted(*layers: Product, ran: str, ms: float, **options):
    made = case(*(row(p.layer, "BinaryConv", ran, ms) for p in layers), **options)
    assert made.view is not None
    made.view.counted = layers
    return made


def test_layers_that_are_not_counted_want_their_kernels() -> None:
    (found,) = one_bit.check(counted(BIT, TINY, ran="fp32", ms=0.4))
    assert (found.kind, found.where, found.ms) == ("no-kernels", ("b", "t"), 0.8)
    assert "python -m edgecv.binary.build" in found.change


def test_a_layer_that_int8_computes_as_fast_is_named_and_no_other() -> None:
    clock = Clock(20.0)
    slow = counted(TINY, ran="binary", ms=5.0, clock=clock)
    (found,) = one_bit.check(slow)
    assert (found.kind, found.where) == ("int8-as-fast", ("t",))
    assert 4.0 < found.ms < 5.0
    quick = counted(BIT, ran="binary", ms=0.001, clock=Clock(20.0))
    assert kinds(one_bit.check(quick)) == []


def test_one_bit_layers_are_counted_where_they_ran_and_moves_between_them_are_theirs() -> None:
    made = counted(BIT, ran="binary", ms=0.1)
    pooled = row("b", "Pooling", "fp32", 0.2)  # of the shortcut
    made = dataclasses.replace(made, layers=(pooled, *made.layers))
    assert _executed(made) == {"binary": 1}
    ran = made.ran(BIT)
    assert ran is not None
    assert ran.op == "BinaryConv"
    assert kinds(data_movement.check(made)) == []
