/* Operators of values of any rank: loops, one in another, with a step of every operand in each, so
   that slices, transposes and broadcasts are read where they lie. */
/// nest
typedef struct {
    int n[6], step[4][6]; /* outermost first */
} nest_t;
/* The operands' places at the next run of the innermost loop; 0 behind the last. */
static int further(const nest_t *s, int *i, long *at) {
    for (int d = 4; d >= 0; d--) {
        const int on = ++i[d] < s->n[d];
        for (int k = 0; k < 4; k++)
            at[k] += on ? s->step[k][d] : -(long)(s->n[d] - 1) * s->step[k][d];
        if (on) return 1;
        i[d] = 0;
    }
    return 0;
}

/// copy_f32
static void copy_f32(const float *x, float *y, const nest_t *s) {
    int i[5] = {0};
    long at[4] = {0};
    do
        for (int k = 0; k < s->n[5]; k++)
            y[at[1] + (long)k * s->step[1][5]] = x[at[0] + (long)k * s->step[0][5]];
    while (further(s, i, at));
}

/// copy_i8
static void copy_i8(const int8_t *x, int8_t *y, const nest_t *s) {
    int i[5] = {0};
    long at[4] = {0};
    do
        for (int k = 0; k < s->n[5]; k++)
            y[at[1] + (long)k * s->step[1][5]] = x[at[0] + (long)k * s->step[0][5]];
    while (further(s, i, at));
}

/// each
/* y = f(u, v) */
#define EACH(name, value)                                                                  \
    static void name(const float *a, const float *b, float *y, const nest_t *s) {          \
        int i[5] = {0};                                                                    \
        long at[4] = {0};                                                                  \
        do                                                                                 \
            for (int k = 0; k < s->n[5]; k++) {                                            \
                const float u = a[at[0] + (long)k * s->step[0][5]];                        \
                const float v = b[at[1] + (long)k * s->step[1][5]];                        \
                y[at[2] + (long)k * s->step[2][5]] = value;                                \
            }                                                                              \
        while (further(s, i, at));                                                         \
    }

/// each_add
EACH(each_add, u + v)

/// each_sub
EACH(each_sub, u - v)

/// each_mul
EACH(each_mul, u * v)

/// each_div
EACH(each_div, u / v)

/// each_max
EACH(each_max, u > v ? u : v)

/// each_min
EACH(each_min, u < v ? u : v)

/// each_greater
EACH(each_greater, u > v ? 1.0f : 0.0f)

/// each_less
EACH(each_less, u < v ? 1.0f : 0.0f)

/// each_at_least
EACH(each_at_least, u >= v ? 1.0f : 0.0f)

/// each_at_most
EACH(each_at_most, u <= v ? 1.0f : 0.0f)

/// each_equal
EACH(each_equal, u == v ? 1.0f : 0.0f)

/// each_prelu
EACH(each_prelu, u > 0.0f ? u : u * v)

/// pow_f32
/* u^v: by products where v is a whole number to 32, else e^(v ln u), which is NaN below 0 */
static float pow_f32(float u, float v) {
    const float size = v < 0.0f ? -v : v;
    float y = 1.0f;
    if (size <= 32.0f && size == (float)(int)size) {
        for (int k = (int)size; k > 0; k--) y *= u;
        return v < 0.0f ? 1.0f / y : y;
    }
    if (u < 0.0f) return (u - u) / (u - u);
    return u > 0.0f ? exp_f32(v * log_f32(u)) : v > 0.0f ? 0.0f : 1.0f / u;
}

/// each_pow
EACH(each_pow, pow_f32(u, v))

/// each_where
/* y = c ? a : b */
static void each_where(const float *c, const float *a, const float *b, float *y, const nest_t *s) {
    int i[5] = {0};
    long at[4] = {0};
    do
        for (int k = 0; k < s->n[5]; k++) {
            const float t = c[at[0] + (long)k * s->step[0][5]];
            const float u = a[at[1] + (long)k * s->step[1][5]];
            const float v = b[at[2] + (long)k * s->step[2][5]];
            y[at[3] + (long)k * s->step[3][5]] = t != 0.0f ? u : v;
        }
    while (further(s, i, at));
}

/// reduce
/* y = what is left of r after all v of the inner loops; n: how many they are */
#define REDUCE(name, start, next, result)                                                  \
    static void name(const float *x, float *y, const nest_t *s, const nest_t *t) {         \
        int i[5] = {0};                                                                    \
        long at[4] = {0};                                                                  \
        float n = 1.0f;                                                                    \
        for (int d = 0; d < 6; d++) n *= (float)t->n[d];                                   \
        (void)n;                                                                           \
        do                                                                                 \
            for (int k = 0; k < s->n[5]; k++) {                                            \
                const float *own = x + at[0] + (long)k * s->step[0][5];                    \
                int j[5] = {0};                                                            \
                long in[4] = {0};                                                          \
                float r = start;                                                           \
                do                                                                         \
                    for (int l = 0; l < t->n[5]; l++) {                                    \
                        const float v = own[in[0] + (long)l * t->step[0][5]];              \
                        r = next;                                                          \
                    }                                                                      \
                while (further(t, j, in));                                                 \
                y[at[1] + (long)k * s->step[1][5]] = result;                               \
            }                                                                              \
        while (further(s, i, at));                                                         \
    }

/// reduce_mean
REDUCE(reduce_mean, 0.0f, r + v, r / n)

/// reduce_sum
REDUCE(reduce_sum, 0.0f, r + v, r)

/// reduce_max
REDUCE(reduce_max, own[0], v > r ? v : r, r)

/// reduce_min
REDUCE(reduce_min, own[0], v < r ? v : r, r)

