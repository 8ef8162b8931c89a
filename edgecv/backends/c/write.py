"""Steps → C99 text: model.h, model.c, weights.h, golden.h, main.c, Makefile."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.backends.c import recurrent, walked
from edgecv.backends.c.network import Network, Step, Tensor
from edgecv.backends.c.plan import plan, same

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
    """file name -> text, the model first. golden: inputs (n, h, w, c) and outputs (n, classes),
    float32 (of several outputs one behind the other); outputs: what the graph calls them"""
    writer = _Writer(network)
    body = writer.body()
    source = network.tensors[network.source]
    return {
        "model.c": _model(network, body, outputs),
        "model.h": _header(name, network, source, writer.arena, writer.flash, outputs),
        "weights.h": writer.weights(),
        "golden.h": _golden(golden, exact=_exact(network)),
        "main.c": MAIN,
        "Makefile": MAKEFILE,
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
        tensors = self.network.tensors
        ins = [self._pointer(n, True) for n in s.inputs]
        outs = [self._pointer(n, False) for n in s.outputs]
        held = {role: self._array(i, role, v) for role, v in s.constants.items()}
        x, y, a = tensors[s.inputs[0]], tensors[s.outputs[0]], s.about
        lines = [f"    /* {_safe(s.layer or s.kind)} */"]
        if s.kind in recurrent.NEEDS:
            return [*lines, *recurrent.calls(s, ins, held, outs)]
        if walked.is_walked(s):
            return [*lines, *walked.calls(s, ins, held, outs[0], y.dtype)]
        pixels = x.shape[0] * x.shape[1]

        def call(*arguments: Any, name: str = s.kind) -> None:
            lines.append(f"    {name}({', '.join(map(_text, arguments))});")

        if s.kind in ("conv_f32", "conv_i8", "conv_real", "conv_bits", "pool_f32", "pool_i8"):
            lines.insert(1, f"    {{ static const shape_t s = {_shape(x, y, a)};")
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
            call(ins[0], outs[0], *x.shape, *a["stride"], 1 if y.dtype == "int8" else 4, a["fill"])
        elif s.kind == "layernorm_f32":
            call(ins[0], outs[0], pixels, x.shape[2], held["scale"], held.get("bias", "NULL"),
                 float(a["epsilon"]))  # fmt: skip
        elif s.kind == "halve":
            call(ins[0], outs[0], x.shape[0], x.shape[1], x.shape[2], y.shape[2])
        elif s.kind == "join":
            first, size = 0, 1 if y.dtype == "int8" else 4
            for name, pointer in zip(s.inputs, ins, strict=True):
                part = tensors[name]
                call(pointer, outs[0], pixels, part.shape[2], first, y.shape[2], size)
                first += part.shape[2]
        else:
            call(ins[0], outs[0], x.values)
        if lines[1].startswith("    { "):
            lines[-1] += " }"
        return lines

    def _pointer(self, name: str, reads: bool) -> str:
        own = self.home.get(name, name)
        kind = POINTERS[self.network.tensors[name].dtype]
        if own == self.home.get(self.network.source, self.network.source):
            return "input"
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
        items = [_text(v) for v in flat.tolist()] if kind == "float" else [
            f"{v}u" if kind == "uint32_t" else str(v) for v in flat.tolist()]  # fmt: skip
        rows = [", ".join(items[k : k + 16]) for k in range(0, len(items), 16)]
        self.arrays.append(
            f"static const {kind} {name}[{flat.size}] = {{\n" + ",\n".join(rows) + "};"
        )
        return name


def _shape(x: Tensor, y: Tensor, a: dict[str, Any]) -> str:
    numbers = (*x.shape, y.shape[0], y.shape[1], y.shape[2], *a["kernel"], *a["stride"],
               *a["dilation"], *a["pads"][:2], a["groups"])  # fmt: skip
    return "{" + ", ".join(map(str, numbers)) + "}"


def _text(value: Any) -> str:
    """A number or a name in C."""
    if isinstance(value, (float, np.floating)):
        if np.isinf(value):
            return "3.402823466e+38f" if value > 0 else "-3.402823466e+38f"
        text = f"{np.float32(value):.9g}"
        return f"{text}f" if any(c in text for c in ".en") else f"{text}.0f"
    if isinstance(value, (int, np.integer)):
        return f"({value})" if value < 0 else str(value)
    return str(value)


def _safe(text: str) -> str:
    return re.sub(r"[^\w ./:-]", "_", text)


def _literal(name: str) -> str:
    """A tensor's own name inside a C string: it is how a bundle calls what it gives."""
    return "".join(c if _safe(c) == c else "".join(f"\\{b:03o}" for b in c.encode())
                   for c in name)  # fmt: skip


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
        f"{PRECISION[s.kind]} {_safe(s.layer)}" for s in network.steps if s.kind in PRECISION
    )
    high, wide, channels = network.tensors[network.result].shape
    return (
        '#include "model.h"\n\n#include <string.h>\n\n#include "weights.h"\n\n'
        f"{kernels(network)}\n"
        f'const char model_steps[] = "{table}";\n'
        f'const char model_input[] = "{_literal(network.source)}", '
        f'model_output[] = "{_literal(outputs[0])}";\n'
        "const int model_dims[] = {MODEL_HEIGHT, MODEL_WIDTH, MODEL_CHANNELS, MODEL_OUTPUTS, "
        "MODEL_ARENA};\n"
        f"const int model_map[] = {{{high}, {wide}, {channels}}};\n"
        f"{_shapes(network, outputs)}\n"
        "void model_run(const float *input, float *output, void *memory) {\n"
        "    unsigned char *const arena = memory;\n    (void)arena;\n" + body + "\n}\n"
    )


