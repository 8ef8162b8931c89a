/* Layers in C99: no heap, no library but memcpy. Tensors are (height, width, channels); zeros that
   pad count for nothing. Blocks between "/// name" lines are written into a model that needs them. */
/// shape
typedef struct {
    int height, width, channels, out_h, out_w, filters;
    int kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left, groups;
} shape_t;

/// conv_f32
/* y[f] = clamp(b[f] + sum x w); weights (filters, kernel_h, kernel_w, channels / groups) */
static void conv_f32(const float *x, const float *w, const float *b, float *y, const shape_t *s,
                     float low, float high) {
    const int cg = s->channels / s->groups, fg = s->filters / s->groups;
    for (int oy = 0; oy < s->out_h; oy++)
        for (int ox = 0; ox < s->out_w; ox++)
            for (int f = 0; f < s->filters; f++) {
                const float *own = w + (long)f * s->kernel_h * s->kernel_w * cg;
                float sum = b[f];
                for (int i = 0; i < s->kernel_h; i++) {
                    const int iy = oy * s->stride_h - s->pad_top + i * s->dilation_h;
                    if (iy < 0 || iy >= s->height) continue;
                    for (int j = 0; j < s->kernel_w; j++) {
                        const int ix = ox * s->stride_w - s->pad_left + j * s->dilation_w;
                        if (ix < 0 || ix >= s->width) continue;
                        const float *at = x + ((long)iy * s->width + ix) * s->channels + f / fg * cg;
                        const float *tap = own + (i * s->kernel_w + j) * cg;
                        for (int c = 0; c < cg; c++) sum += at[c] * tap[c];
                    }
                }
                *y++ = sum < low ? low : sum > high ? high : sum;
            }
}

/// fixed
/* round(v m / 2^shift), halves up: floor of it plus a half */
static int32_t scaled(int64_t v, int32_t m, int shift) {
    const int64_t p = v * m + ((int64_t)1 << (shift - 1));
    return (int32_t)(p >= 0 ? p >> shift : ~(~p >> shift));
}
static int8_t clamped(int32_t v, int32_t low, int32_t high) {
    return (int8_t)(v < low ? low : v > high ? high : v);
}

/// sum_i8
/* sum (q_x - z_x) q_w of one output */
static int32_t sum_i8(const int8_t *x, const int8_t *w, const shape_t *s, int oy, int ox, int f,
                      int x_zero) {
    const int cg = s->channels / s->groups, first = f / (s->filters / s->groups) * cg;
    int32_t sum = 0;
    w += (long)f * s->kernel_h * s->kernel_w * cg;
    for (int i = 0; i < s->kernel_h; i++) {
        const int iy = oy * s->stride_h - s->pad_top + i * s->dilation_h;
        if (iy < 0 || iy >= s->height) continue;
        for (int j = 0; j < s->kernel_w; j++) {
            const int ix = ox * s->stride_w - s->pad_left + j * s->dilation_w;
            if (ix < 0 || ix >= s->width) continue;
            const int8_t *at = x + ((long)iy * s->width + ix) * s->channels + first;
            const int8_t *tap = w + (i * s->kernel_w + j) * cg;
            for (int c = 0; c < cg; c++) sum += (at[c] - x_zero) * tap[c];
        }
    }
    return sum;
}

/// conv_i8
/* q_y = z_y + m[f] / 2^shift[f] (b[f] + sum), clamped */
static void conv_i8(const int8_t *x, const int8_t *w, const int32_t *b, const int32_t *m,
                    const uint8_t *shift, int8_t *y, const shape_t *s, int x_zero, int y_zero,
                    int low, int high) {
    for (int oy = 0; oy < s->out_h; oy++)
        for (int ox = 0; ox < s->out_w; ox++)
            for (int f = 0; f < s->filters; f++) {
                const int32_t sum = b[f] + sum_i8(x, w, s, oy, ox, f, x_zero);
                *y++ = clamped(y_zero + scaled(sum, m[f], shift[f]), low, high);
            }
}

