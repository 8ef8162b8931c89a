"""What layers would be at other widths is what they are after the cut; tables of their times."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from edgecv.methods.pruning import frontier, groups  # noqa: E402
from edgecv.methods.pruning.shapes import example_of, macs, shapes, size_bytes  # noqa: E402
from edgecv.methods.pruning.tables import Table  # noqa: E402
from edgecv.models.edits import replay  # noqa: E402
from tests import networks as nets  # noqa: E402


@pytest.mark.parametrize("net", nets.PRUNABLE)
def test_counts_at_other_widths_are_those_of_the_cut_network(net: str, tmp_path: Path) -> None:
    context = nets.context(tmp_path)
    module = nets.seeded(nets.PRUNABLE[net])
    found = groups.find(module, example_of(context), "here")
    shape = shapes(module, found, example_of(context))
    assert shape.macs()(shape.full) == macs(module, context)
    assert shape.size_bytes()(shape.full) == size_bytes(module)
    for cut in (2, 5):
        widths = tuple(max(1, w - cut - i) for i, w in enumerate(shape.full))
        small = copy.deepcopy(module)
        kept = [torch.arange(w) for w in widths]
        replay(small, groups.edit(module, found, kept, "here"))
        assert shape.macs()(widths) == macs(small, context)
        assert shape.size_bytes()(widths) == size_bytes(small)
        narrow = shapes(small, [], example_of(context))
        assert [p.channels for p in shape.at(widths)] == [
            layer.product.channels for layer in narrow.layers
        ]


class Counted:
    """An engine whose layers take a microsecond for each million products, and one to call."""

    def __init__(self) -> None:
        self.lines: list = []

    def __call__(self, lines: list) -> list[list[float]]:
        self.lines += lines
        return [[p.macs / 1e9 for p in line] for line in lines]


def test_a_table_of_products_is_exact_and_measured_once(tmp_path: Path) -> None:
    context = nets.context(tmp_path)
    module = nets.seeded(nets.PRUNABLE["inverted-residual"])
    found = groups.find(module, example_of(context), "here")
    shape = shapes(module, found, example_of(context))
    options = frontier.options(shape.full, 8)
    engine, path = Counted(), tmp_path / "kept" / "table.json"
    table = Table(engine, path)
    table.fill(shape, options)
    for pick in (0, -1):
        widths = tuple(own[pick] for own in options)
        assert table.total_ms(shape)(widths) == pytest.approx(shape.macs()(widths) / 1e9)
    seen = len(engine.lines)
    table.fill(shape, options)
    again = Table(engine, path)
    again.fill(shape, options)
    assert len(engine.lines) == seen
    assert again.total_ms(shape)(shape.full) == table.total_ms(shape)(shape.full)


def test_a_narrower_layer_never_counts_as_slower(tmp_path: Path) -> None:
    context = nets.context(tmp_path)
    module = nets.seeded(nets.PRUNABLE["residual"])
    found = groups.find(module, example_of(context), "here")
    shape = shapes(module, found, example_of(context))

    def noisy(lines: list) -> list[list[float]]:
        return [[1.0 + 0.2 * (i % 2) for i in range(len(line))] for line in lines]

    table = Table(noisy)
    options = frontier.options(shape.full, 4)
    table.fill(shape, options)
    last = table.total_ms(shape)(shape.full)
    for step in range(max(map(len, options))):
        widths = tuple(own[max(0, len(own) - 1 - step)] for own in options)
        now = table.total_ms(shape)(widths)
        assert now <= last + 1e-12
        last = now


def test_a_damaged_table_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text("{")
    assert Table(Counted(), path).known == {}


def test_layers_are_timed_on_the_engine() -> None:
    pytest.importorskip("onnxruntime")
    from dataclasses import asdict

    from edgecv.measuring import layer_times as clock
    from edgecv.measuring.product import Product

    wide = Product("a", "conv", (64, 64), (14, 14), (14, 14), (3, 3), pads=(1, 1, 1, 1))
    narrow = Product("a", "conv", (64, 16), (14, 14), (14, 14), (3, 3), pads=(1, 1, 1, 1))
    lines = [[asdict(wide), asdict(narrow)]]
    job = {"engine": "onnxruntime", "threads": 1, "seed": 0, "integer": False, "lines": lines}
    answer = clock.work(job)
    ((long, short),) = answer["lines"]
    assert 0 < short < 0.8 * long
    assert answer["call_ms"] > 0
