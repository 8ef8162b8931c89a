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

