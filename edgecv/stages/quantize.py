"""q = clip(round(x / s) + z), x ≈ s (q - z): weights and activations become 8-bit integers.

Post-training: s and z come from the ranges seen on calibration images (Jacob et al., CVPR 2018).
Every engine gets the grid it runs fast and exactly, taken from the target's profile: u8 activations
and per-channel s8 weights on x86, symmetric s8 for TensorRT, full-integer for TFLite.

Pitfalls: calibration images must look like the ones on the device; a range set by one outlier costs
bits everywhere. The result's outputs are compared with the float graph's on images that were not
used for calibration.

In edgecv/methods/quantize/ onnx_qdq.py and tflite_int8.py hold the two quantizers, nncf.py
OpenVINO's own (`engine: nncf`, for OpenVINO targets; nncf_ir.py of a user's IR), search.py the
search under limits.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from edgecv.backends import every, facts
from edgecv.context import Context, Verdict
from edgecv.methods.quantize.options import (
    DEFAULT,
    NNCF_ALONE,
    Calibration,
    Engine,
    Options,
    Preset,
    Reconstruction,
    Rounding,
    Sensitivity,
    for_nncf,
    without,
)
from edgecv.stages.base import Limited
from edgecv.target import Target


class Quantize(Limited):
    """Post-training quantization on the target's own integer grid.

    With limits it searches for the settings that meet them (`search.py`); settings that are given
    stay as they are.
    """

    word: ClassVar[str] = "quantize"
    produces: ClassVar[Literal["model", "graph"]] = "graph"
    per_target: ClassVar[bool] = True
    compresses: ClassVar[bool] = True
    splits: ClassVar[tuple[str, ...]] = ("train",)

    precision: Literal["int8", "fp16", "bf16"] = Field(
        default="int8",
        description="fp16: weights alone, for their size (TensorRT computes in it); bf16: computed "
        "in it by OpenVINO on processors that have it, the file stays float32",
    )
    samples: int = Field(default=256, ge=1, description="calibration images, from data.train")
    calibration: Calibration = Field(
        default=DEFAULT.calibration,
        description="how an activation's range is chosen from what it held on those images",
    )
    rounding: Rounding = Field(
        default=DEFAULT.rounding,
        description="how weights become integers: nearest, or by what their layer's inputs hold",
    )
    bias_correction: bool = Field(
        default=DEFAULT.bias_correction,
        description="put the mean error of a layer's rounded weights into its bias",
    )
    equalization: bool = Field(
        default=DEFAULT.equalization,
        description="even out the channels of neighbouring layers first",
    )
    reconstruction: Reconstruction = Field(
        default=DEFAULT.reconstruction,
        description="tune the integer network by the float one's outputs: minutes",
    )
    weight_bits: Literal[4, 8] = Field(
        default=DEFAULT.weight_bits,
        description="8, or 4: 15 levels, kept in int8 (smaller when compressed, not faster)",
    )
    keep_float: tuple[str, ...] = Field(
        default=DEFAULT.keep_float,
        description="layers that stay float, by the names of `edgecv bench --profile`",
    )
    engine: Engine = Field(
        default=DEFAULT.engine,
        description="whose quantizer; nncf: OpenVINO's own, for its targets (extra `nncf`), where "
        "calibration is minmax (default) or mse and rounding nearest; the only one of OpenVINO IR",
    )
    preset: Preset = Field(
        default=DEFAULT.preset,
        description="nncf: activations with a zero point (mixed) or symmetric (performance)",
    )
    smooth_quant: bool = Field(
        default=DEFAULT.smooth_quant,
        description="nncf: even out what matrix products of a transformer read (SmoothQuant)",
    )
    fast_bias_correction: bool = Field(
        default=DEFAULT.fast_bias_correction,
        description="nncf: false corrects layer behind layer, some three times as long",
    )
    sensitivity: Sensitivity = Field(
        default="noise",
        description="where a search looks for layers to keep float: noise of each rounded tensor, "
        "run one by one; or hessian: by gradients, seconds instead of minutes",
    )
    min_sqnr_db: float = Field(
        default=6.0,
        description="fail below this signal-to-noise ratio; where it is not set, what serves a "
        "detector's or a segmentation network's task well passes",
    )
    min_agreement: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="fail below this top-1 agreement with the float graph, where its best class "
        "is clear",
    )

    @model_validator(mode="after")
    def _of_one_engine(self) -> Self:
        alone = [name for name in NNCF_ALONE if name in self.model_fields_set]
        if alone and self.engine != "nncf":
            raise ValueError(f"{', '.join(alone)}: of engine nncf alone")
        if missing := without(self.options()):
            raise ValueError(missing)
        if self.engine == "nncf" and self.precision != "int8":
            raise ValueError(f"engine nncf makes int8, not {self.precision}")
        return self

    def target_key(self, target: Target) -> dict[str, Any]:
        """What of the target changes the result: shared by all with the same grid."""
        if self.precision != "int8":
            return {"graph": target.graph, "compute": _computes_half(target)}
        key = {"graph": target.graph, "grid": target.grid.model_dump(), "io": target.io}
        said = facts(target.backend)
        whole = {"fused": list(said.fused), "tables": list(said.tables)}
        return key | {name: kinds for name, kinds in whole.items() if kinds}

    def check(self, target: Target) -> Verdict:
        """An engine that computes in integers only has no place for a layer kept float."""
        said = facts(target.backend)
        if self.engine != DEFAULT.engine and self.engine not in said.quantizers:
            whose = " and ".join(f.label for f in every().values() if self.engine in f.quantizers)
            return Verdict((f"engine {self.engine} quantizes for {whose} targets alone",))
        if self.keep_float and not said.floats:
            layers = ", ".join(self.keep_float)
            return Verdict((f"the {said.label} has no float kernels: keep_float {layers}",))
        return Verdict()

    def options(self) -> Options:
        """The knobs of the quantizers among this stage's parameters."""
        found = Options(**{f.name: getattr(self, f.name) for f in fields(Options)})
        return for_nncf(found, self.model_fields_set) if self.engine == "nncf" else found

    def run(self, source: Any, context: Context) -> None:
        """source: the float Graph of the target's format."""
        from edgecv.fidelity import INT8_ROUNDING, Tolerance

        tolerance = Tolerance(self.min_sqnr_db, self.min_agreement, INT8_ROUNDING)
        if source.precision == "int8":
            if self.precision != "int8":
                raise _has_integers(context)
            from edgecv.methods.quantize.already import keep

            keep(source, context, self.options(), bool(self.limits))
            return
        if self.precision != "int8":
            self._halve(source, context, tolerance)
            return
        start, fixed = self._start(source, context)
        if self.limits:
            _check_drop(source, self.limits, context)
            from edgecv.methods.quantize.search import search

            search(
                source, context, start, self.samples, tolerance, self.limits, fixed,
                self.sensitivity, self._strict,
            )  # fmt: skip
            return
        from edgecv.methods.quantize.quantizer import Quantizer

        quantizer = Quantizer(source, context, self.samples, strict=self._strict, fixed=fixed)
        quantizer.make(start, context.out, tolerance)

    @property
    def _strict(self) -> bool:
        """Whether the user says how near float the answers are to be."""
        return bool(self.model_fields_set & {"min_sqnr_db", "min_agreement"})

    def _start(self, source: Any, context: Context) -> tuple[Options, frozenset[str]]:
        """The quantizers' knobs, and those that stay as they are. Some formats have one quantizer
        (`ONLY` of for_<format>.py)."""
        from edgecv.methods.quantize.roads import road

        fixed = frozenset(self.model_fields_set)
        if self.engine == getattr(road(source.format), "ONLY", self.engine):
            return self.options(), fixed
        if "engine" in fixed:
            raise _no_quantizer(context)
        return for_nncf(self.options(), fixed), fixed | {"engine"}

    def _halve(self, source: Any, context: Context, tolerance: Any) -> None:
        from edgecv.bundling.inference import judged, plain_answers
        from edgecv.fidelity import check
        from edgecv.methods.quantize.half import brain, halve
        from edgecv.runtime.fidelity import kinds

        assert context.target is not None
        if self.precision == "bf16":
            brain(source, context.out)  # the same file: nothing to compare before it is compiled
            return
        graph = halve(source, context.out, _computes_half(context.target))
        images = context.images("train")
        pixels, named = judged(images.samples), kinds(source.outputs)
        before = plain_answers(source, pixels, context.preprocess)
        after = plain_answers(graph, pixels, context.preprocess, keep=True)
        where = f"quantize {context.where}"
        parity = check(where, before, after, tolerance, named, images.made_up, graph.bounds)
        graph.facts["parity"] = parity.to_json()
        graph.save_facts()


