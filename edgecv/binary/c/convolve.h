/* The loop around a tile: included by every kernel, so that it is compiled for its instructions.
   Before it: PIXELS, optionally AT_LEAST and ABOVE, and
   static void tile(const xnor_layer *, const uint8_t *const pixel[PIXELS], const uint8_t *weights,
                    uint32_t pops[PIXELS][TILE_FILTERS]);

   Pixels of a tile may lie in different rows: a tile of the last pixels repeats its last one. */
#include <math.h>
#include <string.h>

#include "layer.h"

#ifndef AT_LEAST
#define AT_LEAST at_least
static inline uint64_t at_least(const int32_t *dots, const int32_t *least) {
    uint64_t word = 0;
    for (int32_t f = 0; f < TILE_FILTERS; f++) word |= (uint64_t)(dots[f] >= least[f]) << f;
    return word;
}
#define ABOVE above
static inline uint64_t above(const float *values, const float *border) {
    uint64_t word = 0;
    for (int32_t f = 0; f < TILE_FILTERS; f++) word |= (uint64_t)(values[f] >= border[f]) << f;
    return word;
}
#endif

/* Constants of a tile's filters; behind the last filter nothing reaches a border. */
typedef struct {
    _Alignas(64) int32_t least[TILE_FILTERS];
    _Alignas(64) float scale[TILE_FILTERS], bias[TILE_FILTERS], before[TILE_FILTERS],
        slope[TILE_FILTERS], after[TILE_FILTERS], border[TILE_FILTERS];
    uint64_t flip;
    int32_t start, width; /* filters of the tile */
} constants;

static void copy(float *to, const float *from, const constants *c) {
    if (from) memcpy(to, from + c->start, sizeof *to * (size_t)c->width);
}

static void constants_of(const xnor_output *out, int32_t start, int32_t width, constants *c) {
    memset(c, 0, sizeof *c);
    c->start = start;
    c->width = width;
    for (int32_t f = 0; f < TILE_FILTERS; f++) {
        c->least[f] = out->least && f < width ? out->least[start + f] : INT32_MAX;
        c->border[f] = INFINITY;
        if (out->flip && f < width) c->flip |= (uint64_t)(out->flip[start + f] & 1) << f;
    }
    copy(c->scale, out->scale, c);
    copy(c->bias, out->bias, c);
    copy(c->before, out->before, c);
    copy(c->slope, out->slope, c);
    copy(c->after, out->after, c);
    copy(c->border, out->border, c);
}

static void put(const xnor_layer *l, uint64_t *bits, int32_t at, const constants *c, uint64_t word) {
    uint64_t *to = bits + (size_t)at * ((l->s.filters + 63) / 64) + c->start / 64;
    const int32_t shift = c->start % 64;
    word ^= c->flip;
    to[0] |= word << shift;
    if (shift && shift + c->width > 64) to[1] |= word >> (64 - shift);
}

static inline void plus(float *v, const float *more, size_t step, int32_t width) {
    if (step == 1 && width == TILE_FILTERS)
        for (int32_t f = 0; f < TILE_FILTERS; f++) v[f] += more[f];
    else
        for (int32_t f = 0; f < width; f++) v[f] += more[(size_t)f * step];
}

static void value(const xnor_layer *l, const xnor_output *out, int32_t at, const constants *c,
                  const int32_t *dots) {
    const size_t area = (size_t)l->out_h * l->out_w;
    const size_t step = out->channels_last ? 1 : area;
    const size_t from = out->channels_last ? (size_t)at * l->s.filters + c->start
                                           : (size_t)c->start * area + at;
    _Alignas(64) float v[TILE_FILTERS];
    for (int32_t f = 0; f < TILE_FILTERS; f++) v[f] = c->scale[f] * (float)dots[f] + c->bias[f];
    if (out->add) plus(v, out->add + from, step, c->width);
    if (out->more) plus(v, out->more + from, step, c->width);
    if (out->slope) {
        for (int32_t f = 0; f < TILE_FILTERS; f++) {
            const float t = v[f] - c->before[f], low = c->slope[f] * t;
            v[f] = (t > 0 ? t : low) + c->after[f];
        }
    }
    if (out->real) {
        if (step == 1)
            memcpy(out->real + from, v, sizeof *v * (size_t)c->width);
        else
            for (int32_t f = 0; f < c->width; f++) out->real[from + f * step] = v[f];
    }
    if (out->bits) put(l, out->bits, at, c, ABOVE(v, c->border));
}

