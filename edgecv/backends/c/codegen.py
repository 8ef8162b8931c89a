"""Steps → C99 text: model.h, model.c, weights.h, golden.h, main.c, Makefile."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.backends.c import header, proof, recurrent, walked
from edgecv.backends.c.arena import plan, same
from edgecv.backends.c.network import Network, Step, Tensor
from edgecv.backends.c.text import literal, number, safe
from edgecv.backends.c.window import sides

KERNELS = tuple(
    Path(__file__).with_name(n) for n in ("kernels.c", "functions.c", "strided.c", "recurrent.c")
)
CTYPES = {"float32": "float", "int8": "int8_t", "int32": "int32_t", "uint8": "uint8_t",
          "uint32": "uint32_t"}  # fmt: skip
POINTERS = {"float": "float", "int8": "int8_t", "bits": "uint32_t"}
# kind -> blocks of kernels.c that it needs
NEEDS = {
    "conv_f32": ("shape", "conv_f32"), "conv_i8": ("shape", "fixed", "sum_i8", "conv_i8"),
    "conv_real": ("shape", "sum_i8", "conv_real"), "add_i8": ("fixed", "add_i8"),
    "sigmoid_f32": ("exp_f32", "sigmoid_f32"), "tanh_f32": ("exp_f32", "tanh_f32"),
    "powers_f32": ("exp_f32", "powers_f32"), "elu_f32": ("exp_f32", "elu_f32"),
    "erf_f32": ("exp_f32", "erf_f32"), "mish_f32": ("exp_f32", "mish_f32"),
    "logs_f32": ("log_f32", "logs_f32"), "softplus_f32": ("exp_f32", "log_f32", "softplus_f32"),
    "softmax_f32": ("exp_f32", "softmax_f32"), "pool_f32": ("shape", "pool_f32"),
    "pool_i8": ("shape", "fixed", "pool_i8"), "rescale_i8": ("fixed", "rescale_i8"),
    "quantize": ("fixed", "quantize"), "binarize": ("bits",),
    "conv_bits": ("shape", "conv_bits"), "same": (),
    "gelu_f32": ("exp_f32", "gelu_f32"), "gelu_tanh_f32": ("exp_f32", "gelu_tanh_f32"),
    "lrn_f32": ("exp_f32", "log_f32", "lrn_f32"),
    **{k: ("floor_f32", k) for k in ("floors_f32", "ceils_f32", "rounds_f32")},
}  # fmt: skip
AFTER = ("scale", "bias", "before", "slope", "after", "border", "least", "flip")
PRECISION = {"conv_f32": "fp32", "conv_i8": "int8", "conv_real": "int8", "conv_bits": "binary"}


def files(
    network: Network, golden: tuple[np.ndarray, np.ndarray], name: str, *outputs: str
) -> dict[str, str]:
    """file name -> text, the model first. golden: inputs and outputs, float32 (n, values), of
    several one behind the other; outputs: what the graph calls them"""
    writer = _Writer(network)
    body = writer.body()
    return {
        "model.c": _model(network, body, outputs),
        "model.h": header.header(name, network, writer.arena, writer.flash, outputs),
        "weights.h": writer.weights(),
        "golden.h": proof.golden_header(golden, exact=_exact(network)),
        "main.c": proof.main(network),
        "Makefile": proof.MAKEFILE,
    }


def flash_bytes(network: Network) -> int:
    """Bytes of constants."""
    return sum(v.nbytes for s in network.steps for v in s.constants.values())


class _Writer:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.places, self.arena = plan(network)
        self.home = same(network)
        self.flash = flash_bytes(network)
        self.arrays: list[str] = []

    def weights(self) -> str:
        return "/* Constants of the network. */\n" + "\n".join(self.arrays) + "\n"

    def body(self) -> str:
        return "\n".join(
            line for i, step in enumerate(self.network.steps) if step.kind != "same"
            for line in self._call(i, step)
        )  # fmt: skip

    def _call(self, i: int, s: Step) -> list[str]:
        calls = self.network.calls(s)
        ins = [self._pointer(n, True, calls) for n in s.inputs]
        outs = [self._pointer(n, False, calls) for n in s.outputs]
        held = {role: self._array(i, role, v) for role, v in s.constants.items()}
        lines = [f"    /* {safe(s.layer or s.kind)} */"]
        if calls > 1:
            lines.append(f"    for (int n = 0; n < {calls}; n++) {{")
        lines += self._kernel(s, ins, outs, held, calls)
        return [*lines, "    }"] if calls > 1 else lines

    def _kernel(self, s: Step, ins: list[str], outs: list[str], held: dict[str, str],
                calls: int) -> list[str]:  # fmt: skip
        """One call, of all images or of image n. ins, outs: pointers; held: arrays by role"""
        tensors = self.network.tensors
        x, y, a = tensors[s.inputs[0]], tensors[s.outputs[0]], s.about
        lines: list[str] = []
        if s.kind in recurrent.NEEDS:
            return recurrent.calls(s, ins, held, outs)
        if walked.is_walked(s):
            return walked.calls(s, ins, held, outs[0], y.dtype)
        pixels = x.shape[0] * x.shape[1] // calls

        def call(*arguments: Any, name: str = s.kind) -> None:
            lines.append(f"    {name}({', '.join(map(number, arguments))});")

        if s.kind in ("conv_f32", "conv_i8", "conv_real", "conv_bits", "pool_f32", "pool_i8"):
            lines.append(f"    {{ static const shape_t s = {_shape(x, y, a)};")
        if s.kind == "conv_f32":
            call(ins[0], held["w"], held["b"], outs[0], "&s", a["low"], a["high"])
        elif s.kind == "conv_i8":
            call(ins[0], held["w"], held["b"], held["m"], held["shift"], outs[0], "&s", a["x_zero"],
                 a["y_zero"], a["low"], a["high"])  # fmt: skip
        elif s.kind == "conv_real":
            call(ins[0], held["w"], held["b"], held["scale"], outs[0], "&s", a["x_zero"])
        elif s.kind == "conv_bits":
            fields = ", ".join(f".{role} = {held[role]}" for role in AFTER if role in held)
            lines.append(f"    static const after_t a = {{{fields}}};")
            real, bits = (
                ("NULL", outs[0]) if "real" not in a else (outs[0], (outs[1:] or ["NULL"])[0])
            )
            added = [*ins[1:], "NULL", "NULL"][:2]
            call(ins[0], held["w"], held.get("mask", "NULL"), "&s", "&a", *added, real, bits)
        elif s.kind == "pool_f32":
            call(ins[0], outs[0], "&s", a["largest"], a["whole"])
        elif s.kind == "pool_i8":
            call(ins[0], outs[0], "&s", a["largest"], a["whole"], a["x_zero"], a["m"], a["shift"],
                 a["y_zero"])  # fmt: skip
        elif s.kind == "add_f32":
            call(*ins, outs[0], a["n"], a["low"], a["high"])
        elif s.kind == "add_i8":
            call(*ins, outs[0], a["n"], a["a_zero"], a["b_zero"], a["a_m"], a["b_m"], a["shift"],
                 a["y_zero"], a["low"], a["high"])  # fmt: skip
        elif s.kind == "clamp_f32":
            call(ins[0], outs[0], x.values, a["low"], a["high"])
        elif s.kind == "affine_f32":
            call(
                ins[0],
                outs[0],
                pixels,
                x.shape[2],
                held.get("scale", "NULL"),
                held.get("bias", "NULL"),
            )
        elif s.kind == "prelu_f32":
            call(ins[0], outs[0], pixels, x.shape[2], held["slope"])
        elif s.kind == "hardsigmoid_f32":
            call(ins[0], outs[0], x.values, float(a["slope"]), float(a["bias"]))
        elif s.kind == "lrn_f32":
            more = (float(a[n]) for n in ("alpha", "beta", "bias"))
            call(ins[0], outs[0], pixels, x.shape[2], a["size"], *more)
        elif s.kind == "threshold_f32":
            call(ins[0], outs[0], x.values, float(a["alpha"]))
        elif s.kind == "elu_f32":
            call(ins[0], outs[0], x.values, *(float(a[n]) for n in ("above", "below", "inside")))
        elif s.kind == "gate_f32":
            call(*ins, outs[0], pixels, x.shape[2], a["each"])
        elif s.kind in ("gather_f32", "gather_i8"):
            fill = float(a["fill"]) if s.kind == "gather_f32" else int(a["fill"])
            call(ins[0], outs[0], y.values, held["at"], fill)
        elif s.kind == "lut_i8":
            call(ins[0], outs[0], x.values, held["table"])
        elif s.kind == "rescale_i8":
            call(ins[0], outs[0], x.values, a["x_zero"], a["m"], a["shift"], a["y_zero"])
        elif s.kind in ("quantize", "dequantize"):
            call(ins[0], outs[0], x.values, float(a["scale"]), a["zero"])
        elif s.kind == "binarize":
            call(ins[0], outs[0], pixels, x.shape[2], held["least"], held["flip"])
        elif s.kind == "spread":
            call(ins[0], outs[0], *x.one, *a["stride"], 1 if y.dtype == "int8" else 4, a["fill"])
        elif s.kind == "layernorm_f32":
            call(ins[0], outs[0], pixels, x.shape[2], held["scale"], held.get("bias", "NULL"),
                 float(a["epsilon"]))  # fmt: skip
        elif s.kind == "halve":
            call(ins[0], outs[0], *x.one, y.shape[2])
        elif s.kind == "join":
            first, size = 0, 1 if y.dtype == "int8" else 4
            for name, pointer in zip(s.inputs, ins, strict=True):
                part = tensors[name]
                call(pointer, outs[0], pixels, part.shape[2], first, y.shape[2], size)
                first += part.shape[2]
        else:
            call(ins[0], outs[0], x.values)
        if lines[0].startswith("    { "):
            lines[-1] += " }"
        return lines

    def _pointer(self, name: str, reads: bool, calls: int) -> str:
        """Where a tensor lies; what of it call n is about."""
        each = f" + n * {self.network.tensors[name].values // calls}" if calls > 1 else ""
        return self._place(name, reads) + each

    def _place(self, name: str, reads: bool) -> str:
        own = self.home.get(name, name)
        kind = POINTERS[self.network.tensors[name].dtype]
        given = zip(self.network.sources, header.pointers(self.network), strict=True)
        for source, pointer in given:
            if own == self.home.get(source, source):
                return pointer
        begin = 0
        for result in self.network.results:
            if own == self.home.get(result, result):
                return f"output + {begin}" if begin else "output"
            begin += self.network.tensors[result].values
        const = "const " if reads else ""
        return f"({const}{kind} *)(arena + {self.places[own]})"

    def _array(self, i: int, role: str, value: np.ndarray) -> str:
        name = f"w{i}_{role}"
        flat = np.ascontiguousarray(value).reshape(-1)
        kind = CTYPES[flat.dtype.name]
        items = [number(v) for v in flat.tolist()] if kind == "float" else [
            f"{v}u" if kind == "uint32_t" else str(v) for v in flat.tolist()]  # fmt: skip
        rows = [", ".join(items[k : k + 16]) for k in range(0, len(items), 16)]
        self.arrays.append(
            f"static const {kind} {name}[{flat.size}] = {{\n" + ",\n".join(rows) + "};"
        )
        return name


def _shape(x: Tensor, y: Tensor, a: dict[str, Any]) -> str:
    numbers = (*x.one, *sides(x.one, a), y.shape[2], *a["kernel"], *a["stride"],
               *a["dilation"], *a["pads"][:2], a["groups"])  # fmt: skip
    return "{" + ", ".join(map(str, numbers)) + "}"


def _exact(network: Network) -> bool:
    """Whether outputs are the same bits everywhere: integers and bits to the end."""
    kinds = {s.kind for s in network.steps}
    return kinds <= {"quantize", "conv_i8", "conv_real", "add_i8", "pool_i8", "join", "rescale_i8",
                     "lut_i8", "same", "spread", "dequantize", "binarize", "conv_bits",
                     "halve", "copy", "stack"}  # fmt: skip


def _blocks(network: Network, step: Step) -> tuple[str, ...]:
    if walked.is_walked(step):
        return walked.needs(step, network.tensors[step.outputs[0]].dtype)
    return {**NEEDS, **recurrent.NEEDS}.get(step.kind, (step.kind,))


def kernels(network: Network) -> str:
    """The blocks of KERNELS that the network needs, in their order."""
    text = "".join(path.read_text() for path in KERNELS)
    blocks = re.split(r"^/// (\w+)\n", text, flags=re.M)
    wanted = {b for s in network.steps for b in _blocks(network, s)}
    return "\n".join(
        text.rstrip() + "\n" for name, text in zip(blocks[1::2], blocks[2::2], strict=True)
        if name in wanted
    )  # fmt: skip


def _model(network: Network, body: str, outputs: tuple[str, ...]) -> str:
    table = "\\n".join(
        f"{PRECISION[s.kind]} {safe(s.layer)}" for s in network.steps if s.kind in PRECISION
    )
    high, wide, channels = network.tensors[network.result].shape
    return (
        '#include "model.h"\n\n#include <string.h>\n\n#include "weights.h"\n\n'
        f"{kernels(network)}\n"
        f'const char model_steps[] = "{table}";\n'
        f'const char model_input[] = "{literal(next(iter(network.taken), network.source))}", '
        f'model_output[] = "{literal(outputs[0])}";\n'
        f"const int model_dims[] = {header.dims(network)};\n"
        f"const int model_map[] = {{{high}, {wide}, {channels}}};\n"
        f"{header.definitions(network, outputs)}\n"
        f"{header.signature(network)} {{\n"
        "    unsigned char *const arena = memory;\n    (void)arena;\n"
        f"{_unread(network)}{body}\n}}\n"
    )


def _unread(network: Network) -> str:
    """Of inputs that no step reads."""
    home = same(network)
    read = {home.get(n, n) for s in network.steps if s.kind != "same" for n in s.inputs}
    given = zip(header.pointers(network), network.sources, strict=True)
    return "".join(f"    (void){p};\n" for p, n in given if home.get(n, n) not in read)
