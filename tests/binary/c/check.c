/* Random layers on every instruction set of this processor, against products one by one.
   check [layers] [seed]: prints what was compared, ends with 1 at the first difference. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xnor.h"

static uint64_t state;
static uint64_t next(void) { /* splitmix64 */
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static int32_t between(int32_t low, int32_t high) { /* both included */
    return low + (int32_t)(next() % (uint64_t)(high - low + 1));
}
static int bit(const uint64_t *words, int32_t at) { return (int)(words[at / 64] >> at % 64 & 1); }
static void *room(size_t bytes) { /* malloc, so that sanitizers see every byte behind it */
    void *p = malloc(bytes ? bytes : 1);
    if (!p) exit(2);
    return p;
}
static void *lined(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p) exit(2);
    return p;
}
static uint64_t *randoms(size_t pixels, int32_t channels, int dense) {
    const int32_t words = (channels + 63) / 64;
    uint64_t *to = room(pixels * (size_t)words * 8);
    for (size_t i = 0; i < pixels * (size_t)words; i++) to[i] = dense ? next() | next() : next();
    if (channels % 64)
        for (size_t i = 1; i <= pixels; i++)
            to[i * (size_t)words - 1] &= ((uint64_t)1 << channels % 64) - 1;
    return to;
}
static int32_t naive(const xnor_shape *s, const uint64_t *x, const uint64_t *w, const uint64_t *m,
                     int32_t row, int32_t col, int32_t f) {
    const int32_t cg = s->channels / s->groups, fg = s->filters / s->groups;
    const int32_t xw = (s->channels + 63) / 64, ww = (cg + 63) / 64;
    int32_t dot = 0;
    for (int32_t i = 0; i < s->kernel_h; i++)
        for (int32_t j = 0; j < s->kernel_w; j++) {
            const int32_t y = row * s->stride_h - s->pad_top + i * s->dilation_h;
            const int32_t z = col * s->stride_w - s->pad_left + j * s->dilation_w;
            if (y < 0 || y >= s->height || z < 0 || z >= s->width) continue;
            const uint64_t *pixel = x + ((size_t)y * (size_t)s->width + (size_t)z) * (size_t)xw;
            const size_t tap = ((size_t)f * (size_t)s->kernel_h + (size_t)i) * (size_t)s->kernel_w +
                               (size_t)j;
            for (int32_t c = 0; c < cg; c++) {
                if (m && !bit(m + tap * (size_t)ww, c)) continue;
                dot += bit(pixel, f / fg * cg + c) == bit(w + tap * (size_t)ww, c) ? 1 : -1;
            }
        }
    return dot;
}

static float *floats(size_t count) {
    float *to = room(count * 4);
    for (size_t i = 0; i < count; i++) to[i] = (float)between(-999, 999) / 64.0f;
    return to;
}

/* Whether floats and their bits are what the header says, with every mix of options. */
static int values(const xnor_layer *layer, const uint64_t *x, const int32_t *dots, size_t count,
                  const xnor_shape *s, int32_t oh, int32_t ow, void *scratch) {
    const size_t filters = (size_t)s->filters, area = (size_t)oh * (size_t)ow;
    const size_t words = (filters + 63) / 64;
    float *c[6], *real = room(count * 4), *add = floats(count), *more = floats(count);
    for (int i = 0; i < 6; i++) c[i] = floats(filters);
    uint8_t *flip = room(filters);
    for (size_t f = 0; f < filters; f++) flip[f] = (uint8_t)between(0, 1);
    uint64_t *bits = room(area * words * 8);
    const int with = between(0, 15);
    xnor_output out = {0};
    out.scale = c[0], out.bias = c[1], out.border = c[5], out.flip = flip;
    if (with & 1) out.add = add;
    if ((with & 3) == 3) out.more = more;
    if (with & 4) out.before = c[2], out.slope = c[3], out.after = c[4];
    out.channels_last = with >> 3;
    const int which = between(1, 3);
    if (which & 1) out.real = real;
    if (which & 2) out.bits = bits;
    if (xnor_run(layer, x, &out, scratch)) exit(2);
    int good = 1;
    for (size_t i = 0; i < count; i++) {
        const size_t f = i % filters, p = i / filters;
        const size_t at = out.channels_last ? i : f * area + p;
        volatile float v = c[0][f] * (float)dots[i]; /* rounded step by step */
        v = v + c[1][f];
        if (out.add) v = v + add[at];
        if (out.more) v = v + more[at];
        if (out.slope) {
            volatile float t = v - c[2][f], low = c[3][f] * t;
            v = (t > 0 ? t : low) + c[4][f];
        }
        const float plain = v;
        if (out.real && memcmp(&real[at], &plain, 4)) good = 0;
        if (out.bits && bit(bits + p * words, (int32_t)f) != ((plain >= c[5][f]) ^ flip[f])) good = 0;
    }
    for (int i = 0; i < 6; i++) free(c[i]);
    free(real), free(add), free(more), free(flip), free(bits);
    return good;
}

