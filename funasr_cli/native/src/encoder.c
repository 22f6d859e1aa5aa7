/* Transformer layers over whole sequences: encoders, adaptors, CTC branches.
 *
 * Sequences of different lengths lie one after the other, without padding. A layer is a series of jobs of the
 * thread pool: norms, products, attention. Rounding aside (see `put`), all of it is float32. A row depends on its
 * own sequence alone, bit by bit, and not on the number of threads.
 */

#include "internal.h"

#include <math.h>
#include <stdlib.h>

#define SPAN GROUP        /* outputs of a chunk of a product */
#define ROWS 48           /* most rows of a chunk of a product */
#define FEW_ROWS 8        /* rows of a chunk of anything else */

int fn_encoder_new(fn_encoder **made, int32_t threads, const char *instruction_set) {
    const struct kernels *kernels = find_kernels(instruction_set);
    *made = NULL;
    if (!kernels) return FN_NO_INSTRUCTION_SET;
    if (threads < 1) return FN_BAD_ARGUMENT;
    fn_encoder *e = calloc(1, sizeof *e);
    if (!e) return FN_NO_MEMORY;
    e->kernels = kernels;
    if (!(e->pool = pool_new(threads))) {
        free(e);
        return FN_NO_MEMORY;
    }
    *made = e;
    return FN_OK;
}

static void free_operands(fn_encoder *e) {
    operand_free(&e->normed);
    operand_free(&e->attended);
    operand_free(&e->activated);
    operand_free(&e->source);
}

void fn_encoder_free(fn_encoder *e) {
    if (!e) return;
    pool_free(e->pool);
    free_operands(e);
    free(e->projected);
    free(e->packed);
    free(e);
}

const char *fn_encoder_instruction_set(const fn_encoder *e) { return e->kernels->name; }

int grow(float **values, size_t *count, size_t wanted) {
    if (wanted <= *count) return FN_OK;
    free(*values);
    *values = aligned_alloc(64, (wanted * sizeof(float) + 63) / 64 * 64);
    *count = *values ? wanted : 0;
    return *values ? FN_OK : FN_NO_MEMORY;
}

/* The operands keep to one type of weights. */
static void use_weights(fn_encoder *e, int weights) {
    if (inputs_for(weights) != e->weights) free_operands(e);
    e->weights = inputs_for(weights);
}

/* --- norms --- */

struct norm_job {
    const struct kernels *kernels;
    const struct fn_norm *norm; /* NULL: rows are only rounded */
    int n, width, weights;
    const float *x;
    float *out;                   /* (n, width), or NULL */
    const struct operand *inputs; /* of a product, if out is NULL */
};

static void norm_rows(void *argument, int chunk) {
    const struct norm_job *job = argument;
    for (int row = chunk * FEW_ROWS; row < job->n && row < (chunk + 1) * FEW_ROWS; row++) {
        const float *x = job->x + (size_t)row * (size_t)job->width;
        if (!job->norm) {
            put(job->kernels, job->weights, job->inputs, row, 0, x, job->width);
            continue;
        }
        norm_row(job->kernels, job->norm, x,
                 job->out ? job->out + (size_t)row * (size_t)job->width : row_of(job->inputs, row));
        if (!job->out) round_row(job->kernels, job->weights, job->inputs, row);
    }
}

static void run_norm(const fn_encoder *e, const struct fn_norm *norm, int n, int width, const float *x, float *out,
                     const struct operand *inputs) {
    struct norm_job job = {e->kernels, norm, n, width, e->weights, x, out, inputs};
    pool_run(e->pool, norm_rows, &job, chunks_of(n, FEW_ROWS));
}

int fn_run_norm(fn_encoder *e, const struct fn_norm *norm, int32_t n, int32_t width, const float *x, float *out) {
    if (n < 1 || width < 1 || width != norm->width) return FN_BAD_ARGUMENT;
    run_norm(e, norm, n, width, x, out, NULL);
    return FN_OK;
}

/* --- products --- */

