"""NNCF's quantizer beside edgecv's own, both as bundles for OpenVINO, through one recipe.

    python benchmarks/nncf_quantizer.py PHOTOS_DIR [--samples N] [--only NAMES] [--out RESULTS]

Needs the extras [all,zoo]. Each network is one recipe, a step for each quantizer: SQNR is of the
compiled bundle against the float network on photographs that were not calibrated on, times are of
all bundles in one interleaved run, over fp32's on the same engine. MobileNetV2 and the transformer
have random weights: their times are real, their SQNR compares the quantizers and no more.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import RESULTS, circumstances, edgecv, load_average, table, write

NETWORKS = {
    "EfficientNet-Lite0, 224 px, ImageNet": (
        "{zoo: efficientnet_lite0, args: {pretrained: true}}",
        "size: 224, mean: [0.498], std: [0.502]",
    ),
    "MobileNetV2 (small), 96 px": ("{zoo: mobilenet_v2_small}", "size: 96"),
    "vision transformer, 6 blocks of 192, 96 px": (
        '{module: "vision_transformer:make"}',
        "size: 96, mean: [0.5], std: [0.25]",
    ),
}
QUANTIZERS = {
    "edgecv": "",
    "nncf": "engine: nncf, ",
    "nncf-slow-bias": "engine: nncf, fast_bias_correction: false, ",
    "nncf-performance": "engine: nncf, preset: performance, ",
    "nncf-smooth": "engine: nncf, smooth_quant: true, ",
}
TRANSFORMERS_ONLY = "nncf-smooth"

VISION_TRANSFORMER = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        n, tokens, width = x.shape
        each = width // self.heads
        q, k, v = self.qkv(self.norm1(x)).reshape(n, tokens, 3, self.heads, each).permute(
            2, 0, 3, 1, 4).unbind(0)
        seen = (q @ k.transpose(-2, -1) * each ** -0.5).softmax(-1) @ v
        x = x + self.project(seen.transpose(1, 2).reshape(n, tokens, width))
        return x + self.mlp(self.norm2(x))

class ViT(nn.Module):
    def __init__(self, width=192, heads=3, depth=6, size=96, patch=16, classes=100):
        super().__init__()
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.place = nn.Parameter(torch.randn(1, (size // patch) ** 2, width) * 0.02)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.norm(self.blocks(x)).mean(1))

def make():
    torch.manual_seed(0)
    return ViT()
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder of photographs")
    parser.add_argument("--samples", type=int, default=64, help="calibration images (64)")
    parser.add_argument("--only", default="", help="networks whose name holds one of these, by ';'")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    wanted = [w for w in options.only.split(";") if w]
    load = load_average()
    with tempfile.TemporaryDirectory() as place:
        room = Path(place)
        rows: list[dict[str, Any]] = []
        for name in NETWORKS:
            if not wanted or any(w in name for w in wanted):
                print(name, file=sys.stderr, flush=True)
                rows += measured(name, room, options.photographs.resolve(), options.samples)
    data = {
        "schema": 1,
        "circumstances": circumstances(1, 0, load),
        "samples": options.samples,
        "results": rows,
    }
    write("nncf_quantizer", options.out, data, _markdown(data))
    return 0


def measured(name: str, room: Path, photographs: Path, samples: int) -> list[dict[str, Any]]:
    """A row for each quantizer of one network, fp32 first."""
    model, data = NETWORKS[name]
    (room / "vision_transformer.py").write_text(VISION_TRANSFORMER)
    steps = [
        f"  - quantize: {{name: {step}, from: model, {knobs}samples: {samples}}}"
        for step, knobs in QUANTIZERS.items()
        if step != TRANSFORMERS_ONLY or "transformer" in name
    ]
    recipe = room / "recipe.yaml"
    recipe.write_text(
        "\n".join([
            f"model: {model}",
            f'data: {{train: "images:{photographs}", test: "images:{photographs}", {data}}}',
            "seed: 0", "stages:", *steps, "targets: [openvino]", "",
        ])
    )  # fmt: skip
    out = room / "run"
    edgecv("run", str(recipe), "--out", str(out), ends=(0, 1))
    (results,) = out.rglob("results.json")
    found = json.loads(results.read_text())["results"]
    return [{"network": name, **_row(r)} for r in found]


def _row(row: dict[str, Any]) -> dict[str, Any]:
    parity = (row.get("parity") or {}).get("float")
    ran = row["precision"] != "fp32"
    return {
        "quantizer": row["step"] if ran else "fp32",
        "sqnr_db": parity["sqnr_db"] if parity and ran else None,
        "top1_agreement": parity["top1_agreement"] if parity and ran else None,
        **{k: row.get(k) for k in ("latency_ratio", "latency_ratio_interval", "executed",
                                   "engine_bytes", "status", "reason")},
    }  # fmt: skip


def _markdown(data: dict[str, Any]) -> list[str]:
    head = ("network", "quantizer", "SQNR dB", "top-1 agreement", "time of fp32's", "layers", "kB")
    cells = [
        (
            r["network"], r["quantizer"], _number(r["sqnr_db"], 1),
            _number(r["top1_agreement"], 3), _number(r["latency_ratio"], 2),
            ", ".join(f"{n} {p}" for p, n in sorted((r["executed"] or {}).items())),
            f"{r['engine_bytes'] / 1e3:,.0f}" if r["engine_bytes"] else "none",
        )
        for r in data["results"]
    ]  # fmt: skip
    refused = [f"- {r['network']}, {r['quantizer']}: {r['reason']}" for r in data["results"]
               if not r["engine_bytes"]]  # fmt: skip
    return [
        "# NNCF's quantizer beside edgecv's own", "",
        f"OpenVINO, one thread; {data['samples']} photographs to calibrate on, others judged. "
        "`python benchmarks/nncf_quantizer.py PHOTOS`.", "", *table(head, cells),
        *(["", "Refused:", "", *refused] if refused else []),
    ]  # fmt: skip


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    raise SystemExit(main())
