/* Functions of one value that round, cut or invert. */
/// threshold_f32
static void threshold_f32(const float *x, float *y, long n, float alpha) {
    for (long i = 0; i < n; i++) y[i] = x[i] > alpha ? x[i] : 0.0f;
}

/// inverse_f32
static void inverse_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) y[i] = 1.0f / x[i];
}

/// sign_f32
static void sign_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) y[i] = (float)((x[i] > 0.0f) - (x[i] < 0.0f));
}

/// floor_f32
/* from 2^23 on a float is whole */
static float floor_f32(float x) {
    if (!(x > -8388608.0f && x < 8388608.0f)) return x;
    const float whole = (float)(int32_t)x;
    return whole > x ? whole - 1.0f : whole;
}

/// floors_f32
static void floors_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) y[i] = floor_f32(x[i]);
}

/// ceils_f32
static void ceils_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) y[i] = -floor_f32(-x[i]);
}

/// rounds_f32
/* halves to the even neighbour */
static void rounds_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) {
        const float low = floor_f32(x[i]), rest = x[i] - low;
        const float odd = low - 2.0f * floor_f32(0.5f * low);
        y[i] = rest > 0.5f || (rest == 0.5f && odd != 0.0f) ? low + 1.0f : low;
    }
}

/// gelu_f32
/* x Phi(x), of an error function good to 1.5e-7 (Abramowitz and Stegun 7.1.26) */
static void gelu_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) {
        const float v = (x[i] < 0.0f ? -x[i] : x[i]) * 0.707106781f, t = 1.0f / (1.0f + 0.3275911f * v);
        const float p = (((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t +
                        0.254829592f;
        const float rest = 0.5f * p * t * exp_f32(-v * v);
        y[i] = x[i] * (x[i] < 0.0f ? rest : 1.0f - rest);
    }
}

/// gelu_tanh_f32
/* x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
static void gelu_tanh_f32(const float *x, float *y, long n) {
    for (long i = 0; i < n; i++) {
        const float u = 1.59576912f * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
        y[i] = x[i] / (1.0f + exp_f32(-u));
    }
}

/// lrn_f32
/* y = x / (bias + alpha / size sum x^2)^beta over `size` channels about each */
static void lrn_f32(const float *x, float *y, long pixels, int channels, int size, float alpha,
                    float beta, float bias) {
    for (long i = 0; i < pixels; i++, x += channels)
        for (int c = 0; c < channels; c++) {
            const int first = c - (size - 1) / 2, last = first + size;
            float sum = 0.0f;
            for (int k = first < 0 ? 0 : first; k < last && k < channels; k++) sum += x[k] * x[k];
            *y++ = x[c] * exp_f32(-beta * log_f32(bias + alpha / (float)size * sum));
        }
}

