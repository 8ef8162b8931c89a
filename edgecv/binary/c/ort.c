/* Operators of the domain "edgecv" for ONNX Runtime: packed bits between them, floats at the ends.

   Binarize    (x, least, flip)                                                      -> bits
   BinaryBits  (bits, weights, mask?, least, flip)                                   -> bits
   BinaryConv  (bits, weights, mask?, scale, bias, add?, more?, before?, slope?, after?) -> real
   BinaryBoth  (... as BinaryConv, all of them named, border, flip)                  -> real, bits
   Halve       (x)                                                                   -> real
   Lookup      (x, tables)                                                           -> y

   bits: uint64 (1, H, W, words). Floats are (1, C, H, W), or (1, H, W, C) where the attribute `last`
   is 1; Halve's always are. The attribute `shape` of a convolution holds the 15 numbers of
   xnor_shape in its order, `size` of Halve
   height, width and channels of x and how many channels come out; everything but bits, add, more and x is constant.
   Lookup is of uint8 (N, H, W, C), by one constant table (1, 256) or one a channel (C, 256).
   A size that is not what they say is an error of the run, never a wrong read. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lookup.h"
#include "ort_abi.h"
#include "xnor.h"

#define TRY(call)                          \
    do {                                   \
        OrtStatus *status_ = (call);       \
        if (status_) return status_;       \
    } while (0)
#define FIELDS 15 /* of xnor_shape */

/* Inputs of convolutions. From 3 on constants by filter, but for what is added. */
enum { SCALE = 3, BIAS, ADD, MORE, BEFORE, SLOPE, AFTER, BORDER, FLIP, HELD, LEAST = 3, TURN = 4 };
typedef enum { TO_BITS = 5, TO_REAL = 10, TO_BOTH = 12 } kind; /* by how many inputs they have */

typedef struct {
    const void *data;
    int64_t size[4];
    size_t rank;
} tensor;

static OrtStatus *refuse(const OrtApi *api, const char *op, const char *what) {
    char text[160];
    snprintf(text, sizeof text, "edgecv %s: %s", op, what);
    return ort_status(api, ORT_INVALID_ARGUMENT, text);
}

/* data NULL: an optional input that was left out */
static OrtStatus *view(const OrtApi *api, const OrtValue *value, tensor *t) {
    memset(t, 0, sizeof *t);
    if (!value) return NULL;
    OrtTensorInfo *info = NULL;
    TRY(ort_tensor_info(api, value, &info));
    OrtStatus *status = ort_rank(api, info, &t->rank);
    if (!status && t->rank > 4) t->rank = 5;
    if (!status && t->rank <= 4) status = ort_sizes(api, info, t->size, t->rank);
    ort_free_info(api, info);
    if (status) return status;
    void *data = NULL;
    TRY(ort_data(api, value, &data));
    t->data = data;
    return NULL;
}

static OrtStatus *read_input(const OrtApi *api, const OrtContext *context, size_t i, tensor *t) {
    const OrtValue *value = NULL;
    TRY(ort_input(api, context, i, &value));
    return view(api, value, t);
}

static OrtStatus *constant(const OrtApi *api, const OrtInfo *info, size_t i, tensor *t) {
    int is = 0;
    const OrtValue *value = NULL;
    TRY(ort_constant(api, info, i, &is, &value));
    return view(api, is ? value : NULL, t);
}

static int has(const tensor *t, size_t rank, int64_t a, int64_t b, int64_t c, int64_t d) {
    const int64_t wanted[4] = {a, b, c, d};
    if (!t->data || t->rank != rank) return 0;
    for (size_t i = 0; i < rank; i++)
        if (t->size[i] != wanted[i]) return 0;
    return 1;
}

static void *copied(const tensor *t, size_t bytes) {
    void *to = malloc(bytes ? bytes : 1);
    if (to) memcpy(to, t->data, bytes);
    return to;
}

