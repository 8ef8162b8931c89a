"""y = s_f · (sign(x − β_c) ⊛ q(W)_f) + t_f + S(x): a layer of one bit, as it trains and as it runs.

    s_f = α_f γ_f / σ_f,  t_f = b_f − μ_f γ_f / σ_f      the batch norm behind it, folded
    q(W) = sign(W), α = mean |W|                         binary   (XNOR-Net, ECCV 2016)
    q(W) = sign(W) [|W| > Δ], Δ = 0.7 mean |W|,          ternary  (TWN, 2016)
           α = mean of |W| above Δ
    q(W) = p [W > Δ] − n [W < −Δ], Δ = 0.05 max |W|,     ttq: p, n trained, α = 1  (TTQ, ICLR 2017)
    S: the input itself, by a real shortcut              Bi-Real  (ECCV 2018), ReActNet (ECCV 2020)

sign(0) = +1 here, in the kernels and in every exported graph (torch.sign has 0). In eval mode the
layer computes what the kernels do, in their order: an integer sum, one multiplication, one
addition, and the shortcut's; so its outputs are theirs bit for bit. ±1 times ±1 summed in float32
is exact.

Pitfalls: the latent W of a one-bit weight has no scale of its own, so weight decay on it only makes
signs flip more easily; a ReLU before a sign leaves nothing below zero: β moves, or RPReLU takes its
place.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Weights = Literal["binary", "ternary", "ttq", "real"]
Estimator = Literal["clip", "polynomial", "annealed"]
DELTA = 0.7  # of mean |W|, below which a ternary weight is 0
TRAINED_DELTA = 0.05  # of max |W|, of ttq
SHARPEST = 10.0  # t of the annealed estimator's tanh at the end of training


class Sign(torch.autograd.Function):
    """+1 where x >= 0, else −1; the gradient of a stand-in g(x).

    clip:       g' = 1 where |x| <= 1                    (BNN, NIPS 2016)
    polynomial: g' = 2 − 2 |x| where |x| <= 1            (Bi-Real)
    annealed:   g' = k t (1 − tanh² t x), k = max(1/t, 1)  (IR-Net, CVPR 2020)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, estimator: Estimator, sharpness: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.how = (estimator, sharpness)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,), (x,) = grads, ctx.saved_tensors
        estimator, t = ctx.how
        if estimator == "annealed":
            return grad * (max(1.0 / t, 1.0) * t) * (1 - torch.tanh(t * x).square()), None, None
        if estimator == "polynomial":
            return grad * (2 - 2 * x.abs()).clamp_min(0), None, None
        return torch.ops.aten.hardtanh_backward(grad, x, -1.0, 1.0), None, None


def sign(x: Tensor, estimator: Estimator = "clip", sharpness: float = 1.0) -> Tensor:
    """±1, any shape."""
    signed: Tensor = Sign.apply(x, estimator, sharpness)
    return signed


class Ternary(torch.autograd.Function):
    """−1, 0 or +1 by |w| > delta; the gradient passes as it is."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, delta: Tensor) -> Tensor:  # noqa: ARG004
        return torch.where(w.abs() > delta, torch.where(w >= 0, 1.0, -1.0), 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: ARG004
        return grads[0], None


class TrainedTernary(torch.autograd.Function):
    """−n, 0 or +p: p and n take the gradients of their weights, W its own times p, 1 or n (eq. 8).

    Zhu et al., "Trained Ternary Quantization", ICLR 2017.
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, sizes: Tensor, delta: Tensor) -> Tensor:
        above, below = w > delta, w < -delta
        ctx.save_for_backward(above, below, sizes)
        return torch.where(above, sizes[0], torch.where(below, -sizes[1], 0.0))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,), (above, below, sizes) = grads, ctx.saved_tensors
        of_sizes = torch.stack([(grad * above).sum(), -(grad * below).sum()])
        of_w = grad * torch.where(above, sizes[0], torch.where(below, sizes[1], 1.0))
        return of_w, of_sizes, None