/// conv_real
/* scale[f] (b[f] + sum) as floats: the last layer of a network */
static void conv_real(const int8_t *x, const int8_t *w, const int32_t *b, const float *scale,
                      float *y, const shape_t *s, int x_zero) {
    for (int oy = 0; oy < s->out_h; oy++)
        for (int ox = 0; ox < s->out_w; ox++)
            for (int f = 0; f < s->filters; f++)
                *y++ = scale[f] * (float)(b[f] + sum_i8(x, w, s, oy, ox, f, x_zero));
}

/// add_f32
static void add_f32(const float *a, const float *b, float *y, long n, float low, float high) {
    for (long i = 0; i < n; i++) {
        const float v = a[i] + b[i];
        y[i] = v < low ? low : v > high ? high : v;
    }
}

/// add_i8
/* q_y = z_y + round((m_a (q_a - z_a) + m_b (q_b - z_b)) / 2^shift), clamped */
static void add_i8(const int8_t *a, const int8_t *b, int8_t *y, long n, int a_zero, int b_zero,
                   int32_t a_m, int32_t b_m, int shift, int y_zero, int low, int high) {
    for (long i = 0; i < n; i++) {
        const int64_t p = (int64_t)(a[i] - a_zero) * a_m + (int64_t)(b[i] - b_zero) * b_m +
                          ((int64_t)1 << (shift - 1));
        const int32_t v = (int32_t)(p >= 0 ? p >> shift : ~(~p >> shift));
        y[i] = clamped(y_zero + v, low, high);
    }
}

/// clamp_f32
static void clamp_f32(const float *x, float *y, long n, float low, float high) {
    for (long i = 0; i < n; i++) y[i] = x[i] < low ? low : x[i] > high ? high : x[i];
}

/// affine_f32
/* y = x scale[c] + bias[c]; either may be NULL */
static void affine_f32(const float *x, float *y, long pixels, int channels, const float *scale,
                       const float *bias) {
    for (long i = 0; i < pixels; i++)
        for (int c = 0; c < channels; c++, x++) {
            const float v = scale ? *x * scale[c] : *x;
            *y++ = bias ? v + bias[c] : v;
        }
}

/// prelu_f32
static void prelu_f32(const float *x, float *y, long pixels, int channels, const float *slope) {
    for (long i = 0; i < pixels; i++)
        for (int c = 0; c < channels; c++, x++) {
            const float low = slope[c] * *x;
            *y++ = *x > 0 ? *x : low;
        }
}

/// exp_f32
/* e^x = 2^k e^r, |r| <= ln 2 / 2, by the Taylor polynomial of degree 7: 2e-7 relative */
static float exp_f32(float x) {
    if (x > 88.0f) x = 88.0f;
    if (x < -87.0f) return 0.0f;
    const float t = x * 1.44269504f;
    const int k = (int)(t >= 0 ? t + 0.5f : t - 0.5f);
    const float r = (x - (float)k * 0.693145752f) - (float)k * 1.42860677e-6f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const uint32_t bits = (uint32_t)(k + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

/// sigmoid_f32
static void sigmoid_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) y[i] = 1.0f / (1.0f + exp_f32(-x[i]));
}

/// tanh_f32
static void tanh_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) y[i] = 1.0f - 2.0f / (1.0f + exp_f32(2.0f * x[i]));
}

/// powers_f32
static void powers_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) y[i] = exp_f32(x[i]);
}

