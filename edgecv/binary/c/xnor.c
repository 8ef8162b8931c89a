/* Layers: their shapes, their weights in the order that an instruction set wants, their borders. */
#include "xnor.h"

#include <stdlib.h>
#include <string.h>

#include "layer.h"

#define LARGEST (1 << 20)   /* of a side, of channels, of filters */
#define MOST_TAPS 65535     /* products of one output: kernels count them in 16 bits */
#define ALIGNMENT 64

static const xnor_set *const SETS[] = {
#if defined(__x86_64__) || defined(_M_X64)
    &xnor_avx512,
    &xnor_avx2,
#endif
#if defined(__aarch64__)
    &xnor_neon,
#endif
    &xnor_portable,
};
#define COUNT (int)(sizeof SETS / sizeof *SETS)

#ifndef XNOR_DIGEST
#define XNOR_DIGEST none
#endif
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const char *xnor_digest(void) { return TEXT(XNOR_DIGEST); }

const char *const *xnor_sets(void) {
    static const char *names[COUNT + 1];
    int found = 0;
    for (int i = 0; i < COUNT; i++)
        if (SETS[i]->here()) names[found++] = SETS[i]->name;
    names[found] = NULL;
    return names;
}

static const xnor_set *choose(const char *name) {
    if (!name) name = getenv("EDGECV_KERNEL_SET"); /* for measurements: the name of one */
    if (name && !*name) name = NULL;
    for (int i = 0; i < COUNT; i++)
        if ((!name || !strcmp(name, SETS[i]->name)) && SETS[i]->here()) return SETS[i];
    return NULL;
}

static int within(int32_t v, int32_t low, int32_t high) { return low <= v && v <= high; }

static int64_t out_side(int64_t side, int64_t pad, int64_t kernel, int64_t dilation,
                        int64_t stride) {
    const int64_t room = side + pad - (dilation * (kernel - 1) + 1);
    return room < 0 ? 0 : room / stride + 1;
}

int xnor_out_size(const xnor_shape *s, int32_t *out_h, int32_t *out_w) {
    const int32_t sizes[] = {s->height,   s->width,    s->channels, s->filters,    s->kernel_h,
                             s->kernel_w, s->stride_h, s->stride_w, s->dilation_h, s->dilation_w,
                             s->groups};
    const int32_t pads[] = {s->pad_top, s->pad_left, s->pad_bottom, s->pad_right};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (!within(sizes[i], 1, LARGEST)) return XNOR_SHAPE;
    for (size_t i = 0; i < sizeof pads / sizeof *pads; i++)
        if (!within(pads[i], 0, LARGEST)) return XNOR_SHAPE;
    if (s->channels % s->groups || s->filters % s->groups) return XNOR_SHAPE;
    const int64_t channels = (s->channels / s->groups + 7) / 8 * 8;
    if ((int64_t)s->kernel_h * s->kernel_w > MOST_TAPS ||
        (int64_t)s->kernel_h * s->kernel_w * channels > MOST_TAPS)
        return XNOR_SHAPE;
    const int64_t h = out_side(s->height, (int64_t)s->pad_top + s->pad_bottom, s->kernel_h,
                               s->dilation_h, s->stride_h);
    const int64_t w = out_side(s->width, (int64_t)s->pad_left + s->pad_right, s->kernel_w,
                               s->dilation_w, s->stride_w);
    const int64_t rows = (int64_t)s->height + s->pad_top + s->pad_bottom;
    const int64_t columns = (int64_t)s->width + s->pad_left + s->pad_right;
    if (h < 1 || w < 1 || rows * columns > INT32_MAX / 8 || h * w > INT32_MAX / 8 ||
        rows * columns * (s->channels / 4 + 16) > INT32_MAX || h * w * s->filters > INT32_MAX)
        return XNOR_SHAPE;
    *out_h = (int32_t)h;
    *out_w = (int32_t)w;
    return XNOR_OK;
}

static uint32_t ones(uint64_t v) {
    uint32_t n = 0;
    for (; v; v &= v - 1) n++;
    return n;
}

/* Which taps of an output's axis lie in the image: [from, to). */
static void seen(int32_t at, int32_t stride, int32_t pad, int32_t side, int32_t kernel,
                 int32_t dilation, int32_t *from, int32_t *to) {
    const int64_t start = (int64_t)at * stride - pad;
    *from = 0;
    while (*from < kernel && start + (int64_t)*from * dilation < 0) ++*from;
    *to = *from;
    while (*to < kernel && start + (int64_t)*to * dilation < side) ++*to;
}

/* Numbers outputs of one axis by the taps they see; the spans of each number. */
static int32_t classes(int32_t count, int32_t stride, int32_t pad, int32_t side, int32_t kernel,
                       int32_t dilation, int32_t *number, int32_t *span) {
    int32_t found = 0;
    for (int32_t i = 0; i < count; i++) {
        int32_t from, to, c = 0;
        seen(i, stride, pad, side, kernel, dilation, &from, &to);
        while (c < found && (span[2 * c] != from || span[2 * c + 1] != to)) c++;
        if (c == found) {
            span[2 * c] = from;
            span[2 * c + 1] = to;
            found++;
        }
        number[i] = c;
    }
    return found;
}

