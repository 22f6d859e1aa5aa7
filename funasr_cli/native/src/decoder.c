/* A decoder of the kind of Qwen3 or Whisper. The first has grouped-query attention with normed queries and keys,
 * rotary positions and SwiGLU; the second has biases, cross-attention and GELU, and its inputs hold their
 * positions.
 *
 * Source: transformers models/qwen3/modeling_qwen3.py; openai-whisper whisper/model.py. What differs: keys and
 * values are kept in float16, and with FN_U8 weights the inputs of every product are rounded to 8 bits in groups
 * of 64, as are keys and values of the cross-attention.
 *
 * A step goes through each layer in eight phases, each of which is a job of the thread pool: norm and round,
 * queries and keys and values, their norms and positions, attention, output, norm and round, feed-forward up,
 * down; cross-attention has five more. Each pair (slot, position) is a row; what a row gives does not depend on
 * the others.
 */

#include "internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Keys and values of PAGE positions in all layers:
 * for each layer keys, then values, (kv_heads, PAGE, head_dim). */
typedef uint16_t *page;

struct slot {
    page *pages;
    int count;
};

struct fn_decoder {
    struct fn_shape shape;
    struct fn_layer *layers;
    struct fn_norm final_norm;
    struct fn_matrix head, embeddings;
    const struct kernels *kernels;
    struct pool *pool;
    struct slot *slots;
    int slot_count;
    double *frequencies; /* (head_dim / 2,) of the rotary positions */
    /* Working memory for `capacity` rows. */
    int capacity;
    float *x;                 /* (n, hidden_size), the residual stream */
    float *qkv;               /* (n, (heads + 2 kv_heads) * head_dim) */
    float *turns;             /* (n, head_dim): cosines, then sines */
    float *scratch;           /* scores, (n * heads, scratch_width) */
    size_t scratch_width;     /* the longest row of this step, in whole pages */
    size_t scratch_capacity;  /* allocated floats */
    struct operand normed;    /* (n, hidden_size) */
    struct operand attended;  /* (n, heads * head_dim) */
    struct operand activated; /* (n, intermediate_size) */
    struct operand queries;   /* of cross-attention, (n * heads, head_dim) */
    struct operand scores;    /* of cross-attention, (n * heads, whole_groups of the source's rows) */
    float *logits;            /* (logits_capacity, vocab_size) */
    int logits_capacity;
};

/* What the phases of a step share. */
struct step {
    fn_decoder *decoder;
    int n, layer;
    const int32_t *slots, *positions;
    const struct fn_sources *sources;
    struct source_shape source;
    size_t source_size; /* of a layer */
    const struct fn_norm *norm;        /* of the current norm phase */
    const struct fn_linear *linear;    /* the current product */
    const struct operand *input;
};

/* --- sizes --- */

static int query_width(const struct fn_shape *s) { return s->num_attention_heads * s->head_dim; }
static int key_width(const struct fn_shape *s) { return s->num_key_value_heads * s->head_dim; }
static int qkv_width(const struct fn_shape *s) { return query_width(s) + 2 * key_width(s); }
static size_t page_values(const struct fn_shape *s) {
    return (size_t)s->num_hidden_layers * 2 * PAGE * (size_t)key_width(s);
}

/* Where a page keeps the keys (which = 0) or values (1) of a head in a layer: (PAGE, head_dim). */
static uint16_t *in_page(const struct fn_shape *s, page p, int layer, int which, int head) {
    size_t heads = (size_t)s->num_key_value_heads;
    return p + (((size_t)layer * 2 + (size_t)which) * heads + (size_t)head) * PAGE * (size_t)s->head_dim;
}

static int is_supported(const struct fn_shape *s) {
    return s->hidden_size > 0 && s->hidden_size % GROUP == 0 && s->intermediate_size > 0 &&
           s->intermediate_size % GROUP == 0 && s->head_dim > 0 && s->head_dim % 16 == 0 &&
           s->num_key_value_heads > 0 && s->num_attention_heads > 0 &&
           s->num_attention_heads % s->num_key_value_heads == 0 && query_width(s) % GROUP == 0 &&
           key_width(s) % PAIR == 0 && s->num_hidden_layers > 0 && s->vocab_size > 0 &&
           (s->weights == FN_F32 || s->weights == FN_U8) &&
           (s->activation == FN_SWIGLU || s->activation == FN_GELU);
}

