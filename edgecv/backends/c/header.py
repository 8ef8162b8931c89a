"""model.h: what a caller of the generated code sees, and the tables that `run.py` reads of it.

One image is `input`, the images of a batch lie in it one behind the other; each of several inputs
has a pointer of its own, in the graph's order: `input0`, `input1`.
"""

from __future__ import annotations

from edgecv.backends.c.network import Network
from edgecv.backends.c.text import literal, safe
from edgecv.runtime.spec import TensorSpec, image_of

TABLES = {  # name: (what a comment says of it, whether the network has one)
    "model_inputs": "Each input: layout, shape, name.",
    "model_shapes": "Each output: layout, shape, name.",
}


def pointers(network: Network) -> list[str]:
    """What model_run calls its inputs."""
    count = len(network.sources)
    return [f"input{k}" for k in range(count)] if count > 1 else ["input"]


def signature(network: Network) -> str:
    """model_run's own."""
    inputs = ", ".join(f"const float *{p}" for p in pointers(network))
    return f"void model_run({inputs}, float *output, void *memory)"


def tables(network: Network, outputs: tuple[str, ...]) -> dict[str, list[str]]:
    """Lines by table, where an input is not one image, or the outputs not one image or one row."""
    found = {}
    if network.taken:
        found["model_inputs"] = _lines(network, network.sources, network.taken)
    if network.shapes:
        shapes = dict(zip(outputs, network.shapes, strict=True))
        found["model_shapes"] = _lines(network, network.results, shapes)
    return found


def definitions(network: Network, outputs: tuple[str, ...]) -> str:
    """The tables in model.c."""
    lines = {n: "\\n".join(map(literal, rows)) for n, rows in tables(network, outputs).items()}
    return "".join(f'const char {name}[] = "{text}";\n' for name, text in lines.items())


def header(name: str, network: Network, arena: int, flash: int, outputs: tuple[str, ...]) -> str:
    """The text of model.h. arena, flash: bytes"""
    total = sum(network.tensors[n].values for n in network.results)
    declared = "".join(
        f"\n/* {TABLES[table]} */\nextern const char {table}[];\n"
        for table in tables(network, outputs)
    )
    return f"""/* {safe(name)}: written by edgecv. */
#ifndef MODEL_H
#define MODEL_H

#include <stdint.h>

{_sizes(network)}
#define MODEL_OUTPUTS {total}
#define MODEL_ARENA {max(arena, 8)} /* bytes of memory that model_run needs */
#define MODEL_FLASH {flash} /* bytes of constants */

/* {_taken(network)}; {_given(network, outputs)};
   memory: MODEL_ARENA bytes, 8-byte alignment. Input, output and memory may not overlap. */
{signature(network)};

/* What multiplies, in order: "int8 stem.0\\nbinary stage1.0.conv1\\n..." */
extern const char model_steps[];

/* The names of input and output; height, width, channels, outputs and bytes of memory; height,
   width and channels of the output. */
extern const char model_input[], model_output[];
extern const int model_dims[5], model_map[3];
{declared}
#endif
"""


def dims(network: Network) -> str:
    """What model_dims holds; zeros where `model_inputs` tells of no image alone."""
    sides = "MODEL_HEIGHT, MODEL_WIDTH, MODEL_CHANNELS" if _one_image(network) else "0, 0, 0"
    return f"{{{sides}, MODEL_OUTPUTS, MODEL_ARENA}}"


def _lines(network: Network, tensors: list[str], shapes: dict[str, tuple[int, ...]]) -> list[str]:
    rows = []
    for (name, shape), tensor in zip(shapes.items(), tensors, strict=True):
        layout, shape = _laid(network, tensor, shape)
        rows.append(f"{layout} {','.join(map(str, shape))} {name}")
    return rows


def _laid(network: Network, tensor: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """(layout, shape as it lies) of a tensor with that shape in ONNX."""
    x = network.tensors[tensor]
    if len(shape) == 4 and not x.last and (x.images, *x.one) == (shape[0], *shape[2:], shape[1]):
        return "NHWC", (x.images, *x.one)
    return "NC", shape


def _one_image(network: Network) -> bool:
    """Whether the images of one input are all that is taken."""
    return len(network.sources) == 1 and all(len(s) == 4 for s in network.taken.values())


def _sizes(network: Network) -> str:
    """The macros of the inputs."""
    if not _one_image(network):
        given = zip(pointers(network), network.sources, network.taken, strict=True)
        return "\n".join(
            f"#define MODEL_{p.upper()} {network.tensors[t].values} /* floats of {safe(n)} */"
            for p, t, n in given
        )
    x = network.tensors[network.source]
    high, wide, channels = x.one
    sizes = {"BATCH": x.images} if x.images > 1 else {}
    sizes |= {"HEIGHT": high, "WIDTH": wide, "CHANNELS": channels}
    return "\n".join(f"#define MODEL_{name} {size}" for name, size in sizes.items())


def _taken(network: Network) -> str:
    """What the comment says of the inputs."""
    if _one_image(network):
        batch = "MODEL_BATCH, " if network.taken else ""
        return f"input: ({batch}height, width, channels), normalised as the manifest says"
    given = list(zip(pointers(network), network.sources, network.taken.items(), strict=True))
    specs = []
    for _, tensor, (name, shape) in given:
        layout, sizes = _laid(network, tensor, shape)
        specs.append(TensorSpec(name, "float32", sizes, layout))
    image, said = image_of(specs), []
    for (pointer, *_), spec in zip(given, specs, strict=True):
        last = ", channels last" if spec.layout == "NHWC" else ""
        how = ", normalised as the manifest says" if spec is image else ", taken as it is"
        how = how if image else ""
        said.append(f"{pointer}: {safe(spec.name)} {spec.shape}{last}{how}")
    return ";\n   ".join(said)


def _given(network: Network, outputs: tuple[str, ...]) -> str:
    """What the comment says of the outputs: how many floats; of four axes, which way they lie."""
    said = "output: MODEL_OUTPUTS floats"
    lie = [_axes(network, k) for k in range(len(network.results))]
    if len(outputs) == 1:
        return said + (f", {lie[0]}" if lie[0] else "")
    sizes = [network.tensors[n].values for n in network.results]
    places = (
        f"{safe(name)} ({size}{': ' + axes if axes else ''})"
        for name, size, axes in zip(outputs, sizes, lie, strict=True)
    )
    return f"{said},\n   one output behind the other: {', '.join(places)}"


def _axes(network: Network, at: int) -> str:
    """The axes of an output of four; "" of others, and of a row of classes (1, C, 1, 1)."""
    x = network.tensors[network.results[at]]
    if network.shapes:
        shape = network.shapes[at]
    elif x.values == x.one[2]:
        return ""
    else:
        shape = (1, x.one[2], *x.one[:2])
    if len(shape) != 4:
        return ""
    layout, sizes = _laid(network, network.results[at], shape)
    return f"{sizes}, {'channels last' if layout == 'NHWC' else 'as in ONNX'}"