class RPReLU(nn.Module):
    """y = PReLU(x − γ_c) + ζ_c, a slope for each channel. Liu et al., "ReActNet", ECCV 2020."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = nn.Parameter(torch.zeros(channels))
        self.slope = nn.Parameter(torch.full((channels,), 0.25))
        self.after = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 2))
        x = F.prelu(x - self.before.view(shape), self.slope)
        return x + self.after.view(shape)


class OneBit(nn.Module):
    """In place of a convolution or a dense layer and of the batch norm behind it.

    layer: what it replaces, whose weights it starts from; norm: the batch norm behind, or None
    shortcut: adds its input where the shapes allow, else its 2x2 means with the channels repeated
    """

    def __init__(
        self,
        layer: nn.Conv2d | nn.Linear,
        norm: nn.BatchNorm2d | nn.BatchNorm1d | None = None,
        weights: Weights = "binary",
        real_inputs: bool = False,
        estimator: Estimator = "polynomial",
        shift: bool = True,
        shortcut: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
            raise ValueError(f"pads with {layer.padding_mode}, not with zeros")
        self.weights, self.real_inputs, self.estimator = weights, real_inputs, estimator
        self.weight = nn.Parameter(layer.weight.detach().clone())
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
        self.sizes = nn.Parameter(_sizes(self.weight)) if weights == "ttq" else None
        self.norm = norm
        self.conv = isinstance(layer, nn.Conv2d)
        if isinstance(layer, nn.Conv2d):
            self.how: dict[str, Any] = {
                "stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation,
                "groups": layer.groups,
            }  # fmt: skip
            channels = layer.in_channels
        else:
            self.how, channels = {}, layer.in_features
        self.shift = nn.Parameter(torch.zeros(channels)) if shift and not real_inputs else None
        self.around = shortcut and _around(layer)
        self.sharpness = 1.0
        self.one_bit = True  # off in the first of two steps: weights stay real

    def signed(self, x: Tensor) -> Tensor:
        """What the products read."""
        if self.real_inputs:
            return x
        if self.shift is not None:
            x = x - self.shift.view(-1, *[1] * (x.ndim - 2))
        return sign(x, self.estimator, self.sharpness)

    def quantized(self) -> tuple[Tensor, Tensor]:
        """(q(W) of W's shape, α (filters,)); α is one where weights are real or ttq."""
        w = self.weight
        axes = tuple(range(1, w.ndim))
        if self.weights == "real" or not self.one_bit:
            return w, torch.ones(len(w))
        size = w.abs()
        if self.sizes is not None:
            trained: Tensor = TrainedTernary.apply(w, self.sizes, TRAINED_DELTA * size.max())
            return trained, torch.ones(len(w))
        if self.weights == "binary":
            return sign(w, "clip"), size.mean(axes)
        delta = DELTA * size.mean(axes, keepdim=True)
        above = (size > delta).to(w.dtype)
        alpha = (size * above).sum(axes) / above.sum(axes).clamp_min(1)
        ternary: Tensor = Ternary.apply(w, delta)
        return ternary, alpha

    def folded(self, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """s, t of the docstring, float32 (filters,): the batch norm by its running statistics."""
        bias = torch.zeros_like(alpha) if self.bias is None else self.bias
        if self.norm is None:
            return alpha, bias
        mean, var = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert var is not None
        k = (var.double() + self.norm.eps).rsqrt()
        if self.norm.weight is not None:
            k = k * self.norm.weight.double()
        shift = 0.0 if self.norm.bias is None else self.norm.bias.double()
        return (alpha.double() * k).float(), ((bias.double() - mean.double()) * k + shift).float()

    def forward(self, x: Tensor) -> Tensor:
        signed, (w, alpha) = self.signed(x), self.quantized()
        dots = F.conv2d(signed, w, **self.how) if self.conv else F.linear(signed, w)
        shape = (-1, *[1] * (dots.ndim - 2))
        if self.norm is not None and self.norm.training:
            y = dots * alpha.view(shape)
            y = self.norm(y if self.bias is None else y + self.bias.view(shape))
        else:
            scale, bias = self.folded(alpha)
            y = dots * scale.view(shape) + bias.view(shape)
        return y + past(x, self.how["stride"], len(self.weight)) if self.around else y

    def extra_repr(self) -> str:
        kind = "real" if self.real_inputs else "one-bit"
        return f"{tuple(self.weight.shape)}, {self.weights} weights, {kind} inputs, {self.how}"


def past(x: Tensor, stride: tuple[int, int], filters: int) -> Tensor:
    """S(x): x as a layer of that stride has its output, (N, filters, H / stride, W / stride)."""
    if stride != (1, 1):
        odd = bool(x.shape[-1] % 2 or x.shape[-2] % 2)  # at an odd border there are fewer pixels
        x = F.avg_pool2d(x, 2, ceil_mode=odd, count_include_pad=not odd)
    times = filters // x.shape[1]
    return torch.cat([x] * times, 1) if times > 1 else x


def _sizes(w: Tensor) -> Tensor:
    """(p, n) to begin with: the mean size of the weights above Δ and below −Δ."""
    w, delta = w.detach(), TRAINED_DELTA * w.detach().abs().max()
    sides = [w[w > delta], -w[w < -delta]]
    return torch.stack([s.mean() if len(s) else w.abs().mean() for s in sides])


def _around(layer: nn.Conv2d | nn.Linear) -> bool:
    """Whether a convolution's input can be added to its output without parameters."""
    if not isinstance(layer, nn.Conv2d) or layer.out_channels % layer.in_channels:
        return False
    stride, pad = layer.stride, layer.padding
    if isinstance(pad, str):
        same = pad == "same"
    else:
        spans = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        same = all(2 * p == s for p, s in zip(pad, spans, strict=True))
    return same and stride in ((1, 1), (2, 2))
