/* Runs small decoders and an encoder's layer through their lives, with each allocation failing once: see
 * tests/unit/test_build.py.
 *
 * Linked with -Wl,--wrap for malloc, calloc, realloc and aligned_alloc. A leak makes LeakSanitizer end it with an
 * error; anything else that is wrong is printed.
 */

#include "native.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 64, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 64, FEED_FORWARD = 128, VOCAB = 40, LAYERS = 2, SLOTS = 3 };
enum { QKV = 3 * HEADS * HEAD_DIM, LONGEST = 70, THREADS = 3 };
enum { SOURCE_ROWS = 301 };

static long until_failure = -1; /* allocations that still succeed; negative: all of them do */

static int fails(void) { return until_failure >= 0 && until_failure-- == 0; }

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size) { return fails() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t count, size_t size) { return fails() ? NULL : __real_calloc(count, size); }
void *__wrap_realloc(void *old, size_t size) { return fails() ? NULL : __real_realloc(old, size); }
void *__wrap_aligned_alloc(size_t alignment, size_t size) {
    return fails() ? NULL : __real_aligned_alloc(alignment, size);
}

static void check(int is_right, const char *what) {
    if (is_right) return;
    fprintf(stderr, "wrong: %s\n", what);
    exit(1);
}

static float numbers[QKV * WIDTH > 2 * FEED_FORWARD * WIDTH ? QKV * WIDTH : 2 * FEED_FORWARD * WIDTH];
static float x[LONGEST * WIDTH], norm[WIDTH], scores[LONGEST * SOURCE_ROWS];

static int pack_4_bits(void *data, int rows, int columns) {
    enum { COUNT = sizeof numbers / sizeof *numbers };
    static uint8_t values[COUNT];
    static uint16_t scales[COUNT / 64], offsets[COUNT / 64];
    for (unsigned i = 0; i < COUNT; i++) values[i] = (uint8_t)(i * i % 16);
    for (int i = 0; i < COUNT / 64; i++) scales[i] = 0x3E00, offsets[i] = 0xBF70; /* 1/8 and -15/16 in bfloat16 */
    return fn_pack_4_bits(data, values, scales, offsets, rows, columns, 64, FN_U4);
}

static struct fn_matrix packed(int rows, int columns, int weights) {
    struct fn_matrix m = {.rows = rows, .columns = columns, .weights = weights};
    long before = until_failure; /* not one of the library's allocations */
    until_failure = -1;
    void *data = malloc(fn_packed_size(rows, columns, weights, 0));
    check(data && !(weights == FN_U4 ? pack_4_bits(data, rows, columns)
                                     : fn_pack(data, numbers, rows, columns, weights)), "packing");
    until_failure = before;
    m.data = data;
    return m;
}

/* Keys and values of a source in all layers, as a decoder with such weights reads them. */
static uint8_t *source_for(int weights) {
    size_t size = fn_source_size(HEADS, HEAD_DIM, SOURCE_ROWS, weights);
    uint8_t *made = malloc(LAYERS * size);
    struct fn_linear linear = {packed(2 * HEADS * HEAD_DIM, WIDTH, weights), NULL};
    fn_encoder *encoder = NULL;
    check(size && made && !fn_encoder_new(&encoder, THREADS, NULL), "what makes a source");
    for (int i = 0; i < LAYERS; i++) {
        const float *encoded = numbers + i * WIDTH;
        check(!fn_keys_and_values(encoder, &linear, HEADS, SOURCE_ROWS, encoded, weights, made + (size_t)i * size),
              "a source");
    }
    fn_encoder_free(encoder);
    free((void *)linear.matrix.data);
    return made;
}

/* Two rows of different lengths, then more of one of them, a copy, an end, and logits: a call that fails returns
 * FN_NO_MEMORY, and a repetition succeeds. `from` is NULL without cross-attention. Returns their number. */
