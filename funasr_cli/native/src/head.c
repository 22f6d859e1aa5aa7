/* A decoder's two tables: embeddings, and the output head with the choice of a token. */

#include "decoder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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
    if (reserve_rows(d, n)) return FN_NO_MEMORY;
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
