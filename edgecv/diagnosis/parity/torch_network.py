"""A PyTorch network opened for looking inside with forward hooks.

Its layers are its convolutions and dense layers, in the order in which one image meets them. A
batch normalisation right behind a convolution is one layer with it, as every export makes of it:

    w' = w gamma / sigma,   b' = (b - mean) gamma / sigma + beta
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgecv.diagnosis.parity.layers import INPUT, Grid, Layer, Sample, image_in, module_path


class TorchNetwork:
    """See `Form`. module: any torch network of one image in, one tensor out."""

    format = ""

    precision = "fp32"
    input_grid: Grid | None = None
    one_by_one = False

    def __init__(self, module: Any, shape: tuple[int, ...], title: str = "torch") -> None:
        """shape: (1, C, H, W) of the image, for one run on zeros that tells the order."""
        import torch

        self.title, self._torch, self._module = title, torch, module.eval()
        torch.set_num_threads(1)
        self._parts: dict[str, tuple[Any, Any]] = {}  # tensor -> (layer, its batch norm or None)
        self.layers = tuple(self._layers(shape))

    def answers(self, x: Sample) -> tuple[np.ndarray, ...]:
        from edgecv.outputs import outputs_of

        fed = x.values() if isinstance(x, Mapping) else [np.ascontiguousarray(x, np.float32)]
        with self._torch.inference_mode():
            out = self._module(*(self._torch.from_numpy(v) for v in fed))
        return tuple(np.asarray(t.numpy(), np.float32) for t in outputs_of(out).values)

    def values(self, x: Sample, tensors: Sequence[str]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {INPUT: image_in(x)}
        wanted = {n for n in tensors if n != INPUT}
        handles = []
        for name in wanted:
            layer, norm = self._parts[name]

            def keep(_: Any, __: Any, out: Any, name: str = name) -> None:
                # a layer that is used twice keeps what it gave first, as its place in the order is
                found.setdefault(name, out.detach().numpy().copy())

            handles.append((norm or layer).register_forward_hook(keep))
        try:
            self.answers(x)
        finally:
            for handle in handles:
                handle.remove()
        return {name: found[name] for name in tensors}

    def constants(self, layer: Layer) -> dict[str, np.ndarray]:
        if layer.tensor not in self._parts:
            return {}
        part, norm = self._parts[layer.tensor]
        weight = part.weight.detach().numpy().astype(np.float32)
        bias = part.bias.detach().numpy() if part.bias is not None else np.zeros(len(weight))
        if norm is not None:
            sigma = np.sqrt(norm.running_var.numpy() + norm.eps)
            gamma = norm.weight.detach().numpy() if norm.affine else np.ones(len(weight))
            beta = norm.bias.detach().numpy() if norm.affine else np.zeros(len(weight))
            weight = weight * (gamma / sigma).reshape(-1, *[1] * (weight.ndim - 1))
            bias = (bias - norm.running_mean.numpy()) * gamma / sigma + beta
        return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}

    def close(self) -> None:
        self._parts.clear()

    def _layers(self, shape: tuple[int, ...]) -> list[Layer]:
        nn = self._torch.nn
        compute = (nn.Conv2d, nn.Linear)
        norms = (nn.BatchNorm2d, nn.BatchNorm1d)
        seen: list[tuple[str, Any, Any]] = []
        handles = []
        for name, part in self._module.named_modules():
            if isinstance(part, (*compute, *norms)):

                def note(m: Any, given: Any, out: Any, name: str = name) -> None:
                    if isinstance(m, norms):
                        if seen and seen[-1][2] is given[0] and isinstance(seen[-1][1], compute):
                            before = seen[-1]
                            self._parts[before[0]] = (before[1], m)
                            seen[-1] = (before[0], before[1], out)
                    elif name not in self._parts:
                        self._parts[name] = (m, None)
                        seen.append((name, m, out))

                handles.append(part.register_forward_hook(note))
        try:
            self.answers(np.zeros(shape, np.float32))
        finally:
            for handle in handles:
                handle.remove()
        found, before = [], INPUT
        for name, part, out in seen:
            found.append(
                Layer(
                    name=name,
                    kind="conv" if isinstance(part, nn.Conv2d) else "dense",
                    tensor=name,
                    inputs=(before,),
                    shape=tuple(out.shape),
                    path=module_path(name) or (name,),
                    attributes=_attributes(part),
                )
            )
            before = name
        return found


def _attributes(part: Any) -> dict[str, Any]:
    """As ONNX calls them, so that they compare."""
    if not hasattr(part, "stride"):
        return {}
    pads = list(part.padding) * 2 if not isinstance(part.padding, str) else part.padding
    return {
        "strides": list(part.stride), "pads": pads, "dilations": list(part.dilation),
        "group": part.groups,
    }  # fmt: skip
