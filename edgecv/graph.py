"""Graph: what `export` and `quantize` make and `compile` reads: ONNX, TFLite or OpenVINO IR.

A Graph is a folder with `model.onnx` or `model.tflite` (weights inside, no external data), or
`model.xml` and `model.bin`, and `graph.json`. A user who brings such a file enters the house here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgecv.graph_files import FILES
from edgecv.runtime.fidelity import group
from edgecv.runtime.spec import TensorSpec, plain, ungrouped

OWN = "own.json"  # beside a source.onnx: what the user's file takes and answers
OWN_INTEGERS = "the file's own"  # facts["quantizer"] of a file that came quantized


@dataclass(frozen=True)
class Graph:
    """A network as a file.

    path:      the .onnx or .tflite file, or OpenVINO's .xml, whose weights lie beside it (.bin)
    format:    "onnx", "tflite", "openvino", or what else an engine reads (`Facts.graphs`)
    precision: "fp32", "int8" (what its weights and activations hold), "fp16" (its weights) or
               "bf16" (what it is to be computed in; the file is the float one)
    inputs, outputs: tensors in the graph's own order, batch 1, static shapes
    facts:     what the maker wants remembered (opset, quantizer, op counts); plain JSON
    """

    path: Path
    format: str
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def beside(self) -> tuple[Path, ...]:
        """The files that hold it, the one at `path` first."""
        beside = FILES[self.format].beside if self.format in FILES else ()
        return (self.path, *map(self.path.with_suffix, beside))

    def files(self) -> dict[str, bytes]:
        """What a session of it is opened with: bytes by name, the file at `path` first."""
        return {path.name: path.read_bytes() for path in self.beside}

    def copied(self, folder: Path, stem: str | None = None) -> Graph:
        """The same graph with its files in that folder; graph.json is the caller's to write.

        stem: what they are called there, without their suffix
        """
        folder.mkdir(parents=True, exist_ok=True)
        for path in self.beside:
            name = path.name if stem is None else f"{stem}{path.suffix}"
            shutil.copyfile(path, folder / name)
        name = self.path.name if stem is None else f"{stem}{self.path.suffix}"
        return replace(self, path=folder / name)

    def save_facts(self) -> None:
        """Write graph.json beside the file."""
        data = {
            "schema": 1,
            "file": self.path.name,
            "format": self.format,
            "precision": self.precision,
            "inputs": [t.to_json() for t in self.inputs],
            "outputs": [t.to_json() for t in self.outputs],
            "facts": self.facts,
        }
        text = json.dumps(data, indent=1, sort_keys=True) + "\n"
        (self.path.parent / "graph.json").write_text(text)

    @property
    def bounds(self) -> dict[str, float]:
        """The largest magnitude of each output, or group of one, whose operator says it (a sigmoid:
        1)."""
        found = dict[str, float](self.facts.get("bounds", {}))
        for spec in self.outputs:
            if spec.groups and spec.bounds:
                spans = zip(pairwise(spec.groups[1:]), spec.bounds, strict=True)
                found |= {group(spec.name, a, b): bound for (a, b), bound in spans if bound}
        return found

    def knowing(self, folder: Path) -> Graph:
        """The same with what the user's file takes and answers (facts["own"]), which the step that
        read it wrote into `folder`; without such a file, in the graph's own real numbers, channels
        first."""
        path = folder / OWN
        if path.is_file():
            own = json.loads(path.read_text())
        else:
            own = {"inputs": self.inputs, "outputs": self.outputs}
            own = {
                side: [ungrouped(plain(t)).to_json() for t in ends] for side, ends in own.items()
            }
        return replace(self, facts={**self.facts, "own": own})

    @property
    def shown(self) -> tuple[TensorSpec, ...]:
        """The outputs as tasks read them: real numbers, channels first, by the names of the user's
        file, which come in the same order."""
        specs = tuple(plain(spec) for spec in self.outputs)
        own = (self.facts.get("own") or {}).get("outputs", ())
        names = [spec["name"] for spec in own]
        if len(names) != len(specs) or {spec.name for spec in specs} == set(names):
            return specs
        return tuple(replace(s, name=name) for s, name in zip(specs, names, strict=True))

    def told(self, outputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        """Another form's outputs, which come in the same order, with what they hold."""
        if len(outputs) != len(self.outputs):
            return tuple(outputs)
        pairs = zip(outputs, self.outputs, strict=True)
        return tuple(
            replace(other, kind=own.kind, groups=own.groups, bounds=own.bounds)
            for other, own in pairs
        )

    @staticmethod
    def load(folder: Path) -> Graph:
        data = json.loads((folder / "graph.json").read_text())
        return Graph(
            path=folder / data["file"],
            format=data["format"],
            precision=data["precision"],
            inputs=tuple(TensorSpec.from_json(t) for t in data["inputs"]),
            outputs=tuple(TensorSpec.from_json(t) for t in data["outputs"]),
            facts=data["facts"],
        )