static int fits(const struct fn_matrix *m, int rows, int columns, int weights) {
    return m->data && m->rows == rows && m->columns == columns && m->weights == weights &&
           (!m->has_offset || weights == FN_U8);
}

static int layer_fits(const struct fn_layer *layer, const struct fn_shape *s) {
    int gated = s->activation == FN_SWIGLU, has_norms = layer->query_norm.weights != NULL;
    return fits(&layer->qkv.matrix, qkv_width(s), s->hidden_size, s->weights) &&
           fits(&layer->output.matrix, s->hidden_size, query_width(s), s->weights) &&
           fits(&layer->up.matrix, (1 + gated) * s->intermediate_size, s->hidden_size, s->weights) &&
           fits(&layer->down.matrix, s->hidden_size, s->intermediate_size, s->weights) &&
           !(gated && layer->up.bias) &&
           layer->attention_norm.width == s->hidden_size && layer->feed_forward_norm.width == s->hidden_size &&
           has_norms == (layer->key_norm.weights != NULL) &&
           (!has_norms || (layer->query_norm.width == s->head_dim && layer->key_norm.width == s->head_dim));
}

static int has_cross(const struct fn_layer *layer) { return layer->cross_query.matrix.data != NULL; }

static int cross_fits(const struct fn_layer *layer, const struct fn_shape *s) {
    return layer->cross_norm.width == s->hidden_size && s->num_key_value_heads == s->num_attention_heads &&
           (s->weights != FN_U8 || s->head_dim % GROUP == 0) &&
           fits(&layer->cross_query.matrix, query_width(s), s->hidden_size, s->weights) &&
           fits(&layer->cross_output.matrix, s->hidden_size, query_width(s), s->weights);
}

/* --- life of a decoder --- */

int fn_decoder_new(fn_decoder **made, const struct fn_shape *shape, const struct fn_layer *layers,
                   const struct fn_norm *final_norm, const struct fn_matrix *head,
                   const struct fn_matrix *embeddings, int32_t slots, int32_t threads,
                   const char *instruction_set) {
    const struct kernels *kernels = find_kernels(instruction_set);
    *made = NULL;
    if (!kernels) return FN_NO_INSTRUCTION_SET;
    if (!embeddings) embeddings = head;
    if (!is_supported(shape) || slots < 1 || threads < 1 || final_norm->width != shape->hidden_size ||
        !fits(head, shape->vocab_size, shape->hidden_size, shape->weights) ||
        !fits(embeddings, shape->vocab_size, shape->hidden_size, shape->weights))
        return FN_BAD_ARGUMENT;
    for (int i = 0; i < shape->num_hidden_layers; i++)
        if (!layer_fits(&layers[i], shape) || has_cross(&layers[i]) != has_cross(&layers[0]) ||
            (has_cross(&layers[i]) && !cross_fits(&layers[i], shape)))
            return FN_BAD_ARGUMENT;
    fn_decoder *d = calloc(1, sizeof *d);
    if (!d) return FN_NO_MEMORY;
    d->shape = *shape;
    d->kernels = kernels;
    d->head = *head;
    d->embeddings = *embeddings;
    d->slot_count = slots;
    d->pool = pool_new(threads);
    d->slots = calloc((size_t)slots, sizeof *d->slots);
    d->layers = calloc((size_t)shape->num_hidden_layers, sizeof *d->layers);
    d->final_norm = *final_norm;
    d->frequencies = malloc((size_t)shape->head_dim / 2 * sizeof(double));
    if (!d->pool || !d->slots || !d->layers || !d->frequencies) {
        fn_decoder_free(d);
        return FN_NO_MEMORY;
    }
    memcpy(d->layers, layers, (size_t)shape->num_hidden_layers * sizeof *layers);
    for (int i = 0; i < shape->head_dim / 2; i++)
        d->frequencies[i] = pow((double)shape->rope_theta, -2.0 * i / shape->head_dim);
    *made = d;
    return FN_OK;
}

