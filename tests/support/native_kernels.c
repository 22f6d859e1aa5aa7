/* Compares the inner loops of each instruction set that this CPU has with those in plain C: for machines on which
 * Python is not installed, see tests/unit/test_library_aarch64.py. Prints the sets, and what differs; returns 1 if
 * anything does.
 *
 * Arrays have exactly the size that is used, so that a sanitizer sees what is read or written outside of them.
 */

#include "internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = BLOCK_ROWS + 1, LONGEST = 70 };

static const struct kernels *plain = &kernels_scalar, *fast;
static int failures;

static void differs(const char *what, int i, int shape, double got, double wanted) {
    if (++failures < 20) printf("%s: %s[%d], shape %d: %.9g, not %.9g\n", fast->name, what, i, shape, got, wanted);
}

/* Compare to within `tolerance`, or exactly if it is 0; NaN only equals NaN. */
static void compare(const char *what, const float *got, const float *wanted, int n, int shape,
                    const float *tolerance) {
    for (int i = 0; i < n; i++) {
        float allowed = tolerance ? tolerance[i] : 0.0f;
        int same = isnan(wanted[i]) ? isnan(got[i]) : fabsf(got[i] - wanted[i]) <= allowed;
        if (!same && !(isinf(wanted[i]) && got[i] == wanted[i])) differs(what, i, shape, got[i], wanted[i]);
    }
}

static void *reserve(size_t count, size_t size) {
    void *memory = malloc(count * size); /* unlike aligned_alloc, of this size to the byte */
    if (!memory) exit(2);
    return memory;
}

static uint32_t random_bits(void) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

static float between(float low, float high) { return low + (high - low) * (float)(random_bits() >> 8) / 0x1p24f; }

static float *numbers(int n, float low, float high) {
    float *x = reserve((size_t)n, sizeof *x);
    for (int i = 0; i < n; i++) x[i] = between(low, high);
    return x;
}

static uint16_t *halves(const float *x, int n) {
    uint16_t *out = reserve((size_t)n, sizeof *out);
    plain->to_half(x, n, out);
    return out;
}

/* --- groups --- */

static void round_groups(void) {
    static const float peaks[] = {0.0f, 1e-45f, 1.2e-38f, 1.9e-36f, 2.1e-36f, 1e-3f, 1.0f, 127.0f, 3e38f};
    for (int trial = 0; trial < 1000; trial++) {
        float peak = peaks[trial % 9], *x = numbers(GROUP, -peak, peak), scales[2];
        int8_t *one = reserve(GROUP, 1), *two = reserve(GROUP, 1);
        int32_t sums[2];
        if (trial % 3 == 0) x[trial % GROUP] = -peak;
        if (trial % 7 == 0) /* halves of a step, which are rounded to even values */
            for (int i = 0; i < GROUP; i++) x[i] = i == 5 ? 127.0f : (float)(i - 32) + 0.5f;
        if (trial % 11 == 0) x[trial % GROUP] = trial % 2 ? NAN : -INFINITY;
        plain->round_group(x, one, &scales[0], &sums[0]);
        fast->round_group(x, two, &scales[1], &sums[1]);
        compare("round_group, scale", &scales[1], &scales[0], 1, trial, NULL);
        for (int i = 0; i < GROUP && !isnan(scales[0]); i++)
            if (one[i] != two[i]) differs("round_group", i, trial, two[i], one[i]);
        if (!isnan(scales[0]) && sums[0] != sums[1]) differs("round_group, sum", 0, trial, sums[1], sums[0]);
        free(x), free(one), free(two);
    }
}

/* --- products --- */

/* A number as a block of 4 bits stores its scales. */
static uint16_t in_16_bits(float x, int weights) {
    uint16_t half[16];
    float sixteen[16] = {x};
    plain->to_half(sixteen, 16, half);
    return weights == FN_U4_HALF ? half[0] : bfloat_of(x);
}

/* A pair of tiles and inputs, in 8 or 4 bits. With all scales 1, sums are whole numbers below 2^24: float32 holds
 * them exactly. */
