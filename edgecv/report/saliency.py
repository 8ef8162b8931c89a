"""Where a network looks: Grad-CAM of the graph that ships, in ONNX Runtime or LiteRT.

    L = relu(sum_k alpha_k A_k),   alpha_k = (1/Z) sum_ij dy_c / dA_k,ij
    alpha_k = (y_c(A + e 1_k) - y_c(A - e 1_k)) / (2 e Z)

Selvaraju et al., ICCV 2017. A is the last feature map, y_c the logit of the class that is asked
about, Z the pixels of A, and 1_k the map that is one on channel k and zero elsewhere: alpha_k is a
derivative along one direction, so two runs of the part of the graph behind A give it, without a
framework that knows gradients. A int8 graph has none. Its rounding is flat almost everywhere and
steep nowhere; so behind A (and only there) a QuantizeLinear-DequantizeLinear pair is replaced by
the clip to the range it can hold, which is its straight-through form. A itself comes from the
graph as it ships, and weights stay the int8 ones.

A TFLite graph cannot be cut so easily. One that ends in a mean over the pixels and one dense layer
needs no cutting: y_c is linear in A there and alpha_k = W_ck / Z exactly (Zhou et al., CVPR 2016).

Both maps of a comparison are asked about the same class. Agreement is Pearson's r of the two maps
and the intersection over union of their strongest fifths.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgecv.errors import UnsupportedError
from edgecv.runtime.preprocess import Preprocess
from edgecv.samples import adapted

TOP_SHARE = 0.2
# Of the most that A holds: no other piece of a piecewise linear network is reached, and float32's
# rounding of the logits is far below. A channel that holds little moves by half of its mean at
# most, because zero, where what is behind it clips, is near.
STEP = 2.0**-8
BATCH_ELEMENTS = 1 << 22


class Cam(Protocol):
    """A graph that can be asked where it looks.

    cost: numbers that one image's map takes through the tail, to choose how many to ask about
    """

    cost: int

    def map(self, image: np.ndarray, target: int) -> np.ndarray:
        """float32 (h, w) >= 0: what speaks for the class, at A's size.

        image: uint8 (H, W, C)
        """


def open_cam(graph: Path, preprocess: Preprocess) -> Cam:
    """The Cam of an .onnx or .tflite file. Raises UnsupportedError, saying why there is none."""
    known: dict[str, type[OnnxCam | TfliteCam]] = {".onnx": OnnxCam, ".tflite": TfliteCam}
    if graph.suffix not in known:
        raise UnsupportedError("saliency", f"{graph.suffix} graphs are not looked into")
    return known[graph.suffix](graph, preprocess)


class OnnxCam:
    """Grad-CAM of an ONNX graph, float or with QuantizeLinear and DequantizeLinear nodes."""

    def __init__(self, path: Path, preprocess: Preprocess) -> None:
        """Raises UnsupportedError: the graph has no feature map that everything passes through."""
        from edgecv.report import surgery

        self._head, self._tail = surgery.split(path)
        (source,) = self._head.inputs
        self._preprocess, self._input = adapted(preprocess, source), source.name
        (feature,) = self._head.outputs
        self._feature, self._channels = feature.name, feature.shape[1]
        self._shape = feature.shape
        self.cost = 2 * self._channels * int(np.prod(self._shape))
        self._batch = max(1, min(2 * self._channels, BATCH_ELEMENTS // int(np.prod(self._shape))))
        if not self._batches():
            self._batch = 1

    def map(self, image: np.ndarray, target: int) -> np.ndarray:
        feature = self.features(image)
        return weighted(feature[0], self.alphas(feature, target))

    def features(self, image: np.ndarray) -> np.ndarray:
        """A, float32 (1, K, h, w)."""
        feeds = {self._input: self._preprocess.normalise(image[None])}
        return self._head.run(feeds)[self._feature]

    def alphas(self, feature: np.ndarray, target: int) -> np.ndarray:
        """alpha, float64 (K,)."""
        steps = self._steps(feature)
        scores = np.concatenate([self._scores(batch) for batch in self._moved(feature, steps)])
        up, down = scores[0::2, target], scores[1::2, target]
        pixels = feature.shape[2] * feature.shape[3]
        return (up.astype(np.float64) - down) / (2.0 * steps * pixels)

    @staticmethod
    def _steps(feature: np.ndarray) -> np.ndarray:
        """e of each channel, float32 (K,), above zero."""
        size = np.abs(feature[0])
        least = np.float32(STEP) * (size.max() or np.float32(1.0))
        means = size.mean((1, 2))
        return np.where(means > 0, np.minimum(means / 2, least), least).astype(np.float32)

    def _moved(self, feature: np.ndarray, steps: np.ndarray) -> Iterator[np.ndarray]:
        """Batches of A with one channel moved up, then down, channel after channel."""
        every = [(k, sign * steps[k]) for k in range(self._channels) for sign in (1, -1)]
        for start in range(0, len(every), self._batch):
            some = every[start : start + self._batch]
            batch = np.repeat(feature, len(some), axis=0)
            for row, (channel, change) in enumerate(some):
                batch[row, channel] += change
            yield batch

    def _scores(self, features: np.ndarray) -> np.ndarray:
        (output,) = self._tail.run({self._feature: features}).values()
        return output.reshape(len(features), -1)

    def _batches(self) -> bool:
        """Whether the tail treats the images of a batch apart. A Reshape to (1, ...) would not."""
        rng = np.random.default_rng(0)
        pair = rng.random((2, *self._shape[1:]), np.float32)
        try:
            together = self._scores(pair)
            apart = [self._scores(pair[i : i + 1])[0] for i in range(2)]
        except Exception:  # the engine's own types
            return False
        return together.shape == (2, apart[0].size) and np.allclose(together, apart, 1e-3, 1e-4)


class TfliteCam:
    """Grad-CAM of a TFLite graph that ends in a mean over the pixels and one dense layer."""

    def __init__(self, path: Path, preprocess: Preprocess) -> None:
        """Raises UnsupportedError: the graph ends in another way."""
        from edgecv.backends.tflite.run import Session, engine

        resolver = engine().OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        # A delegate would not keep the tensors in between, and A is one of them.
        self._session = Session(
            {path.name: path.read_bytes()},
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=resolver,
        )
        net: Any = self._session._engine
        self._net = net
        tensors = {int(t["index"]): t for t in net.get_tensor_details()}
        self._feature, weights = _mean_and_dense(net._get_ops_details(), tensors)
        self._grid = tensors[self._feature]["quantization_parameters"]
        self._weights = _dequantised(
            net.get_tensor(weights), tensors[weights]["quantization_parameters"]
        )
        (source, *_) = self._session.inputs
        self._preprocess, self._input = adapted(preprocess, source), source.name
        self.cost = int(np.prod(tensors[self._feature]["shape"]))

    def map(self, image: np.ndarray, target: int) -> np.ndarray:
        self._session.run({self._input: self._preprocess.normalise(image[None])})
        feature = _dequantised(self._net.get_tensor(self._feature), self._grid)[0]
        pixels = feature.shape[0] * feature.shape[1]
        return weighted(feature.transpose(2, 0, 1), self._weights[target] / pixels)


def weighted(feature: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """relu(sum_k alpha_k A_k), float32 (h, w), of A (K, h, w)."""
    total = np.tensordot(alphas, feature.astype(np.float64), axes=1)
    return np.maximum(total, 0.0).astype(np.float32)


def upsampled(small: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The map at the image's size, bilinear between the centres of its pixels."""
    rows, columns = (_bilinear(n, m) for n, m in zip(small.shape, size, strict=True))
    return (rows @ small.astype(np.float64) @ columns.T).astype(np.float32)


