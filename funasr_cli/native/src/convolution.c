/* Convolutions, and layers of a densely connected network over time, as products with rows where they are.
 *
 * Channels come last, so the taps of a filter that follow each other in time lie side by side: the input of an
 * output frame is one row, which overlaps with the next. Nothing is copied. Zeros around the input are the
 * caller's, or written to working memory. All is float32, and what an image gives does not depend on the others.
 */

#include "internal.h"

#include <math.h>

/* Add up products of n rows, at most BLOCK_ROWS, with the parts of a pair of tiles: out (n, PAIR). The rows of a
 * part lie `part_step` floats behind those of the part before. */
static void multiply_parts(const struct kernels *k, const struct fn_matrix *m, int pair, int parts,
                           const struct operand *x, ptrdiff_t part_step, int n, float *out) {
    const float *weights = (const float *)m->data + (size_t)pair * (size_t)m->columns * PAIR;
    float more[BLOCK_ROWS * PAIR];
    k->product_f32(weights, x, 0, n, out);
    for (int part = 1; part < parts; part++) {
        struct operand rows = *x;
        rows.values += part * part_step;
        k->product_f32(weights + (size_t)part * (size_t)(x->columns * PAIR), &rows, 0, n, more);
        k->add(out, more, n * PAIR, out);
    }
}

/* Rows of a product, `stride` floats apart. */
static struct operand rows_at(const float *x, int columns, size_t stride) {
    return (struct operand){.columns = columns, .stride = stride, .values = (float *)(uintptr_t)x};
}

static int is_float(const struct fn_linear *l, int columns) {
    const struct fn_matrix *m = &l->matrix;
    return m->data && m->weights == FN_F32 && m->rows > 0 && m->columns > 0 && m->columns == columns;
}

/* --- convolutions --- */

struct convolution_job {
    const struct kernels *kernels;
    const struct fn_convolution *convolution;
    const float *x, *added;
    float *out;
};

static size_t place_of(const struct fn_steps *steps, int image, int line, int row) {
    return (size_t)image * (size_t)steps->image + (size_t)line * (size_t)steps->line +
           (size_t)row * (size_t)steps->row;
}

static void convolve_line(void *argument, int chunk) {
    const struct convolution_job *job = argument;
    const struct fn_convolution *c = job->convolution;
    const struct kernels *k = job->kernels;
    const struct fn_matrix *m = &c->linear.matrix;
    int image = chunk / c->lines, line = chunk % c->lines;
    float sums[BLOCK_ROWS * PAIR];
    for (int first = 0; first < c->rows; first += BLOCK_ROWS) {
        int n = block_rows(first, c->rows);
        struct operand x = rows_at(job->x + place_of(&c->input, image, line, first), m->columns / c->parts,
                                   (size_t)c->input.row);
        for (int column = 0; column < m->rows; column += PAIR) {
            int width = m->rows - column < PAIR ? m->rows - column : PAIR;
            multiply_parts(k, m, column / PAIR, c->parts, &x, c->part_step, n, sums);
            for (int row = 0; row < n; row++) {
                size_t at = place_of(&c->output, image, line, first + row) + (size_t)column;
                float *y = sums + row * PAIR, *out = job->out + at;
                if (c->linear.bias) k->add(y, c->linear.bias + column, width, y);
                if (job->added) k->add(y, job->added + at, width, y);
                if (c->activation == FN_RELU) k->relu(y, width, out);
                else memcpy(out, y, (size_t)width * sizeof(float));
            }
        }
    }
}

int fn_convolve(fn_encoder *e, const struct fn_convolution *c, const float *x, const float *added, float *out) {
    int columns = c->linear.matrix.columns;
    if (!is_float(&c->linear, columns) || c->parts < 1 || columns % c->parts || c->images < 1 || c->lines < 1 ||
        c->rows < 1 || (c->activation != FN_IDENTITY && c->activation != FN_RELU))
        return FN_BAD_ARGUMENT;
    struct convolution_job job = {e->kernels, c, x, added, out};
    pool_run(e->pool, convolve_line, &job, c->images * c->lines);
    return FN_OK;
}

/* --- layers of a densely connected network --- */

struct dense_job {
    const struct kernels *kernels;
    const struct fn_dense_layer *layer;
    int frames, stride;
    float *x, *memory;
    size_t memory_step; /* from image to image */
};

/* Distance of rows in working memory: no multiple of 4 kB, as in an operand. */
static size_t row_step(int columns) { return (size_t)whole_depth(columns) + TILE; }

/* Floats that an image needs: a block of normed rows; inner frames with zeros around; the contexts and what the
 * masks are made of. */
static size_t image_memory(const struct fn_dense_layer *l, int frames) {
    size_t inner = (size_t)l->narrow.matrix.rows, runs = (size_t)chunks_of(frames, l->run);
    size_t masks = (size_t)l->squeeze.matrix.rows + (size_t)l->gate.matrix.rows;
    return BLOCK_ROWS * row_step(l->narrow.matrix.columns) + (size_t)(frames + 2 * l->dilation) * inner +
           inner + runs * (inner + masks);
}

/* Product and bias of n rows: out (n, rows of the matrix), with a ReLU if wanted. */
static void multiply_rows(const struct kernels *k, const struct fn_linear *l, const struct operand *x, int n,
                          int activation, float *out) {
    const struct fn_matrix *m = &l->matrix;
    float sums[BLOCK_ROWS * PAIR];
    for (int first = 0; first < n; first += BLOCK_ROWS)
        for (int column = 0; column < m->rows; column += PAIR) {
            int width = m->rows - column < PAIR ? m->rows - column : PAIR, rows = block_rows(first, n);
            struct operand block = *x;
            block.values += (size_t)first * x->stride;
            multiply_parts(k, m, column / PAIR, 1, &block, 0, rows, sums);
            for (int row = 0; row < rows; row++) {
                float *y = sums + row * PAIR;
                if (l->bias) k->add(y, l->bias + column, width, y);
                if (activation == FN_RELU) k->relu(y, width, y);
                memcpy(out + (size_t)(first + row) * (size_t)m->rows + (size_t)column, y,
                       (size_t)width * sizeof(float));
            }
        }
}

