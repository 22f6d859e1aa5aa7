/* What the files of the decoder share: its memory, and what the phases of a step work on. */
#ifndef FUNASR_DECODER_H
#define FUNASR_DECODER_H

#include "internal.h"

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

static inline int query_width(const struct fn_shape *s) { return s->num_attention_heads * s->head_dim; }
static inline int key_width(const struct fn_shape *s) { return s->num_key_value_heads * s->head_dim; }
static inline int qkv_width(const struct fn_shape *s) { return query_width(s) + 2 * key_width(s); }
static inline int has_cross(const struct fn_layer *layer) { return layer->cross_query.matrix.data != NULL; }

/* Run one layer of a step. */
void run_layer(struct step *step, int index);

/* Make room for n rows of working memory; FN_OK or FN_NO_MEMORY. */
int reserve_rows(fn_decoder *d, int n);

#endif