static void *aligned(size_t bytes) {
    return aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

void xnor_layer_free(xnor_layer *l) {
    if (!l) return;
    free(l->stretch);
    free(l->weights);
    free(l->class_y);
    free(l->class_x);
    free(l->base);
    free(l);
}

static void stretches(xnor_layer *l) {
    const xnor_shape *s = &l->s;
    const int whole = s->dilation_w == 1; /* a row of taps is one stretch */
    const int32_t across = whole ? 1 : s->kernel_w;
    l->stretches = s->kernel_h * across;
    for (int32_t i = 0; i < l->stretches; i++) {
        const int32_t y = i / across * s->dilation_h, x = i % across * s->dilation_w;
        l->stretch[i].offset = (y * l->canvas_w + x) * l->elements;
        l->stretch[i].length = l->elements * (whole ? s->kernel_w : 1);
    }
    l->steps = s->kernel_h * s->kernel_w * l->elements;
}

/* The dot of a pixel of each class where no product differs: base - 2 pops is the dot, as the
   canvas has -1 in the padding, and what is counted there is known. */
static void bases(xnor_layer *l, const int32_t *span_y, int32_t rows, const int32_t *span_x,
                  const uint64_t *weights, const uint64_t *mask) {
    const xnor_shape *s = &l->s;
    const size_t lanes = (size_t)s->groups * l->tiles * TILE_FILTERS;
    for (int32_t f = 0; f < s->filters; f++) {
        const size_t lane = (size_t)(f / l->group_filters) * l->tiles * TILE_FILTERS +
                            (size_t)(f % l->group_filters);
        for (int32_t r = 0; r < rows; r++) {
            for (int32_t c = 0; c < l->classes_x; c++) {
                int32_t base = 0;
                for (int32_t t = 0; t < s->kernel_h * s->kernel_w; t++) {
                    const int32_t i = t / s->kernel_w, j = t % s->kernel_w;
                    const int inside = span_y[2 * r] <= i && i < span_y[2 * r + 1] &&
                                       span_x[2 * c] <= j && j < span_x[2 * c + 1];
                    const uint64_t *w =
                        weights + ((size_t)f * s->kernel_h * s->kernel_w + t) * l->words;
                    const uint64_t *m = mask ? mask + (w - weights) : NULL;
                    if (inside && !mask) base += l->group_channels;
                    for (int32_t k = 0; k < l->words; k++) {
                        if (inside && mask) base += (int32_t)ones(m[k]);
                        if (!inside) base += 2 * (int32_t)ones(mask ? w[k] & m[k] : w[k]);
                    }
                }
                l->base[((size_t)r * l->classes_x + c) * lanes + lane] = base;
            }
        }
    }
}

/* weights are copied with zeros behind the last filter of a group's last tile, and stray bits
   behind the last channel cleared. */
static uint64_t *cleared(const xnor_layer *l, const uint64_t *from) {
    const size_t filter = (size_t)l->s.kernel_h * l->s.kernel_w * l->words;
    const size_t all = (size_t)l->s.filters * filter;
    uint64_t *to = malloc(all * sizeof *to);
    if (!to) return NULL;
    memcpy(to, from, all * sizeof *to);
    if (l->group_channels % 64)
        for (size_t i = (size_t)l->words - 1; i < all; i += (size_t)l->words)
            to[i] &= ((uint64_t)1 << l->group_channels % 64) - 1;
    return to;
}

static int arrange(xnor_layer *l, const uint64_t *weights, const uint64_t *mask) {
    const size_t filter = (size_t)l->s.kernel_h * l->s.kernel_w * l->words;
    uint64_t *part = malloc(2 * TILE_FILTERS * filter * sizeof *part);
    if (!part) return XNOR_MEMORY;
    uint64_t *other = part + TILE_FILTERS * filter;
    for (int32_t g = 0; g < l->s.groups; g++) {
        for (int32_t t = 0; t < l->tiles; t++) {
            int32_t width = l->group_filters - t * TILE_FILTERS;
            if (width > TILE_FILTERS) width = TILE_FILTERS;
            const size_t from = ((size_t)g * l->group_filters + (size_t)t * TILE_FILTERS) * filter;
            memset(part, 0, 2 * TILE_FILTERS * filter * sizeof *part);
            memcpy(part, weights + from, (size_t)width * filter * sizeof *part);
            if (mask) memcpy(other, mask + from, (size_t)width * filter * sizeof *part);
            l->set->arrange(l, part, mask ? other : NULL,
                            l->weights + ((size_t)g * l->tiles + t) * l->tile_bytes);
        }
    }
    free(part);
    return XNOR_OK;
}

static int fill(xnor_layer *l, const uint64_t *weights, const uint64_t *mask) {
    const xnor_shape *s = &l->s;
    uint64_t *w = cleared(l, weights), *m = mask ? cleared(l, mask) : NULL;
    int32_t *span_y = malloc(2 * sizeof(int32_t) * (size_t)l->out_h);
    int32_t *span_x = malloc(2 * sizeof(int32_t) * (size_t)l->out_w);
    int status = XNOR_MEMORY;
    if (w && (m || !mask) && span_y && span_x) {
        const int32_t rows = classes(l->out_h, s->stride_h, s->pad_top, s->height, s->kernel_h,
                                     s->dilation_h, l->class_y, span_y);
        l->classes_x = classes(l->out_w, s->stride_w, s->pad_left, s->width, s->kernel_w,
                               s->dilation_w, l->class_x, span_x);
        const size_t lanes = (size_t)s->groups * l->tiles * TILE_FILTERS;
        l->base = calloc((size_t)rows * l->classes_x * lanes, sizeof *l->base);
        if (l->base) {
            bases(l, span_y, rows, span_x, w, m);
            status = arrange(l, w, m);
        }
    }
    free(w);
    free(m);
    free(span_y);
    free(span_x);
    return status;
}

int xnor_layer_new(const xnor_shape *shape, const uint64_t *weights, const uint64_t *mask,
                   const char *set, xnor_layer **layer) {
    int32_t out_h, out_w;
    const int status = xnor_out_size(shape, &out_h, &out_w);
    if (status) return status;
    const xnor_set *chosen = choose(set);
    if (!chosen) return XNOR_SET;
    xnor_layer *l = calloc(1, sizeof *l);
    if (!l) return XNOR_MEMORY;
    l->s = *shape;
    l->set = chosen;
    l->out_h = out_h;
    l->out_w = out_w;
    l->group_channels = shape->channels / shape->groups;
    l->group_filters = shape->filters / shape->groups;
    l->words = (l->group_channels + 63) / 64;
    l->canvas_h = shape->height + shape->pad_top + shape->pad_bottom;
    l->canvas_w = shape->width + shape->pad_left + shape->pad_right;
    l->elements = chosen->unit == 64 ? l->words : (l->group_channels + 7) / 8 * 2;
    l->tiles = (l->group_filters + TILE_FILTERS - 1) / TILE_FILTERS;
    l->ternary = mask != NULL;
    l->stretch = malloc(sizeof *l->stretch * (size_t)shape->kernel_h * shape->kernel_w);
    l->class_y = malloc(sizeof *l->class_y * (size_t)out_h);
    l->class_x = malloc(sizeof *l->class_x * (size_t)out_w);
    int made = XNOR_MEMORY;
    if (l->stretch && l->class_y && l->class_x) {
        stretches(l);
        l->tile_bytes = (chosen->arranged(l) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        l->weights = aligned((size_t)shape->groups * l->tiles * l->tile_bytes);
        if (l->weights) made = fill(l, weights, mask);
    }
    if (made) {
        xnor_layer_free(l);
        return made;
    }
    *layer = l;
    return XNOR_OK;
}

size_t xnor_scratch(const xnor_layer *l) {
    return (size_t)l->canvas_h * l->canvas_w * l->elements * l->set->unit_bytes + ALIGNMENT;
}

int xnor_run(const xnor_layer *l, const uint64_t *x, const xnor_output *out, void *scratch) {
    return l->set->run(l, x, out, scratch);
}

int xnor_pack(const float *real, int32_t height, int32_t width, int32_t channels,
              int32_t channels_last, const float *least, const uint8_t *flip, uint64_t *bits) {
    if (!within(height, 1, LARGEST) || !within(width, 1, LARGEST) ||
        !within(channels, 1, LARGEST) || (int64_t)height * width > INT32_MAX / 8)
        return XNOR_SHAPE;
    const xnor_set *set = choose(NULL);
    if (!set) return XNOR_SET;
    const size_t area = (size_t)height * width;
    memset(bits, 0, area * (((size_t)channels + 63) / 64) * sizeof *bits);
    set->pack(real, area, (size_t)channels, channels_last, least, flip, bits);
    return XNOR_OK;
}

int xnor_halve(const float *x, int32_t height, int32_t width, int32_t channels, int32_t filters,
               float *out) {
    if (!within(height, 1, LARGEST) || !within(width, 1, LARGEST) ||
        !within(channels, 1, LARGEST) || !within(filters, 1, LARGEST) || filters % channels ||
        (int64_t)height * width > INT32_MAX / 8)
        return XNOR_SHAPE;
    const size_t row = (size_t)width * channels;
    for (int32_t i = 0; i < height; i += 2) {
        for (int32_t j = 0; j < width; j += 2, out += filters) {
            const float *at = x + (size_t)i * row + (size_t)j * channels;
            const int down = i + 1 < height, right = j + 1 < width;
            const float share = 1.0f / (float)((1 + down) * (1 + right)); /* 1, 1/2, 1/4: exact */
            for (int32_t c = 0; c < channels; c++) {
                float sum = at[c];
                if (right) sum += at[channels + c];
                if (down) sum += at[row + c];
                if (down && right) sum += at[row + channels + c];
                out[c] = sum * share;
            }
            for (int32_t c = channels; c < filters; c += channels)
                memcpy(out + c, out, sizeof *out * (size_t)channels);
        }
    }
    return XNOR_OK;
}
