/* AVX2: four bits of an activation choose a table, four bits of 32 filters' weights look it up.

       pops[f] += T_a[w_f],  T_a[w] = popcount(a ^ w),  a, w of 4 bits

   One byte shuffle and one addition for 128 products, where xor, two shuffles and the arithmetic
   around them count 256 in eight instructions. Ternary weights are two binary ones, (b + b') / 2:
   of a zero b and b' differ, so that what they count is the same whatever a is. */
#include <immintrin.h>

#include "layer.h"
#include "words.h"

#define PIXELS 4
#define FLUSH 31 /* pairs of nibbles until a byte of 4s is full: 62 * 4 = 248 */

#define ROW(a) P(a, 0), P(a, 1), P(a, 2), P(a, 3), P(a, 4), P(a, 5), P(a, 6), P(a, 7), P(a, 8), \
               P(a, 9), P(a, 10), P(a, 11), P(a, 12), P(a, 13), P(a, 14), P(a, 15)
#define B(v) (((v) & 1) + ((v) >> 1 & 1) + ((v) >> 2 & 1) + ((v) >> 3 & 1))
#define P(a, w) B((a) ^ (w))
static const _Alignas(64) uint8_t TABLE[256] = {
    ROW(0), ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7), ROW(8), ROW(9), ROW(10),
    ROW(11), ROW(12), ROW(13), ROW(14), ROW(15)};

/* A canvas element is a byte, nibble << 4: where its table begins. A pixel has an even number. */
static void expand(const xnor_layer *l, const uint64_t *x, int32_t group, uint8_t *canvas) {
    const int32_t all = (l->s.channels + 63) / 64, n = l->elements;
    const __m128i top = _mm_set1_epi8((char)0xf0);
    memset(canvas, 0, (size_t)l->canvas_h * l->canvas_w * n);
    for (int32_t y = 0; y < l->s.height; y++) {
        const uint64_t *row = x + (size_t)y * l->s.width * all;
        uint8_t *to = canvas + ((size_t)(y + l->s.pad_top) * l->canvas_w + l->s.pad_left) * n;
        for (int32_t col = 0; col < l->s.width; col++, row += all, to += n) {
            for (int32_t first = 0; first < l->group_channels; first += 64) {
                const int32_t rest = l->group_channels - first;
                uint64_t word;
                take(row, group * l->group_channels + first, rest < 64 ? rest : 64, &word);
                const __m128i v = _mm_cvtsi64_si128((long long)word);
                const __m128i odd = _mm_and_si128(v, top);
                const __m128i even = _mm_and_si128(_mm_slli_epi16(v, 4), top);
                const __m128i both = _mm_unpacklo_epi8(even, odd);
                if (rest >= 64) {
                    _mm_storeu_si128((__m128i *)(void *)(to + first / 4), both);
                } else {
                    uint8_t bytes[16];
                    _mm_storeu_si128((__m128i *)(void *)bytes, both);
                    memcpy(to + first / 4, bytes, (size_t)(n - first / 4));
                }
            }
        }
    }
}

static inline void widen(__m256i *byte, uint16_t *into) {
    __m256i *to = (__m256i *)(void *)into;
    const __m256i low = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(*byte));
    const __m256i high = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(*byte, 1));
    _mm256_store_si256(to, _mm256_add_epi16(_mm256_load_si256(to), low));
    _mm256_store_si256(to + 1, _mm256_add_epi16(_mm256_load_si256(to + 1), high));
    *byte = _mm256_setzero_si256();
}

static inline __m256i table(uint8_t index) {
    return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)(const void *)(TABLE + index)));
}

/* weights: (steps / 2, TILE_FILTERS) bytes: the even nibble below, the odd one above.
   both: 0 leaves out the second half of the filters, which is empty. */
static inline void count_of(const xnor_layer *l, const uint8_t *const pixel[PIXELS],
                            const uint8_t *weights, uint16_t sums[PIXELS][TILE_FILTERS],
                            const int both) {
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i acc[PIXELS][2];
    for (int p = 0; p < PIXELS; p++) acc[p][0] = acc[p][1] = _mm256_setzero_si256();
    int32_t left = FLUSH;
    for (int32_t i = 0; i < l->stretches; i++) {
        const uint8_t *a[PIXELS];
        for (int p = 0; p < PIXELS; p++) a[p] = pixel[p] + l->stretch[i].offset;
        for (int32_t n = l->stretch[i].length / 2; n;) {
            const int32_t now = n < left ? n : left;
            n -= now;
            left -= now;
            for (int32_t k = 0; k < now; k++, weights += TILE_FILTERS) {
                const __m256i v0 = _mm256_load_si256((const __m256i *)(const void *)weights);
                const __m256i v1 = both ? _mm256_load_si256(
                    (const __m256i *)(const void *)(weights + 32)) : v0;
                const __m256i even0 = _mm256_and_si256(v0, nibble);
                const __m256i even1 = _mm256_and_si256(v1, nibble);
                const __m256i odd0 = _mm256_and_si256(_mm256_srli_epi16(v0, 4), nibble);
                const __m256i odd1 = _mm256_and_si256(_mm256_srli_epi16(v1, 4), nibble);
#define STEP(p)                                                                      \
    {                                                                                \
        const __m256i t = table(a[p][0]), u = table(a[p][1]);                        \
        acc[p][0] = _mm256_add_epi8(acc[p][0], _mm256_shuffle_epi8(t, even0));       \
        if (both) acc[p][1] = _mm256_add_epi8(acc[p][1], _mm256_shuffle_epi8(t, even1)); \
        acc[p][0] = _mm256_add_epi8(acc[p][0], _mm256_shuffle_epi8(u, odd0));        \
        if (both) acc[p][1] = _mm256_add_epi8(acc[p][1], _mm256_shuffle_epi8(u, odd1)); \
        a[p] += 2;                                                                   \
    }
                STEP(0) STEP(1) STEP(2) STEP(3)
            }
            if (!left) {
                for (int p = 0; p < PIXELS; p++) {
                    widen(&acc[p][0], sums[p]);
                    widen(&acc[p][1], sums[p] + 32);
                }
                left = FLUSH;
            }
        }
    }
    for (int p = 0; p < PIXELS; p++) {
        widen(&acc[p][0], sums[p]);
        widen(&acc[p][1], sums[p] + 32);
    }
}

