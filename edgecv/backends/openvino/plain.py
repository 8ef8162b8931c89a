"""OpenVINO without what it makes of a network: what an IR file says, operator by operator.

Every tensor is a result, so that no operator can be fused with the next; the transformation to
integers is off (a FakeQuantize is then arithmetic in float) and so are snippets. What was compiled
is looked at: an operator that holds several of the file's, or computes in integers, is an error.

The plugin that interprets IR (TEMPLATE) is in no wheel, so the kernels are the CPU plugin's: one
that is wrong by itself is not seen by it, and bundles that are compared with this say so (CAUTION).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgecv.backends.openvino import LAYERS
from edgecv.backends.openvino.run import ENGINE, config, precision
from edgecv.errors import EngineError, one_line
from edgecv.graphs.openvino.files import UNREADABLE, spec
from edgecv.graphs.openvino.nodes import HELD, kind

CAUTION = (
    "compared with OpenVINO's own operators in float32, unfused, each by itself: there is no other "
    "engine that reads IR"
)


class Plain:
    """As a Session, without fusing. files: the .xml's bytes first, the .bin's second.

    Raises EngineError: not such files, or OpenVINO fuses something all the same.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        import openvino as ov

        xml, weights = [*files.values(), b""][:2]
        core = ov.Core()
        try:
            model = core.read_model(xml, weights)
            self.inputs = tuple(map(spec, model.inputs))
            self.outputs = tuple(map(spec, model.outputs))
            for node in model.get_ordered_ops():
                if kind(node) not in HELD:
                    model.add_outputs([o for o in node.outputs() if not _is_result(o)])
            unfused = {**config(1), "LP_TRANSFORMS_MODE": "NO", "SNIPPETS_MODE": "DISABLE"}
            compiled = core.compile_model(model, "CPU", unfused)
        except Exception as e:
            raise EngineError(ENGINE, one_line(e), UNREADABLE) from None
        if found := _fused(compiled):
            raise EngineError(ENGINE, f"cannot be asked for {found} alone", "report this")
        self._request: Any = compiled.create_infer_request()

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name in, arrays by output name out. Raises EngineError."""
        try:
            self._request.infer({t.name: feeds[t.name] for t in self.inputs})
        except Exception as e:
            raise EngineError(ENGINE, one_line(e)) from None
        made = range(len(self.outputs))  # what was added stands behind the network's own
        return {
            self.outputs[i].name: np.array(self._request.get_output_tensor(i).data) for i in made
        }

    def close(self) -> None:
        """Free the engine's memory."""
        self._request = None


def _is_result(output: Any) -> bool:
    return any(kind(i.get_node()) == "Result" for i in output.get_target_inputs())


def _fused(compiled: Any) -> str:
    """A layer of the compiled network that is not one operator of the file in floats; "" where all
    are."""
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) not in LAYERS:
            continue
        if "," in info["originalLayersNames"].astype(str) or precision(info) == "int8":
            return str(node.get_friendly_name())
    return ""
