/* Convolutions and dense layers of one-bit values: dot = valid - 2 popcount(a ^ w), in integers.

   A bit of 1 stands for +1, a bit of 0 for -1. Activations are packed by pixel: height x width x
   words, words = ceil(channels / 64), channel c in bit c % 64 of word c / 64; bits behind the last
   channel are 0. A zero that pads an image counts 0 in a dot product, as in a convolution of floats.

   Every function returns 0, or an XNOR_ error; nothing is written then. Results are the same bits
   on every instruction set. */
#ifndef EDGECV_XNOR_H
#define EDGECV_XNOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define XNOR_API __declspec(dllexport)
#elif defined(__GNUC__)
#define XNOR_API __attribute__((visibility("default")))
#else
#define XNOR_API
#endif

enum {
    XNOR_OK = 0,
    XNOR_SHAPE = 1,   /* a size is not positive, does not divide, or is too large */
    XNOR_MEMORY = 2,  /* out of memory */
    XNOR_SET = 3      /* that instruction set is not in this library or not in this processor */
};

typedef struct {
    int32_t height, width, channels, filters;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    int32_t pad_top, pad_left, pad_bottom, pad_right;
    int32_t groups;
} xnor_shape;

typedef struct xnor_layer xnor_layer;

/* What becomes of dots.
   raw:    int32 (out_h, out_w, filters), and nothing else
   least:  bits of dot >= least[f], the other way round where flip[f], and nothing else
   else    v = scale[f] dot + bias[f] (+ add) (+ more), each rounded to float by itself, then, where
           slope is given, v' = v - before[f], v = (v' > 0 ? v' : slope[f] v') + after[f]
           real: v;  bits: v >= border[f], the other way round where flip[f]; either may be NULL
   Bits are packed as activations are. real, add and more: float (filters, out_h, out_w), or
   (out_h, out_w, filters) where channels_last. */
typedef struct {
    int32_t *raw;
    float *real;
    uint64_t *bits;
    const float *scale, *bias, *add, *more, *before, *slope, *after;
    const int32_t *least;
    const float *border;
    const uint8_t *flip;
    int32_t channels_last;
} xnor_output;

/* What the library was built from. */
XNOR_API const char *xnor_digest(void);

/* Names of the instruction sets of this library that this processor has, fastest first, ended by
   NULL. The last is "portable". */
XNOR_API const char *const *xnor_sets(void);

XNOR_API int xnor_out_size(const xnor_shape *shape, int32_t *out_h, int32_t *out_w);

/* weights: (filters, kernel_h, kernel_w, ceil(channels / groups / 64)) words, packed as activations
   are. mask: the same shape, 1 where a ternary weight is not zero; NULL: binary weights.
   set: a name of xnor_sets(); NULL: what EDGECV_KERNEL_SET names, else the fastest. The layer keeps copies of both. */
XNOR_API int xnor_layer_new(const xnor_shape *shape, const uint64_t *weights, const uint64_t *mask,
                   const char *set, xnor_layer **layer);
XNOR_API void xnor_layer_free(xnor_layer *layer);

/* Bytes that xnor_run needs beside input and output; 64-byte alignment. */
XNOR_API size_t xnor_scratch(const xnor_layer *layer);

XNOR_API int xnor_run(const xnor_layer *layer, const uint64_t *x, const xnor_output *out, void *scratch);

/* x[c] >= least[c], the other way round where flip[c]: packed. real: (channels, height, width), or
   (height, width, channels) where channels_last. NaN is 0, as every comparison with it is false. */
XNOR_API int xnor_pack(const float *real, int32_t height, int32_t width, int32_t channels,
              int32_t channels_last, const float *least, const uint8_t *flip, uint64_t *bits);

/* Means of 2x2 pixels (fewer at an odd border), channels over and over until there are `filters`:
   the shortcut past a layer of stride 2. x: (height, width, channels);
   out: (ceil(height / 2), ceil(width / 2), filters). */
XNOR_API int xnor_halve(const float *x, int32_t height, int32_t width, int32_t channels,
               int32_t filters, float *out);

#ifdef __cplusplus
}
#endif
#endif