/// reduce_prod
REDUCE(reduce_prod, 1.0f, r * v, r)

/// reduce_l1
REDUCE(reduce_l1, 0.0f, r + (v < 0.0f ? -v : v), r)

/// reduce_square
REDUCE(reduce_square, 0.0f, r + v * v, r)

/// root
/* a square root above 0, by Newton's steps from a first guess of half the exponent */
static float root(float v) {
    uint32_t bits;
    float r;
    if (v < 1.17549435e-38f) return 0.0f;
    memcpy(&bits, &v, 4);
    bits = (bits >> 1) + 0x1fbd1df5u;
    memcpy(&r, &bits, 4);
    for (int k = 0; k < 4; k++) r = 0.5f * (r + v / r);
    return r;
}

/// reduce_l2
REDUCE(reduce_l2, 0.0f, r + v * v, root(r))

/// norm
/* y = scale (x - mean) / sqrt(variance + epsilon) + bias of what the inner loops hold */
static void norm(const float *x, const float *scale, const float *bias, float *y, const nest_t *s,
                 const nest_t *t, float epsilon) {
    int i[5] = {0};
    long at[4] = {0};
    float n = 1.0f;
    for (int d = 0; d < 6; d++) n *= (float)t->n[d];
    do
        for (int k = 0; k < s->n[5]; k++) {
            const float *own = x + at[0] + (long)k * s->step[0][5];
            const float *a = scale + at[1] + (long)k * s->step[1][5];
            const float *b = bias + at[2] + (long)k * s->step[2][5];
            float *to = y + at[3] + (long)k * s->step[3][5];
            float mean = 0.0f, square = 0.0f;
            for (int pass = 0; pass < 3; pass++) {
                int j[5] = {0};
                long in[4] = {0};
                const float by = pass < 2 ? 0.0f : 1.0f / root(square / n + epsilon);
                do
                    for (int l = 0; l < t->n[5]; l++) {
                        const float v = own[in[0] + (long)l * t->step[0][5]] - mean;
                        if (pass == 0)
                            square += v;
                        else if (pass == 1)
                            square += v * v;
                        else
                            to[in[3] + (long)l * t->step[3][5]] =
                                v * by * a[in[1] + (long)l * t->step[1][5]] +
                                b[in[2] + (long)l * t->step[2][5]];
                    }
                while (further(t, j, in));
                if (pass == 0) mean = square / n, square = 0.0f;
            }
        }
    while (further(s, i, at));
}

/// soft
/* y = e^(x - most) / sum, or x - most - ln sum, of what the inner loops hold */
#define SOFT(name, part, whole)                                                            \
    static void name(const float *x, float *y, const nest_t *s, const nest_t *t) {         \
        int i[5] = {0};                                                                    \
        long at[4] = {0};                                                                  \
        do                                                                                 \
            for (int k = 0; k < s->n[5]; k++) {                                            \
                const float *own = x + at[0] + (long)k * s->step[0][5];                    \
                float *to = y + at[1] + (long)k * s->step[1][5];                           \
                float most = own[0], sum = 0.0f;                                           \
                for (int pass = 0; pass < 3; pass++) {                                     \
                    int j[5] = {0};                                                        \
                    long in[4] = {0};                                                      \
                    const float by = pass < 2 ? 0.0f : whole;                              \
                    do                                                                     \
                        for (int l = 0; l < t->n[5]; l++) {                                \
                            const float v = own[in[0] + (long)l * t->step[0][5]];          \
                            if (pass == 0)                                                 \
                                most = v > most ? v : most;                                \
                            else if (pass == 1)                                            \
                                sum += exp_f32(v - most);                                  \
                            else                                                           \
                                to[in[1] + (long)l * t->step[1][5]] = part;                \
                        }                                                                  \
                    while (further(t, j, in));                                             \
                }                                                                          \
            }                                                                              \
        while (further(s, i, at));                                                         \
    }

/// softmax
SOFT(softmax, exp_f32(v - most) * by, 1.0f / sum)

/// log_softmax
SOFT(log_softmax, v - most - by, log_f32(sum))

/// dot
/* y = sum a b over the inner loops */
static void dot(const float *a, const float *b, float *y, const nest_t *s, const nest_t *t) {
    int i[5] = {0};
    long at[4] = {0};
    do
        for (int k = 0; k < s->n[5]; k++) {
            const float *p = a + at[0] + (long)k * s->step[0][5];
            const float *q = b + at[1] + (long)k * s->step[1][5];
            int j[5] = {0};
            long in[4] = {0};
            float sum = 0.0f;
            do
                for (int l = 0; l < t->n[5]; l++)
                    sum += p[in[0] + (long)l * t->step[0][5]] * q[in[1] + (long)l * t->step[1][5]];
            while (further(t, j, in));
            y[at[2] + (long)k * s->step[2][5]] = sum;
        }
    while (further(s, i, at));
}

/// taps
/* y = sum w x over `count` taps for each of n places along one axis: a resize's */
static void taps(const float *x, float *y, const nest_t *s, int n, int count, int x_step, int y_step,
                 const int32_t *at_tap, const float *w) {
    int i[5] = {0};
    long at[4] = {0};
    do
        for (int k = 0; k < s->n[5]; k++) {
            const float *own = x + at[0] + (long)k * s->step[0][5];
            float *to = y + at[1] + (long)k * s->step[1][5];
            for (int l = 0; l < n; l++) {
                float sum = 0.0f;
                for (int m = l * count; m < (l + 1) * count; m++)
                    sum += w[m] * own[(long)at_tap[m] * x_step];
                to[(long)l * y_step] = sum;
            }
        }
    while (further(s, i, at));
}