/// log_f32
/* x = 2^k m, m in [0.7, 1.4]: k ln 2 + 2 artanh((m - 1) / (m + 1)), by its series to the 9th power */
static float log_f32(float x) {
    if (x < 1.17549435e-38f) x = 1.17549435e-38f;
    uint32_t bits;
    memcpy(&bits, &x, 4);
    int k = (int)(bits >> 23) - 127;
    bits = (bits & 0x7fffffu) | 0x3f800000u;
    float m;
    memcpy(&m, &bits, 4);
    if (m > 1.41421356f) m *= 0.5f, k++;
    const float s = (m - 1.0f) / (m + 1.0f), q = s * s;
    return (float)k * 0.69314718f +
           2.0f * s * (1.0f + q * (1.0f / 3 + q * (0.2f + q * (1.0f / 7 + q * (1.0f / 9)))));
}

/// logs_f32
static void logs_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) y[i] = log_f32(x[i]);
}

/// softplus_f32
static void softplus_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) {
        const float v = x[i], e = exp_f32(v < 0.0f ? v : -v);
        y[i] = (v > 0.0f ? v : 0.0f) + (e < 1e-4f ? e : log_f32(1.0f + e));
    }
}

/// mish_f32
/* tanh(ln(1 + e^x)) = (u - 1) / (u + 1), u = (1 + e^x)^2 */
static void mish_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) {
        const float v = x[i];
        if (v > 20.0f) {
            y[i] = v;
            continue;
        }
        const float e = exp_f32(v), t = e * (e + 2.0f);
        y[i] = v * t / (t + 2.0f);
    }
}

/// elu_f32
static void elu_f32(const float *x, float *y, long n, float above, float below, float inside) {
    for (long i = 0; i < n; i++)
        y[i] = x[i] > 0.0f ? above * x[i] : below * (exp_f32(x[i] * inside) - 1.0f);
}

/// erf_f32
/* Abramowitz and Stegun 7.1.26: 1.5e-7 at most */
static void erf_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) {
        const float v = x[i] < 0.0f ? -x[i] : x[i], t = 1.0f / (1.0f + 0.3275911f * v);
        const float p = (((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t +
                        0.254829592f;
        const float e = 1.0f - p * t * exp_f32(-v * v);
        y[i] = x[i] < 0.0f ? -e : e;
    }
}

/// abs_f32
static void abs_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) y[i] = x[i] < 0.0f ? -x[i] : x[i];
}

/// neg_f32
static void neg_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) y[i] = -x[i];
}

/// softsign_f32
static void softsign_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) y[i] = x[i] / (1.0f + (x[i] < 0.0f ? -x[i] : x[i]));
}

/// sqrt_f32
/* Newton's steps from a first guess by halving the exponent */
static void sqrt_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) {
        const float v = x[i];
        if (v < 1.17549435e-38f) {
            y[i] = 0.0f;
            continue;
        }
        uint32_t bits;
        memcpy(&bits, &v, 4);
        bits = (bits >> 1) + 0x1fbd1df5u;
        float r;
        memcpy(&r, &bits, 4);
        for (int k = 0; k < 4; k++) r = 0.5f * (r + v / r);
        y[i] = r;
    }
}

/// hardsigmoid_f32
static void hardsigmoid_f32(const float *x, float *y, long n, float slope, float bias) {
    for (long i = 0; i < n; i++) {
        const float v = slope * x[i] + bias;
        y[i] = v < 0.0f ? 0.0f : v > 1.0f ? 1.0f : v;
    }
}

/// hardswish_f32
static void hardswish_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) {
        const float v = x[i] * (1.0f / 6) + 0.5f;
        y[i] = x[i] * (v < 0.0f ? 0.0f : v > 1.0f ? 1.0f : v);
    }
}

/// gate_f32
/* y = x g, g by element or one for each channel */
static void gate_f32(const float *x, const float *g, float *y, long pixels, int channels, int each) {
    for (long i = 0; i < pixels; i++)
        for (int c = 0; c < channels; c++, x++) *y++ = *x * g[each ? i * channels + c : c];
}

/// softmax_f32
static void softmax_f32(const float *x, float *y, long n) {
    float most = x[0], sum = 0.0f;
    for (long i = 1; i < n; i++) most = x[i] > most ? x[i] : most;
    for (long i = 0; i < n; i++) sum += y[i] = exp_f32(x[i] - most);
    for (long i = 0; i < n; i++) y[i] /= sum;
}