def shape_lines(network: Network, outputs: tuple[str, ...]) -> list[str]:
    """Layout, shape and name of each output of a network that says shapes."""
    rows = []
    for name, tensor, shape in zip(outputs, network.results, network.shapes, strict=True):
        last = len(shape) == 4 and shape[0] == 1 and not network.tensors[tensor].last
        order = "NHWC" if last else "NC"
        shape = (1, *shape[2:], shape[1]) if last else shape
        rows.append(f"{order} {','.join(map(str, shape))} {name}")
    return rows


def _shapes(network: Network, outputs: tuple[str, ...]) -> str:
    """What `run.py` reads where the outputs are not one image or one row."""
    if not network.shapes:
        return ""
    lines = "\\n".join(map(_literal, shape_lines(network, outputs)))
    return f'const char model_shapes[] = "{lines}";\n'


def _header(name: str, network: Network, source: Tensor, arena: int, flash: int,
            outputs: tuple[str, ...]) -> str:  # fmt: skip
    high, wide, channels = source.shape
    sizes = [network.tensors[n].values for n in network.results]
    where = ", ".join(f"{_safe(n)} ({v})" for n, v in zip(outputs, sizes, strict=True))
    given = "output: MODEL_OUTPUTS floats"
    if len(sizes) > 1:
        given += f",\n   one output behind the other: {where}"
    declared = (
        "\n/* Each output: layout, shape, name. */\nextern const char model_shapes[];\n"
        if network.shapes else ""
    )  # fmt: skip
    return f"""/* {_safe(name)}: written by edgecv. */
#ifndef MODEL_H
#define MODEL_H

#include <stdint.h>

#define MODEL_HEIGHT {high}
#define MODEL_WIDTH {wide}
#define MODEL_CHANNELS {channels}
#define MODEL_OUTPUTS {sum(sizes)}
#define MODEL_ARENA {max(arena, 8)} /* bytes of memory that model_run needs */
#define MODEL_FLASH {flash} /* bytes of constants */

/* input: (height, width, channels), normalised as the manifest says; {given};
   memory: MODEL_ARENA bytes, 8-byte alignment. Input, output and memory may not overlap. */
void model_run(const float *input, float *output, void *memory);

/* What multiplies, in order: "int8 stem.0\\nbinary stage1.0.conv1\\n..." */
extern const char model_steps[];

/* The names of input and output; height, width, channels, outputs and bytes of memory; height,
   width and channels of the output. */
extern const char model_input[], model_output[];
extern const int model_dims[5], model_map[3];
{declared}
#endif
"""


def _golden(golden: tuple[np.ndarray, np.ndarray], exact: bool) -> str:
    inputs, outputs = (np.asarray(v, np.float32).reshape(len(v), -1) for v in golden)

    def array(name: str, values: np.ndarray) -> str:
        rows = (", ".join(map(_text, row.tolist())) for row in values)
        return (
            f"static const float {name}[{len(values)}][{values.shape[1]}] = {{\n{{"
            + "},\n{".join(rows) + "}};\n"
        )  # fmt: skip

    return (
        "/* Inputs, and what they have to give. */\n"
        f"#define GOLDEN_COUNT {len(inputs)}\n#define GOLDEN_EXACT {int(exact)}\n"
        + array("golden_inputs", inputs) + array("golden_outputs", outputs)
    )  # fmt: skip


MAIN = """/* Runs the golden inputs: an example of the call, and a proof on the device. */
#include <stdio.h>

#include "golden.h"
#include "model.h"

static union {
    double alignment;
    unsigned char bytes[MODEL_ARENA];
} arena;

int main(void) {
    float output[MODEL_OUTPUTS];
    int equal = 0;
    printf("arena %d bytes, constants %d bytes\\n", MODEL_ARENA, MODEL_FLASH);
    for (int i = 0; i < GOLDEN_COUNT; i++) {
        int good = 1;
        model_run(golden_inputs[i], output, arena.bytes);
        for (int k = 0; k < MODEL_OUTPUTS; k++) {
            const float wanted = golden_outputs[i][k];
            const float off = output[k] > wanted ? output[k] - wanted : wanted - output[k];
            const float size = wanted < 0 ? -wanted : wanted;
            if (GOLDEN_EXACT ? output[k] != wanted : !(off <= 1e-3f * (1.0f + size))) good = 0;
        }
        equal += good;
    }
    printf("golden %d of %d %s\\n", equal, GOLDEN_COUNT, GOLDEN_EXACT ? "equal" : "within 1e-3");
    return equal != GOLDEN_COUNT;
}
"""

MAKEFILE = """# make check: run the golden vectors. CC=arm-none-eabi-gcc CFLAGS="..." make size
# -ffp-contract=off: a fused multiply-add rounds otherwise than what the golden vectors are made of
CFLAGS ?= -O2
FLAGS = -std=c99 -Wall -Wextra -ffp-contract=off

check: model_test
\t./model_test

# made anew each time: CC may be another than the last
model_test: main.c model.o golden.h model.h
\t$(CC) $(CFLAGS) $(FLAGS) main.c model.o -o $@

model.o: model.c model.h weights.h
\t$(CC) $(CFLAGS) $(FLAGS) -c model.c -o $@

size: model.o
\tsize model.o

clean:
\trm -f model.o model_test

.PHONY: check size clean model_test model.o
"""
