/* AVX-512 VPOPCNTDQ: eight filters' words against one word of a pixel, counted in place. */
#include <immintrin.h>

#include "layer.h"
#include "words.h"

#define PIXELS 4
#define LANES (TILE_FILTERS / 8)

/* weights: (steps, TILE_FILTERS) words, then the masks. Two passes of 32 filters: registers. */
static void tile(const xnor_layer *l, const uint8_t *const pixel[PIXELS], const uint8_t *weights,
                 uint32_t pops[PIXELS][TILE_FILTERS]) {
    for (int half = 0; half < 2; half++) {
        const __m512i *w = (const __m512i *)(const void *)weights + half * LANES / 2;
        const __m512i *m = w + (size_t)l->steps * LANES;
        __m512i sums[PIXELS][LANES / 2];
        for (int p = 0; p < PIXELS; p++)
            for (int q = 0; q < LANES / 2; q++) sums[p][q] = _mm512_setzero_si512();
        for (int32_t i = 0; i < l->stretches; i++) {
            const uint64_t *a[PIXELS];
            const int32_t n = l->stretch[i].length;
            for (int p = 0; p < PIXELS; p++)
                a[p] = (const uint64_t *)(const void *)pixel[p] + l->stretch[i].offset;
            if (l->ternary) {
                for (int32_t k = 0; k < n; k++, w += LANES, m += LANES)
                    for (int p = 0; p < PIXELS; p++) {
                        const __m512i v = _mm512_set1_epi64((long long)a[p][k]);
                        for (int q = 0; q < LANES / 2; q++) /* 0x28: (v ^ w) & m */
                            sums[p][q] = _mm512_add_epi64(
                                sums[p][q], _mm512_popcnt_epi64(_mm512_ternarylogic_epi64(
                                                v, w[q], m[q], 0x28)));
                    }
            } else {
                for (int32_t k = 0; k < n; k++, w += LANES)
                    for (int p = 0; p < PIXELS; p++) {
                        const __m512i v = _mm512_set1_epi64((long long)a[p][k]);
                        for (int q = 0; q < LANES / 2; q++)
                            sums[p][q] = _mm512_add_epi64(
                                sums[p][q], _mm512_popcnt_epi64(_mm512_xor_si512(v, w[q])));
                    }
            }
        }
        for (int p = 0; p < PIXELS; p++)
            for (int q = 0; q < LANES / 2; q++)
                _mm256_storeu_si256(
                    (__m256i *)(void *)(pops[p] + (half * LANES / 2 + q) * 8),
                    _mm512_cvtepi64_epi32(sums[p][q]));
    }
}

static size_t arranged(const xnor_layer *l) {
    return (size_t)TILE_FILTERS * l->steps * 8 * (l->ternary ? 2 : 1);
}

static void turn(const xnor_layer *l, const uint64_t *from, uint64_t *into) {
    for (int32_t k = 0; k < l->steps; k++)
        for (int32_t f = 0; f < TILE_FILTERS; f++)
            into[(size_t)k * TILE_FILTERS + f] = from[(size_t)f * l->steps + k];
}

static void arrange(const xnor_layer *l, const uint64_t *weights, const uint64_t *mask,
                    uint8_t *into) {
    uint64_t *to = (uint64_t *)(void *)into;
    turn(l, weights, to);
    if (mask) turn(l, mask, to + (size_t)TILE_FILTERS * l->steps);
}

static int here(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vpopcntdq");
}

#define AT_LEAST at_least_avx512
static inline uint64_t at_least_avx512(const int32_t *dots, const int32_t *least) {
    uint64_t word = 0;
    for (int i = 0; i < TILE_FILTERS / 16; i++)
        word |= (uint64_t)_mm512_cmpge_epi32_mask(_mm512_load_si512((const __m512i *)(const void *)dots + i),
                                                  _mm512_load_si512((const __m512i *)(const void *)least + i))
                << 16 * i;
    return word;
}

#define ABOVE above_avx512
static inline uint64_t above_avx512(const float *values, const float *border) {
    uint64_t word = 0;
    for (int i = 0; i < TILE_FILTERS / 16; i++)
        word |= (uint64_t)_mm512_cmp_ps_mask(_mm512_loadu_ps(values + 16 * i),
                                             _mm512_loadu_ps(border + 16 * i), _CMP_GE_OQ)
                << 16 * i;
    return word;
}

#include "convolve.h"

const xnor_set xnor_avx512 = {"avx512", 64, 8, PIXELS, expand_words, arrange, arranged, run, pack, here};