static void free_working_memory(fn_decoder *d) {
    free(d->x);
    free(d->qkv);
    free(d->turns);
    operand_free(&d->normed);
    operand_free(&d->attended);
    operand_free(&d->activated);
    d->x = d->qkv = d->turns = NULL;
    d->capacity = 0;
}

void fn_decoder_free(fn_decoder *d) {
    if (!d) return;
    pool_free(d->pool);
    free_working_memory(d);
    operand_free(&d->queries);
    operand_free(&d->scores);
    free(d->scratch);
    free(d->logits);
    for (int i = 0; d->slots && i < d->slot_count; i++) fn_clear_slot(d, i);
    free(d->slots);
    free(d->layers);
    free(d->frequencies);
    free(d);
}

const char *fn_decoder_instruction_set(const fn_decoder *d) { return d->kernels->name; }

static int reserve(fn_decoder *d, int n) {
    const struct fn_shape *s = &d->shape;
    if (n <= d->capacity) return FN_OK;
    free_working_memory(d);
    size_t rows = (size_t)n;
    d->x = malloc(rows * (size_t)s->hidden_size * sizeof(float));
    d->qkv = malloc(rows * (size_t)qkv_width(s) * sizeof(float));
    d->turns = malloc(rows * (size_t)s->head_dim * sizeof(float));
    if (!d->x || !d->qkv || !d->turns || operand_reserve(&d->normed, n, s->hidden_size, s->weights) ||
        operand_reserve(&d->attended, n, query_width(s), s->weights) ||
        operand_reserve(&d->activated, n, s->intermediate_size, s->weights)) {
        free_working_memory(d);
        return FN_NO_MEMORY;
    }
    d->capacity = n;
    return FN_OK;
}

static int reserve_scratch(fn_decoder *d, size_t count) {
    if (count <= d->scratch_capacity) return FN_OK;
    free(d->scratch);
    d->scratch = malloc(count * sizeof(float));
    d->scratch_capacity = d->scratch ? count : 0;
    return d->scratch ? FN_OK : FN_NO_MEMORY;
}

/* --- slots --- */

static int reserve_positions(fn_decoder *d, int slot, int positions) {
    struct slot *s = &d->slots[slot];
    int wanted = (positions + PAGE - 1) / PAGE;
    if (wanted <= s->count) return FN_OK;
    page *pages = realloc(s->pages, (size_t)wanted * sizeof *pages);
    if (!pages) return FN_NO_MEMORY;
    s->pages = pages;
    while (s->count < wanted) {
        if (!(pages[s->count] = malloc(page_values(&d->shape) * sizeof(uint16_t)))) return FN_NO_MEMORY;
        s->count++;
    }
    return FN_OK;
}

int fn_copy_slot(fn_decoder *d, int32_t from, int32_t to, int32_t length) {
    if (from < 0 || to < 0 || from >= d->slot_count || to >= d->slot_count || from == to || length < 0 ||
        length > d->slots[from].count * PAGE)
        return FN_BAD_ARGUMENT;
    if (reserve_positions(d, to, length)) return FN_NO_MEMORY;
    for (int i = 0; i * PAGE < length; i++)
        memcpy(d->slots[to].pages[i], d->slots[from].pages[i], page_values(&d->shape) * sizeof(uint16_t));
    return FN_OK;
}

void fn_clear_slot(fn_decoder *d, int32_t slot) {
    if (slot < 0 || slot >= d->slot_count) return;
    struct slot *s = &d->slots[slot];
    while (s->count) free(s->pages[--s->count]);
    free(s->pages);
    s->pages = NULL;
}

/* --- the phases of a step --- */

static void norm_rows(void *argument, int row) {
    const struct step *step = argument;
    const fn_decoder *d = step->decoder;
    size_t width = (size_t)d->shape.hidden_size;
    norm_row(d->kernels, step->norm, d->x + (size_t)row * width, row_of(&d->normed, row));
    round_row(d->kernels, d->shape.weights, &d->normed, row);
}

/* A pair of tiles of the current product, with its bias. */
static void multiply(const struct step *step, int pair, int first, int n, float *part) {
    const struct kernels *k = step->decoder->kernels;
    const float *bias = step->linear->bias;
    multiply_pair(k, &step->linear->matrix, pair, step->input, first, n, part);
    for (int row = 0; bias && row < n; row++)
        k->add(part + row * PAIR, bias + pair * PAIR, PAIR, part + row * PAIR);
}

