/* What the loop reads and writes, how it is laid out, and one slice's scratch memory.
 *
 * Axes: T time, B batch, K units, S unit size, G gates times S, H input heads, D key size and V value size of one,
 * C communication heads, P key size and E value size of one. With several input slots: N slots of I numbers; V is I
 * where the value map is folded into the cells' input weights.
 * Arrays are dense, row-major, in the order of the axes named beside them.
 */

#ifndef RIMS_RL_ARRAYS_H
#define RIMS_RL_ARRAYS_H

#include <stdlib.h>

#include "dense.h"

typedef struct {
  int64_t T, B, K, S, G, H, D, C, P, E; /* C = 0: no communication */
  int64_t N, I, V;                      /* I = 0: one slot, whose keys and values are made outside */
  int64_t active_units, lstm, bounded, keep, threads;
  int64_t team; /* the address of OpenMP's GOMP_parallel, or 0: see loop.c */
} Sizes;

typedef struct {
  /* one slot */
  const real *keys;   /* (T, B, H, D) */
  const real *values; /* (T, B, H, V), or NULL and instead */
  const real *ready;  /* (H, T, B, K, G), their products with the input weights */
  /* several slots */
  const real *slots; /* (T, B, N, I) */
  const real *key_t; /* (H*D, I) */
  const real *value; /* (I, H*V), NULL where it is folded into from_input */
  /* both */
  const real *from_input;   /* (K, H*V, G), NULL with `ready` */
  const real *from_state;   /* (K, S, G + H*D) */
  const real *bias;         /* (K, G) */
  const real *bias_hn;      /* (K, S), GRU */
  const real *to_message;   /* (K, S, 2*C*P + C*E) */
  const real *from_message; /* (K, C*E, S) */
  const uint8_t *starts;    /* (T, B) or NULL */
  const real *h0, *c0;      /* (B, K, S) */
  /* written by the forward pass; with keep = 0 the time axis of all but `outputs` has length 1 */
  real *outputs;       /* (T, B, K, S) */
  real *h_before;      /* (T, B, K, S), after resets */
  real *c_before;      /* (T, B, K, S), LSTM */
  real *c_last;        /* (B, K, S), LSTM */
  real *queries;       /* (T, B, K, H*D) */
  real *probes;        /* (T, B, K, H*I), the queries as slots see them: through the key map; several slots */
  real *attention;     /* (T, B, K, H, N) */
  real *read;          /* (T, B, K, H*I), the slots' sums under the attention; active units only; several slots */
  real *attended;      /* (T, B, K, H*V), their values; active units, zero elsewhere; `read` itself when folded */
  uint8_t *active;     /* (T, B, K) */
  real *gates;         /* (T, B, K, A): GRU r z n hn (A = 4S), LSTM i f g o tanh(c) (A = 5S) */
  real *kept;          /* (T, B, K, S), before communication */
  real *message_parts; /* (T, B, K, 2*C*P + C*E) */
  real *communication; /* (T, B, K, C, K) */
  real *messages;      /* (T, B, K, C*E) */
  real *said;          /* (T, B, K, S), the messages' products, bounded by tanh if asked for; active units only */
  /* the backward pass; of the slots' own, rows of units that are not active are left as they are, but in d_inputs */
  const real *from_state_t;   /* (K, G + H*D, S) */
  const real *to_message_t;   /* (K, 2*C*P + C*E, S) */
  const real *from_message_t; /* (K, S, C*E) */
  const real *from_input_t;   /* (K, G, H*V), NULL with `ready` */
  const real *key;            /* (I, H*D) */
  const real *value_t;        /* (H*V, I), NULL when folded */
  const real *d_outputs;      /* (T, B, K, S) */
  real *d_h, *d_c;            /* (B, K, S), in: of the last state, out: of the first */
  real *d_products;           /* (T, B, K, G + H*D) */
  real *d_inputs;             /* (T, B, K, G), zero for units that are not active */
  real *d_attended;           /* (T, B, K, H*V) */
  real *d_read;               /* (B, K, H*I), one step's; NULL when folded */
  real *d_probes;             /* (T, B, K, H*I) */
  real *d_slots;              /* (T, B, N, I), or NULL where nobody asks */
  real *d_values;             /* (T, B, H, V), one slot, */
  real *d_ready;              /* or (H, T, B, K, G) */
  real *d_keys;               /* (T, B, H, D), one slot */
  real *d_parts;              /* (T, B, K, 2*C*P + C*E) */
  real *d_messages_out;       /* (T, B, K, S) */
  real *d_messages;           /* (B, K, C*E), one step's */
  real *d_kept, *d_back;      /* (B, K, S), one step's */
  real *d_bias;               /* (threads, K, G) */
} Arrays;