static void count(const xnor_layer *l, const uint8_t *const pixel[PIXELS], const uint8_t *weights,
                  uint16_t sums[PIXELS][TILE_FILTERS]) {
    if (l->group_filters <= TILE_FILTERS / 2)
        count_of(l, pixel, weights, sums, 0);
    else
        count_of(l, pixel, weights, sums, 1);
}

static void tile(const xnor_layer *l, const uint8_t *const pixel[PIXELS], const uint8_t *weights,
                 uint32_t pops[PIXELS][TILE_FILTERS]) {
    _Alignas(32) uint16_t sums[PIXELS][TILE_FILTERS] = {{0}};
    count(l, pixel, weights, sums);
    if (!l->ternary) {
        for (int p = 0; p < PIXELS; p++)
            for (int f = 0; f < TILE_FILTERS; f++) pops[p][f] = sums[p][f];
        return;
    }
    _Alignas(32) uint16_t twin[PIXELS][TILE_FILTERS] = {{0}};
    const size_t plane = (size_t)l->steps / 2 * TILE_FILTERS;
    const uint16_t *zeros = (const uint16_t *)(const void *)(weights + 2 * plane);
    count(l, pixel, weights + plane, twin);
    for (int p = 0; p < PIXELS; p++)
        for (int f = 0; f < TILE_FILTERS; f++)
            pops[p][f] = (uint32_t)(((int32_t)sums[p][f] + twin[p][f] - zeros[f]) / 2);
}

static size_t arranged(const xnor_layer *l) {
    const size_t plane = (size_t)l->steps / 2 * TILE_FILTERS;
    return l->ternary ? 2 * plane + 2 * TILE_FILTERS : plane;
}

/* b = w where it is not zero, else (other ? 0 : 1) */
static void plane_of(const xnor_layer *l, const uint64_t *weights, const uint64_t *mask, int other,
                     uint8_t *into) {
    const int32_t taps = l->s.kernel_h * l->s.kernel_w, pairs = l->elements / 2;
    for (int32_t f = 0; f < TILE_FILTERS; f++) {
        uint8_t *to = into + f;
        for (int32_t t = 0; t < taps; t++) {
            for (int32_t k = 0; k < pairs; k++, to += TILE_FILTERS) {
                const size_t at = ((size_t)f * taps + t) * l->words + k / 8;
                uint64_t w = weights[at];
                if (mask) {
                    const int32_t rest = l->group_channels - k / 8 * 64;
                    const uint64_t real = rest < 64 ? ((uint64_t)1 << rest) - 1 : ~(uint64_t)0;
                    w = other ? w & mask[at] : (w | ~mask[at]) & real;
                }
                *to = (uint8_t)(w >> k % 8 * 8);
            }
        }
    }
}

static void arrange(const xnor_layer *l, const uint64_t *weights, const uint64_t *mask,
                    uint8_t *into) {
    plane_of(l, weights, mask, 0, into);
    if (!mask) return;
    const size_t plane = (size_t)l->steps / 2 * TILE_FILTERS;
    const int32_t words = l->s.kernel_h * l->s.kernel_w * l->words;
    uint16_t *zeros = (uint16_t *)(void *)(into + 2 * plane);
    plane_of(l, weights, mask, 1, into + plane);
    for (int32_t f = 0; f < TILE_FILTERS; f++) {
        int32_t left = l->s.kernel_h * l->s.kernel_w * l->group_channels;
        for (int32_t i = 0; i < words; i++)
            left -= (int32_t)_mm_popcnt_u64(mask[(size_t)f * words + i]);
        zeros[f] = (uint16_t)left;
    }
}

static int here(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt"); }

#define AT_LEAST at_least_avx2
static inline uint64_t at_least_avx2(const int32_t *dots, const int32_t *least) {
    uint64_t word = 0;
    for (int i = 0; i < TILE_FILTERS / 8; i++) {
        const __m256i d = _mm256_load_si256((const __m256i *)(const void *)dots + i);
        const __m256i low = _mm256_load_si256((const __m256i *)(const void *)least + i);
        const __m256i below = _mm256_cmpgt_epi32(low, d);
        word |= (uint64_t)(uint8_t)~_mm256_movemask_ps(_mm256_castsi256_ps(below)) << 8 * i;
    }
    return word;
}

#define ABOVE above_avx2
static inline uint64_t above_avx2(const float *values, const float *border) {
    uint64_t word = 0;
    for (int i = 0; i < TILE_FILTERS / 8; i++) {
        const __m256 found = _mm256_cmp_ps(_mm256_loadu_ps(values + 8 * i),
                                           _mm256_loadu_ps(border + 8 * i), _CMP_GE_OQ);
        word |= (uint64_t)(uint8_t)_mm256_movemask_ps(found) << 8 * i;
    }
    return word;
}

#include "convolve.h"

const xnor_set xnor_avx2 = {"avx2", 4, 1, PIXELS, expand, arrange, arranged, run, pack, here};