/* Queries, keys and values: normed -> qkv. */
static void project(void *argument, int pair) {
    const struct step *step = argument;
    const fn_decoder *d = step->decoder;
    float part[BLOCK_ROWS * PAIR];
    for (int first = 0; first < step->n; first += BLOCK_ROWS) {
        int n = block_rows(first, step->n);
        multiply(step, pair, first, n, part);
        for (int row = 0; row < n; row++)
            memcpy(d->qkv + (size_t)(first + row) * (size_t)qkv_width(&d->shape) + (size_t)(pair * PAIR),
                   part + row * PAIR, PAIR * sizeof(float));
    }
}

/* The same, added to the residual stream. */
static void project_and_add(void *argument, int pair) {
    const struct step *step = argument;
    const fn_decoder *d = step->decoder;
    float part[BLOCK_ROWS * PAIR];
    for (int first = 0; first < step->n; first += BLOCK_ROWS) {
        int n = block_rows(first, step->n);
        multiply(step, pair, first, n, part);
        for (int row = 0; row < n; row++) {
            float *x = d->x + (size_t)(first + row) * (size_t)d->shape.hidden_size + (size_t)pair * PAIR;
            for (int i = 0; i < PAIR; i++) x[i] += part[row * PAIR + i];
        }
    }
}

/* Feed-forward up, GROUP outputs in each chunk: silu(gate) * up or gelu(up), rounded for the next product. */
static void project_up(void *argument, int chunk) {
    const struct step *step = argument;
    const fn_decoder *d = step->decoder;
    const struct operand *out = &d->activated;
    int gated = d->shape.activation == FN_SWIGLU, width = gated ? TILE : PAIR; /* outputs of a pair of tiles */
    float part[BLOCK_ROWS * PAIR]; /* if gated, of each row TILE outputs of the gate, then of up */
    for (int first = 0; first < step->n; first += BLOCK_ROWS) {
        int n = block_rows(first, step->n);
        for (int place = 0; place < GROUP; place += width) {
            multiply(step, (chunk * GROUP + place) / width, first, n, part);
            for (int row = 0; row < n; row++) {
                float *to = row_of(out, first + row) + chunk * GROUP + place;
                if (gated) d->kernels->swiglu(part + row * PAIR, part + row * PAIR + TILE, TILE, to);
                else d->kernels->gelu(part + row * PAIR, PAIR, to);
            }
        }
        for (int row = first; row < first + n; row++)
            put(d->kernels, d->shape.weights, out, row, chunk * GROUP, row_of(out, row) + chunk * GROUP, GROUP);
    }
}

/* Turn a head by its position: the halves of the head are the parts of complex numbers. */
static void turn(float *x, const float *turns, int half) {
    for (int i = 0; i < half; i++) {
        float real = x[i], imaginary = x[half + i], cosine = turns[i], sine = turns[half + i];
        x[i] = real * cosine - imaginary * sine;
        x[half + i] = imaginary * cosine + real * sine;
    }
}

/* Norm and turn queries and keys of a row; keep its keys and values. */
static void keep_row(void *argument, int row) {
    const struct step *step = argument;
    const fn_decoder *d = step->decoder;
    const struct fn_shape *s = &d->shape;
    const struct fn_layer *layer = &d->layers[step->layer];
    float *qkv = d->qkv + (size_t)row * (size_t)qkv_width(s);
    const float *turns = d->turns + (size_t)row * (size_t)s->head_dim;
    int queries = s->num_attention_heads, heads = queries + s->num_key_value_heads;
    int position = step->positions[row];
    for (int head = 0; head < heads; head++) {
        float *x = qkv + head * s->head_dim;
        if (layer->query_norm.weights)
            norm_row(d->kernels, head < queries ? &layer->query_norm : &layer->key_norm, x, x);
        if (s->rope_theta != 0.0f) turn(x, turns, s->head_dim / 2);
    }
    page here = d->slots[step->slots[row]].pages[position / PAGE];
    for (int which = 0; which < 2; which++)
        for (int head = 0; head < s->num_key_value_heads; head++) {
            const float *from = qkv + query_width(s) + which * key_width(s) + head * s->head_dim;
            uint16_t *to =
                in_page(s, here, step->layer, which, head) + (size_t)(position % PAGE) * (size_t)s->head_dim;
            d->kernels->to_half(from, s->head_dim, to);
        }
}

