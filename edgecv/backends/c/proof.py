"""golden.h, main.c and Makefile: what a device shows that it computes what it should."""

from __future__ import annotations

import numpy as np

from edgecv.backends.c.network import Network
from edgecv.backends.c.text import number


def golden_header(golden: tuple[np.ndarray, np.ndarray], exact: bool) -> str:
    inputs, outputs = (np.asarray(v, np.float32).reshape(len(v), -1) for v in golden)

    def array(name: str, values: np.ndarray) -> str:
        rows = (", ".join(map(number, row.tolist())) for row in values)
        return (
            f"static const float {name}[{len(values)}][{values.shape[1]}] = {{\n{{"
            + "},\n{".join(rows) + "}};\n"
        )  # fmt: skip

    return (
        "/* Inputs, and what they have to give. */\n"
        f"#define GOLDEN_COUNT {len(inputs)}\n#define GOLDEN_EXACT {int(exact)}\n"
        + array("golden_inputs", inputs) + array("golden_outputs", outputs)
    )  # fmt: skip


def main(network: Network) -> str:
    """main.c; the golden inputs of one call lie one behind the other."""
    places, begin = list[str](), 0
    for source in network.sources:
        places.append("golden_inputs[i]" + (f" + {begin}" if begin else ""))
        begin += network.tensors[source].values
    return MAIN.replace("GIVEN", ", ".join(places))


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
        model_run(GIVEN, output, arena.bytes);
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