struct product {
    const struct kernels *kernels;
    const struct fn_linear *linear;
    const struct operand *x;
    int n, activation;
    int adds;                   /* whether the result is added to `out` */
    float *out;                 /* (n, stride), or NULL */
    size_t stride;
    const struct operand *next; /* inputs of the next product, if out is NULL */
};

static int outputs_of(const struct fn_linear *l, int activation) {
    return l->matrix.rows / (activation == FN_SWIGLU ? 2 : 1);
}

/* Bias and activation of `width` outputs of a row, from `column` on; `up` is the other half of FN_SWIGLU. */
static void finish(const struct product *p, int column, int width, float *y, float *up) {
    const struct kernels *k = p->kernels;
    const float *bias = p->linear->bias;
    if (bias) k->add(y, bias + column, width, y);
    if (p->activation == FN_RELU) k->relu(y, width, y);
    if (p->activation == FN_GELU) k->gelu(y, width, y);
    if (p->activation != FN_SWIGLU) return;
    if (bias) k->add(up, bias + outputs_of(p->linear, FN_SWIGLU) + column, width, up);
    k->swiglu(y, up, width, y);
}

/* SPAN outputs of a part of the rows. The chunks of one span follow each other: its weights stay in the cache. */
static void product_chunk(void *argument, int chunk) {
    const struct product *p = argument;
    const struct fn_matrix *m = &p->linear->matrix;
    int parts = chunks_of(p->n, ROWS), part = chunk % parts, halves = p->activation == FN_SWIGLU ? 2 : 1;
    int first = (int)((int64_t)p->n * part / parts), n = (int)((int64_t)p->n * (part + 1) / parts) - first;
    int column = chunk / parts * SPAN, width = outputs_of(p->linear, p->activation) - column;
    int step = halves == 2 ? TILE : PAIR; /* outputs of a pair of tiles, which may hold both halves */
    float results[2][ROWS * SPAN], outputs[BLOCK_ROWS * PAIR];
    if (width > SPAN) width = SPAN;
    for (int i = 0; i < width; i += step)
        for (int block = 0; block < n; block += BLOCK_ROWS) {
            int rows = block_rows(block, n);
            multiply_pair(p->kernels, m, (column + i) / step, p->x, first + block, rows, outputs);
            for (int row = 0; row < rows; row++)
                for (int half = 0; half < halves; half++)
                    memcpy(results[half] + (block + row) * SPAN + i, outputs + row * PAIR + half * TILE,
                           (size_t)step * sizeof(float));
        }
    for (int row = 0; row < n; row++) {
        float *y = results[0] + row * SPAN;
        finish(p, column, width, y, results[1] + row * SPAN);
        if (!p->out) {
            put(p->kernels, m->weights, p->next, first + row, column, y, width);
            continue;
        }
        float *out = p->out + (size_t)(first + row) * p->stride + (size_t)column;
        if (p->adds) p->kernels->add(out, y, width, out);
        else memcpy(out, y, (size_t)width * sizeof(float));
    }
}

static void run_product(const fn_encoder *e, struct product p) {
    p.kernels = e->kernels;
    int spans = chunks_of(outputs_of(p.linear, p.activation), SPAN);
    pool_run(e->pool, product_chunk, &p, spans * chunks_of(p.n, ROWS));
}

/* Whether a matrix has this number of inputs and can be multiplied, in the way of the other matrices. */
static int fits(const struct fn_linear *l, int columns, int activation, int weights) {
    return can_multiply(&l->matrix, columns, weights) &&
           (activation != FN_SWIGLU || l->matrix.rows % (2 * TILE) == 0);
}

int fn_run_linear(fn_encoder *e, const struct fn_linear *l, int32_t activation, int32_t n, const float *x,
                  float *out) {
    if (n < 1 || activation < FN_IDENTITY || activation > FN_SWIGLU ||
        !fits(l, l->matrix.columns, activation, l->matrix.weights))
        return FN_BAD_ARGUMENT;
    use_weights(e, l->matrix.weights);
    if (operand_reserve(&e->normed, n, l->matrix.columns, e->weights)) return FN_NO_MEMORY;
    run_norm(e, NULL, n, l->matrix.columns, x, NULL, &e->normed);
    run_product(e, (struct product){.linear = l, .x = &e->normed, .n = n, .activation = activation, .out = out,
                                    .stride = (size_t)outputs_of(l, activation)});
    return FN_OK;
}