static void product_of_bytes(int groups, int weights, int has_offset, int is_exact, int extremes) {
    int columns = groups * GROUP, is_small = has_4_bits(weights), is_half = weights == FN_U4_HALF;
    size_t block_bytes = is_small ? FOUR_BIT_BLOCK : block_size(has_offset);
    uint8_t *pair = aligned_alloc(64, (size_t)groups * block_bytes), *block = pair;
    struct operand x = {.columns = columns, .stride = (size_t)columns};
    x.rounded = reserve((size_t)(ROWS * columns), 1);
    x.scales = numbers(ROWS * groups, 0.001f, 1.0f);
    x.sums = reserve((size_t)(ROWS * groups), sizeof(int32_t));
    if (!pair) exit(2);
    for (int group = 0; group < groups; group++, block += block_bytes) {
        for (int i = 0; i < BLOCK_VALUES / (is_small ? 2 : 1); i++)
            block[i] = (uint8_t)(extremes ? (random_bits() & 1 ? 255 : 0) : random_bits() & 255);
        float *scales = (float *)(block + BLOCK_VALUES);
        uint16_t *small_scales = (uint16_t *)(block + BLOCK_VALUES / 2);
        for (int i = 0; i < PAIR; i++) {
            float scale = is_exact ? 1.0f : between(-0.1f, 0.1f);
            float offset = is_exact ? -128.0f : between(-1.0f, 1.0f);
            if (is_small) {
                small_scales[i] = in_16_bits(scale, weights);
                small_scales[PAIR + i] = in_16_bits(offset, weights);
                continue;
            }
            scales[i] = scale;
            if (has_offset) scales[PAIR + i] = offset;
        }
    }
    for (int at = 0; at < ROWS * groups; at++) {
        if (is_exact) x.scales[at] = 1.0f;
        x.sums[at] = 0;
        for (int i = 0; i < GROUP; i++) {
            int value = extremes ? (at % 2 ? 127 : -127) : (int)(random_bits() % 255) - 127;
            x.rounded[at * GROUP + i] = (int8_t)value;
            x.sums[at] += value;
        }
    }
    float tolerance[PAIR], *alone = reserve(ROWS * PAIR, sizeof *alone);
    for (int i = 0; i < PAIR; i++) tolerance[i] = is_exact ? 0.0f : 1e-6f * 127.0f * 26.0f * (float)columns;
#define MULTIPLY(k, first, n, out)                                                                             \
    if (is_small) k->product_u4(pair, is_half, &x, first, n, out);                                              \
    else k->product_u8(pair, has_offset, &x, first, n, out)
    for (int row = 0; row < ROWS; row++) {
        float wanted[PAIR];
        MULTIPLY(plain, row, 1, wanted);
        MULTIPLY(fast, row, 1, alone + row * PAIR);
        compare(is_small ? "product_u4" : "product_u8", alone + row * PAIR, wanted, PAIR, groups * 2 + has_offset,
                tolerance);
    }
    for (int n = 1; n <= BLOCK_ROWS; n++) { /* a row is what it is alone */
        float *out = reserve((size_t)(n * PAIR), sizeof *out);
        MULTIPLY(fast, 1, n, out);
        compare("product of bytes, rows", out, alone + PAIR, n * PAIR, n, NULL);
        free(out);
    }
#undef MULTIPLY
    free(pair), free(x.rounded), free(x.scales), free(x.sums), free(alone);
}

/* Rows are further apart than they are long; those of bfloat16 have zeros up to a multiple of DEPTH. */
static void product_of_floats(int columns, int is_bfloat) {
    int stride = whole_depth(columns) + 3;
    float *pair = numbers(whole_depth(columns) * PAIR, -1, 1), tolerance[PAIR];
    struct operand x = {.columns = columns, .stride = (size_t)stride, .values = numbers(ROWS * stride, -1, 1)};
    uint16_t *packed = reserve((size_t)(whole_depth(columns) * PAIR), sizeof *packed);
    x.bfloats = reserve((size_t)(ROWS * stride), sizeof *x.bfloats);
    plain->to_bfloat(pair, whole_depth(columns) * PAIR, packed);
    plain->to_bfloat(x.values, ROWS * stride, x.bfloats);
    for (int row = 0; row < ROWS; row++)
        for (int i = columns; i < whole_depth(columns); i++) x.bfloats[row * stride + i] = 0;
    float *alone = reserve(ROWS * PAIR, sizeof *alone);
    for (int i = 0; i < PAIR; i++) tolerance[i] = 1e-6f * (float)columns;
#define MULTIPLY(k, first, n, out)                                                                             \
    if (is_bfloat) k->product_bf16(packed, &x, first, n, out);                                                  \
    else k->product_f32(pair, &x, first, n, out)
    for (int row = 0; row < ROWS; row++) {
        float wanted[PAIR];
        MULTIPLY(plain, row, 1, wanted);
        MULTIPLY(fast, row, 1, alone + row * PAIR);
        compare("product of floats", alone + row * PAIR, wanted, PAIR, columns, tolerance);
    }
    for (int n = 1; n <= BLOCK_ROWS; n++) {
        float *out = reserve((size_t)(n * PAIR), sizeof *out);
        MULTIPLY(fast, 1, n, out);
        compare("product of floats, rows", out, alone + PAIR, n * PAIR, n, NULL);
        free(out);
    }
    free(pair), free(x.values), free(x.bfloats), free(packed), free(alone);
}

