/* Any processor: C11 and nothing else. Binary: popcount(a ^ w); ternary: popcount((a ^ w) & m). */
#include "layer.h"
#include "words.h"

#define PIXELS 1

static uint32_t ones(uint64_t v) {
    v -= v >> 1 & 0x5555555555555555u;
    v = (v & 0x3333333333333333u) + (v >> 2 & 0x3333333333333333u);
    v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (uint32_t)(v * 0x0101010101010101u >> 56);
}

/* weights: (TILE_FILTERS, steps) words, then the masks */
static void tile(const xnor_layer *l, const uint8_t *const pixel[PIXELS], const uint8_t *weights,
                 uint32_t pops[PIXELS][TILE_FILTERS]) {
    const uint64_t *w = (const uint64_t *)(const void *)weights;
    const uint64_t *m = w + (size_t)TILE_FILTERS * l->steps;
    for (int32_t f = 0; f < TILE_FILTERS; f++) {
        uint32_t sum = 0;
        for (int32_t i = 0; i < l->stretches; i++) {
            const uint64_t *a =
                (const uint64_t *)(const void *)pixel[0] + l->stretch[i].offset;
            const int32_t n = l->stretch[i].length;
            if (l->ternary) {
                for (int32_t k = 0; k < n; k++) sum += ones((a[k] ^ *w++) & *m++);
            } else {
                for (int32_t k = 0; k < n; k++) sum += ones(a[k] ^ *w++);
            }
        }
        pops[0][f] = sum;
    }
}

static size_t arranged(const xnor_layer *l) {
    return (size_t)TILE_FILTERS * l->steps * 8 * (l->ternary ? 2 : 1);
}

static void arrange(const xnor_layer *l, const uint64_t *weights, const uint64_t *mask,
                    uint8_t *into) {
    const size_t bytes = (size_t)TILE_FILTERS * l->steps * 8;
    memcpy(into, weights, bytes);
    if (mask) memcpy(into + bytes, mask, bytes);
}

static int here(void) { return 1; }

#include "convolve.h"

const xnor_set xnor_portable = {"portable", 64, 8, PIXELS, expand_words, arrange, arranged, run, pack, here};