typedef struct {
    const OrtApi *api;
    const char *name;
    xnor_shape shape;
    xnor_layer *layer;
    int32_t out_h, out_w, words, out_words;
    int64_t last;
    void *held[HELD]; /* constants by filter, NULL where they are left out */
    _Atomic(void *) scratch; /* of the last run; runs side by side make their own */
} convolution;

static void destroy_convolution(void *kernel) {
    convolution *k = kernel;
    if (!k) return;
    xnor_layer_free(k->layer);
    for (int i = 0; i < HELD; i++) free(k->held[i]);
    free(atomic_load(&k->scratch));
    free(k);
}

static OrtStatus *read_shape(convolution *k, const OrtInfo *info) {
    int64_t n[FIELDS];
    int32_t *to = (int32_t *)(void *)&k->shape;
    size_t count = FIELDS;
    _Static_assert(sizeof(xnor_shape) == FIELDS * sizeof(int32_t), "xnor_shape is 15 numbers");
    OrtStatus *status = ort_ints(k->api, info, "shape", n, &count);
    if (status) {
        ort_free_status(k->api, status);
        return refuse(k->api, k->name, "has no attribute `shape` of 15 numbers");
    }
    if (count != FIELDS) return refuse(k->api, k->name, "`shape` has not 15 numbers");
    for (size_t i = 0; i < FIELDS; i++) {
        if (n[i] < INT32_MIN || n[i] > INT32_MAX)
            return refuse(k->api, k->name, "a size in `shape` is too large");
        to[i] = (int32_t)n[i];
    }
    if (xnor_out_size(&k->shape, &k->out_h, &k->out_w))
        return refuse(k->api, k->name, "`shape` is no layer that the kernels take");
    k->words = (k->shape.channels + 63) / 64;
    k->out_words = (k->shape.filters + 63) / 64;
    return NULL;
}

/* One number of an attribute, or `otherwise` where there is none. */
static int64_t number(const OrtApi *api, const OrtInfo *info, const char *name, int64_t otherwise) {
    int64_t value = otherwise;
    size_t count = 1;
    OrtStatus *status = ort_ints(api, info, name, &value, &count);
    if (!status) return count == 1 ? value : otherwise;
    ort_free_status(api, status);
    return otherwise;
}

static OrtStatus *hold(convolution *k, const OrtInfo *info, size_t i, size_t bytes, int needed) {
    tensor t;
    TRY(constant(k->api, info, i, &t));
    if (!t.data && !needed) return NULL;
    if (!has(&t, 1, k->shape.filters, 0, 0, 0))
        return refuse(k->api, k->name,
                      "constants by filter are missing, or not as many as filters");
    k->held[i] = copied(&t, (size_t)k->shape.filters * bytes);
    return k->held[i] ? NULL : refuse(k->api, k->name, "out of memory");
}

static OrtStatus *fill(convolution *k, const OrtInfo *info, kind what) {
    const OrtApi *api = k->api;
    tensor weights, mask;
    TRY(read_shape(k, info));
    TRY(constant(api, info, 1, &weights));
    TRY(constant(api, info, 2, &mask));
    const xnor_shape *s = &k->shape;
    const int32_t words = (s->channels / s->groups + 63) / 64;
    if (!has(&weights, 4, s->filters, s->kernel_h, s->kernel_w, words))
        return refuse(api, k->name, "weights are not constant, or not of the size in `shape`");
    if (mask.rank && !has(&mask, 4, s->filters, s->kernel_h, s->kernel_w, words))
        return refuse(api, k->name, "mask is not constant, or not of the size in `shape`");
    if (what == TO_BITS) {
        TRY(hold(k, info, LEAST, sizeof(int32_t), 1));
        TRY(hold(k, info, TURN, 1, 1));
    } else {
        k->last = number(api, info, "last", 0);
        TRY(hold(k, info, SCALE, sizeof(float), 1));
        TRY(hold(k, info, BIAS, sizeof(float), 1));
        for (size_t i = BEFORE; i <= AFTER; i++) TRY(hold(k, info, i, sizeof(float), 0));
        if (!k->held[BEFORE] != !k->held[SLOPE] || !k->held[SLOPE] != !k->held[AFTER])
            return refuse(api, k->name, "before, slope and after come together");
    }
    if (what == TO_BOTH) {
        TRY(hold(k, info, BORDER, sizeof(float), 1));
        TRY(hold(k, info, FLIP, 1, 1));
    }
    if (xnor_layer_new(s, weights.data, mask.data, NULL, &k->layer))
        return refuse(api, k->name, "out of memory");
    return NULL;
}