/* --- attention --- */

static void attention(int count, int n, int d) {
    size_t stride = (size_t)n + 3;
    int size = count * (int)stride - 3;
    float *queries = numbers(count * d, -1, 1), *values = numbers(n * d, -2, 2), *weights = numbers(size, 0, 1);
    uint16_t *keys = halves(values, n * d);
    float *one = numbers(size, 7, 7), *two = numbers(size, 7, 7), allowed = 1e-6f * (float)(n + d);
    float *tolerance = numbers(size > count * d ? size : count * d, allowed, allowed);
    plain->scores(queries, count, keys, n, d, one, stride);
    fast->scores(queries, count, keys, n, d, two, stride);
    compare("scores", two, one, size, d, tolerance);
    float *alone = numbers(n, 0, 0);
    fast->scores(queries + (count - 1) * d, 1, keys, n, d, alone, stride);
    compare("scores, alone", two + (count - 1) * (int)stride, alone, n, count, NULL);
    float *sums = numbers(count * d, -1, 1), *others = reserve((size_t)(count * d), sizeof *others);
    memcpy(others, sums, (size_t)(count * d) * sizeof *sums);
    float *last = numbers(d, 0, 0);
    memcpy(last, sums + (count - 1) * d, (size_t)d * sizeof *sums);
    plain->add_weighted(weights, stride, count, keys, n, d, sums);
    fast->add_weighted(weights, stride, count, keys, n, d, others);
    compare("add_weighted", others, sums, count * d, n, tolerance);
    fast->add_weighted(weights + (size_t)(count - 1) * stride, stride, 1, keys, n, d, last);
    compare("add_weighted, alone", others + (count - 1) * d, last, d, count, NULL);
    free(queries), free(values), free(weights), free(keys), free(one), free(two), free(tolerance), free(sums);
    free(others), free(alone), free(last);
}

/* Every float16 is read, and floats are rounded to the nearest one: to the even one in the middle of two. */
static void every_half(void) {
    uint16_t *all = reserve(1 << 16, sizeof *all), *one = reserve(1 << 16, sizeof *one);
    float *read = reserve(1 << 16, sizeof *read), *wanted = reserve(1 << 16, sizeof *wanted), weight = 1.0f;
    for (int i = 0; i < 1 << 16; i++) all[i] = (uint16_t)i, read[i] = wanted[i] = 0.0f;
    plain->add_weighted(&weight, 1, 1, all, 1, 1 << 16, wanted);
    fast->add_weighted(&weight, 1, 1, all, 1, 1 << 16, read);
    compare("float16", read, wanted, 1 << 16, 0, NULL);
    for (int trial = 0; trial < 4; trial++) {
        for (int i = 0; i < 1 << 16; i++) {
            uint32_t bits = random_bits();
            memcpy(&read[i], &bits, sizeof bits);
            float next = wanted[(i + 1) & 0xFFFF];
            if (trial == 1) read[i] = (wanted[i] + next) / 2.0f;
            if (trial > 1) read[i] = nextafterf((wanted[i] + next) / 2.0f, trial == 2 ? 1e30f : -1e30f);
        }
        plain->to_half(read, 1 << 16, all);
        fast->to_half(read, 1 << 16, one);
        for (int i = 0; i < 1 << 16; i++) {
            int both_nan = (all[i] & 0x7FFF) > 0x7C00 && (one[i] & 0x7FFF) > 0x7C00;
            if (all[i] != one[i] && !both_nan) differs("to_half", i, trial, one[i], all[i]);
        }
        plain->to_bfloat(read, (1 << 16) - trial, all); /* also a number that fills no register */
        fast->to_bfloat(read, (1 << 16) - trial, one);
        for (int i = 0; i < (1 << 16) - trial; i++)
            if (all[i] != one[i] && !(fabsf(read[i]) < 0x1p-126f)) /* AVX512 takes smaller ones as zero */
                differs("to_bfloat", i, trial, one[i], all[i]);
    }
    free(all), free(one), free(read), free(wanted);
}

/* --- rows --- */