/* --- keys and values of a cross-attention --- */

struct keys_job {
    const struct kernels *kernels;
    struct source_shape shape;
    const float *projected;
    uint8_t *out;
};

static void keep(void *argument, int number) {
    const struct keys_job *job = argument;
    keep_head(job->kernels, &job->shape, number, job->projected, job->out);
}

int fn_keys_and_values(fn_encoder *e, const struct fn_linear *l, int32_t heads, int32_t n, const float *x,
                       int32_t weights, uint8_t *out) {
    int outputs = l->matrix.rows;
    struct source_shape shape = {heads, heads < 1 ? 0 : outputs / (2 * heads), n, weights};
    if (!source_is_supported(&shape) || 2 * heads * shape.head_dim != outputs) return FN_BAD_ARGUMENT;
    if (grow(&e->projected, &e->projected_count, (size_t)n * (size_t)outputs)) return FN_NO_MEMORY;
    int status = fn_run_linear(e, l, FN_IDENTITY, n, x, e->projected);
    struct keys_job job = {e->kernels, shape, e->projected, out};
    if (!status) pool_run(e->pool, keep, &job, 2 * heads);
    return status;
}

/* --- the memory block of SAN-M --- */

struct memory_job {
    const struct kernels *kernels;
    const struct fn_block *block;
    int sequences, width;
    const int32_t *offsets;
    const float *x;      /* (n, width), or NULL: nothing is added to */
    const float *values; /* (n, stride) */
    size_t stride;
    float *out;          /* (n, width) */
};

/* out = x + value + sum over taps(weight * value of a frame nearby), within the sequence. */
static void remember_rows(void *argument, int chunk) {
    const struct memory_job *job = argument;
    const struct kernels *k = job->kernels;
    const struct fn_block *b = job->block;
    size_t width = (size_t)job->width;
    int sequence = 0;
    for (int row = chunk * FEW_ROWS; row < job->offsets[job->sequences] && row < (chunk + 1) * FEW_ROWS; row++) {
        while (job->offsets[sequence + 1] <= row) sequence++;
        float *out = job->out + (size_t)row * width;
        const float *value = job->values + (size_t)row * job->stride;
        if (job->x) k->add(job->x + (size_t)row * width, value, job->width, out);
        else memcpy(out, value, width * sizeof(float));
        for (int tap = 0; tap < b->taps; tap++) {
            int frame = row + tap - b->taps_before;
            if (frame >= job->offsets[sequence] && frame < job->offsets[sequence + 1])
                k->add_products(job->values + (size_t)frame * job->stride, b->memory + (size_t)tap * width,
                                job->width, out);
        }
    }
}

/* --- a layer --- */

/* A row's queries, keys and values, or a part of them; the strides of rows avoid multiples of 4 kB. */
static size_t padded(int width) { return (size_t)whole_depth(width) + DEPTH; }

static int block_fits(const struct fn_block *b, int has_source) {
    int weights = b->qkv.matrix.weights, inner = b->output.matrix.columns, width = b->output.matrix.rows;
    int has_cross = b->cross_query.matrix.data != NULL, hidden = b->down.matrix.columns;
    if (b->activation < FN_IDENTITY || b->activation > FN_SWIGLU || b->heads < 1 || inner % b->heads) return 0;
    if (b->memory && (inner != width || b->taps < 1)) return 0;
    if (has_cross != has_source || (has_cross && b->cross_norm.width != width)) return 0;
    if (b->attention_norm.width != b->qkv.matrix.columns || b->feed_forward_norm.width != width) return 0;
    if (b->norm_after && (has_cross || b->qkv.matrix.columns != width)) return 0;
    if (has_cross &&
        (!fits(&b->cross_query, width, FN_IDENTITY, weights) || b->cross_query.matrix.rows != inner ||
         !fits(&b->cross_key_value, b->cross_key_value.matrix.columns, FN_IDENTITY, weights) ||
         b->cross_key_value.matrix.rows != 2 * inner || !fits(&b->cross_output, inner, FN_IDENTITY, weights) ||
         b->cross_output.matrix.rows != width))
        return 0;
    return fits(&b->qkv, b->qkv.matrix.columns, FN_IDENTITY, weights) && b->qkv.matrix.rows == 3 * inner &&
           fits(&b->output, inner, FN_IDENTITY, weights) && fits(&b->up, width, b->activation, weights) &&
           fits(&b->down, hidden, FN_IDENTITY, weights) && outputs_of(&b->up, b->activation) == hidden &&
           b->down.matrix.rows == width;
}