typedef struct {
  int64_t KS, product_width, part_width, query_part, gate_width, messages_width, probe_width, attended_width;
  int64_t time; /* steps from one step to the next in an array whose time axis is there only when everything is kept */
} Strides;

static Strides strides_of(const Sizes *z) {
  Strides s = {z->K * z->S, z->G + z->H * z->D, 2 * z->C * z->P + z->C * z->E, z->C * z->P, (z->lstm ? 5 : 4) * z->S,
               z->C * z->E, z->H * z->I, z->H * z->V, z->keep ? z->B : 0};
  return s;
}

/* Memory of one slice, none of it outlives a step. */
typedef struct {
  const real **x; /* rows to multiply, */
  real **y;       /* and where the products go */
  int64_t *units; /* (K) */
  real *input;    /* (G) by sequence of the slice, what the cell is given */
  real *weights;  /* (K) */
  real *unread;   /* (lanes), attention on the null row */
  real *lanes;    /* (I, lanes), rows of all units side by side; the lanes behind the last unit stay zero */
  real *scores;   /* (N, lanes) */
  real *d_scores; /* (H, active_units, N) */
  real *mix;      /* (N, 2*H*active_units), what every slot gives to the rows below */
  real *given;    /* (2*H*active_units, I) */
} Scratch;

/* One thread's share of the work: some sequences of the batch. */
typedef struct {
  const Sizes *z;
  const Arrays *a;
  Strides st;
  Scratch s;
  int64_t first, last, index;
} Slice;

/* Row b of step t. */
#define ROW(array, t, b, width) ((array) + ((t) * l->st.time + (b)) * (width))

/* Units padded to whole vectors. */
static int64_t lanes_for(int64_t units) { return (units + LANES - 1) / LANES * LANES; }

/* Cut `base` into the pieces of a scratch memory and return their size in bytes; with base = 0 the size is all. */
static size_t lay_out(Scratch *s, const Sizes *z, int64_t sequences, uintptr_t base) {
  size_t used = 0;
  int64_t lanes = lanes_for(z->K), pairs = 2 * z->H * z->active_units, most_rows = sequences * z->K;
  if (most_rows < z->N) most_rows = z->N;
  if (most_rows < z->K * z->H) most_rows = z->K * z->H;
#define PIECE(NAME, COUNT)                                                                                   \
  s->NAME = (void *)(base + used);                                                                           \
  used += ((size_t)(COUNT) * sizeof *s->NAME + 63) / 64 * 64;
  PIECE(x, most_rows)
  PIECE(y, most_rows)
  PIECE(units, z->K)
  PIECE(input, sequences * z->G)
  PIECE(weights, z->K)
  PIECE(unread, lanes)
  if (z->I) {
    PIECE(lanes, z->I * lanes)
    PIECE(scores, z->N * lanes)
    PIECE(d_scores, pairs * z->N)
    PIECE(mix, z->N * pairs)
    PIECE(given, pairs * z->I)
  }
#undef PIECE
  return used;
}

enum Which { INACTIVE = 0, ACTIVE = 1, ALL = 2 };

/* Collect unit k's rows of x (B, K, x_width) and y (B, K, y_width) in the slice's sequences behind `rows` others. */
static int64_t gather(const Slice *l, int64_t t, int64_t k, enum Which which, const real *x, int64_t x_width, real *y,
                      int64_t y_width, int64_t rows) {
  int64_t K = l->z->K;
  for (int64_t b = l->first; b < l->last; b++)
    if (which == ALL || ROW(l->a->active, t, b, K)[k] == which) {
      l->s.x[rows] = x + (b * K + k) * x_width;
      l->s.y[rows++] = y + (b * K + k) * y_width;
    }
  return rows;
}

/* The same for all units: rows that are multiplied with weights that the units share. */
static int64_t gather_units(const Slice *l, int64_t t, enum Which which, const real *x, int64_t x_width, real *y,
                            int64_t y_width) {
  int64_t rows = 0;
  for (int64_t k = 0; k < l->z->K; k++) rows = gather(l, t, k, which, x, x_width, y, y_width, rows);
  return rows;
}

#endif