/* Ask for the first keys or values of a head, which are read soon: each beginning would wait for memory. */
static void ask_for(const uint16_t *values, int positions, int head_dim) {
    for (int i = 0; i < (positions < AHEAD ? positions : AHEAD) * head_dim; i += 32)
        __builtin_prefetch(values + i);
}

/* Attention of one row and one key/value head, for the queries that share it. */
static void attend(void *argument, int chunk) {
    const struct step *step = argument;
    const fn_decoder *d = step->decoder;
    const struct fn_shape *s = &d->shape;
    int row = chunk / s->num_key_value_heads, kv_head = chunk % s->num_key_value_heads;
    int shared = s->num_attention_heads / s->num_key_value_heads, length = step->positions[row] + 1;
    int pages = (length + PAGE - 1) / PAGE;
    const struct slot *slot = &d->slots[step->slots[row]];
    size_t width = d->scratch_width, first_query = (size_t)kv_head * (size_t)shared * (size_t)s->head_dim;
    float *scores = d->scratch + (size_t)chunk * (size_t)shared * width, factor = 1.0f / sqrtf((float)s->head_dim);
    float *queries = d->qkv + (size_t)row * (size_t)qkv_width(s) + first_query;
    float *out = row_of(&d->attended, row) + first_query;
    for (int i = 0; i < shared * s->head_dim; i++) queries[i] *= factor;
    for (int which = 0; which < 2; which++) { /* keys, then values */
        for (int p = 0; p < pages; p++) {
            int first = p * PAGE, n = length - first < PAGE ? length - first : PAGE;
            const uint16_t *here = in_page(s, slot->pages[p], step->layer, which, kv_head);
            if (p + 1 < pages)
                ask_for(in_page(s, slot->pages[p + 1], step->layer, which, kv_head), length - first - PAGE,
                        s->head_dim);
            else if (!which) ask_for(in_page(s, slot->pages[0], step->layer, 1, kv_head), length, s->head_dim);
            if (!which) d->kernels->scores(queries, shared, here, n, s->head_dim, scores + first, width);
            else d->kernels->add_weighted(scores + first, width, shared, here, n, s->head_dim, out);
        }
        if (which) break;
        memset(out, 0, (size_t)(shared * s->head_dim) * sizeof(float));
        for (int query = 0; query < shared; query++) {
            float *mine = scores + (size_t)query * width;
            float sum = d->kernels->exponentials(mine, length, d->kernels->maximum(mine, length), mine);
            for (int i = 0; i < length; i++) mine[i] /= sum;
        }
    }
}

/* Cross-attention of one row and one head. The heads of a row follow each other, as in its source. */
static void attend_to_source(void *argument, int chunk) {
    const struct step *step = argument;
    const fn_decoder *d = step->decoder;
    const struct fn_sources *from = step->sources;
    const struct source_shape *shape = &step->source;
    int head_dim = shape->head_dim, row = chunk / shape->heads, head = chunk % shape->heads;
    int number = step->layer * shape->heads + head;
    const uint8_t *layer = from->keys_and_values[row] + (size_t)step->layer * step->source_size;
    float *query = d->qkv + (size_t)row * (size_t)qkv_width(&d->shape) + (size_t)(head * head_dim);
    float *scores = row_of(&d->scores, chunk);
    for (int i = 0; i < head_dim; i++) query[i] /= sqrtf((float)head_dim);
    source_scores(d->kernels, shape, layer, head, query, &d->queries, chunk, scores);
    for (int i = 0; i < from->watched_count; i++)
        if (from->watched[i] == number)
            memcpy(from->scores + ((size_t)i * (size_t)step->n + (size_t)row) * (size_t)from->rows, scores,
                   (size_t)from->rows * sizeof(float));
    source_mean(d->kernels, shape, layer, head, &d->scores, chunk, row_of(&d->attended, row) + head * head_dim);
}

