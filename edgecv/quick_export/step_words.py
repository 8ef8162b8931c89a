"""What each step of an export is called to someone who wrote no recipe.

data:train → calibration images      model.onnx → float graph, ONNX
bundle:net-int8@cpu → bundle for cpu  measure:cpu → time on cpu
"""

from __future__ import annotations

from collections.abc import Callable

from edgecv.plan.node import Node

FORMATS = {"onnx": "ONNX", "tflite": "TFLite", "openvino": "OpenVINO", "torchscript": "TorchScript"}
STAGES = {"restructure": "cheaper activations", "export": "float graph"}


def of_export(calibrated: bool, evaluated: bool) -> Callable[[Node], str]:
    """node -> words. calibrated, evaluated: whether images were given for it; else they are made
    up."""

    def words(node: Node) -> str:
        on = node.target.name if node.target else ""
        if node.kind == "data":
            if node.facts.get("split") == "train":
                return "calibration images" if calibrated else "made-up images"
            return "test images" if evaluated or calibrated else "made-up test images"
        if node.kind == "bundle":
            as_it_came = node.step == "model"
            return f"fp32 bundle for {on}, to compare with" if as_it_came else f"bundle for {on}"
        if node.kind == "measure":
            return f"time on {on}"
        return "network" if node.kind == "model" else _stage(node, on)

    return words


def _stage(node: Node, on: str) -> str:
    word = node.stage.word if node.stage is not None else node.kind
    if word == "quantize":
        return f"{getattr(node.stage, 'precision', 'int8')} graph for {on}"
    graph = FORMATS.get(node.id.rpartition(".")[2])
    said = STAGES.get(word, word)
    return f"{said}, {graph}" if graph and word == "export" else said
