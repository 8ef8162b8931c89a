"""x̂ = s · clip(round(x / s), Qn, Qp), s ← s − lr ∂L/∂s: train with the integers that will run.

LSQ (Esser et al., ICLR 2020) learns the step s of every weight and activation with the weights;
PACT (Choi et al., 2018) learns the clip α = s Qp of the activations, with weight decay on it, and
leaves weights to LSQ. The float network that came in is the teacher:

    L = (1 − a) CE + a T² KL(softmax(z_float / T) ‖ softmax(z / T)) + m ‖z_float − z‖²

Quantized are the tensors that int8 engines hold as integers, on the first and the last layer with
8 bits. `export` writes the float network whose weights lie on the learned grid (a folded batch
norm makes it s |γ| / σ) and carries the ranges by tensor name; `quantize` takes them in place of
calibration and rounds nothing anew, so what was trained is what runs.

Pitfalls: for the last third batch norm and steps stand still (`freeze_bn`), or statistics of
rounded activations keep moving. LSQ scales gradients, which Adam does not feel: keep sgd. Engines
compute in 8 bits: weights of fewer bits are exact there and save bytes only when packed, no time;
activations of fewer bits run with 256 levels over the learned range, finer than they were trained
with, so the fake-quantized top-1 is a simulation, and `quantize` says so. A symmetric grid
(TensorRT) holds a range from 0 in 7 bits: activation_bits 7 is exact there.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from edgecv.context import Context
from edgecv.models.edits import Edit
from edgecv.stages.train import Training


class Qat(Training):
    """Quantization-aware training: the ranges are learned and travel into every engine's graph."""

    word: ClassVar[str] = "qat"
    compresses: ClassVar[bool] = True

    weight_bits: int = Field(default=8, ge=2, le=8, description="of all layers but first and last")
    activation_bits: int = Field(default=8, ge=2, le=8, description="of what such layers read")
    method: Literal["lsq", "pact"] = Field(default="lsq", description="how activations learn")
    epochs: int = Field(default=3, ge=1)
    lr: float | None = Field(
        default=None, gt=0, description="peak learning rate; default 0.01, and 0.001 for 8 bits"
    )
    optimizer: Literal["adamw", "sgd"] = "sgd"
    weight_decay: float = Field(default=1e-4, ge=0)
    freeze_bn: float = Field(
        default=0.67, ge=0, le=1, description="share of the epochs before batch norm and steps stop"
    )
    teacher: str = Field(default="self", description=Training.model_fields["teacher"].description)
    clip_decay: float = Field(default=1e-4, ge=0, description="weight decay of PACT's clips")
    samples: int = Field(default=256, ge=1, description="training images that the steps start from")

    def planned(self, step: str) -> Edit:
        return {"op": "quantizers", "step": step}

    def run(self, source: Any, context: Context) -> None:
        import torch

        from edgecv.bundling.inference import calibration_sample
        from edgecv.methods.qat.biases import settle
        from edgecv.methods.qat.initialisation import prepare
        from edgecv.methods.qat.training import DistillLoss, QuantizingTrainer
        from edgecv.methods.training.judging import judged

        model, module = source
        torch.set_num_threads(context.threads)
        images, test = context.images("train"), context.images("test")
        teacher = self.teaching(module, context, self.dense(module))
        facts: dict[str, Any] = context.accuracy(judged(module, test, context), "_float")
        pixels = calibration_sample(images.pixels, self.samples)
        sample = torch.from_numpy(context.preprocess.normalise(pixels))
        edit = prepare(module, sample, context.where, self.method,
                       self.weight_bits, self.activation_bits)  # fmt: skip
        facts |= context.accuracy(judged(module, test, context), "_before_training")
        distill_loss = DistillLoss(
            teacher, self.distill, self.temperature, self.logits_mse, self.clip_decay,
            freeze_from=round(self.freeze_bn * self.epochs),
        )  # fmt: skip
        few = min(self.weight_bits, self.activation_bits) < 8
        plan = self.plan(self.epochs, self.lr or (0.01 if few else 0.001))
        facts |= QuantizingTrainer(module, images, plan, context, distill_loss).fit()
        settle(module, edit)
        facts |= context.accuracy(judged(module, test, context))
        model.with_edit(edit).with_facts(context.where, facts).save(context.out, module.eval())
