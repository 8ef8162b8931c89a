/* Products of one-bit values a second, of registers alone: the roof of each way of counting.
   Prints "avx2 GMAC/s" or "avx512 GMAC/s" for what the processor has. */
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#define ROUNDS 40000000

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define SIX(op) op(0) op(1) op(2) op(3) op(4) op(5)

/* a shuffle looks up 32 filters' 4 products each, an addition counts them */
__attribute__((target("avx2"))) static double avx2(void) {
    const __m256i table = _mm256_set1_epi8(3);
#define NEW(i) __m256i s##i = _mm256_setzero_si256(), w##i = _mm256_set1_epi8(i);
#define STEP(i) __asm__ volatile("" : "+x"(w##i)); \
    s##i = _mm256_add_epi8(s##i, _mm256_shuffle_epi8(table, w##i));
#define USE(i) __asm__ volatile("" : : "x"(s##i));
    SIX(NEW)
    const double start = seconds();
    for (int n = 0; n < ROUNDS; n++) { SIX(STEP) }
    const double took = seconds() - start;
    SIX(USE)
    return 6.0 * 128 * ROUNDS / took / 1e9;
#undef NEW
#undef STEP
#undef USE
}

/* xor, popcount and addition of 512 products each */
__attribute__((target("avx512f,avx512vpopcntdq"))) static double avx512(void) {
    const __m512i a = _mm512_set1_epi64(5);
#define NEW(i) __m512i s##i = _mm512_setzero_si512(), w##i = _mm512_set1_epi64(i);
#define STEP(i) __asm__ volatile("" : "+v"(w##i)); \
    s##i = _mm512_add_epi64(s##i, _mm512_popcnt_epi64(_mm512_xor_si512(a, w##i)));
#define USE(i) __asm__ volatile("" : : "v"(s##i));
    SIX(NEW)
    const double start = seconds();
    for (int n = 0; n < ROUNDS; n++) { SIX(STEP) }
    const double took = seconds() - start;
    SIX(USE)
    return 6.0 * 512 * ROUNDS / took / 1e9;
}

int main(void) {
    if (__builtin_cpu_supports("avx2")) printf("avx2 %.1f\n", avx2());
    if (__builtin_cpu_supports("avx512vpopcntdq")) printf("avx512 %.1f\n", avx512());
    return 0;
}
