/* Recurrent layers over `steps` rows of `inputs` values, one direction a call. state: h, then what
   each says; start: of h (and c), NULL where they are zeros; back: from the last row to the first.
   w: (gates, units, inputs), r: (gates, units, units), b: of both products. */
/// squash
static float squash(float x) { return 1.0f / (1.0f + exp_f32(-x)); }
/// bend
static float bend(float x) { return 1.0f - 2.0f / (1.0f + exp_f32(2.0f * x)); }
/// product
static float product(const float *a, const float *b, int n) {
    float sum = 0.0f;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/// lstm
/* gates i, o, f, c; state: h, c, gates */
static void lstm(const float *x, const float *w, const float *r, const float *b, const float *start_h,
                 const float *start_c, float *y, float *state, int steps, int inputs, int units,
                 int y_step, int back) {
    float *h = state, *c = state + units, *gate = state + 2 * units;
    for (int k = 0; k < units; k++) {
        h[k] = start_h ? start_h[k] : 0.0f;
        c[k] = start_c ? start_c[k] : 0.0f;
    }
    for (int t = 0; t < steps; t++) {
        const int at = back ? steps - 1 - t : t;
        for (int k = 0; k < 4 * units; k++)
            gate[k] = b[k] + product(x + (long)at * inputs, w + (long)k * inputs, inputs) +
                      product(h, r + (long)k * units, units);
        for (int k = 0; k < units; k++) {
            c[k] = squash(gate[2 * units + k]) * c[k] + squash(gate[k]) * bend(gate[3 * units + k]);
            h[k] = squash(gate[units + k]) * bend(c[k]);
            y[(long)at * y_step + k] = h[k];
        }
    }
}

/// gru
/* gates z, r, h; n: the bias of what r scales, where it scales a product (NULL: it scales h);
   state: h, z and r, r h or h's product */
static void gru(const float *x, const float *w, const float *r, const float *b, const float *n,
                const float *start_h, float *y, float *state, int steps, int inputs, int units,
                int y_step, int back) {
    float *h = state, *gate = state + units, *kept = state + 3 * units;
    const float *own = r + 2 * (long)units * units;
    for (int k = 0; k < units; k++) h[k] = start_h ? start_h[k] : 0.0f;
    for (int t = 0; t < steps; t++) {
        const int at = back ? steps - 1 - t : t;
        const float *row = x + (long)at * inputs;
        for (int k = 0; k < 2 * units; k++)
            gate[k] = squash(b[k] + product(row, w + (long)k * inputs, inputs) +
                             product(h, r + (long)k * units, units));
        for (int k = 0; k < units; k++)
            kept[k] = gate[units + k] * (n ? product(h, own + (long)k * units, units) + n[k] : h[k]);
        for (int k = 0; k < units; k++) {
            const float sum = b[2 * units + k] +
                              product(row, w + (long)(2 * units + k) * inputs, inputs) +
                              (n ? kept[k] : product(kept, own + (long)k * units, units));
            h[k] = (1.0f - gate[k]) * bend(sum) + gate[k] * h[k];
            y[(long)at * y_step + k] = h[k];
        }
    }
}

/// rnn
/* state: h, the next h */
static void rnn(const float *x, const float *w, const float *r, const float *b, const float *start_h,
                float *y, float *state, int steps, int inputs, int units, int y_step, int back) {
    float *h = state, *next = state + units;
    for (int k = 0; k < units; k++) h[k] = start_h ? start_h[k] : 0.0f;
    for (int t = 0; t < steps; t++) {
        const int at = back ? steps - 1 - t : t;
        for (int k = 0; k < units; k++)
            next[k] = bend(b[k] + product(x + (long)at * inputs, w + (long)k * inputs, inputs) +
                           product(h, r + (long)k * units, units));
        for (int k = 0; k < units; k++) y[(long)at * y_step + k] = h[k] = next[k];
    }
}