static OrtStatus *create(const OrtApi *api, const OrtInfo *info, const char *name, kind what,
                         void **kernel) {
    convolution *k = calloc(1, sizeof *k);
    if (!k) return ort_status(api, ORT_FAIL, "edgecv: out of memory");
    k->api = api;
    k->name = name;
    OrtStatus *status = fill(k, info, what);
    if (status) {
        destroy_convolution(k);
        return status;
    }
    *kernel = k;
    return NULL;
}

static OrtStatus *run(convolution *k, const tensor *x, const xnor_output *out) {
    if (!has(x, 4, 1, k->shape.height, k->shape.width, k->words))
        return refuse(k->api, k->name, "bits are not of the size in `shape`");
    void *scratch = atomic_exchange(&k->scratch, NULL);
    if (!scratch) {
        const size_t bytes = xnor_scratch(k->layer);
        scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
    }
    if (!scratch) return refuse(k->api, k->name, "out of memory");
    xnor_run(k->layer, x->data, out, scratch);
    free(atomic_exchange(&k->scratch, scratch));
    return NULL;
}

static OrtStatus *added(convolution *k, OrtContext *context, size_t i, const int64_t size[4],
                        const float **to) {
    tensor t;
    TRY(read_input(k->api, context, i, &t));
    if (t.rank && !has(&t, 4, size[0], size[1], size[2], size[3]))
        return refuse(k->api, k->name, "what is added is not of the output's size");
    *to = t.data;
    return NULL;
}

static OrtStatus *output(const OrtApi *api, OrtContext *context, size_t i, const int64_t size[4],
                         void **to) {
    OrtValue *value = NULL;
    TRY(ort_output(api, context, i, size, 4, &value));
    return ort_data(api, value, to);
}

static OrtStatus *compute_floats(convolution *k, OrtContext *context, int both) {
    tensor x;
    void *real = NULL, *bits = NULL;
    const int64_t first[4] = {1, k->shape.filters, k->out_h, k->out_w};
    const int64_t last[4] = {1, k->out_h, k->out_w, k->shape.filters};
    const int64_t *size = k->last ? last : first;
    const int64_t packed[4] = {1, k->out_h, k->out_w, k->out_words};
    xnor_output out = {.scale = k->held[SCALE], .bias = k->held[BIAS], .before = k->held[BEFORE],
                       .slope = k->held[SLOPE], .after = k->held[AFTER],
                       .border = k->held[BORDER], .flip = k->held[FLIP],
                       .channels_last = k->last != 0};
    TRY(read_input(k->api, context, 0, &x));
    TRY(added(k, context, ADD, size, &out.add));
    TRY(added(k, context, MORE, size, &out.more));
    TRY(output(k->api, context, 0, size, &real));
    if (both) TRY(output(k->api, context, 1, packed, &bits));
    out.real = real;
    out.bits = bits;
    return run(k, &x, &out);
}

static OrtStatus *compute_real(void *k, OrtContext *context) { return compute_floats(k, context, 0); }
static OrtStatus *compute_both(void *k, OrtContext *context) { return compute_floats(k, context, 1); }

