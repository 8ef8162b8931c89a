/* Canvas and weights of kernels that work on 64-bit words: a tap is `words` words. Included. */
#include <string.h>

#include "layer.h"

/* Channels [first, first + count) of a packed pixel, moved to bit 0. */
static inline void take(const uint64_t *pixel, int32_t first, int32_t count, uint64_t *into) {
    const int32_t shift = first % 64, words = (count + 63) / 64, last = (first + count - 1) / 64;
    for (int32_t i = 0; i < words; i++) {
        const int32_t w = first / 64 + i;
        uint64_t v = pixel[w] >> shift;
        if (shift && w < last) v |= pixel[w + 1] << (64 - shift);
        into[i] = v;
    }
    if (count % 64) into[words - 1] &= ((uint64_t)1 << count % 64) - 1;
}

static inline void expand_words(const xnor_layer *l, const uint64_t *x, int32_t group, uint8_t *canvas) {
    const int32_t all = (l->s.channels + 63) / 64, words = l->words;
    uint64_t *to = (uint64_t *)(void *)canvas;
    memset(canvas, 0, (size_t)l->canvas_h * l->canvas_w * words * 8);
    for (int32_t y = 0; y < l->s.height; y++) {
        const uint64_t *row = x + (size_t)y * l->s.width * all;
        uint64_t *into = to + ((size_t)(y + l->s.pad_top) * l->canvas_w + l->s.pad_left) * words;
        for (int32_t col = 0; col < l->s.width; col++)
            take(row + (size_t)col * all, group * l->group_channels, l->group_channels,
                 into + (size_t)col * words);
    }
}