static int are_lengths(int sequences, const int32_t *offsets) {
    if (sequences < 1 || offsets[0] != 0) return 0;
    for (int i = 0; i < sequences; i++)
        if (offsets[i + 1] <= offsets[i]) return 0;
    return 1;
}

/* Make room for all that a layer needs, before anything is written. */
static int reserve(fn_encoder *e, const struct fn_block *b, int sequences, const int32_t *offsets,
                   const int32_t *source_offsets) {
    int before = b->qkv.matrix.columns, width = b->output.matrix.rows, inner = b->output.matrix.columns;
    int n = offsets[sequences], sources = source_offsets ? source_offsets[sequences] : 0;
    use_weights(e, b->qkv.matrix.weights);
    size_t projected = (size_t)n * padded(3 * inner);
    size_t packed = attention_memory(b->heads, inner / b->heads, sequences, offsets);
    if (sources) {
        size_t cross = (size_t)n * padded(inner) + (size_t)sources * padded(2 * inner);
        size_t memory = attention_memory(b->heads, inner / b->heads, sequences, source_offsets);
        if (cross > projected) projected = cross;
        if (memory > packed) packed = memory;
        if (operand_reserve(&e->source, sources, b->cross_key_value.matrix.columns, e->weights))
            return FN_NO_MEMORY;
    }
    return operand_reserve(&e->normed, n, before > width ? before : width, e->weights) ||
                   operand_reserve(&e->attended, n, inner, e->weights) ||
                   operand_reserve(&e->activated, n, b->down.matrix.columns, e->weights) ||
                   grow(&e->projected, &e->projected_count, projected) ||
                   grow(&e->packed, &e->packed_count, packed)
               ? FN_NO_MEMORY
               : FN_OK;
}

/* Norm the rows of x as inputs of a product; without a norm, they are only rounded. */
static const struct operand *normed(fn_encoder *e, const struct fn_norm *norm, int n, int width, const float *x) {
    operand_reserve(&e->normed, n, width, e->weights); /* there is room */
    run_norm(e, norm, n, width, x, NULL, &e->normed);
    return &e->normed;
}

struct round_job {
    const fn_encoder *encoder;
    int n;
};

static void round_attended(void *argument, int chunk) {
    const struct round_job *job = argument;
    const fn_encoder *e = job->encoder;
    for (int row = chunk * FEW_ROWS; row < job->n && row < (chunk + 1) * FEW_ROWS; row++)
        round_row(e->kernels, e->weights, &e->attended, row);
}

static void attend(fn_encoder *e, struct attention a) {
    a.kernels = e->kernels;
    a.packed = e->packed;
    a.out = &e->attended;
    run_attention(&a, e->pool);
    struct round_job job = {e, a.offsets[a.sequences]};
    if (e->weights != FN_F32) pool_run(e->pool, round_attended, &job, chunks_of(job.n, FEW_ROWS));
}