/// gather_f32
/* what only moves: y[i] = x[at[i]], the fill where at[i] < 0 */
static void gather_f32(const float *x, float *y, long n, const int32_t *at, float fill) {
    for (long i = 0; i < n; i++) y[i] = at[i] < 0 ? fill : x[at[i]];
}

/// gather_i8
static void gather_i8(const int8_t *x, int8_t *y, long n, const int32_t *at, int fill) {
    for (long i = 0; i < n; i++) y[i] = at[i] < 0 ? (int8_t)fill : x[at[i]];
}

/// lut_i8
/* any function of one value: table[q + 128] */
static void lut_i8(const int8_t *x, int8_t *y, long n, const int8_t *table) {
    for (long i = 0; i < n; i++) y[i] = table[x[i] + 128];
}

/// pool_f32
/* the largest, or the mean of what lies inside (of all places of the kernel where `whole`) */
static void pool_f32(const float *x, float *y, const shape_t *s, int largest, int whole) {
    for (int oy = 0; oy < s->out_h; oy++)
        for (int ox = 0; ox < s->out_w; ox++)
            for (int c = 0; c < s->channels; c++) {
                float best = 0.0f, sum = 0.0f;
                int count = 0;
                for (int i = 0; i < s->kernel_h; i++) {
                    const int iy = oy * s->stride_h - s->pad_top + i * s->dilation_h;
                    if (iy < 0 || iy >= s->height) continue;
                    for (int j = 0; j < s->kernel_w; j++) {
                        const int ix = ox * s->stride_w - s->pad_left + j * s->dilation_w;
                        if (ix < 0 || ix >= s->width) continue;
                        const float v = x[((long)iy * s->width + ix) * s->channels + c];
                        best = count && best > v ? best : v;
                        sum += v;
                        count++;
                    }
                }
                *y++ = largest ? best : sum / (float)(whole ? s->kernel_h * s->kernel_w : count);
            }
}

/// pool_i8
/* the largest; or z_y + round(m / 2^shift sum (q - z_x) / count) */
static void pool_i8(const int8_t *x, int8_t *y, const shape_t *s, int largest, int whole, int x_zero,
                    int32_t m, int shift, int y_zero) {
    for (int oy = 0; oy < s->out_h; oy++)
        for (int ox = 0; ox < s->out_w; ox++)
            for (int c = 0; c < s->channels; c++) {
                int32_t best = -128, sum = 0;
                int count = 0;
                for (int i = 0; i < s->kernel_h; i++) {
                    const int iy = oy * s->stride_h - s->pad_top + i * s->dilation_h;
                    if (iy < 0 || iy >= s->height) continue;
                    for (int j = 0; j < s->kernel_w; j++) {
                        const int ix = ox * s->stride_w - s->pad_left + j * s->dilation_w;
                        if (ix < 0 || ix >= s->width) continue;
                        const int v = x[((long)iy * s->width + ix) * s->channels + c];
                        best = best > v ? best : v;
                        sum += v - x_zero;
                        count++;
                    }
                }
                if (largest) {
                    *y++ = clamped(y_zero + scaled(best - x_zero, m, shift), -128, 127);
                    continue;
                }
                /* floor(p / d + 1/2) of p = sum m, d = count 2^shift */
                const int64_t d = (int64_t)(whole ? s->kernel_h * s->kernel_w : count) << shift;
                const int64_t p = 2 * (int64_t)sum * m + d;
                const int64_t v = p >= 0 ? p / (2 * d) : -((-p + 2 * d - 1) / (2 * d));
                *y++ = clamped(y_zero + (int32_t)v, -128, 127);
            }
}