/* Whether floats are packed as the header says. */
static int packs(int32_t height, int32_t width, int32_t channels, int last) {
    const size_t area = (size_t)height * (size_t)width, deep = (size_t)channels;
    const size_t words = (deep + 63) / 64;
    float *x = floats(area * deep), *least = floats(deep);
    uint8_t *flip = room(deep);
    uint64_t *bits = room(area * words * 8);
    for (size_t c = 0; c < deep; c++) flip[c] = (uint8_t)between(0, 1);
    for (size_t i = 0; i < deep; i++) x[i] = least[i]; /* some are equal */
    if (xnor_pack(x, height, width, channels, last, least, flip, bits)) exit(2);
    int good = 1;
    for (size_t i = 0; i < area; i++)
        for (size_t c = 0; c < words * 64; c++) {
            const float v = c < deep ? x[last ? i * deep + c : c * area + i] : 0;
            const int wanted = c < deep ? (v >= least[c]) ^ flip[c] : 0;
            if (bit(bits + i * words, (int32_t)c) != wanted) good = 0;
        }
    free(x), free(least), free(flip), free(bits);
    return good;
}

int main(int argc, char **argv) {
    const int layers = argc > 1 ? atoi(argv[1]) : 100;
    state = argc > 2 ? (uint64_t)atoi(argv[2]) : 0;
    const char *const *sets = xnor_sets();
    int done = 0;
    while (done < layers) {
        xnor_shape s = {0};
        s.groups = between(0, 2) ? 1 : between(2, 4);
        s.channels = s.groups * between(1, between(0, 9) ? 140 : 600);
        s.filters = s.groups * between(1, 140);
        s.kernel_h = between(1, 5), s.kernel_w = between(1, 5);
        s.stride_h = between(1, 3), s.stride_w = between(1, 3);
        s.dilation_h = between(0, 1) ? 1 : between(1, 3);
        s.dilation_w = between(0, 1) ? 1 : between(1, 3);
        s.pad_top = between(0, 3), s.pad_left = between(0, 3);
        s.pad_bottom = between(0, 3), s.pad_right = between(0, 3);
        s.height = between(1, 9), s.width = between(1, 9);
        int32_t oh, ow;
        if (xnor_out_size(&s, &oh, &ow)) continue;
        const size_t taps = (size_t)s.kernel_h * (size_t)s.kernel_w * (size_t)s.filters;
        const size_t count = (size_t)oh * (size_t)ow * (size_t)s.filters;
        const int ternary = !between(0, 2);
        uint64_t *x = randoms((size_t)s.height * (size_t)s.width, s.channels, 0);
        uint64_t *w = randoms(taps, s.channels / s.groups, 0);
        uint64_t *m = ternary ? randoms(taps, s.channels / s.groups, 1) : NULL;
        int32_t *want = room(count * 4), *got = room(count * 4);
        for (int32_t i = 0; i < oh * ow; i++)
            for (int32_t f = 0; f < s.filters; f++)
                want[(size_t)i * (size_t)s.filters + (size_t)f] = naive(&s, x, w, m, i / ow, i % ow, f);
        for (int k = 0; sets[k]; k++) {
            xnor_layer *layer = NULL;
            if (xnor_layer_new(&s, w, m, sets[k], &layer)) return 2;
            void *scratch = lined(xnor_scratch(layer));
            xnor_output out = {0};
            out.raw = got;
            if (xnor_run(layer, x, &out, scratch)) return 2;
            if (memcmp(got, want, count * 4)) {
                printf("layer %d differs on %s\n", done, sets[k]);
                return 1;
            }
            const size_t words = (size_t)oh * (size_t)ow * (size_t)((s.filters + 63) / 64);
            uint64_t *bits = room(words * 8);
            int32_t *least = room((size_t)s.filters * 4);
            uint8_t *flip = room((size_t)s.filters);
            for (int32_t f = 0; f < s.filters; f++)
                least[f] = between(-6, 6), flip[f] = (uint8_t)between(0, 1);
            out = (xnor_output){0};
            out.bits = bits, out.least = least, out.flip = flip;
            if (xnor_run(layer, x, &out, scratch)) return 2;
            for (size_t i = 0; i < count; i++) {
                const size_t f = i % (size_t)s.filters, p = i / (size_t)s.filters;
                const uint64_t *pixel = bits + p * (size_t)((s.filters + 63) / 64);
                if (bit(pixel, (int32_t)f) != ((want[i] >= least[f]) ^ flip[f])) {
                    printf("bits of layer %d differ on %s\n", done, sets[k]);
                    return 1;
                }
            }
            free(bits), free(least), free(flip);
            if (!values(layer, x, want, count, &s, oh, ow, scratch)) {
                printf("values of layer %d differ on %s\n", done, sets[k]);
                return 1;
            }
            free(scratch);
            xnor_layer_free(layer);
        }
        if (!packs(s.height, s.width * between(1, 5), s.channels, between(0, 1))) {
            printf("packing before layer %d differs\n", done);
            return 1;
        }
        free(x), free(w), free(m), free(want), free(got);
        done++;
    }
    printf("%d layers are equal on", done);
    for (int k = 0; sets[k]; k++) printf(" %s", sets[k]);
    printf("\n");
    return 0;
}
