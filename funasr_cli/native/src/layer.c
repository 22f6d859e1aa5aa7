/* One layer of a decoder's step, in eight phases, each of which is a job of the thread pool: norm and round,
 * queries and keys and values, their norms and positions, attention, output, norm and round, feed-forward up,
 * down; cross-attention has five more. Each pair (slot, position) is a row; what a row gives does not depend on
 * the others.
 */

#include "decoder.h"

#include <math.h>
#include <string.h>

/* Where a page keeps the keys (which = 0) or values (1) of a head in a layer: (PAGE, head_dim). */
static uint16_t *in_page(const struct fn_shape *s, page p, int layer, int which, int head) {
    size_t heads = (size_t)s->num_key_value_heads;
    return p + (((size_t)layer * 2 + (size_t)which) * heads + (size_t)head) * PAGE * (size_t)s->head_dim;
}

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

void run_layer(struct step *step, int index) {
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
