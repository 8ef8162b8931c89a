/* The few slots of ONNX Runtime's C interface that ort.c uses, declared by position.

   The table only grows: a slot that a version has is at the same place in every later one. The
   positions are those of API version 16, the oldest that lets a kernel of a custom operator say what
   is wrong; ONNX Runtime 1.16 itself cannot infer types past an input that is left out. */
#ifndef EDGECV_ORT_ABI_H
#define EDGECV_ORT_ABI_H

#include <stddef.h>
#include <stdint.h>

#define ORT_VERSION 16 /* of OrtOp below */
#define ORT_OLDEST 17
#define ORT_FAIL 1
#define ORT_INVALID_ARGUMENT 2

enum { ORT_FLOAT = 1, ORT_UINT8 = 2, ORT_INT32 = 6, ORT_UINT64 = 13 };
enum { ORT_REQUIRED = 0, ORT_OPTIONAL = 1 };

typedef struct OrtStatus OrtStatus; /* NULL: success */
typedef struct OrtOptions OrtOptions;
typedef struct OrtDomain OrtDomain;
typedef struct OrtInfo OrtInfo;       /* of a kernel, while it is made */
typedef struct OrtContext OrtContext; /* of a kernel, while it runs */
typedef struct OrtValue OrtValue;
typedef struct OrtTensorInfo OrtTensorInfo;
typedef void (*OrtFunction)(void);
typedef OrtFunction OrtApi; /* the first of the table */

typedef struct {
    const OrtApi *(*api)(uint32_t version);
    const char *(*version)(void);
} OrtBase;

typedef struct OrtOp OrtOp;
struct OrtOp { /* what version 16 reads of an operator */
    uint32_t version;
    void *(*old_create)(const OrtOp *, const OrtApi *, const OrtInfo *);
    const char *(*name)(const OrtOp *);
    const char *(*provider)(const OrtOp *);
    int (*input_type)(const OrtOp *, size_t);
    size_t (*inputs)(const OrtOp *);
    int (*output_type)(const OrtOp *, size_t);
    size_t (*outputs)(const OrtOp *);
    void (*old_compute)(void *, OrtContext *);
    void (*destroy)(void *);
    int (*input_kind)(const OrtOp *, size_t);
    int (*output_kind)(const OrtOp *, size_t);
    int (*input_memory)(const OrtOp *, size_t);
    int (*variadic[4])(const OrtOp *);
    OrtStatus *(*create)(const OrtOp *, const OrtApi *, const OrtInfo *, void **);
    OrtStatus *(*compute)(void *, OrtContext *);
};

#define ORT_CALL(api, slot, type) ((type)(api)[slot])
#define ort_status(api, ...) \
    ORT_CALL(api, 0, OrtStatus *(*)(int, const char *))(__VA_ARGS__)
#define ort_new_domain(api, ...) \
    ORT_CALL(api, 26, OrtStatus *(*)(const char *, OrtDomain **))(__VA_ARGS__)
#define ort_add_op(api, ...) \
    ORT_CALL(api, 27, OrtStatus *(*)(OrtDomain *, const OrtOp *))(__VA_ARGS__)
#define ort_add_domain(api, ...) \
    ORT_CALL(api, 28, OrtStatus *(*)(OrtOptions *, OrtDomain *))(__VA_ARGS__)
#define ort_data(api, ...) ORT_CALL(api, 51, OrtStatus *(*)(const OrtValue *, void **))(__VA_ARGS__)
#define ort_rank(api, ...) \
    ORT_CALL(api, 61, OrtStatus *(*)(const OrtTensorInfo *, size_t *))(__VA_ARGS__)
#define ort_sizes(api, ...) \
    ORT_CALL(api, 62, OrtStatus *(*)(const OrtTensorInfo *, int64_t *, size_t))(__VA_ARGS__)
#define ort_tensor_info(api, ...) \
    ORT_CALL(api, 65, OrtStatus *(*)(const OrtValue *, OrtTensorInfo **))(__VA_ARGS__)
#define ort_input(api, ...) \
    ORT_CALL(api, 90, OrtStatus *(*)(const OrtContext *, size_t, const OrtValue **))(__VA_ARGS__)
#define ort_output(api, ...)                                                                  \
    ORT_CALL(api, 91, OrtStatus *(*)(OrtContext *, size_t, const int64_t *, size_t, OrtValue **)) \
    (__VA_ARGS__)
#define ort_free_status(api, ...) ORT_CALL(api, 93, void (*)(OrtStatus *))(__VA_ARGS__)
#define ort_free_info(api, ...) ORT_CALL(api, 99, void (*)(OrtTensorInfo *))(__VA_ARGS__)
#define ort_ints(api, ...)                                                                      \
    ORT_CALL(api, 163, OrtStatus *(*)(const OrtInfo *, const char *, int64_t *, size_t *))      \
    (__VA_ARGS__)
#define ort_constant(api, ...)                                                                  \
    ORT_CALL(api, 249, OrtStatus *(*)(const OrtInfo *, size_t, int *, const OrtValue **))       \
    (__VA_ARGS__)

#endif