static void round_attended(void *argument, int row) {
    const struct step *step = argument;
    round_row(step->decoder->kernels, step->decoder->shape.weights, &step->decoder->attended, row);
}

static void run(struct step *step, pool_task task, int chunks) {
    pool_run(step->decoder->pool, task, step, chunks);
}

static void run_norm(struct step *step, const struct fn_norm *norm) {
    step->norm = norm;
    run(step, norm_rows, step->n);
}

static void run_product(struct step *step, pool_task task, const struct fn_linear *linear,
                        const struct operand *input) {
    step->linear = linear;
    step->input = input;
    run(step, task, pairs(&linear->matrix));
}

static void run_layer(struct step *step, int index) {
    fn_decoder *d = step->decoder;
    const struct fn_shape *s = &d->shape;
    const struct fn_layer *layer = &d->layers[index];
    step->layer = index;
    run_norm(step, &layer->attention_norm);
    run_product(step, project, &layer->qkv, &d->normed);
    run(step, keep_row, step->n);
    run(step, attend, step->n * s->num_key_value_heads);
    run(step, round_attended, step->n);
    run_product(step, project_and_add, &layer->output, &d->attended);
    if (has_cross(layer)) {
        run_norm(step, &layer->cross_norm);
        run_product(step, project, &layer->cross_query, &d->normed);
        run(step, attend_to_source, step->n * s->num_attention_heads);
        run(step, round_attended, step->n);
        run_product(step, project_and_add, &layer->cross_output, &d->attended);
    }
    run_norm(step, &layer->feed_forward_norm);
    step->linear = &layer->up;
    step->input = &d->normed;
    run(step, project_up, s->intermediate_size / GROUP);
    run_product(step, project_and_add, &layer->down, &d->activated);
}

/* Reserve what a step needs, before anything is written. */
static int prepare(fn_decoder *d, int n, const int32_t *slots, const int32_t *positions,
                   const struct fn_sources *sources) {
    const struct fn_shape *s = &d->shape;
    size_t longest = 0;
    if (!sources != !has_cross(&d->layers[0]) || (sources && sources->rows < 1)) return FN_BAD_ARGUMENT;
    for (int row = 0; row < n; row++) {
        if (slots[row] < 0 || slots[row] >= d->slot_count || positions[row] < 0) return FN_BAD_ARGUMENT;
        if (reserve_positions(d, slots[row], positions[row] + 1)) return FN_NO_MEMORY;
        if ((size_t)positions[row] + 1 > longest) longest = (size_t)positions[row] + 1;
    }
    longest = (longest + PAGE - 1) / PAGE * PAGE;
    d->scratch_width = longest;
    size_t scores = (size_t)n * (size_t)s->num_attention_heads * longest;
    if (reserve_scratch(d, scores) || reserve(d, n)) return FN_NO_MEMORY;
    int heads = n * s->num_attention_heads;
    return sources && (operand_reserve(&d->queries, heads, s->head_dim, s->weights) ||
                       operand_reserve(&d->scores, heads, whole_groups(sources->rows), s->weights))
               ? FN_NO_MEMORY
               : FN_OK;
}

int fn_step(fn_decoder *d, int32_t n, const int32_t *slots, const int32_t *positions, const float *x,
            const struct fn_sources *sources, float *hidden) {
    const struct fn_shape *s = &d->shape;
    if (n < 1) return FN_BAD_ARGUMENT;
    int status = prepare(d, n, slots, positions, sources);
    if (status) return status;
    memcpy(d->x, x, (size_t)n * (size_t)s->hidden_size * sizeof(float));
    for (int row = 0; row < n; row++)
        for (int i = 0; i < s->head_dim / 2; i++) {
            float *turns = d->turns + (size_t)row * (size_t)s->head_dim;
            turns[i] = (float)cos(positions[row] * d->frequencies[i]);
            turns[s->head_dim / 2 + i] = (float)sin(positions[row] * d->frequencies[i]);
        }
    struct step step = {.decoder = d, .n = n, .slots = slots, .positions = positions, .sources = sources};
    if (sources) {
        step.source =
            (struct source_shape){s->num_attention_heads, s->head_dim, sources->rows, s->weights};
        step.source_size =
            fn_source_size(s->num_attention_heads, s->head_dim, sources->rows, s->weights);
    }
    for (int i = 0; i < s->num_hidden_layers; i++) run_layer(&step, i);
    for (int row = 0; hidden && row < n; row++) {
        size_t at = (size_t)row * (size_t)s->hidden_size;
        norm_row(d->kernels, &d->final_norm, d->x + at, hidden + at);
    }
    return FN_OK;
}

