/* NEON: a byte-wise popcount, added to 16-bit sums in pairs; 128 bits of four pixels at a time. */
#include <arm_neon.h>

#include "layer.h"
#include "words.h"

#define PIXELS 4

static inline uint32_t total(uint16x8_t v) {
#if defined(__aarch64__)
    return vaddlvq_u16(v);
#else
    const uint64x2_t s = vpaddlq_u32(vpaddlq_u16(v));
    return (uint32_t)(vgetq_lane_u64(s, 0) + vgetq_lane_u64(s, 1));
#endif
}

static inline uint8x16_t both(const uint64_t *at) {
    return vreinterpretq_u8_u64(vld1q_u64(at));
}

static inline uint8x16_t one(const uint64_t *at) {
    return vreinterpretq_u8_u64(vcombine_u64(vld1_u64(at), vcreate_u64(0)));
}

/* weights: (TILE_FILTERS, steps) words, then the masks */
static void tile(const xnor_layer *l, const uint8_t *const pixel[PIXELS], const uint8_t *weights,
                 uint32_t pops[PIXELS][TILE_FILTERS]) {
    const uint64_t *w = (const uint64_t *)(const void *)weights;
    const uint64_t *m = w + (size_t)TILE_FILTERS * l->steps;
    for (int32_t f = 0; f < TILE_FILTERS; f++) {
        uint16x8_t sums[PIXELS];
        for (int p = 0; p < PIXELS; p++) sums[p] = vdupq_n_u16(0);
        for (int32_t i = 0; i < l->stretches; i++) {
            const uint64_t *a[PIXELS];
            const int32_t n = l->stretch[i].length;
            for (int p = 0; p < PIXELS; p++)
                a[p] = (const uint64_t *)(const void *)pixel[p] + l->stretch[i].offset;
            int32_t k = 0;
            for (; k + 2 <= n; k += 2) {
                const uint8x16_t v = both(w + k);
                const uint8x16_t mask = l->ternary ? both(m + k) : vdupq_n_u8(255);
                for (int p = 0; p < PIXELS; p++) {
                    const uint8x16_t differ = veorq_u8(both(a[p] + k), v);
                    sums[p] = vpadalq_u8(sums[p], vcntq_u8(vandq_u8(differ, mask)));
                }
            }
            if (k < n) {
                const uint8x16_t v = one(w + k);
                const uint8x16_t mask = l->ternary ? one(m + k) : vdupq_n_u8(255);
                for (int p = 0; p < PIXELS; p++) {
                    const uint8x16_t differ = veorq_u8(one(a[p] + k), v);
                    sums[p] = vpadalq_u8(sums[p], vcntq_u8(vandq_u8(differ, mask)));
                }
            }
            w += n;
            m += n;
        }
        for (int p = 0; p < PIXELS; p++) pops[p][f] = total(sums[p]);
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

static int here(void) { return 1; } /* this unit is compiled where every processor has it */

#include "convolve.h"

const xnor_set xnor_neon = {"neon", 64, 8, PIXELS, expand_words, arrange, arranged, run, pack, here};