static void rows(int n) {
    float *x = numbers(n, -90, 5), *y = numbers(n, -3, 3), *one = reserve((size_t)n, sizeof *one);
    float *two = reserve((size_t)n, sizeof *two), *tolerance = reserve((size_t)n, sizeof *tolerance);
    float results[2], allowed;
    if (n > 3) x[n / 2] = -INFINITY;
    results[0] = plain->maximum(x, n), results[1] = fast->maximum(x, n);
    compare("maximum", &results[1], &results[0], 1, n, NULL);
    for (int with_out = 0; with_out < 3; with_out++) { /* the sum alone, into another array, in place */
        float *out = with_out == 2 ? two : with_out ? tolerance : NULL;
        memcpy(two, x, (size_t)n * sizeof *x);
        results[0] = plain->exponentials(x, n, 5.0f, one);
        results[1] = fast->exponentials(two, n, 5.0f, out);
        allowed = 1e-6f * results[0] + 1e-37f;
        compare("exponentials, sum", &results[1], &results[0], 1, n, &allowed);
        for (int i = 0; out && i < n; i++) {
            allowed = 5e-7f * one[i] + 1.3e-38f; /* e^-87.3 stands for all that is smaller */
            compare("exponentials", &out[i], &one[i], 1, n, &allowed);
        }
    }
    results[0] = plain->sum_of_squares(y, n), results[1] = fast->sum_of_squares(y, n);
    allowed = 1e-6f * results[0];
    compare("sum_of_squares", &results[1], &results[0], 1, n, &allowed);
    plain->scale_by(y, x, 0.7f, n, one), fast->scale_by(y, x, 0.7f, n, two);
    compare("scale_by", two, one, n, n, NULL);
    for (int i = 0; i < n; i++) x[i] = i % 9 == 8 ? 95.0f : x[i] == -INFINITY ? -87.0f : x[i];
    plain->swiglu(x, y, n, one), fast->swiglu(x, y, n, two);
    for (int i = 0; i < n; i++) tolerance[i] = 1e-6f * fabsf(one[i]) + 2e-36f;
    compare("swiglu", two, one, n, n, tolerance);
    free(x), free(y), free(one), free(two), free(tolerance);
}

/* What networks with layer norms compute. */
static void more_rows(int n) {
    float *x = numbers(n, -6, 6), *y = numbers(n, -3, 3), *bias = numbers(n, -1, 1);
    float *tolerance = numbers(n, 2e-5f, 2e-5f);
    float *one = reserve((size_t)n, sizeof *one), *two = reserve((size_t)n, sizeof *two);
    plain->layer_norm(x, y, bias, 1e-5f, n, one), fast->layer_norm(x, y, bias, 1e-5f, n, two);
    compare("layer_norm", two, one, n, n, n > 1 ? tolerance : NULL); /* of one number, only the bias is left */
    plain->add(x, y, n, one), fast->add(x, y, n, two);
    compare("add", two, one, n, n, NULL);
    memcpy(one, bias, (size_t)n * sizeof *one), memcpy(two, bias, (size_t)n * sizeof *two);
    plain->add_products(x, y, n, one), fast->add_products(x, y, n, two);
    for (int i = 0; i < n; i++) tolerance[i] = 1e-6f * (fabsf(x[i] * y[i]) + fabsf(bias[i]));
    compare("add_products", two, one, n, n, tolerance);
    plain->gelu(x, n, one), fast->gelu(x, n, two);
    for (int i = 0; i < n; i++) tolerance[i] = 1e-6f;
    compare("gelu", two, one, n, n, tolerance);
    x[n / 2] = NAN;
    plain->relu(x, n, one), fast->relu(x, n, two);
    compare("relu", two, one, n, n, NULL);
    free(x), free(y), free(bias), free(tolerance), free(one), free(two);
}

int main(void) {
    for (const char *const *name = fn_instruction_sets(); *name; name++) {
        printf("%s\n", *name);
        fast = find_kernels(*name);
        round_groups();
        for (int kind = 0; kind < 8; kind++)
            for (int groups = 1; groups <= 5; groups += 2) {
                product_of_bytes(groups, FN_U8, kind & 1, kind >> 1 & 1, kind >> 2);
                product_of_bytes(groups, kind & 1 ? FN_U4 : FN_U4_HALF, 1, kind >> 1 & 1, kind >> 2);
            }
        for (int columns = 8; columns <= 5 * GROUP; columns += 24)
            for (int is_bfloat = 0; is_bfloat < 2; is_bfloat++) product_of_floats(columns, is_bfloat);
        for (int d = 16; d <= 160; d += 16)
            for (int n = 1; n <= LONGEST; n += n < 8 ? 1 : 31)
                for (int count = 1; count <= 5; count++) attention(count, n, d);
        every_half();
        for (int n = 1; n <= LONGEST; n++) rows(n), more_rows(n);
    }
    if (failures) printf("%d differences\n", failures);
    return failures != 0;
}