/// join
/* channels of x into y from channel `first` on, which has `all`; size: bytes of a value */
static void join(const void *x, void *y, long pixels, int channels, int first, int all, int size) {
    for (long i = 0; i < pixels; i++)
        memcpy((char *)y + (i * all + first) * size, (const char *)x + i * channels * size,
               (size_t)channels * (size_t)size);
}

/// spread
/* x with stride - 1 pixels of zeros between its pixels; size: bytes of a value, fill: its zero */
static void spread(const void *x, void *y, int height, int width, int channels, int stride_h,
                   int stride_w, int size, int fill) {
    const long pixel = (long)channels * size, wide = (long)(width - 1) * stride_w + 1;
    memset(y, fill, (size_t)(((long)(height - 1) * stride_h + 1) * wide * pixel));
    for (int i = 0; i < height; i++)
        for (int j = 0; j < width; j++)
            memcpy((char *)y + ((long)i * stride_h * wide + (long)j * stride_w) * pixel,
                   (const char *)x + ((long)i * width + j) * pixel, (size_t)pixel);
}

/// layernorm_f32
/* scale (x - mean) / sqrt(variance + epsilon) + bias over the channels; bias may be NULL */
static void layernorm_f32(const float *x, float *y, long pixels, int channels, const float *scale,
                          const float *bias, float epsilon) {
    for (long i = 0; i < pixels; i++, x += channels, y += channels) {
        float mean = 0.0f, square = 0.0f;
        for (int c = 0; c < channels; c++) mean += x[c];
        mean /= (float)channels;
        for (int c = 0; c < channels; c++) square += (x[c] - mean) * (x[c] - mean);
        const float v = square / (float)channels + epsilon;
        float root = v > 1.0f ? v : 1.0f; /* Newton's square root: no library but memcpy */
        for (int k = 0; k < 64; k++) root = 0.5f * (root + v / root);
        for (int c = 0; c < channels; c++) {
            const float z = (x[c] - mean) / root * scale[c];
            y[c] = bias ? z + bias[c] : z;
        }
    }
}

/// rescale_i8
/* the same values on another grid */
static void rescale_i8(const int8_t *x, int8_t *y, long n, int x_zero, int32_t m, int shift,
                       int y_zero) {
    for (long i = 0; i < n; i++)
        y[i] = clamped(y_zero + scaled(x[i] - x_zero, m, shift), -128, 127);
}

/// quantize
/* q = z + x / s, to the nearest, halves to even as ONNX has it */
static void quantize(const float *x, int8_t *y, long n, float scale, int zero) {
    for (long i = 0; i < n; i++) {
        float v = x[i] / scale;
        v = v < -512.0f ? -512.0f : v > 512.0f ? 512.0f : v;
        int32_t q = (int32_t)v;
        const float rest = v - (float)q;
        if (rest > 0.5f || (rest == 0.5f && (q & 1))) q++;
        if (rest < -0.5f || (rest == -0.5f && (q & 1))) q--;
        y[i] = clamped(q + zero, -128, 127);
    }
}

/// dequantize
static void dequantize(const int8_t *x, float *y, long n, float scale, int zero) {
    for (long i = 0; i < n; i++) y[i] = scale * (float)(x[i] - zero);
}

/// bits
/* x >= least[c], the other way round where flip[c]: 32 channels in a word, the first lowest */
static void binarize(const float *x, uint32_t *y, long pixels, int channels, const float *least,
                     const uint8_t *flip) {
    const int words = (channels + 31) / 32;
    for (long i = 0; i < pixels; i++, y += words) {
        for (int w = 0; w < words; w++) y[w] = 0;
        for (int c = 0; c < channels; c++, x++)
            y[c / 32] |= (uint32_t)((*x >= least[c]) ^ flip[c]) << c % 32;
    }
}

