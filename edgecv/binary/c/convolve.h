/* The loop around a tile: included by every kernel, so that it is compiled for its instructions.
   Before it: PIXELS, optionally AT_LEAST, and
   static void tile(const xnor_layer *, const uint8_t *const pixel[PIXELS], const uint8_t *weights,
                    uint32_t pops[PIXELS][TILE_FILTERS]);

   Pixels of a tile may lie in different rows: a tile of the last pixels repeats its last one. */
#include <string.h>

#include "layer.h"

#ifndef AT_LEAST
#define AT_LEAST at_least
static inline uint64_t at_least(const int32_t *dots, const int32_t *least) {
    uint64_t word = 0;
    for (int32_t f = 0; f < TILE_FILTERS; f++) word |= (uint64_t)(dots[f] >= least[f]) << f;
    return word;
}
#endif

/* What a tile's filters are compared with: nothing reaches the lanes behind the last filter. */
typedef struct {
    _Alignas(64) int32_t least[TILE_FILTERS];
    uint64_t flip;
} edges;

static void edges_of(const xnor_output *out, int32_t start, int32_t width, edges *e) {
    e->flip = 0;
    for (int32_t f = 0; f < TILE_FILTERS; f++) {
        e->least[f] = f < width ? out->least[start + f] : INT32_MAX;
        if (f < width) e->flip |= (uint64_t)(out->flip[start + f] & 1) << f;
    }
}

static void finish(const xnor_layer *l, const xnor_output *out, int32_t group, int32_t tile_of,
                   int32_t first, int32_t count, uint32_t pops[PIXELS][TILE_FILTERS], const edges *e) {
    const int32_t filters = l->s.filters, area = l->out_h * l->out_w;
    const int32_t start = group * l->group_filters + tile_of * TILE_FILTERS;
    int32_t width = l->group_filters - tile_of * TILE_FILTERS;
    if (width > TILE_FILTERS) width = TILE_FILTERS;
    for (int32_t p = 0; p < count; p++) {
        const int32_t at = first + p, y = at / l->out_w, x = at % l->out_w;
        const int32_t *base = l->base +
            ((((size_t)l->class_y[y] * l->classes_x + l->class_x[x]) * l->s.groups + group)
             * l->tiles + tile_of) * TILE_FILTERS;
        _Alignas(64) int32_t dots[TILE_FILTERS];
        for (int32_t f = 0; f < TILE_FILTERS; f++) dots[f] = base[f] - 2 * (int32_t)pops[p][f];
        if (out->raw) {
            memcpy(out->raw + (size_t)at * filters + start, dots, sizeof(int32_t) * (size_t)width);
        } else if (out->real) {
            const size_t step = out->channels_last ? 1 : (size_t)area;
            const size_t from = out->channels_last ? (size_t)at * filters + start
                                                   : (size_t)start * area + at;
            const float *scale = out->scale + start, *bias = out->bias + start;
            float *to = out->real + from;
            if (out->add) {
                const float *add = out->add + from;
                for (int32_t f = 0; f < width; f++)
                    to[f * step] = (scale[f] * (float)dots[f] + bias[f]) + add[f * step];
            } else {
                for (int32_t f = 0; f < width; f++)
                    to[f * step] = scale[f] * (float)dots[f] + bias[f];
            }
        } else {
            const int32_t words = (filters + 63) / 64;
            const uint64_t word = AT_LEAST(dots, e->least) ^ e->flip;
            uint64_t *to = out->bits + (size_t)at * words + start / 64;
            const int32_t shift = start % 64;
            to[0] |= word << shift;
            if (shift && shift + width > 64) to[1] |= word >> (64 - shift);
        }
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
            edges e = {.flip = 0};
            const int32_t start = g * l->group_filters + t * TILE_FILTERS;
            const int32_t rest = l->group_filters - t * TILE_FILTERS;
            if (out->bits) edges_of(out, start, rest < TILE_FILTERS ? rest : TILE_FILTERS, &e);
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
                finish(l, out, g, t, first, area - first < PIXELS ? area - first : PIXELS, pops, &e);
            }
        }
    }
    return XNOR_OK;
}