static OrtStatus *compute_bits(void *kernel, OrtContext *context) {
    convolution *k = kernel;
    tensor x;
    TRY(read_input(k->api, context, 0, &x));
    const int64_t size[4] = {1, k->out_h, k->out_w, k->out_words};
    void *to = NULL;
    TRY(output(k->api, context, 0, size, &to));
    const xnor_output out = {.bits = to, .least = k->held[LEAST], .flip = k->held[TURN]};
    return run(k, &x, &out);
}

typedef struct {
    const OrtApi *api;
    float *least;
    uint8_t *flip;
    int32_t channels;
    int64_t last;
} packing;

static void destroy_packing(void *kernel) {
    packing *k = kernel;
    if (!k) return;
    free(k->least);
    free(k->flip);
    free(k);
}

static OrtStatus *create_packing(const OrtOp *op, const OrtApi *api, const OrtInfo *info,
                                 void **kernel) {
    (void)op;
    tensor least, flip;
    TRY(constant(api, info, 1, &least));
    TRY(constant(api, info, 2, &flip));
    if (!least.data || least.rank != 1 || least.size[0] < 1 || least.size[0] > INT32_MAX ||
        !has(&flip, 1, least.size[0], 0, 0, 0))
        return refuse(api, "Binarize", "least and flip are not constants of one size");
    packing *k = calloc(1, sizeof *k);
    if (!k) return refuse(api, "Binarize", "out of memory");
    k->api = api;
    k->channels = (int32_t)least.size[0];
    k->last = number(api, info, "last", 0);
    k->least = copied(&least, (size_t)k->channels * sizeof *k->least);
    k->flip = copied(&flip, (size_t)k->channels);
    if (!k->least || !k->flip) {
        destroy_packing(k);
        return refuse(api, "Binarize", "out of memory");
    }
    *kernel = k;
    return NULL;
}

static OrtStatus *compute_packing(void *kernel, OrtContext *context) {
    packing *k = kernel;
    tensor x;
    TRY(read_input(k->api, context, 0, &x));
    const int64_t most = 1 << 20, *side = x.size + (k->last ? 1 : 2);
    if (!has(&x, 4, 1, k->last ? x.size[1] : k->channels, x.size[2],
             k->last ? k->channels : x.size[3]) ||
        side[0] < 1 || side[1] < 1 || side[0] > most || side[1] > most)
        return refuse(k->api, "Binarize", "x is not (1, channels, height, width), or channels last");
    const int64_t size[4] = {1, side[0], side[1], (k->channels + 63) / 64};
    void *to = NULL;
    TRY(output(k->api, context, 0, size, &to));
    if (xnor_pack(x.data, (int32_t)side[0], (int32_t)side[1], k->channels, k->last != 0, k->least,
                  k->flip, to))
        return refuse(k->api, "Binarize", "x is too large");
    return NULL;
}

typedef struct {
    const OrtApi *api;
    int64_t size[4]; /* height, width, channels, filters */
} halving;

static OrtStatus *create_halving(const OrtOp *op, const OrtApi *api, const OrtInfo *info,
                                 void **kernel) {
    (void)op;
    halving *k = malloc(sizeof *k);
    if (!k) return refuse(api, "Halve", "out of memory");
    k->api = api;
    size_t count = 4;
    OrtStatus *status = ort_ints(api, info, "size", k->size, &count);
    if (status) ort_free_status(api, status);
    int good = !status && count == 4;
    for (int i = 0; i < 4; i++) good = good && k->size[i] >= 1 && k->size[i] <= 1 << 20;
    if (!good || k->size[3] % k->size[2]) {
        free(k);
        return refuse(api, "Halve", "has no attribute `size` of 4 numbers that make sense");
    }
    *kernel = k;
    return NULL;
}