/* --- the output head --- */

struct head_job {
    fn_decoder *decoder;
    int n;
    float *logits, *logprobs;
    int32_t *ids;
    const uint8_t *excluded;
    const int32_t *first_of_group;
};

static void head_pair(void *argument, int pair) {
    const struct head_job *job = argument;
    const fn_decoder *d = job->decoder;
    int vocab = d->head.rows, width = vocab - pair * PAIR < PAIR ? vocab - pair * PAIR : PAIR;
    float part[BLOCK_ROWS * PAIR];
    for (int first = 0; first < job->n; first += BLOCK_ROWS) {
        int n = block_rows(first, job->n);
        multiply_pair(d->kernels, &d->head, pair, &d->normed, first, n, part);
        for (int row = 0; row < n; row++)
            memcpy(job->logits + (size_t)(first + row) * (size_t)vocab + (size_t)(pair * PAIR), part + row * PAIR,
                   (size_t)width * sizeof(float));
    }
}

/* Exclude tokens of a row: those given, and all before a group if they are less likely than the group together. */
static void exclude(const struct kernels *k, float *logits, int vocab, const uint8_t *excluded, int first) {
    for (int i = 0; i < vocab; i++) logits[i] = excluded[i] ? -INFINITY : logits[i];
    if (first < 1 || first >= vocab) return;
    float peak = k->maximum(logits + first, vocab - first);
    if (peak == -INFINITY) return;
    float total = peak + logf(k->exponentials(logits + first, vocab - first, peak, NULL));
    if (total > k->maximum(logits, first))
        for (int i = 0; i < first; i++) logits[i] = -INFINITY;
}

/* The likeliest token of a row, the first of several, and its log-probability: -log(sum(exp(logits - peak))). */
static void choose(void *argument, int row) {
    const struct head_job *job = argument;
    const fn_decoder *d = job->decoder;
    int vocab = d->shape.vocab_size, id = 0;
    float *logits = job->logits + (size_t)row * (size_t)vocab;
    if (job->excluded)
        exclude(d->kernels, logits, vocab, job->excluded + (size_t)row * (size_t)vocab, job->first_of_group[row]);
    float peak = d->kernels->maximum(logits, vocab);
    while (id < vocab - 1 && logits[id] != peak) id++;
    job->ids[row] = id;
    job->logprobs[row] = -logf(d->kernels->exponentials(logits, vocab, peak, NULL));
}

int fn_logits(fn_decoder *d, int32_t n, const float *hidden, const uint8_t *excluded,
              const int32_t *first_of_group, float *logits, int32_t *ids, float *logprobs) {
    size_t width = (size_t)d->shape.hidden_size, vocab = (size_t)d->shape.vocab_size;
    if (n < 1) return FN_BAD_ARGUMENT;
    if (reserve(d, n)) return FN_NO_MEMORY;
    if (!logits && n > d->logits_capacity) {
        free(d->logits);
        d->logits = malloc((size_t)n * vocab * sizeof(float));
        d->logits_capacity = d->logits ? n : 0;
        if (!d->logits) return FN_NO_MEMORY;
    }
    for (int row = 0; row < n; row++)
        put(d->kernels, d->head.weights, &d->normed, row, 0, hidden + (size_t)row * width, (int)width);
    struct head_job job = {d, n, logits ? logits : d->logits, logprobs, ids, excluded, first_of_group};
    pool_run(d->pool, head_pair, &job, pairs(&d->head));
    pool_run(d->pool, choose, &job, n);
    return FN_OK;
}

int fn_embed(const fn_decoder *d, const int32_t *ids, int32_t n, float *out) {
    return fn_unpack(&d->embeddings, ids, n, out);
}
