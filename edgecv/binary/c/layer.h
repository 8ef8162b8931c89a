/* What the units of this library share. */
#ifndef EDGECV_XNOR_LAYER_H
#define EDGECV_XNOR_LAYER_H

#include "xnor.h"

#define TILE_FILTERS 64 /* filters of a tile of every kernel: an output word */
#define MOST_PIXELS 8   /* of a tile */

/* How one instruction set computes. unit: bits of a canvas element; a pixel of a group's canvas
   has elements = ceil(channels / groups / unit) of unit_bytes each. */
typedef struct {
    const char *name;
    int32_t unit, unit_bytes, pixels;
    /* packed activations of one group's channels -> its canvas, zeros around it */
    void (*expand)(const xnor_layer *, const uint64_t *x, int32_t group, uint8_t *canvas);
    /* TILE_FILTERS filters, each taps x words -> what `tile` reads; mask may be NULL */
    void (*arrange)(const xnor_layer *, const uint64_t *weights, const uint64_t *mask,
                    uint8_t *into);
    size_t (*arranged)(const xnor_layer *);
    int (*run)(const xnor_layer *, const uint64_t *x, const xnor_output *out, uint8_t *scratch);
    /* x[c] >= least[c], turned round where flip[c]; area pixels; `bits` holds zeros */
    void (*pack)(const float *x, size_t area, size_t channels, int last, const float *least,
                 const uint8_t *flip, uint64_t *bits);
    int (*here)(void); /* whether this processor has it */
} xnor_set;

typedef struct {
    int32_t offset, length; /* in canvas elements, from a pixel's first tap */
} xnor_stretch;

struct xnor_layer {
    xnor_shape s;
    const xnor_set *set;
    int32_t out_h, out_w, group_channels, group_filters, words; /* words: of a tap of a filter */
    int32_t canvas_h, canvas_w, elements, tiles;                /* tiles: of one group */
    int32_t ternary;
    int32_t stretches, steps; /* runs of a pixel's taps in the canvas; elements of all of them */
    xnor_stretch *stretch;
    uint8_t *weights;       /* (groups, tiles, arranged) */
    size_t tile_bytes;      /* arranged */
    int32_t classes_x;      /* pixels whose taps lie in the padding alike share a class */
    int32_t *class_y, *class_x;
    int32_t *base;          /* (classes_y, classes_x, groups, tiles, TILE_FILTERS): dot + 2 pops */
};

extern const xnor_set xnor_portable;
#if defined(__x86_64__) || defined(_M_X64)
extern const xnor_set xnor_avx2, xnor_avx512;
#endif
#if defined(__aarch64__)
extern const xnor_set xnor_neon;
#endif

#endif