static OrtStatus *compute_halving(void *kernel, OrtContext *context) {
    halving *k = kernel;
    const int64_t *n = k->size;
    tensor x;
    TRY(read_input(k->api, context, 0, &x));
    if (!has(&x, 4, 1, n[0], n[1], n[2]))
        return refuse(k->api, "Halve", "x is not (1, height, width, channels) as in `size`");
    const int64_t size[4] = {1, (n[0] + 1) / 2, (n[1] + 1) / 2, n[3]};
    void *to = NULL;
    TRY(output(k->api, context, 0, size, &to));
    if (xnor_halve(x.data, (int32_t)n[0], (int32_t)n[1], (int32_t)n[2], (int32_t)n[3], to))
        return refuse(k->api, "Halve", "x is too large");
    return NULL;
}

typedef struct {
    const OrtApi *api;
    uint8_t *tables;
    int64_t count; /* 1, or as many as channels */
} looking;

static void destroy_looking(void *kernel) {
    looking *k = kernel;
    if (k) free(k->tables);
    free(k);
}

static OrtStatus *create_looking(const OrtOp *op, const OrtApi *api, const OrtInfo *info,
                                 void **kernel) {
    (void)op;
    tensor t;
    TRY(constant(api, info, 1, &t));
    if (!t.data || t.rank != 2 || t.size[0] < 1 || t.size[0] > 1 << 20 || t.size[1] != 256)
        return refuse(api, "Lookup", "tables are not constants of 256 numbers each");
    looking *k = calloc(1, sizeof *k);
    if (!k) return refuse(api, "Lookup", "out of memory");
    k->api = api;
    k->count = t.size[0];
    k->tables = copied(&t, (size_t)t.size[0] * 256);
    if (!k->tables) {
        free(k);
        return refuse(api, "Lookup", "out of memory");
    }
    *kernel = k;
    return NULL;
}

static OrtStatus *compute_looking(void *kernel, OrtContext *context) {
    looking *k = kernel;
    tensor x;
    TRY(read_input(k->api, context, 0, &x));
    if (x.rank != 4 || (k->count > 1 && x.size[3] != k->count))
        return refuse(k->api, "Lookup", "x is not (N, height, width, channels)");
    void *to = NULL;
    TRY(output(k->api, context, 0, x.size, &to));
    const size_t pixels = (size_t)(x.size[0] * x.size[1] * x.size[2]);
    const size_t channels = (size_t)x.size[3];
    if (k->count == 1)
        lookup_whole(x.data, pixels * channels, k->tables, to);
    else
        lookup_channels(x.data, pixels, channels, k->tables, to);
    return NULL;
}

#define CREATE(function, name, what)                                                              \
    static OrtStatus *function(const OrtOp *op, const OrtApi *api, const OrtInfo *info, void **k) { \
        return (void)op, create(api, info, name, what, k);                                        \
    }
CREATE(create_real, "BinaryConv", TO_REAL)
CREATE(create_both, "BinaryBoth", TO_BOTH)
CREATE(create_bits, "BinaryBits", TO_BITS)

