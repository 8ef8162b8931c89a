/* Operators of the domain "edgecv" for ONNX Runtime: packed bits between them, floats at the ends.

   Binarize    (x, least, flip)                          -> bits
   BinaryConv  (bits, weights, mask?, scale, bias, add?) -> real
   BinaryBits  (bits, weights, mask?, least, flip)       -> bits

   real: float (1, C, H, W); bits: uint64 (1, H, W, words). BinaryConv and BinaryBits have the
   attribute `shape`: the 15 numbers of xnor_shape in its order; everything but bits and add is
   constant. A size that is not what `shape` says is an error of the run, never a wrong read. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ort_abi.h"
#include "xnor.h"

#define TRY(call)                          \
    do {                                   \
        OrtStatus *status_ = (call);       \
        if (status_) return status_;       \
    } while (0)
#define FIELDS 15 /* of xnor_shape */

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
    float *scale, *bias;
    int32_t *least;
    uint8_t *flip;
    _Atomic(void *) scratch; /* of the last run; runs side by side make their own */
} convolution;

static void destroy_convolution(void *kernel) {
    convolution *k = kernel;
    if (!k) return;
    xnor_layer_free(k->layer);
    free(k->scale);
    free(k->bias);
    free(k->least);
    free(k->flip);
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

static OrtStatus *fill(convolution *k, const OrtInfo *info, int bits) {
    const OrtApi *api = k->api;
    tensor weights, mask, first, second;
    TRY(read_shape(k, info));
    TRY(constant(api, info, 1, &weights));
    TRY(constant(api, info, 2, &mask));
    TRY(constant(api, info, 3, &first));
    TRY(constant(api, info, 4, &second));
    const xnor_shape *s = &k->shape;
    const int32_t words = (s->channels / s->groups + 63) / 64;
    if (!has(&weights, 4, s->filters, s->kernel_h, s->kernel_w, words))
        return refuse(api, k->name, "weights are not constant, or not of the size in `shape`");
    if (mask.rank && !has(&mask, 4, s->filters, s->kernel_h, s->kernel_w, words))
        return refuse(api, k->name, "mask is not constant, or not of the size in `shape`");
    if (!has(&first, 1, s->filters, 0, 0, 0) || !has(&second, 1, s->filters, 0, 0, 0))
        return refuse(api, k->name, "constants by filter are missing, or not as many as filters");
    const size_t filters = (size_t)s->filters;
    if (bits) {
        k->least = copied(&first, filters * sizeof *k->least);
        k->flip = copied(&second, filters);
    } else {
        k->scale = copied(&first, filters * sizeof *k->scale);
        k->bias = copied(&second, filters * sizeof *k->bias);
    }
    if (bits ? !k->least || !k->flip : !k->scale || !k->bias)
        return refuse(api, k->name, "out of memory");
    if (xnor_layer_new(s, weights.data, mask.data, NULL, &k->layer))
        return refuse(api, k->name, "out of memory");
    return NULL;
}

static OrtStatus *create(const OrtApi *api, const OrtInfo *info, const char *name, int bits,
                         void **kernel) {
    convolution *k = calloc(1, sizeof *k);
    if (!k) return ort_status(api, ORT_FAIL, "edgecv: out of memory");
    k->api = api;
    k->name = name;
    OrtStatus *status = fill(k, info, bits);
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

static OrtStatus *compute_real(void *kernel, OrtContext *context) {
    convolution *k = kernel;
    tensor x, add;
    TRY(read_input(k->api, context, 0, &x));
    TRY(read_input(k->api, context, 5, &add));
    const int64_t size[4] = {1, k->shape.filters, k->out_h, k->out_w};
    if (add.rank && !has(&add, 4, size[0], size[1], size[2], size[3]))
        return refuse(k->api, k->name, "what is added is not of the output's size");
    OrtValue *value = NULL;
    void *to = NULL;
    TRY(ort_output(k->api, context, 0, size, 4, &value));
    TRY(ort_data(k->api, value, &to));
    const xnor_output out = {.real = to, .scale = k->scale, .bias = k->bias, .add = add.data};
    return run(k, &x, &out);
}

static OrtStatus *compute_bits(void *kernel, OrtContext *context) {
    convolution *k = kernel;
    tensor x;
    TRY(read_input(k->api, context, 0, &x));
    const int64_t size[4] = {1, k->out_h, k->out_w, k->out_words};
    OrtValue *value = NULL;
    void *to = NULL;
    TRY(ort_output(k->api, context, 0, size, 4, &value));
    TRY(ort_data(k->api, value, &to));
    const xnor_output out = {.bits = to, .least = k->least, .flip = k->flip};
    return run(k, &x, &out);
}

typedef struct {
    const OrtApi *api;
    float *least;
    uint8_t *flip;
    int32_t channels;
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
    const int64_t most = 1 << 20;
    if (!has(&x, 4, 1, k->channels, x.size[2], x.size[3]) || x.size[2] < 1 || x.size[3] < 1 ||
        x.size[2] > most || x.size[3] > most)
        return refuse(k->api, "Binarize", "x is not (1, channels, height, width)");
    const int64_t size[4] = {1, x.size[2], x.size[3], (k->channels + 63) / 64};
    OrtValue *value = NULL;
    void *to = NULL;
    TRY(ort_output(k->api, context, 0, size, 4, &value));
    TRY(ort_data(k->api, value, &to));
    if (xnor_pack(x.data, (int32_t)x.size[2], (int32_t)x.size[3], k->channels, 0, k->least,
                  k->flip, to))
        return refuse(k->api, "Binarize", "x is too large");
    return NULL;
}

static OrtStatus *create_real(const OrtOp *op, const OrtApi *api, const OrtInfo *info, void **k) {
    (void)op;
    return create(api, info, "BinaryConv", 0, k);
}
static OrtStatus *create_bits(const OrtOp *op, const OrtApi *api, const OrtInfo *info, void **k) {
    (void)op;
    return create(api, info, "BinaryBits", 1, k);
}

static const char *name_packing(const OrtOp *op) { return (void)op, "Binarize"; }
static const char *name_real(const OrtOp *op) { return (void)op, "BinaryConv"; }
static const char *name_bits(const OrtOp *op) { return (void)op, "BinaryBits"; }
static const char *cpu(const OrtOp *op) { return (void)op, NULL; }
static size_t one(const OrtOp *op) { return (void)op, 1; }
static size_t three(const OrtOp *op) { return (void)op, 3; }
static size_t five(const OrtOp *op) { return (void)op, 5; }
static size_t six(const OrtOp *op) { return (void)op, 6; }
static int required(const OrtOp *op, size_t i) { return (void)op, (void)i, ORT_REQUIRED; }
static int optional(const OrtOp *op, size_t i) { /* mask and add */
    return (void)op, i == 2 || i == 5 ? ORT_OPTIONAL : ORT_REQUIRED;
}
static int memory(const OrtOp *op, size_t i) { return (void)op, (void)i, 0; }
static int real_type(const OrtOp *op, size_t i) { return (void)op, (void)i, ORT_FLOAT; }
static int bits_type(const OrtOp *op, size_t i) { return (void)op, (void)i, ORT_UINT64; }
static int packing_types(const OrtOp *op, size_t i) {
    return (void)op, i == 2 ? ORT_UINT8 : ORT_FLOAT;
}
static int conv_types(const OrtOp *op, size_t i) { return (void)op, i < 3 ? ORT_UINT64 : ORT_FLOAT; }
static int bits_types(const OrtOp *op, size_t i) {
    return (void)op, i < 3 ? ORT_UINT64 : i == 3 ? ORT_INT32 : ORT_UINT8;
}

static const OrtOp OPS[] = {
    {.version = ORT_VERSION, .name = name_packing, .provider = cpu, .input_type = packing_types,
     .inputs = three, .output_type = bits_type, .outputs = one, .destroy = destroy_packing,
     .input_kind = required, .output_kind = required, .input_memory = memory,
     .create = create_packing, .compute = compute_packing},
    {.version = ORT_VERSION, .name = name_real, .provider = cpu, .input_type = conv_types,
     .inputs = six, .output_type = real_type, .outputs = one, .destroy = destroy_convolution,
     .input_kind = optional, .output_kind = required, .input_memory = memory,
     .create = create_real, .compute = compute_real},
    {.version = ORT_VERSION, .name = name_bits, .provider = cpu, .input_type = bits_types,
     .inputs = five, .output_type = bits_type, .outputs = one, .destroy = destroy_convolution,
     .input_kind = optional, .output_kind = required, .input_memory = memory,
     .create = create_bits, .compute = compute_bits},
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
