/* Coverage of code that gcc compiled with -fsanitize-coverage=trace-pc,trace-cmp, in the form that libFuzzer reads.
 *
 * Each position in the native modules calls __sanitizer_cov_trace_pc; its address picks an 8-bit counter. Two positions
 * may share one, which hides some news from the fuzzer and invents none. libFuzzer wants a table of positions beside the
 * counters, and does not look into it.
 *
 * libFuzzer is inside of a module of atheris, whose symbols are its own; AddressSanitizer's library has some of the same
 * names, which do nothing. So this file is preloaded before both and hands everything on, by tail calls, so that libFuzzer
 * sees who has compared.
 */
#include <stdint.h>

enum { BITS = 17, COUNTERS = 1 << BITS };

static uint8_t counters[COUNTERS];
static uintptr_t positions[COUNTERS][2];

void __sanitizer_cov_trace_pc(void)
{
    uint64_t pc = (uint64_t)(uintptr_t)__builtin_return_address(0);
    uint8_t *counter = &counters[(pc * 0x9E3779B97F4A7C15ULL) >> (64 - BITS)];
    *counter += *counter != 255;
}

/* Declares a function of two parameters that is handed on; until it is known, it does nothing. */
#define HANDED_ON(name, type) \
    static void ignore_##name(type a, type b) { (void)a, (void)b; } \
    static void (*name)(type, type) = ignore_##name; \
    void __sanitizer_cov_##name(type a, type b) { name(a, b); }

static void ignore_counters(uint8_t *start, uint8_t *stop) { (void)start, (void)stop; }
static void (*counters_init)(uint8_t *, uint8_t *) = ignore_counters;
void __sanitizer_cov_8bit_counters_init(uint8_t *start, uint8_t *stop) { counters_init(start, stop); }

HANDED_ON(pcs_init, const uintptr_t *)
HANDED_ON(trace_cmp1, uint8_t)
HANDED_ON(trace_cmp2, uint16_t)
HANDED_ON(trace_cmp4, uint32_t)
HANDED_ON(trace_cmp8, uint64_t)
HANDED_ON(trace_const_cmp1, uint8_t)
HANDED_ON(trace_const_cmp2, uint16_t)
HANDED_ON(trace_const_cmp4, uint32_t)
HANDED_ON(trace_const_cmp8, uint64_t)

static void ignore_switch(uint64_t value, uint64_t *cases) { (void)value, (void)cases; }
static void (*trace_switch)(uint64_t, uint64_t *) = ignore_switch;
void __sanitizer_cov_trace_switch(uint64_t value, uint64_t *cases) { trace_switch(value, cases); }

/* gcc reports these, and libFuzzer has no use for them. */
void __sanitizer_cov_trace_cmpf(float a, float b) { (void)a, (void)b; }
void __sanitizer_cov_trace_cmpd(double a, double b) { (void)a, (void)b; }

/* The functions to hand on to, in the order of NAMES in search.py. */
void register_coverage(void **functions)
{
    for (uintptr_t i = 0; i < COUNTERS; i++)
        positions[i][0] = i + 1;
    counters_init = (void (*)(uint8_t *, uint8_t *))functions[0];
    pcs_init = (void (*)(const uintptr_t *, const uintptr_t *))functions[1];
    trace_cmp1 = (void (*)(uint8_t, uint8_t))functions[2];
    trace_cmp2 = (void (*)(uint16_t, uint16_t))functions[3];
    trace_cmp4 = (void (*)(uint32_t, uint32_t))functions[4];
    trace_cmp8 = (void (*)(uint64_t, uint64_t))functions[5];
    trace_const_cmp1 = (void (*)(uint8_t, uint8_t))functions[6];
    trace_const_cmp2 = (void (*)(uint16_t, uint16_t))functions[7];
    trace_const_cmp4 = (void (*)(uint32_t, uint32_t))functions[8];
    trace_const_cmp8 = (void (*)(uint64_t, uint64_t))functions[9];
    trace_switch = (void (*)(uint64_t, uint64_t *))functions[10];
    counters_init(counters, counters + COUNTERS);
    pcs_init(positions[0], (const uintptr_t *)(positions + COUNTERS));
}
