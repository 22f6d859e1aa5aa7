/* A decoder of the kind of Qwen3 or Whisper: its memory, its slots, and its steps, whose layers are in layer.c.
 * The first has grouped-query attention with normed queries and keys, rotary positions and SwiGLU; the second has
 * biases, cross-attention and GELU, and its inputs hold their positions.
 *
 * Source: transformers models/qwen3/modeling_qwen3.py; openai-whisper whisper/model.py. What differs: keys and
 * values are kept in float16, and with weights of 8 or 4 bits the inputs of every product are rounded to 8 bits in
 * groups of 64, as are keys and values of the cross-attention.
 */

#include "decoder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- sizes --- */

static size_t page_values(const struct fn_shape *s) {
    return (size_t)s->num_hidden_layers * 2 * PAGE * (size_t)key_width(s);
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
    return m->rows == rows && can_multiply(m, columns, weights);
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

int reserve_rows(fn_decoder *d, int n) {
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

/* --- a step --- */

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
    if (reserve_scratch(d, scores) || reserve_rows(d, n)) return FN_NO_MEMORY;
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
        step.source = (struct source_shape){s->num_attention_heads, s->head_dim, sources->rows, s->weights};
        step.source_size = fn_source_size(s->num_attention_heads, s->head_dim, sources->rows, s->weights);
    }
    for (int i = 0; i < s->num_hidden_layers; i++) run_layer(&step, i);
    for (int row = 0; hidden && row < n; row++) {
        size_t at = (size_t)row * (size_t)s->hidden_size;
        norm_row(d->kernels, &d->final_norm, d->x + at, hidden + at);
    }
    return FN_OK;
}