int fn_run_block(fn_encoder *e, const struct fn_block *b, int32_t sequences, const int32_t *offsets,
                 const float *x, const float *source, const int32_t *source_offsets, float *out) {
    if (!block_fits(b, source != NULL) || !are_lengths(sequences, offsets) ||
        (source && !are_lengths(sequences, source_offsets)))
        return FN_BAD_ARGUMENT;
    if (reserve(e, b, sequences, offsets, source ? source_offsets : NULL)) return FN_NO_MEMORY;
    int before = b->qkv.matrix.columns, width = b->output.matrix.rows, inner = b->output.matrix.columns;
    int n = offsets[sequences], is_residual = before == width;
    struct attention attention = {.sequences = sequences, .heads = b->heads, .head_dim = inner / b->heads,
                                  .offsets = offsets, .key_offsets = offsets};

    const struct fn_norm *attention_norm = b->norm_after ? NULL : &b->attention_norm;
    const struct fn_norm *feed_forward_norm = b->norm_after ? NULL : &b->feed_forward_norm;

    size_t stride = padded(3 * inner);
    run_product(e, (struct product){.linear = &b->qkv, .x = normed(e, attention_norm, n, before, x), .n = n,
                                    .out = e->projected, .stride = stride});
    attention.queries = e->projected;
    attention.keys = e->projected + inner;
    attention.values = e->projected + 2 * inner;
    attention.query_stride = attention.key_stride = stride;
    attend(e, attention);
    if (b->memory) {
        struct memory_job job = {e->kernels, b, sequences, width, offsets, is_residual ? x : NULL,
                                 attention.values, stride, out};
        pool_run(e->pool, remember_rows, &job, chunks_of(n, FEW_ROWS));
    } else if (is_residual && out != x)
        memcpy(out, x, (size_t)n * (size_t)width * sizeof(float));
    run_product(e, (struct product){.linear = &b->output, .x = &e->attended, .n = n, .out = out,
                                    .adds = b->memory || is_residual, .stride = (size_t)width});
    if (b->norm_after) run_norm(e, &b->attention_norm, n, width, out, out, NULL);

    if (source) {
        int sources = source_offsets[sequences], source_width = b->cross_key_value.matrix.columns;
        float *keys = e->projected + (size_t)n * padded(inner);
        run_product(e, (struct product){.linear = &b->cross_query, .x = normed(e, &b->cross_norm, n, width, out),
                                        .n = n, .out = e->projected, .stride = padded(inner)});
        run_norm(e, NULL, sources, source_width, source, NULL, &e->source);
        run_product(e, (struct product){.linear = &b->cross_key_value, .x = &e->source, .n = sources, .out = keys,
                                        .stride = padded(2 * inner)});
        attention.key_offsets = source_offsets;
        attention.query_stride = padded(inner);
        attention.keys = keys;
        attention.values = keys + inner;
        attention.key_stride = padded(2 * inner);
        attend(e, attention);
        run_product(e, (struct product){.linear = &b->cross_output, .x = &e->attended, .n = n, .adds = 1,
                                        .out = out, .stride = (size_t)width});
    }

    run_product(e, (struct product){.linear = &b->up, .x = normed(e, feed_forward_norm, n, width, out), .n = n,
                                    .activation = b->activation, .next = &e->activated});
    run_product(e, (struct product){.linear = &b->down, .x = &e->activated, .n = n, .adds = 1, .out = out,
                                    .stride = (size_t)width});
    if (b->norm_after) run_norm(e, &b->feed_forward_norm, n, width, out, out, NULL);
    return FN_OK;
}

/* --- the best label of each frame --- */

struct highest_job {
    const struct kernels *kernels;
    int width;
    const float *x;
    int32_t *places;
    float *log_totals;
};

static void highest(void *argument, int row) {
    const struct highest_job *job = argument;
    const float *x = job->x + (size_t)row * (size_t)job->width;
    float peak = job->kernels->maximum(x, job->width);
    int place = 0;
    while (place < job->width - 1 && x[place] != peak) place++;
    job->places[row] = place;
    job->log_totals[row] = peak + logf(job->kernels->exponentials(x, job->width, peak, NULL));
}

int fn_highest(fn_encoder *e, int32_t n, int32_t width, const float *x, int32_t *places, float *log_totals) {
    if (n < 1 || width < 1) return FN_BAD_ARGUMENT;
    struct highest_job job = {e->kernels, width, x, places, log_totals};
    pool_run(e->pool, highest, &job, n);
    return FN_OK;
}