def _bilinear(source: int, size: int) -> np.ndarray:
    """float64 (size, source): the weight of every source pixel in every wanted one."""
    at = np.clip((np.arange(size) + 0.5) * source / size - 0.5, 0, source - 1)
    low = np.minimum(at.astype(int), max(0, source - 2))
    weights = np.zeros((size, source))
    weights[np.arange(size), low] = 1.0 - (at - low)
    if source > 1:
        weights[np.arange(size), low + 1] = at - low
    return weights


def agreement(a: np.ndarray, b: np.ndarray) -> tuple[float, float] | None:
    """(Pearson's r, IoU of the strongest fifths) of two maps; None when one of them is flat."""
    if np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return None
    r = float(np.corrcoef(a.ravel().astype(np.float64), b.ravel().astype(np.float64))[0, 1])
    count = max(1, round(TOP_SHARE * a.size))
    one, two = (set(np.argsort(-m.ravel(), kind="stable")[:count].tolist()) for m in (a, b))
    return r, len(one & two) / len(one | two)


def _mean_and_dense(ops: list[Any], tensors: dict[int, Any]) -> tuple[int, int]:
    """(tensor of A, tensor of the dense weights). Raises UnsupportedError."""
    made_by = {int(t): op for op in ops for t in op["outputs"]}
    passing = ("RESHAPE", "SOFTMAX", "QUANTIZE", "DEQUANTIZE", "SQUEEZE")
    dense = _back(ops[-1], made_by, passing)
    if dense is None or dense["op_name"] != "FULLY_CONNECTED":
        raise UnsupportedError("saliency", "the TFLite graph does not end in one dense layer")
    pool = made_by.get(int(dense["inputs"][0]))
    pool = _back(pool, made_by, passing) if pool else None
    feature = int(pool["inputs"][0]) if pool else -1
    shape: Any = tensors[feature]["shape"] if feature in tensors else ()
    pooled = pool is not None and pool["op_name"] in ("MEAN", "AVERAGE_POOL_2D")
    weights = int(dense["inputs"][1])
    if weights in made_by:  # a DEQUANTIZE of the constant, where the dense layer adds up in float
        weights = int(made_by[weights]["inputs"][0])
    if not pooled or len(shape) != 4 or tensors[weights]["shape"][1] != shape[3]:
        what = "the TFLite graph does not end in a mean over the pixels and one dense layer"
        raise UnsupportedError("saliency", what)
    return feature, weights


def _back(op: Any, made_by: dict[int, Any], passing: tuple[str, ...]) -> Any:
    """The first operator at or before this one that does more than pass values on."""
    while op is not None and op["op_name"] in passing:
        op = made_by.get(int(op["inputs"][0]))
    return op


def _dequantised(values: np.ndarray, grid: dict[str, Any]) -> np.ndarray:
    """float32 scale * (q - zero_point); per row where there is a scale for each."""
    scales, zeros = np.asarray(grid["scales"]), np.asarray(grid["zero_points"])
    if not len(scales):
        return values.astype(np.float32)
    shape = [1] * values.ndim
    shape[int(grid["quantized_dimension"]) if len(scales) > 1 else 0] = len(scales)
    real = (values.astype(np.float32) - zeros.reshape(shape)) * scales.reshape(shape)
    return real.astype(np.float32)