static void scale(float *x, float factor, int n) {
    for (int i = 0; i < n; i++) x[i] *= factor;
}

/* The masks (runs, outputs) of an image from its inner frames. `free` has room for all that comes between. */
static float *masks_of(const struct dense_job *job, const float *inner, float *free) {
    const struct fn_dense_layer *l = job->layer;
    const struct kernels *k = job->kernels;
    int width = l->narrow.matrix.rows, runs = chunks_of(job->frames, l->run);
    float *total = free, *contexts = total + width, *squeezed = contexts + (size_t)runs * (size_t)width;
    float *masks = squeezed + (size_t)runs * (size_t)l->squeeze.matrix.rows;
    memset(total, 0, (size_t)(runs + 1) * (size_t)width * sizeof(float));
    for (int run = 0; run < runs; run++) {
        float *context = contexts + (size_t)run * (size_t)width;
        int first = run * l->run, end = first + l->run < job->frames ? first + l->run : job->frames;
        for (int frame = first; frame < end; frame++)
            k->add(context, inner + (size_t)frame * (size_t)width, width, context);
        k->add(total, context, width, total);
        scale(context, 1.0f / (float)(end - first), width);
    }
    scale(total, 1.0f / (float)job->frames, width);
    for (int run = 0; run < runs; run++)
        k->add(contexts + (size_t)run * (size_t)width, total, width, contexts + (size_t)run * (size_t)width);
    struct operand x = rows_at(contexts, width, (size_t)width);
    multiply_rows(k, &l->squeeze, &x, runs, FN_RELU, squeezed);
    x = rows_at(squeezed, l->squeeze.matrix.rows, (size_t)l->squeeze.matrix.rows);
    multiply_rows(k, &l->gate, &x, runs, FN_IDENTITY, masks);
    for (int i = 0; i < runs * l->gate.matrix.rows; i++) masks[i] = 1.0f / (1.0f + expf(-masks[i]));
    return masks;
}

static void run_image(void *argument, int image) {
    const struct dense_job *job = argument;
    const struct fn_dense_layer *l = job->layer;
    const struct kernels *k = job->kernels;
    int width = l->narrow.matrix.columns, inner_width = l->narrow.matrix.rows, outputs = l->local.matrix.rows;
    size_t stride = (size_t)job->stride, step = row_step(width), edge = (size_t)(l->dilation * inner_width);
    float *x = job->x + (size_t)image * (size_t)job->frames * stride;
    float *normed = job->memory + (size_t)image * job->memory_step, *padded = normed + BLOCK_ROWS * step;
    float *inner = padded + edge, *after = inner + (size_t)job->frames * (size_t)inner_width;
    memset(padded, 0, edge * sizeof(float));
    memset(after, 0, edge * sizeof(float));
    for (int first = 0; first < job->frames; first += BLOCK_ROWS) {
        int n = block_rows(first, job->frames);
        for (int row = 0; row < n; row++) {
            float *y = normed + (size_t)row * step;
            memcpy(y, l->summand, (size_t)width * sizeof(float));
            k->add_products(x + (size_t)(first + row) * stride, l->factor, width, y);
            k->relu(y, width, y);
        }
        struct operand rows = rows_at(normed, width, step);
        multiply_rows(k, &l->narrow, &rows, n, FN_RELU, inner + (size_t)first * (size_t)inner_width);
    }
    const float *masks = masks_of(job, inner, after + edge);
    float sums[BLOCK_ROWS * PAIR];
    for (int first = 0; first < job->frames; first += BLOCK_ROWS)
        for (int column = 0; column < outputs; column += PAIR) {
            int n = block_rows(first, job->frames), count = outputs - column < PAIR ? outputs - column : PAIR;
            struct operand rows = rows_at(padded + (size_t)first * (size_t)inner_width, inner_width,
                                          (size_t)inner_width);
            multiply_parts(k, &l->local.matrix, column / PAIR, 3, &rows, (ptrdiff_t)edge, n, sums);
            for (int row = 0; row < n; row++) {
                const float *mask = masks + (first + row) / l->run * outputs + column;
                k->scale_by(sums + row * PAIR, mask, 1.0f, count,
                            x + (size_t)(first + row) * stride + (size_t)(width + column));
            }
        }
}

int fn_run_dense_layer(fn_encoder *e, const struct fn_dense_layer *l, int32_t images, int32_t frames,
                       int32_t stride, float *x) {
    int width = l->narrow.matrix.columns, inner = l->narrow.matrix.rows, outputs = l->local.matrix.rows;
    if (images < 1 || frames < 1 || l->dilation < 1 || l->run < 1 || !is_float(&l->narrow, width) ||
        !is_float(&l->local, 3 * inner) || !is_float(&l->squeeze, inner) ||
        !is_float(&l->gate, l->squeeze.matrix.rows) || l->gate.matrix.rows != outputs || l->local.bias ||
        stride < width + outputs)
        return FN_BAD_ARGUMENT;
    size_t step = (image_memory(l, frames) + TILE - 1) / TILE * TILE;
    if (grow(&e->projected, &e->projected_count, (size_t)images * step)) return FN_NO_MEMORY;
    struct dense_job job = {e->kernels, l, frames, stride, x, e->projected, step};
    pool_run(e->pool, run_image, &job, images);
    return FN_OK;
}