static void finish(const xnor_layer *l, const xnor_output *out, int32_t group, int32_t tile_of,
                   int32_t first, int32_t count, uint32_t pops[PIXELS][TILE_FILTERS],
                   const constants *c) {
    for (int32_t p = 0; p < count; p++) {
        const int32_t at = first + p, y = at / l->out_w, x = at % l->out_w;
        const int32_t *base = l->base +
            ((((size_t)l->class_y[y] * l->classes_x + l->class_x[x]) * l->s.groups + group)
             * l->tiles + tile_of) * TILE_FILTERS;
        _Alignas(64) int32_t dots[TILE_FILTERS];
        for (int32_t f = 0; f < TILE_FILTERS; f++) dots[f] = base[f] - 2 * (int32_t)pops[p][f];
        if (out->raw)
            memcpy(out->raw + (size_t)at * l->s.filters + c->start, dots,
                   sizeof *dots * (size_t)c->width);
        else if (out->least)
            put(l, out->bits, at, c, AT_LEAST(dots, c->least));
        else
            value(l, out, at, c, dots);
    }
}

static int run(const xnor_layer *l, const uint64_t *x, const xnor_output *out, uint8_t *canvas) {
    const int32_t area = l->out_h * l->out_w;
    const size_t pixel_bytes = (size_t)l->elements * l->set->unit_bytes;
    if (out->bits)
        memset(out->bits, 0, sizeof(uint64_t) * (size_t)area * ((l->s.filters + 63) / 64));
    for (int32_t g = 0; g < l->s.groups; g++) {
        l->set->expand(l, x, g, canvas);
        for (int32_t t = 0; t < l->tiles; t++) {
            constants c;
            const int32_t start = g * l->group_filters + t * TILE_FILTERS;
            const int32_t rest = l->group_filters - t * TILE_FILTERS;
            constants_of(out, start, rest < TILE_FILTERS ? rest : TILE_FILTERS, &c);
            const uint8_t *weights = l->weights + ((size_t)g * l->tiles + t) * l->tile_bytes;
            for (int32_t first = 0; first < area; first += PIXELS) {
                const uint8_t *pixel[PIXELS];
                uint32_t pops[PIXELS][TILE_FILTERS];
                for (int32_t p = 0; p < PIXELS; p++) {
                    const int32_t at = first + p < area ? first + p : area - 1;
                    const int32_t y = at / l->out_w * l->s.stride_h;
                    const int32_t col = at % l->out_w * l->s.stride_w;
                    pixel[p] = canvas + ((size_t)y * l->canvas_w + col) * pixel_bytes;
                }
                tile(l, pixel, weights, pops);
                finish(l, out, g, t, first, area - first < PIXELS ? area - first : PIXELS, pops, &c);
            }
        }
    }
    return XNOR_OK;
}

#define AT_ONCE 32 /* pixels that are packed together */

static inline void pack_pixels(const float *x, size_t area, size_t channels, const float *least,
                               const uint8_t *flip, uint64_t *bits, size_t words, size_t count) {
    for (size_t w = 0; w < words; w++) {
        const size_t own = channels - 64 * w < 64 ? channels - 64 * w : 64;
        uint64_t held[AT_ONCE] = {0}, turned = 0;
        for (size_t c = 0; c < own; c++) {
            const float *v = x + (64 * w + c) * area, low = least[64 * w + c];
            turned |= (uint64_t)(flip[64 * w + c] & 1) << c;
            for (size_t i = 0; i < count; i++) held[i] |= (uint64_t)(v[i] >= low) << c;
        }
        for (size_t i = 0; i < count; i++) bits[i * words + w] = held[i] ^ turned;
    }
}

static void pack(const float *x, size_t area, size_t channels, int last, const float *least,
                 const uint8_t *flip, uint64_t *bits) {
    const size_t words = (channels + 63) / 64;
    if (last) {
        for (size_t w = 0; w < words; w++) {
            const size_t own = channels - 64 * w < 64 ? channels - 64 * w : 64;
            const float *v = x + 64 * w, *low = least + 64 * w;
            uint64_t turned = 0;
            for (size_t c = 0; c < own; c++) turned |= (uint64_t)(flip[64 * w + c] & 1) << c;
            for (size_t i = 0; i < area; i++, v += channels) {
                uint64_t word = 0;
                if (own == TILE_FILTERS)
                    word = ABOVE(v, low);
                else
                    for (size_t c = 0; c < own; c++) word |= (uint64_t)(v[c] >= low[c]) << c;
                bits[i * words + w] = word ^ turned;
            }
        }
        return;
    }
    size_t first = 0;
    for (; first + AT_ONCE <= area; first += AT_ONCE)
        pack_pixels(x + first, area, channels, least, flip, bits + first * words, words, AT_ONCE);
    pack_pixels(x + first, area, channels, least, flip, bits + first * words, words, area - first);
}
