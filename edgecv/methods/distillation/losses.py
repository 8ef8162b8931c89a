"""D(student, teacher) ≥ 0, and 0 where both say the same: one function per paper.

Of logits (N, classes):
    soft_targets   T² KL(p_t ‖ p_s), p = softmax(z / T)     Hinton et al., 2015
    dkd            TCKD + β NCKD                              Zhao et al., CVPR 2022
    dist           inter + intra, 1 − Pearson                 Huang et al., NeurIPS 2022
Of all that networks of any task answer:
    answers        mean over outputs of ‖z_s − z_t‖² / (size · var z_t)
Of features (N, C) or (N, C, H, W):
    hints          ‖F_s − F_t‖² / size                        FitNets, Romero et al., ICLR 2015
    attention      ‖Q_s / ‖Q_s‖ − Q_t / ‖Q_t‖‖², Q = Σ_c F²   Zagoruyko & Komodakis, ICLR 2017
    similarity     ‖G_s − G_t‖²_F / N², G = rows of F Fᵀ / ‖·‖   Tung & Mori, ICCV 2019
    relational     Huber of distances, and of angles          RKD, Park et al., CVPR 2019

Pitfalls: gradients of soft targets shrink by 1/T²; the factor T² keeps their size beside the
labels'. DKD's two parts are of one KL, but KL weighs the second by the teacher's doubt, which is
least for the best teachers. DIST asks for the order of classes and not for the same numbers: for
teachers far stronger than the student. Relations are over a batch: a few images have few.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgecv.behaviour import tensors

EPSILON = 1e-8
LEAST_VARIANCE = 1e-6  # of an output: one that is constant has no unit of its own
ANGLE = 2.0  # weight of RKD's angles beside its distances (the paper's 50 : 25)


def soft_targets(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² KL(p_t ‖ p_s), the mean over images."""
    t = temperature
    soft, aim = (functional.log_softmax(z / t, 1) for z in (student, teacher))
    return t * t * functional.kl_div(soft, aim, log_target=True, reduction="batchmean")


def dkd(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, beta: float
) -> Tensor:
    """T² (KL(b_t ‖ b_s) + β KL(q_t ‖ q_s)): b the label against all others, q among the others."""
    t = temperature
    label = functional.one_hot(labels, student.shape[1]).bool()
    parts = []
    for z in (student, teacher):
        log_p = functional.log_softmax(z / t, 1)
        others = log_p.masked_fill(label, -torch.inf)
        rest = torch.logsumexp(others, 1, keepdim=True)
        binary = torch.cat([log_p[label][:, None], rest], 1)
        among = (others - rest)[~label].reshape(len(z), -1)
        parts.append((binary, among))
    (binary_s, among_s), (binary_t, among_t) = parts
    target = functional.kl_div(binary_s, binary_t, log_target=True, reduction="batchmean")
    among = functional.kl_div(among_s, among_t, log_target=True, reduction="batchmean")
    return t * t * (target + beta * among)


def dist(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² (mean over images of 1 − ρ across classes + mean over classes of 1 − ρ across images)."""
    t = temperature
    p, q = (functional.softmax(z / t, 1) for z in (student, teacher))
    return t * t * (uncorrelated(p, q) + uncorrelated(p.T, q.T))


def uncorrelated(a: Tensor, b: Tensor) -> Tensor:
    """The mean over rows of 1 − ρ, Pearson's correlation: scale and shift of a row change
    nothing."""
    a, b = (v - v.mean(1, keepdim=True) for v in (a, b))
    return (1 - functional.cosine_similarity(a, b, 1, EPSILON)).mean()


def answers(student: Any, teacher: Any) -> Tensor:
    """How far apart all outputs are, each in units of the teacher's own variance: 0 where both say
    the same, about 1 where a constant is said. Of what modules returned, in one form."""
    pairs = zip(tensors(student), tensors(teacher), strict=True)
    apart = [(a - b).square().mean() / _variance(b).clamp_min(LEAST_VARIANCE) for a, b in pairs]
    return torch.stack(apart).mean()


def _variance(values: Tensor) -> Tensor:
    """0 of a single value, of which torch says NaN."""
    return values.var() if values.numel() > 1 else values.new_zeros(())


def hints(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared distance of two features of one shape."""
    return functional.mse_loss(student, teacher)


def attention(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared distance of the maps of where something is, each of length 1; mean over images.

    Takes features (N, C, H, W) of one height and width, of any numbers of channels.
    """
    here, there = (functional.normalize(f.square().mean(1).flatten(1)) for f in (student, teacher))
    return (here - there).square().sum(1).mean()


def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """How far the images of a batch are alike in other ways; features of any two shapes."""
    own, other = (functional.normalize(f.flatten(1) @ f.flatten(1).T) for f in (student, teacher))
    return (own - other).square().mean()


def relational(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber of the distances between images, in units of their mean, and of the cosines of the
    angles that three images make; features of any two shapes."""
    own, other = student.flatten(1), teacher.flatten(1)
    far = functional.smooth_l1_loss(_distances(own), _distances(other))
    return far + ANGLE * functional.smooth_l1_loss(_cosines(own), _cosines(other))


def _distances(points: Tensor) -> Tensor:
    """Distances (N, N) of points (N, C), divided by the mean of those above 0."""
    gap = (points[:, None] - points[None]).square().sum(2)
    apart = gap > 0
    # the root of 0 has no gradient: those stay 0 by themselves
    far = torch.where(apart, gap.where(apart, torch.ones_like(gap)).sqrt(), torch.zeros_like(gap))
    return far / (far.sum() / apart.sum().clamp(min=1)).clamp(min=EPSILON)


def _cosines(points: Tensor) -> Tensor:
    """(N, N, N): the cosine at image i between the directions to j and to k."""
    toward = functional.normalize(points[None] - points[:, None], dim=2)
    return toward @ toward.transpose(1, 2)
