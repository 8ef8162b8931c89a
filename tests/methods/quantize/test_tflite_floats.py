"""What 256 levels do not hold stays float: exponentials, roots, quotients, and what is around."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgecv.graphs.tflite import flatbuffer
from edgecv.methods.export.tflite import export_tflite
from edgecv.methods.quantize import tflite_int8
from edgecv.methods.quantize._tflite_floats import wide, with_them
from edgecv.methods.quantize.tflite_int8 import quantize_tflite
from tests.backends.tflite_graphs import GRID, images
from tests.methods.quantize.test_tflite_int8 import logits, sqnr_db


class Written(nn.Module):
    """Softplus, CELU and a normalisation by the image's own variance, between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.c, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.log(1 + torch.exp(4 * self.a(x)))
        x = nn.functional.celu(self.b(x), 0.5)
        x = self.c(x)
        spread = (x * x).mean((2, 3), keepdim=True)
        x = nn.functional.avg_pool2d(x / torch.sqrt(spread + 1e-5), 6)
        return self.head(x.flatten(1))


def test_functions_written_out_lose_no_more_than_a_convolution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    module, batch = Written().eval(), images()
    floats = export_tflite(module, torch.zeros(1, 3, 24, 24), tmp_path / "float")
    model = flatbuffer.read(floats.path)
    main = flatbuffer.graph_of(model)
    kinds = {
        main.tensors[op.outputs[0]].name.decode(): flatbuffer.op_name(model, op)
        for op in main.operators
    }
    own = wide(model)
    assert {kinds[name] for name in own} >= {"LOG", "ADD", "MUL", "MEAN"}
    after = with_them(model, own | {n for n, kind in kinds.items() if kind == "EXP"})
    assert not {"CONV_2D", "FULLY_CONNECTED"} & {kinds[name] for name in own | after}
    made = quantize_tflite(floats, batch[:16], GRID, "int8", tmp_path / "q")
    assert made.facts["executed"] == {"int8": 3, "fp32": 1}
    assert any("EXP" in w for w in made.facts["warnings"])
    assert any("SQRT: computed in float" in w for w in made.facts["warnings"])
    none: set[str] = set()
    monkeypatch.setattr(tflite_int8, "wide", lambda _: none)
    monkeypatch.setattr(tflite_int8, "with_them", lambda *_: none)
    rounded = quantize_tflite(floats, batch[:16], GRID, "int8", tmp_path / "r")
    with torch.no_grad():
        want = module(torch.from_numpy(batch[16:].transpose(0, 3, 1, 2).copy())).numpy()
    middle = want.mean(0)
    found, before = (
        sqnr_db(want - middle, logits(graph, batch[16:]) - middle) for graph in (made, rounded)
    )
    assert found > 20
    assert found > before + 6