static const char *name_packing(const OrtOp *op) { return (void)op, "Binarize"; }
static const char *name_real(const OrtOp *op) { return (void)op, "BinaryConv"; }
static const char *name_both(const OrtOp *op) { return (void)op, "BinaryBoth"; }
static const char *name_bits(const OrtOp *op) { return (void)op, "BinaryBits"; }
static const char *name_halving(const OrtOp *op) { return (void)op, "Halve"; }
static const char *name_looking(const OrtOp *op) { return (void)op, "Lookup"; }
static const char *cpu(const OrtOp *op) { return (void)op, NULL; }
static size_t one(const OrtOp *op) { return (void)op, 1; }
static size_t two(const OrtOp *op) { return (void)op, 2; }
static size_t three(const OrtOp *op) { return (void)op, 3; }
static size_t of_bits(const OrtOp *op) { return (void)op, TO_BITS; }
static size_t of_real(const OrtOp *op) { return (void)op, TO_REAL; }
static size_t of_both(const OrtOp *op) { return (void)op, TO_BOTH; }
static int required(const OrtOp *op, size_t i) { return (void)op, (void)i, ORT_REQUIRED; }
static int optional(const OrtOp *op, size_t i) {
    return (void)op, i == 2 || (i >= ADD && i <= AFTER) ? ORT_OPTIONAL : ORT_REQUIRED;
}
static int memory(const OrtOp *op, size_t i) { return (void)op, (void)i, 0; }
static int real_type(const OrtOp *op, size_t i) { return (void)op, (void)i, ORT_FLOAT; }
static int bits_type(const OrtOp *op, size_t i) { return (void)op, (void)i, ORT_UINT64; }
static int byte_type(const OrtOp *op, size_t i) { return (void)op, (void)i, ORT_UINT8; }
static int both_types(const OrtOp *op, size_t i) { return (void)op, i ? ORT_UINT64 : ORT_FLOAT; }
static int packing_types(const OrtOp *op, size_t i) {
    return (void)op, i == 2 ? ORT_UINT8 : ORT_FLOAT;
}
static int conv_types(const OrtOp *op, size_t i) {
    return (void)op, i < 3 ? ORT_UINT64 : i == FLIP ? ORT_UINT8 : ORT_FLOAT;
}
static int bits_types(const OrtOp *op, size_t i) {
    return (void)op, i < 3 ? ORT_UINT64 : i == LEAST ? ORT_INT32 : ORT_UINT8;
}

#define OP .version = ORT_VERSION, .provider = cpu, .output_kind = required, .input_memory = memory
static const OrtOp OPS[] = {
    {OP, .name = name_packing, .input_type = packing_types, .inputs = three,
     .output_type = bits_type, .outputs = one, .input_kind = required,
     .destroy = destroy_packing, .create = create_packing, .compute = compute_packing},
    {OP, .name = name_real, .input_type = conv_types, .inputs = of_real,
     .output_type = real_type, .outputs = one, .input_kind = optional,
     .destroy = destroy_convolution, .create = create_real, .compute = compute_real},
    {OP, .name = name_both, .input_type = conv_types, .inputs = of_both,
     .output_type = both_types, .outputs = two, .input_kind = optional,
     .destroy = destroy_convolution, .create = create_both, .compute = compute_both},
    {OP, .name = name_bits, .input_type = bits_types, .inputs = of_bits,
     .output_type = bits_type, .outputs = one, .input_kind = optional,
     .destroy = destroy_convolution, .create = create_bits, .compute = compute_bits},
    {OP, .name = name_halving, .input_type = real_type, .inputs = one,
     .output_type = real_type, .outputs = one, .input_kind = required,
     .destroy = free, .create = create_halving, .compute = compute_halving},
    {OP, .name = name_looking, .input_type = byte_type, .inputs = two,
     .output_type = byte_type, .outputs = one, .input_kind = required,
     .destroy = destroy_looking, .create = create_looking, .compute = compute_looking},
};

/* What ONNX Runtime calls of a library that it is given. */
XNOR_API OrtStatus *RegisterCustomOps(OrtOptions *options, const OrtBase *base) {
    static _Atomic(OrtDomain *) kept; /* ONNX Runtime keeps pointers to it: made once, never freed */
    const OrtApi *api = base->api(ORT_OLDEST);
    if (!api) { /* the oldest table can say so */
        const OrtApi *old = base->api(1);
        return old ? ort_status(old, ORT_FAIL, "edgecv: needs ONNX Runtime 1.17 or newer") : NULL;
    }
    OrtDomain *domain = atomic_load(&kept);
    if (!domain) {
        TRY(ort_new_domain(api, "edgecv", &domain));
        for (size_t i = 0; i < sizeof OPS / sizeof *OPS; i++)
            TRY(ort_add_op(api, domain, &OPS[i]));
        atomic_store(&kept, domain);
    }
    return ort_add_domain(api, options, domain);
}
