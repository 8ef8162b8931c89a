/* y = table[c][x]: an activation between two layers of 8-bit integers, channels last.

   A table of 256 bytes lies in registers of AVX-512 VBMI and of NEON, which look up a vector at once.
   With a table for each channel, VBMI turns blocks of 64 pixels and 16 channels, so that a vector is
   of one channel; without it tables are read byte by byte. */
#include "lookup.h"

#if defined(__aarch64__)
#include <arm_neon.h>

static size_t whole(const uint8_t *x, size_t count, const uint8_t *table, uint8_t *y) {
    uint8x16x4_t part[4];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) part[i].val[j] = vld1q_u8(table + 64 * i + 16 * j);
    size_t at = 0;
    for (; at + 16 <= count; at += 16) {
        const uint8x16_t q = vld1q_u8(x + at), step = vdupq_n_u8(64);
        uint8x16_t index = vsubq_u8(q, step), found = vqtbl4q_u8(part[0], q);
        for (int i = 1; i < 4; i++, index = vsubq_u8(index, step))
            found = vqtbx4q_u8(found, part[i], index); /* out of its 64 it keeps what was found */
        vst1q_u8(y + at, found);
    }
    return at;
}
#elif defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define VBMI __attribute__((target("avx512f,avx512bw,avx512vbmi")))
enum { ROWS = 64, COLUMNS = 16, LEVELS = 256 };

static int here(void) { return __builtin_cpu_supports("avx512vbmi"); }

typedef struct {
    __m512i quarter[4];
} held;

VBMI static inline held loaded(const uint8_t *table) {
    held t;
    for (int i = 0; i < 4; i++) t.quarter[i] = _mm512_loadu_si512(table + 64 * i);
    return t;
}

VBMI static inline __m512i found(held t, __m512i q) {
    const __m512i low = _mm512_permutex2var_epi8(t.quarter[0], q, t.quarter[1]);
    const __m512i high = _mm512_permutex2var_epi8(t.quarter[2], q, t.quarter[3]);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(q), low, high); /* by the highest bit */
}

VBMI static size_t in_registers(const uint8_t *x, size_t count, const uint8_t *table, uint8_t *y) {
    const held t = loaded(table);
    size_t at = 0;
    for (; at + 64 <= count; at += 64)
        _mm512_storeu_si512(y + at, found(t, _mm512_loadu_si512(x + at)));
    return at;
}

/* Four matrices of 16 x 16 bytes, one in each lane, rows to columns. A step puts the highest bit of
   a byte's place (row, column) behind its lowest; four of them exchange rows and columns. */
VBMI static inline void turn(__m512i m[COLUMNS]) {
    for (int step = 0; step < 4; step++) {
        __m512i to[COLUMNS];
        for (int i = 0; i < 8; i++) {
            to[2 * i] = _mm512_unpacklo_epi8(m[i], m[i + 8]);
            to[2 * i + 1] = _mm512_unpackhi_epi8(m[i], m[i + 8]);
        }
        for (int i = 0; i < COLUMNS; i++) m[i] = to[i];
    }
}

/* 64 pixels, 16 channels. step: from one pixel to the next */
VBMI static void block(const uint8_t *x, size_t step, const uint8_t *tables, uint8_t *y) {
    __m512i m[COLUMNS];
    for (int i = 0; i < COLUMNS; i++) {
        const uint8_t *at = x + 4 * (size_t)i * step;
        __m512i rows = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)at));
        rows = _mm512_inserti32x4(rows, _mm_loadu_si128((const __m128i *)(const void *)(at + step)), 1);
        rows = _mm512_inserti32x4(rows, _mm_loadu_si128((const __m128i *)(const void *)(at + 2 * step)), 2);
        m[i] = _mm512_inserti32x4(rows, _mm_loadu_si128((const __m128i *)(const void *)(at + 3 * step)), 3);
    }
    turn(m);
    for (int i = 0; i < COLUMNS; i++) m[i] = found(loaded(tables + LEVELS * i), m[i]);
    turn(m);
    for (int i = 0; i < COLUMNS; i++) {
        uint8_t *at = y + 4 * (size_t)i * step;
        _mm_storeu_si128((__m128i *)(void *)at, _mm512_castsi512_si128(m[i]));
        _mm_storeu_si128((__m128i *)(void *)(at + step), _mm512_extracti32x4_epi32(m[i], 1));
        _mm_storeu_si128((__m128i *)(void *)(at + 2 * step), _mm512_extracti32x4_epi32(m[i], 2));
        _mm_storeu_si128((__m128i *)(void *)(at + 3 * step), _mm512_extracti32x4_epi32(m[i], 3));
    }
}

static size_t whole(const uint8_t *x, size_t count, const uint8_t *table, uint8_t *y) {
    return here() ? in_registers(x, count, table, y) : 0;
}

static size_t blocks(const uint8_t *x, size_t pixels, size_t channels, const uint8_t *tables,
                     uint8_t *y) {
    if (channels % COLUMNS || pixels < ROWS || !here()) return 0;
    for (size_t p = 0; p < pixels; p += ROWS) {
        const size_t from = p + ROWS <= pixels ? p : pixels - ROWS; /* some of the last ones twice */
        for (size_t c = from * channels; c < (from + 1) * channels; c += COLUMNS)
            block(x + c, channels, tables + LEVELS * (c - from * channels), y + c);
    }
    return pixels;
}
#define BLOCKS
#else
static size_t whole(const uint8_t *x, size_t count, const uint8_t *table, uint8_t *y) {
    return (void)x, (void)count, (void)table, (void)y, 0;
}
#endif

void lookup_whole(const uint8_t *x, size_t count, const uint8_t *table, uint8_t *y) {
    for (size_t i = whole(x, count, table, y); i < count; i++) y[i] = table[x[i]];
}

void lookup_channels(const uint8_t *restrict x, size_t pixels, size_t channels,
                     const uint8_t *restrict tables, uint8_t *restrict y) {
    size_t p = 0;
#ifdef BLOCKS
    p = blocks(x, pixels, channels, tables, y);
    x += p * channels, y += p * channels;
#endif
    for (; p < pixels; p++, x += channels, y += channels) {
        const uint8_t *table = tables;
        for (size_t c = 0; c < channels; c++, table += 256) y[c] = table[x[c]];
    }
}