static int life(const struct fn_shape *shape, const struct fn_layer *layers, const struct fn_matrix *head,
                const struct fn_sources *from, float *hidden) {
    int32_t slots[LONGEST], positions[LONGEST], ids[LONGEST];
    float logprobs[LONGEST];
    struct fn_norm rms = {norm, NULL, 1e-6f, FN_RMS_NORM, WIDTH};
    fn_decoder *decoder = NULL;
    int failures = 0, status;
#define REPEATED(call)                                                                                          \
    while ((status = (call))) {                                                                                 \
        check(status == FN_NO_MEMORY, #call);                                                                   \
        check(++failures < 2, "one failure, reported twice");                                                   \
    }
    REPEATED(fn_decoder_new(&decoder, shape, layers, &rms, head, NULL, SLOTS, THREADS, NULL))
    for (int length = 3; length <= LONGEST; length += LONGEST - 3) {
        for (int i = 0; i < length; i++) slots[i] = i % 2, positions[i] = i / 2;
        REPEATED(fn_step(decoder, length, slots, positions, x, from, hidden))
        static const uint8_t excluded[LONGEST * VOCAB] = {1};
        REPEATED(fn_logits(decoder, length, hidden, from ? excluded : NULL, slots, NULL, ids, logprobs))
    }
    for (int i = 0; i < LONGEST; i++) slots[i] = 1, positions[i] = i;
    REPEATED(fn_step(decoder, LONGEST, slots, positions, x, from, hidden))
    REPEATED(fn_copy_slot(decoder, 1, 2, LONGEST))
    fn_clear_slot(decoder, 1);
    fn_clear_slot(decoder, 1);
    slots[0] = 2, positions[0] = LONGEST;
    REPEATED(fn_step(decoder, 1, slots, positions, x, from, hidden + LONGEST * WIDTH))
    fn_decoder_free(decoder);
    fn_decoder_free(NULL);

    struct fn_matrix m = *head;
    static float out[5 * VOCAB];
    REPEATED(fn_product(&m, x, 5, out, THREADS, NULL))
    return failures;
}

/* A layer over two batches, with cross-attention in the second, a product and the best of its outputs. */
static int encoder_life(int weights, const struct fn_block *block, const struct fn_block *crossed, float *hidden) {
    static const int32_t offsets[] = {0, 1, 30, LONGEST}, source_offsets[] = {0, 9, 10, LONGEST};
    static float out[LONGEST * 4 * WIDTH];
    int32_t places[LONGEST];
    float totals[LONGEST];
    fn_encoder *encoder = NULL;
    int failures = 0, status;
    REPEATED(fn_encoder_new(&encoder, THREADS, NULL))
    REPEATED(fn_run_block(encoder, block, 2, offsets, x, NULL, NULL, hidden))
    REPEATED(fn_run_block(encoder, crossed, 3, offsets, x, x, source_offsets, hidden))
    struct fn_linear linear = {packed(4 * WIDTH, WIDTH, weights), NULL};
    REPEATED(fn_run_linear(encoder, &linear, FN_GELU, LONGEST, hidden, out))
    static uint8_t kept[LONGEST * 4 * WIDTH * sizeof(uint16_t)];
    for (int kind = FN_F32; kind <= FN_U8; kind++) {
        check(fn_source_size(2, WIDTH, LONGEST, kind) <= sizeof kept, "the size of a source");
        REPEATED(fn_keys_and_values(encoder, &linear, 2, LONGEST, hidden, kind, kept))
    }
    REPEATED(fn_highest(encoder, LONGEST, 4 * WIDTH, out, places, totals))
    fn_encoder_free(encoder);
    fn_encoder_free(NULL);
    free((void *)linear.matrix.data);
    return failures;
}

static void try_encoder(int weights) {
    static float expected[LONGEST * WIDTH], hidden[LONGEST * WIDTH];
    struct fn_norm normed = {norm, norm, 1e-5f, FN_LAYER_NORM, WIDTH};
    struct fn_block block = {.attention_norm = normed, .cross_norm = normed, .feed_forward_norm = normed,
                             .qkv = {packed(3 * WIDTH, WIDTH, weights), NULL},
                             .output = {packed(WIDTH, WIDTH, weights), norm},
                             .up = {packed(2 * FEED_FORWARD, WIDTH, weights), NULL},
                             .down = {packed(WIDTH, FEED_FORWARD, weights), norm}, .memory = numbers, .taps = 3,
                             .taps_before = 1, .heads = HEADS, .activation = FN_SWIGLU};
    struct fn_block crossed = block;
    crossed.cross_query = crossed.cross_output = block.output;
    crossed.cross_key_value = (struct fn_linear){packed(2 * WIDTH, WIDTH, weights), NULL};
    check(!encoder_life(weights, &block, &crossed, expected), "a failure without a reason");
    int failing = 0;
    for (;; failing++) {
        memset(hidden, 0, sizeof hidden);
        until_failure = failing;
        int failures = encoder_life(weights, &block, &crossed, hidden);
        check(!memcmp(hidden, expected, sizeof hidden), "an encoder's output after a failure");
        if (until_failure >= 0) break;
        check(failures == 1, "an encoder's failure that was not reported");
    }
    until_failure = -1;
    check(failing > 10, "the encoder's allocations were not counted");
    const struct fn_linear *all[] = {&block.qkv, &block.output, &block.up, &block.down, &crossed.cross_key_value};
    for (int i = 0; i < 5; i++) free((void *)all[i]->matrix.data);
    printf("%d allocations\n", failing);
}

static void try_all(int weights, const struct fn_sources *from) {
    int kv_heads = from ? HEADS : KV_HEADS, width = (HEADS + 2 * kv_heads) * HEAD_DIM;
    int inputs = weights == FN_U4 ? FN_U8 : weights;
    struct fn_shape shape = {WIDTH,        LAYERS, HEADS,   kv_heads,  HEAD_DIM,
                             FEED_FORWARD, VOCAB,  inputs, FN_SWIGLU, 1e4f};
    struct fn_norm wide = {norm, NULL, 1e-6f, FN_RMS_NORM, WIDTH}, narrow = wide;
    narrow.width = HEAD_DIM;
    struct fn_layer layers[LAYERS];
    for (int i = 0; i < LAYERS; i++)
        layers[i] = (struct fn_layer){.qkv = {packed(width, WIDTH, weights), NULL},
                                      .output = {packed(WIDTH, HEADS * HEAD_DIM, weights), NULL},
                                      .up = {packed(2 * FEED_FORWARD, WIDTH, weights), NULL},
                                      .down = {packed(WIDTH, FEED_FORWARD, weights), NULL},
                                      .attention_norm = wide, .feed_forward_norm = wide,
                                      .query_norm = narrow, .key_norm = narrow};
    struct fn_linear query = {packed(HEADS * HEAD_DIM, WIDTH, weights), NULL};
    for (int i = 0; from && i < LAYERS; i++) {
        layers[i].cross_norm = wide;
        layers[i].cross_query = query;
        layers[i].cross_output = layers[i].output;
    }
    struct fn_matrix head = packed(VOCAB, WIDTH, weights);
    static float expected[(LONGEST + 1) * WIDTH], hidden[(LONGEST + 1) * WIDTH];
    check(!life(&shape, layers, &head, from, expected), "a failure without a reason");
    int failing = 0;
    for (;; failing++) {
        memset(hidden, 0, sizeof hidden);
        until_failure = failing;
        int failures = life(&shape, layers, &head, from, hidden);
        check(!memcmp(hidden, expected, sizeof hidden), "hidden states after a failure");
        if (until_failure >= 0) break; /* there are no more allocations */
        check(failures == 1, "a failure that was not reported");
    }
    until_failure = -1;
    check(failing > 30, "the allocations were not counted");
    for (int i = 0; i < LAYERS; i++) {
        const struct fn_linear *all[] = {&layers[i].qkv, &layers[i].output, &layers[i].up, &layers[i].down};
        for (int j = 0; j < 4; j++) free((void *)all[j]->matrix.data);
    }
    free((void *)query.matrix.data);
    free((void *)head.data);
    printf("%d allocations\n", failing);
}

int main(void) {
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) numbers[i] = sinf((float)i * 1.7f);
    for (int i = 0; i < LONGEST * WIDTH; i++) x[i] = cosf((float)i * 0.3f);
    for (int i = 0; i < WIDTH; i++) norm[i] = 1.0f;
    static const int32_t watched[] = {HEADS + 1};
    for (int weights = FN_F32; weights <= FN_U8; weights++) {
        try_all(weights, NULL);
        uint8_t *source = source_for(weights);
        const uint8_t *sources[LONGEST];
        for (int i = 0; i < LONGEST; i++) sources[i] = source;
        struct fn_sources from = {sources, SOURCE_ROWS, 1, watched, scores};
        try_all(weights, &from);
        free(source);
    }
    try_all(FN_U4, NULL);
    for (int weights = FN_F32; weights <= FN_BF16; weights++) try_encoder(weights);
    return 0;
}
