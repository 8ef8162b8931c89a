"""The table of ONNX operators that are read into torch (onnx/docs/Operators.md)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import fx

from edgecv.models.importing import (
    activations,
    arithmetic,
    layers,
    pooling,
    recurrent,
    reductions,
    shapes,
)
from edgecv.models.importing.arithmetic import binary, folded, function, tensors
from edgecv.models.importing.reader import Node, Operator
from edgecv.models.importing.reductions import extreme_index, reduced


def _through(node: Node) -> fx.Node:
    return node.x()


def _dropout(node: Node) -> fx.Node:
    if len(node.proto.output) > 1 and node.reader.uses[node.proto.output[1]]:
        node.refuse("its mask is used")
    return _through(node)


OPERATORS: dict[str, Operator] = {
    # with weights, and pooling
    "AveragePool": pooling.average_pool,
    "BatchNormalization": layers.batch_norm,
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "GRU": recurrent.recurrent,
    "Gemm": layers.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "GlobalMaxPool": pooling.global_max_pool,
    "LSTM": recurrent.recurrent,
    "MatMul": layers.matmul,
    "MaxPool": pooling.max_pool,
    "RNN": recurrent.recurrent,
    # activations
    "Celu": activations.celu,
    "Clip": activations.clip,
    "Elu": activations.elu,
    "Gelu": activations.gelu,
    "HardSigmoid": activations.hard_sigmoid,
    "HardSwish": function(F.hardswish),
    "LeakyRelu": lambda node: node.call(F.leaky_relu, node.x(), node.attr("alpha", 0.01)),
    "LogSoftmax": activations.softmax(torch.log_softmax),
    "Mish": function(F.mish),
    "PRelu": activations.prelu,
    "Relu": function(F.relu),
    "Selu": activations.selu,
    "Shrink": activations.shrink,
    "Sigmoid": function(torch.sigmoid),
    "Softmax": activations.softmax(torch.softmax),
    "Softplus": function(F.softplus),
    "Softsign": function(F.softsign),
    "Swish": activations.swish,
    "Tanh": function(torch.tanh),
    "ThresholdedRelu": activations.thresholded_relu,
    # value by value
    "Abs": function(torch.abs),
    "Add": arithmetic.add,
    "And": tensors(torch.logical_and),
    "Cast": arithmetic.cast,
    "CastLike": arithmetic.cast_like,
    "Ceil": function(torch.ceil),
    "Cos": function(torch.cos),
    "Div": arithmetic.div,
    "Equal": tensors(torch.eq),
    "Erf": function(torch.erf),
    "Exp": function(torch.exp),
    "Floor": function(torch.floor),
    "Greater": tensors(torch.gt),
    "GreaterOrEqual": tensors(torch.ge),
    "Less": tensors(torch.lt),
    "LessOrEqual": tensors(torch.le),
    "Log": function(torch.log),
    "Max": folded(torch.maximum),
    "Mean": arithmetic.mean,
    "Min": folded(torch.minimum),
    "Mod": arithmetic.mod,
    "Mul": binary(torch.mul),
    "Neg": function(torch.neg),
    "Not": function(torch.logical_not),
    "Or": tensors(torch.logical_or),
    "Pow": arithmetic.power,
    "Reciprocal": function(torch.reciprocal),
    "Round": function(torch.round),
    "Sign": function(torch.sign),
    "Sin": function(torch.sin),
    "Sqrt": function(torch.sqrt),
    "Sub": binary(torch.sub),
    "Sum": folded(torch.add),
    "Where": arithmetic.where,
    "Xor": tensors(torch.logical_xor),
    # over axes
    "ArgMax": extreme_index(torch.argmax),
    "ArgMin": extreme_index(torch.argmin),
    "CumSum": reductions.cumulative_sum,
    "Einsum": reductions.einsum,
    "GroupNormalization": reductions.group_norm,
    "InstanceNormalization": reductions.instance_norm,
    "LRN": reductions.local_response,
    "LayerNormalization": reductions.layer_norm,
    "LpNormalization": reductions.lp_norm,
    "MeanVarianceNormalization": reductions.mean_variance,
    "RMSNormalization": reductions.rms_norm,
    "ReduceL1": reduced(torch.sum, before=torch.abs),
    "ReduceL2": reduced(torch.sum, before=torch.square, after=torch.sqrt),
    "ReduceLogSum": reduced(torch.sum, after=torch.log),
    "ReduceLogSumExp": reduced(torch.logsumexp),
    "ReduceMax": reduced(torch.amax),
    "ReduceMean": reductions.mean,
    "ReduceMin": reduced(torch.amin),
    "ReduceProd": reductions.product,
    "ReduceSum": reduced(torch.sum),
    "ReduceSumSquare": reduced(torch.sum, before=torch.square),
    "TopK": reductions.top_k,
    # moving values
    "Concat": shapes.concat,
    "DepthToSpace": shapes.depth_to_space,
    "Dropout": _dropout,
    "Expand": shapes.expand,
    "Flatten": shapes.flatten,
    "Gather": shapes.gather,
    "GatherElements": shapes.gather_elements,
    "Identity": _through,
    "Pad": shapes.pad,
    "Reshape": shapes.reshape,
    "Resize": shapes.resize,
    "Slice": shapes.cut,
    "SpaceToDepth": shapes.space_to_depth,
    "Split": shapes.split,
    "Squeeze": shapes.squeeze,
    "Tile": shapes.tile,
    "Transpose": shapes.transpose,
    "Unsqueeze": shapes.unsqueeze,
}