def _has_integers(context: Context) -> Exception:
    """A file that came quantized, and floats asked of it."""
    from edgecv.errors import ModelError

    what = "the file comes quantized, and no float is made of its integers"
    return ModelError(context.where, what, "precision: int8 keeps them, or bring the float file")


def _no_quantizer(context: Context) -> Exception:
    """Float IR, and our own integers asked of it."""
    from edgecv.errors import UnsupportedError

    what = "engine edgecv makes no int8 of OpenVINO IR"
    hint = "take engine nncf (--quantizer nncf), or bring the network as .onnx or PyTorch"
    return UnsupportedError(context.where, what, hint)


def _check_drop(source: Any, limits: Any, context: Context) -> None:
    """Raises RecipeError: a limit on accuracy, and a network that has none to lose, or images that
    do not tell what another task than classification loses."""
    from edgecv import tasks
    from edgecv.errors import RecipeError
    from edgecv.limits import unknown_drop
    from edgecv.runtime.fidelity import kinds

    if limits.accuracy_drop is None:
        return
    place = f"{context.where}: accuracy_drop"
    if not context.classifies:
        if context.images("test").kind not in tasks.task(str(context.task)).truths():
            raise unknown_drop(str(context.task), place, "data.test")
        return
    name, kind = next(iter(kinds(source.outputs).items()))
    if kind != "classes":
        what = f"output {name!r} {source.outputs[0].shape} has no best class whose loss would count"
        raise RecipeError(place, what, "limit sqnr_db, latency or size")


def _computes_half(target: Target) -> bool:
    """Whether the engine computes in fp16 where the file does, and faster so."""
    return facts(target.backend).half