/// conv_bits
static int ones(uint32_t v) {
    v -= v >> 1 & 0x55555555u;
    v = (v & 0x33333333u) + (v >> 2 & 0x33333333u);
    return (int)((((v + (v >> 4)) & 0x0f0f0f0fu) * 0x01010101u) >> 24);
}
/* What becomes of a sum: bits of dot >= least, or v = scale dot + bias (+ add) (+ more), bent,
   and bits of v >= border. */
typedef struct {
    const float *scale, *bias, *before, *slope, *after, *border;
    const int32_t *least;
    const uint8_t *flip;
} after_t;
/* dot = products inside the image - 2 popcount(x ^ w), of weights that `mask` leaves (NULL: all).
   Words of a tap: of one group's channels; x has all channels in a row. */
static void conv_bits(const uint32_t *x, const uint32_t *w, const uint32_t *mask, const shape_t *s,
                      const after_t *a, const float *add, const float *more, float *real,
                      uint32_t *bits) {
    const int cg = s->channels / s->groups, fg = s->filters / s->groups;
    const int words = (cg + 31) / 32, row = (s->channels + 31) / 32, out = (s->filters + 31) / 32;
    long at = 0;
    for (int oy = 0; oy < s->out_h; oy++)
        for (int ox = 0; ox < s->out_w; ox++) {
            if (bits)
                for (int k = 0; k < out; k++) bits[k] = 0;
            for (int f = 0; f < s->filters; f++, at++) {
                const int first = f / fg * cg;
                int32_t dot = 0;
                for (int i = 0; i < s->kernel_h; i++) {
                    const int iy = oy * s->stride_h - s->pad_top + i * s->dilation_h;
                    if (iy < 0 || iy >= s->height) continue;
                    for (int j = 0; j < s->kernel_w; j++) {
                        const int ix = ox * s->stride_w - s->pad_left + j * s->dilation_w;
                        if (ix < 0 || ix >= s->width) continue;
                        const uint32_t *pixel = x + ((long)iy * s->width + ix) * row;
                        const long tap = (((long)f * s->kernel_h + i) * s->kernel_w + j) * words;
                        for (int k = 0; k < words; k++) {
                            const int from = first + 32 * k, rest = cg - 32 * k;
                            uint32_t v = pixel[from / 32] >> from % 32;
                            if (from % 32 && from / 32 + 1 < row)
                                v |= pixel[from / 32 + 1] << (32 - from % 32);
                            uint32_t valid = rest < 32 ? ((uint32_t)1 << rest) - 1 : 0xffffffffu;
                            if (mask) valid &= mask[tap + k];
                            dot += ones(valid) - 2 * ones((v ^ w[tap + k]) & valid);
                        }
                    }
                }
                int bit;
                if (a->least) {
                    bit = (dot >= a->least[f]) ^ a->flip[f];
                } else {
                    float v = a->scale[f] * (float)dot;
                    v = v + a->bias[f];
                    if (add) v = v + add[at];
                    if (more) v = v + more[at];
                    if (a->slope) {
                        const float t = v - a->before[f], low = a->slope[f] * t;
                        v = (t > 0 ? t : low) + a->after[f];
                    }
                    if (real) real[at] = v;
                    bit = a->border ? (v >= a->border[f]) ^ a->flip[f] : 0;
                }
                if (bits) bits[f / 32] |= (uint32_t)bit << f % 32;
            }
            if (bits) bits += out;
        }
}

/// halve
/* means of 2x2 pixels, fewer at an odd border, channels over and over */
static void halve(const float *x, float *y, int height, int width, int channels, int filters) {
    for (int i = 0; i < height; i += 2)
        for (int j = 0; j < width; j += 2)
            for (int f = 0; f < filters; f++) {
                const float *at = x + ((long)i * width + j) * channels + f % channels;
                const int right = j + 1 < width, down = i + 1 < height;
                float sum = at[0];
                if (right) sum += at[channels];
                if (down) sum += at[(long)width * channels];
                if (right && down) sum += at[(long)width * channels + channels];
                *y++ = sum / (float)((1 + right) * (1 + down));
            }
}
/// end
