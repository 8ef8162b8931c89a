"""Weights that are stored by their places, said whole: w[i] = v where i is listed, else 0.

Places are numbers into the flattened tensor, or a row of indices each. Source: onnx/onnx.proto,
SparseTensorProto.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.graphs.onnx.draft import Draft, attributes


def sparse(draft: Draft) -> None:
    for tensor in draft.graph.sparse_initializer:
        _hold(draft, tensor, tensor.values.name)
    del draft.graph.sparse_initializer[:]
    for node in draft.nodes("Constant"):
        tensor = attributes(node).get("sparse_value")
        if tensor is not None:
            name = node.output[0]
            draft.remove(node)
            _hold(draft, tensor, name)


def _hold(draft: Draft, tensor: Any, name: str) -> None:
    """An initializer of that very name."""
    from onnx import numpy_helper

    values = np.asarray(numpy_helper.to_array(tensor.values))
    places = np.asarray(numpy_helper.to_array(tensor.indices))
    shape = tuple(tensor.dims)
    whole = np.zeros(shape, values.dtype)
    at = np.unravel_index(places, shape) if places.ndim == 1 else tuple(places.T)
    whole[at] = values
    draft.graph.initializer.append(numpy_helper.from_array(whole, name))
