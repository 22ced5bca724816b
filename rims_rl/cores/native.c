/* The time loop of a RIM with one input slot, forward and backward, for one processor's threads.
 *
 * Equations and names are those of rim.py. What does not depend on the state (keys, the values' products with the cells'
 * input weights) comes in ready for all steps; what can wait (the weights' gradients) is left to one large product each,
 * outside. Units that are not active are skipped: no gates, no query, no message. A batch is cut into slices, one a
 * thread: sequences never see each other.
 *
 * Axes: T time, B batch, K units, S unit size, G gates times S, H input heads, D key size of one, C communication heads,
 * P key size and E value size of one. Arrays are dense, row-major, in the order of the axes named beside them.
 * Compiled twice, with REAL float and REAL double.
 */

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef REAL
#define REAL float
#define REAL_IS_FLOAT 1
#endif
typedef REAL real;

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#define LANES ((int)(VECTOR_BYTES / sizeof(real)))
typedef real vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
#define AT(pointer) (*(vec *)(pointer))
#define CONST_AT(pointer) (*(const vec *)(pointer))

enum { MOST_THREADS = 64 };

typedef struct {
  int64_t T, B, K, S, G, H, D, C, P, E; /* C = 0: no communication */
  int64_t active_units, lstm, bounded, keep, threads;
} Sizes;

typedef struct {
  const real *keys;         /* (T, B, H, D) */
  const real *values;       /* (H, T, B, K, G), the values' products with the input weights */
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
  real *attention;     /* (T, B, K, H) */
  uint8_t *active;     /* (T, B, K) */
  real *gates;         /* (T, B, K, A): GRU r z n hn (A = 4S), LSTM i f g o tanh(c) (A = 5S) */
  real *kept;          /* (T, B, K, S), before communication */
  real *message_parts; /* (T, B, K, 2*C*P + C*E) */
  real *communication; /* (T, B, K, C, K) */
  real *messages;      /* (T, B, K, C*E) */
  real *said;          /* (T, B, K, S), the messages' products, bounded by tanh if asked for; active units only */
  /* the backward pass */
  const real *from_state_t;   /* (K, G + H*D, S) */
  const real *to_message_t;   /* (K, 2*C*P + C*E, S) */
  const real *from_message_t; /* (K, S, C*E) */
  const real *d_outputs;      /* (T, B, K, S) */
  real *d_h, *d_c;            /* (B, K, S), in: of the last state, out: of the first */
  real *d_products;           /* (T, B, K, G + H*D) */
  real *d_values;             /* (H, T, B, K, G) */
  real *d_keys;               /* (T, B, H, D) */
  real *d_parts;              /* (T, B, K, 2*C*P + C*E) */
  real *d_messages_out;       /* (T, B, K, S) */
  real *d_bias;               /* (threads, K, G) */
} Arrays;

typedef struct {
  const Sizes *sizes;
  const Arrays *arrays;
  int64_t first, last, index;
} Slice;

/* ---------------------------------------------------------------- small dense pieces */

#define BLOCK(ROWS, VECS)                                                                                    \
  static void block_##ROWS##_##VECS(const real *const *x, real *const *y, const real *w, int64_t width,      \
                                    int64_t depth, int64_t n) {                                              \
    vec sum[ROWS][VECS];                                                                                     \
    memset(sum, 0, sizeof sum);                                                                              \
    for (int64_t s = 0; s < depth; s++) {                                                                    \
      const real *row = w + s * width + n;                                                                   \
      for (int v = 0; v < VECS; v++) {                                                                       \
        vec column = CONST_AT(row + v * LANES);                                                              \
        for (int r = 0; r < ROWS; r++) sum[r][v] += x[r][s] * column;                                        \
      }                                                                                                      \
    }                                                                                                        \
    for (int r = 0; r < ROWS; r++)                                                                           \
      for (int v = 0; v < VECS; v++) AT(y[r] + n + v * LANES) = sum[r][v];                                   \
  }
BLOCK(4, 4) BLOCK(4, 1) BLOCK(2, 4) BLOCK(2, 1) BLOCK(1, 4) BLOCK(1, 1)

static void narrow(const real *x, real *y, const real *w, int64_t width, int64_t depth, int64_t columns) {
  for (int64_t n = 0; n < columns; n++) y[n] = 0;
  for (int64_t s = 0; s < depth; s++)
    for (int64_t n = 0; n < columns; n++) y[n] += x[s] * w[s * width + n];
}

#define SWEEP(ROWS)                                                                                          \
  {                                                                                                          \
    int64_t n = 0;                                                                                           \
    for (; n + 4 * LANES <= columns; n += 4 * LANES) block_##ROWS##_4(x + r, y + r, w, width, depth, n);     \
    for (; n + LANES <= columns; n += LANES) block_##ROWS##_1(x + r, y + r, w, width, depth, n);             \
    if (n < columns) block_##ROWS##_1(x + r, y + r, w, width, depth, columns - LANES);                       \
  }

/* y[r][0..columns) = x[r][0..depth) w, with w (depth, columns) in rows of `width`; the last block may overlap. */
static void product(const real *const *x, real *const *y, int64_t rows, const real *w, int64_t width, int64_t depth,
                    int64_t columns) {
  int64_t r = 0;
  if (columns < LANES) {
    for (; r < rows; r++) narrow(x[r], y[r], w, width, depth, columns);
    return;
  }
  for (; r + 4 <= rows; r += 4) SWEEP(4)
  for (; r + 2 <= rows; r += 2) SWEEP(2)
  for (; r < rows; r++) SWEEP(1)
}

static real dot(const real *a, const real *b, int64_t n) {
  vec sums = {0};
  real sum = 0;
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) sums += CONST_AT(a + i) * CONST_AT(b + i);
  for (; i < n; i++) sum += a[i] * b[i];
  for (int lane = 0; lane < LANES; lane++) sum += sums[lane];
  return sum;
}

static void add_scaled(real *y, real a, const real *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

#ifdef REAL_IS_FLOAT
typedef int32_t ivec __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
/* exp by range reduction to [-ln 2 / 2, ln 2 / 2] and a polynomial of degree 6 (Cephes' coefficients), 1 ulp or so. */
static vec exponential(vec x) {
  const vec zero = {0};
  const float magic = 12582912.0f; /* 1.5 * 2^23: adding and subtracting it rounds to an integer */
  vec low = zero - 87.0f, high = zero + 88.0f;
  ivec below = x < low, above = x > high; /* all bits set where true; NaN is neither and stays */
  x = (vec)((below & (ivec)low) | (above & (ivec)high) | (~(below | above) & (ivec)x));
  vec n = (x * 1.44269504088896341f + magic) - magic;
  vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  vec p = zero + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  vec result = (p * (r * r) + r) + 1.0f;
  ivec scale = (__builtin_convertvector(n, ivec) + 127) << 23;
  return result * (vec)scale;
}
#else
static vec exponential(vec x) {
  for (int lane = 0; lane < LANES; lane++) x[lane] = exp(x[lane]);
  return x;
}
#endif

#define IN_PLACE(NAME, EXPRESSION)                                                                           \
  static void NAME(real *x, int64_t n) {                                                                     \
    int64_t i = 0;                                                                                           \
    for (; i + LANES <= n; i += LANES) {                                                                     \
      vec v = CONST_AT(x + i);                                                                               \
      AT(x + i) = EXPRESSION;                                                                                \
    }                                                                                                        \
    if (i < n) {                                                                                             \
      real rest[VECTOR_BYTES / sizeof(real)] = {0};                                                          \
      memcpy(rest, x + i, (size_t)(n - i) * sizeof(real));                                                   \
      vec v = CONST_AT(rest);                                                                                \
      v = EXPRESSION;                                                                                        \
      AT(rest) = v;                                                                                          \
      memcpy(x + i, rest, (size_t)(n - i) * sizeof(real));                                                   \
    }                                                                                                        \
  }
IN_PLACE(exponentials, exponential(v))
IN_PLACE(sigmoids, 1 / (1 + exponential(-v)))
IN_PLACE(tangents, 2 / (1 + exponential(-2 * v)) - 1)

/* ---------------------------------------------------------------- forward */

typedef struct {
  int64_t KS, product_width, part_width, query_part, gate_width, messages_width, time;
} Strides;

static Strides strides_of(const Sizes *z) {
  Strides s = {z->K * z->S, z->G + z->H * z->D, 2 * z->C * z->P + z->C * z->E, z->C * z->P, (z->lstm ? 5 : 4) * z->S,
               z->C * z->E, z->keep ? z->B : 0};
  return s;
}

/* Row b of step t in an array whose time axis is there only when everything is kept. */
#define ROW(array, t, b, width) ((array) + ((t) * st.time + (b)) * (width))

static void begin_step(const Sizes *z, const Arrays *a, Strides st, int64_t t, int64_t b) {
  size_t bytes = (size_t)st.KS * sizeof(real);
  int fresh = a->starts && a->starts[t * z->B + b];
  const real *h = t ? a->outputs + ((t - 1) * z->B + b) * st.KS : a->h0 + b * st.KS;
  real *into = ROW(a->h_before, t, b, st.KS);
  if (fresh) memset(into, 0, bytes);
  else memcpy(into, h, bytes);
  if (!z->lstm) return;
  const real *c = t ? a->c_last + b * st.KS : a->c0 + b * st.KS;
  into = ROW(a->c_before, t, b, st.KS);
  if (fresh) memset(into, 0, bytes);
  else memcpy(into, c, bytes);
}

/* Scores, attention on the slot, and the units with the least attention on the null row; ties go to the lower index. */
static void attend(const Sizes *z, const Arrays *a, Strides st, int64_t t, int64_t b) {
  const real *keys = a->keys + (t * z->B + b) * z->H * z->D;
  const real *queries = ROW(a->queries, t, b, z->K * z->H * z->D);
  real *attention = ROW(a->attention, t, b, z->K * z->H);
  uint8_t *active = ROW(a->active, t, b, z->K);
  real scale = 1 / (real)sqrt((double)z->D);
  for (int64_t i = 0; i < z->K * z->H; i++)
    attention[i] = dot(queries + i * z->D, keys + (i % z->H) * z->D, z->D) * scale;
  sigmoids(attention, z->K * z->H);
  real share[z->K];
  for (int64_t k = 0; k < z->K; k++) {
    share[k] = 0;
    for (int64_t h = 0; h < z->H; h++) share[k] += attention[k * z->H + h];
  }
  for (int64_t k = 0; k < z->K; k++) {
    int64_t rank = 0;
    for (int64_t j = 0; j < z->K; j++) rank += share[j] > share[k] || (share[j] == share[k] && j < k);
    active[k] = rank < z->active_units;
  }
}

/* The cell of one active unit: `gates` holds the state's products and becomes what the backward pass needs. */
static void update_unit(const Sizes *z, const Arrays *a, Strides st, int64_t t, int64_t b, int64_t k) {
  int64_t S = z->S, G = z->G;
  real *gates = ROW(a->gates, t, b, z->K * st.gate_width) + k * st.gate_width;
  const real *attention = ROW(a->attention, t, b, z->K * z->H) + k * z->H;
  const real *h = ROW(a->h_before, t, b, st.KS) + k * S;
  real *kept = ROW(a->kept, t, b, st.KS) + k * S;
  real input[G];
  memcpy(input, a->bias + k * G, (size_t)G * sizeof(real));
  for (int64_t i = 0; i < z->H; i++)
    add_scaled(input, attention[i], a->values + (((i * z->T + t) * z->B + b) * z->K + k) * G, G);
  if (!z->lstm) {
    real *n = gates + 2 * S, *hn = gates + 3 * S;
    for (int64_t i = 0; i < S; i++) hn[i] = n[i] + a->bias_hn[k * S + i];
    for (int64_t i = 0; i < 2 * S; i++) gates[i] += input[i];
    sigmoids(gates, 2 * S);
    for (int64_t i = 0; i < S; i++) n[i] = input[2 * S + i] + gates[i] * hn[i];
    tangents(n, S);
    for (int64_t i = 0; i < S; i++) kept[i] = n[i] + gates[S + i] * (h[i] - n[i]);
    return;
  }
  const real *c = ROW(a->c_before, t, b, st.KS) + k * S;
  real *c_new = a->c_last + b * st.KS + k * S, *tanh_c = gates + 4 * S;
  for (int64_t i = 0; i < 4 * S; i++) gates[i] += input[i];
  sigmoids(gates, 2 * S);
  tangents(gates + 2 * S, S);
  sigmoids(gates + 3 * S, S);
  for (int64_t i = 0; i < S; i++) tanh_c[i] = c_new[i] = gates[S + i] * c[i] + gates[i] * gates[2 * S + i];
  tangents(tanh_c, S);
  for (int64_t i = 0; i < S; i++) kept[i] = gates[3 * S + i] * tanh_c[i];
}

/* Active units read from all units; those that are not active read nothing. */
static void read_messages(const Sizes *z, const Arrays *a, Strides st, int64_t t, int64_t b) {
  const uint8_t *active = ROW(a->active, t, b, z->K);
  const real *parts = ROW(a->message_parts, t, b, z->K * st.part_width);
  real scale = 1 / (real)sqrt((double)z->P);
  for (int64_t k = 0; k < z->K; k++) {
    real *message = ROW(a->messages, t, b, z->K * st.messages_width) + k * st.messages_width;
    memset(message, 0, (size_t)st.messages_width * sizeof(real));
    if (!active[k]) continue;
    real *weights = ROW(a->communication, t, b, z->K * z->C * z->K) + k * z->C * z->K;
    for (int64_t c = 0; c < z->C; c++) {
      real *w = weights + c * z->K, most = -INFINITY, sum = 0;
      for (int64_t j = 0; j < z->K; j++) {
        w[j] = dot(parts + k * st.part_width + c * z->P, parts + j * st.part_width + st.query_part + c * z->P, z->P) * scale;
        most = w[j] > most ? w[j] : most;
      }
      for (int64_t j = 0; j < z->K; j++) w[j] -= most;
      exponentials(w, z->K);
      for (int64_t j = 0; j < z->K; j++) sum += w[j];
      for (int64_t j = 0; j < z->K; j++) {
        w[j] /= sum;
        add_scaled(message + c * z->E, w[j], parts + j * st.part_width + 2 * st.query_part + c * z->E, z->E);
      }
    }
  }
}

/* Collect the rows x and y of unit k for the sequences in which it is active (which = 1), is not (0), or all (2). */
#define GATHER(which, X, X_WIDTH, X_UNIT, Y, Y_WIDTH, Y_UNIT)                                                \
  rows = 0;                                                                                                  \
  for (int64_t b = first; b < last; b++)                                                                     \
    if ((which) == 2 || ROW(a->active, t, b, z->K)[k] == (which)) {                                          \
      x[rows] = (X) + (X_WIDTH)*z->K * b + k * (X_UNIT);                                                     \
      y[rows++] = (Y) + (Y_WIDTH)*z->K * b + k * (Y_UNIT);                                                   \
    }

static void run_forward(const Sizes *z, const Arrays *a, int64_t first, int64_t last) {
  Strides st = strides_of(z);
  int64_t S = z->S, rows, count = last - first;
  const real **x = malloc((size_t)count * sizeof *x);
  real **y = malloc((size_t)count * sizeof *y);
  for (int64_t t = 0; t < z->T; t++) {
    int64_t step = t * st.time;
    real *outputs = a->outputs + t * z->B * st.KS;
    for (int64_t b = first; b < last; b++) begin_step(z, a, st, t, b);
    for (int64_t k = 0; k < z->K; k++) {
      GATHER(2, a->h_before + step * st.KS, S, S, a->queries + step * z->K * z->H * z->D, z->H * z->D, z->H * z->D)
      product(x, y, rows, a->from_state + k * S * st.product_width + z->G, st.product_width, S, z->H * z->D);
    }
    for (int64_t b = first; b < last; b++) {
      attend(z, a, st, t, b);
      memcpy(ROW(a->kept, t, b, st.KS), ROW(a->h_before, t, b, st.KS), (size_t)st.KS * sizeof(real));
      if (z->lstm) memcpy(a->c_last + b * st.KS, ROW(a->c_before, t, b, st.KS), (size_t)st.KS * sizeof(real));
    }
    for (int64_t k = 0; k < z->K; k++) {
      GATHER(1, a->h_before + step * st.KS, S, S, a->gates + step * z->K * st.gate_width, st.gate_width, st.gate_width)
      product(x, y, rows, a->from_state + k * S * st.product_width, st.product_width, S, z->G);
      for (int64_t b = first; b < last; b++)
        if (ROW(a->active, t, b, z->K)[k]) update_unit(z, a, st, t, b, k);
    }
    for (int64_t b = first; b < last; b++)
      memcpy(outputs + b * st.KS, ROW(a->kept, t, b, st.KS), (size_t)st.KS * sizeof(real));
    if (!z->C) continue;
    for (int64_t k = 0; k < z->K; k++) {
      const real *w = a->to_message + k * S * st.part_width;
      real *parts = a->message_parts + step * z->K * st.part_width;
      GATHER(1, a->kept + step * st.KS, S, S, parts, st.part_width, st.part_width)
      product(x, y, rows, w, st.part_width, S, st.part_width);
      GATHER(0, a->kept + step * st.KS, S, S, parts + st.query_part, st.part_width, st.part_width)
      product(x, y, rows, w + st.query_part, st.part_width, S, st.part_width - st.query_part);
    }
    for (int64_t b = first; b < last; b++) read_messages(z, a, st, t, b);
    for (int64_t k = 0; k < z->K; k++) {
      GATHER(1, a->messages + step * z->K * st.messages_width, st.messages_width, st.messages_width,
             a->said + step * st.KS, S, S)
      product(x, y, rows, a->from_message + k * st.messages_width * S, S, st.messages_width, S);
      for (int64_t b = first; b < last; b++) {
        if (!ROW(a->active, t, b, z->K)[k]) continue;
        real *said = ROW(a->said, t, b, st.KS) + k * S;
        if (z->bounded) tangents(said, S);
        add_scaled(outputs + b * st.KS + k * S, 1, said, S);
      }
    }
  }
  free(x);
  free(y);
}

/* ---------------------------------------------------------------- backward */

/* From d_h to the messages' products; nothing was said to units that are not active. */
static void said_backward(const Sizes *z, const Arrays *a, Strides st, int64_t t, int64_t b) {
  real *d_out = ROW(a->d_messages_out, t, b, st.KS);
  const real *d_h = a->d_h + b * st.KS, *said = ROW(a->said, t, b, st.KS);
  for (int64_t k = 0; k < z->K; k++) {
    int64_t from = k * z->S, to = from + z->S;
    if (!ROW(a->active, t, b, z->K)[k]) memset(d_out + from, 0, (size_t)z->S * sizeof(real));
    else if (z->bounded)
      for (int64_t i = from; i < to; i++) d_out[i] = d_h[i] * (1 - said[i] * said[i]);
    else memcpy(d_out + from, d_h + from, (size_t)z->S * sizeof(real));
  }
}

static void messages_backward(const Sizes *z, const Arrays *a, Strides st, int64_t t, int64_t b, const real *d_messages) {
  const uint8_t *active = ROW(a->active, t, b, z->K);
  const real *parts = ROW(a->message_parts, t, b, z->K * st.part_width);
  real *d_parts = ROW(a->d_parts, t, b, z->K * st.part_width), scale = 1 / (real)sqrt((double)z->P);
  memset(d_parts, 0, (size_t)(z->K * st.part_width) * sizeof(real));
  for (int64_t k = 0; k < z->K; k++) {
    if (!active[k]) continue;
    const real *weights = ROW(a->communication, t, b, z->K * z->C * z->K) + k * z->C * z->K;
    for (int64_t c = 0; c < z->C; c++) {
      const real *w = weights + c * z->K, *d_message = d_messages + k * st.messages_width + c * z->E;
      int64_t q = k * st.part_width + c * z->P;
      real d_weight[z->K], sum = 0;
      for (int64_t j = 0; j < z->K; j++) {
        int64_t v = j * st.part_width + 2 * st.query_part + c * z->E;
        d_weight[j] = dot(d_message, parts + v, z->E);
        sum += w[j] * d_weight[j];
        add_scaled(d_parts + v, w[j], d_message, z->E);
      }
      for (int64_t j = 0; j < z->K; j++) {
        int64_t key = j * st.part_width + st.query_part + c * z->P;
        real d_score = w[j] * (d_weight[j] - sum) * scale;
        add_scaled(d_parts + q, d_score, parts + key, z->P);
        add_scaled(d_parts + key, d_score, parts + q, z->P);
      }
    }
  }
}

/* The cell of one active unit: from d_kept to the gates' inputs (d_input, G), the state's products, and d_h, d_c. */
static void unit_backward(const Sizes *z, const Arrays *a, Strides st, int64_t t, int64_t b, int64_t k, const real *d_kept,
                          real *d_input, real *d_hidden, real *d_h, real *d_c) {
  int64_t S = z->S;
  const real *gates = ROW(a->gates, t, b, z->K * st.gate_width) + k * st.gate_width;
  if (!z->lstm) {
    const real *h = ROW(a->h_before, t, b, st.KS) + k * S;
    for (int64_t i = 0; i < S; i++) {
      real r = gates[i], u = gates[S + i], n = gates[2 * S + i], hn = gates[3 * S + i];
      real d_n = d_kept[i] * (1 - u) * (1 - n * n);
      d_input[i] = d_hidden[i] = d_n * hn * r * (1 - r);
      d_input[S + i] = d_hidden[S + i] = d_kept[i] * (h[i] - n) * u * (1 - u);
      d_input[2 * S + i] = d_n;
      d_hidden[2 * S + i] = d_n * r;
      d_h[i] = d_kept[i] * u;
    }
    return;
  }
  const real *c = ROW(a->c_before, t, b, st.KS) + k * S;
  for (int64_t j = 0; j < S; j++) {
    real i = gates[j], f = gates[S + j], g = gates[2 * S + j], o = gates[3 * S + j], tc = gates[4 * S + j];
    real d_cell = d_c[j] + d_kept[j] * o * (1 - tc * tc);
    d_input[j] = d_hidden[j] = d_cell * g * i * (1 - i);
    d_input[S + j] = d_hidden[S + j] = d_cell * c[j] * f * (1 - f);
    d_input[2 * S + j] = d_hidden[2 * S + j] = d_cell * i * (1 - g * g);
    d_input[3 * S + j] = d_hidden[3 * S + j] = d_kept[j] * tc * o * (1 - o);
    d_c[j] = d_cell * f;
    d_h[j] = 0;
  }
}

/* From the gates' inputs to the values' products, the keys and the query of one active unit. */
static void attention_backward(const Sizes *z, const Arrays *a, Strides st, int64_t t, int64_t b, int64_t k,
                               const real *d_input, real *d_query) {
  const real *queries = ROW(a->queries, t, b, z->K * z->H * z->D) + k * z->H * z->D;
  const real *attention = ROW(a->attention, t, b, z->K * z->H) + k * z->H;
  real scale = 1 / (real)sqrt((double)z->D);
  for (int64_t i = 0; i < z->H; i++) {
    int64_t value = (((i * z->T + t) * z->B + b) * z->K + k) * z->G, key = ((t * z->B + b) * z->H + i) * z->D;
    real p = attention[i], d_score = dot(d_input, a->values + value, z->G) * p * (1 - p) * scale;
    for (int64_t g = 0; g < z->G; g++) a->d_values[value + g] = p * d_input[g];
    for (int64_t d = 0; d < z->D; d++) d_query[i * z->D + d] = d_score * a->keys[key + d];
    add_scaled(a->d_keys + key, d_score, queries + i * z->D, z->D);
  }
}

static void cell_backward(const Sizes *z, const Arrays *a, Strides st, int64_t t, int64_t b, const real *d_kept,
                          real *d_bias) {
  const uint8_t *active = ROW(a->active, t, b, z->K);
  real d_input[z->G];
  memset(a->d_keys + (t * z->B + b) * z->H * z->D, 0, (size_t)(z->H * z->D) * sizeof(real));
  for (int64_t k = 0; k < z->K; k++) {
    real *d_products = ROW(a->d_products, t, b, z->K * st.product_width) + k * st.product_width;
    real *d_h = a->d_h + b * st.KS + k * z->S;
    if (!active[k]) {
      memset(d_products, 0, (size_t)st.product_width * sizeof(real));
      for (int64_t i = 0; i < z->H; i++)
        memset(a->d_values + (((i * z->T + t) * z->B + b) * z->K + k) * z->G, 0, (size_t)z->G * sizeof(real));
      memcpy(d_h, d_kept + k * z->S, (size_t)z->S * sizeof(real));
      continue;
    }
    real *d_c = z->lstm ? a->d_c + b * st.KS + k * z->S : NULL;
    unit_backward(z, a, st, t, b, k, d_kept + k * z->S, d_input, d_products, d_h, d_c);
    attention_backward(z, a, st, t, b, k, d_input, d_products + z->G);
    add_scaled(d_bias + k * z->G, 1, d_input, z->G);
  }
}

static void run_backward(const Sizes *z, const Arrays *a, int64_t first, int64_t last, int64_t index) {
  Strides st = strides_of(z);
  int64_t S = z->S, rows, count = last - first;
  size_t state_bytes = (size_t)st.KS * sizeof(real);
  const real **x = malloc((size_t)count * sizeof *x);
  real **y = malloc((size_t)count * sizeof *y);
  real *d_kept = malloc((size_t)z->B * state_bytes), *back = malloc((size_t)z->B * state_bytes);
  real *d_messages = z->C ? malloc((size_t)(z->B * z->K * st.messages_width) * sizeof(real)) : NULL;
  for (int64_t t = z->T - 1; t >= 0; t--) {
    int64_t step = t * st.time;
    for (int64_t b = first; b < last; b++) {
      real *d_h = a->d_h + b * st.KS;
      add_scaled(d_h, 1, a->d_outputs + (t * z->B + b) * st.KS, st.KS);
      memcpy(d_kept + b * st.KS, d_h, state_bytes);
      if (z->C) said_backward(z, a, st, t, b);
    }
    for (int64_t k = 0; z->C && k < z->K; k++) {
      GATHER(1, a->d_messages_out + step * st.KS, S, S, d_messages, st.messages_width, st.messages_width)
      product(x, y, rows, a->from_message_t + k * S * st.messages_width, st.messages_width, S, st.messages_width);
    }
    for (int64_t b = first; z->C && b < last; b++)
      messages_backward(z, a, st, t, b, d_messages + b * z->K * st.messages_width);
    for (int64_t k = 0; z->C && k < z->K; k++) {
      const real *w = a->to_message_t + k * st.part_width * S, *d_parts = a->d_parts + step * z->K * st.part_width;
      GATHER(1, d_parts, st.part_width, st.part_width, back, S, S)
      product(x, y, rows, w, S, st.part_width, S);
      GATHER(0, d_parts + st.query_part, st.part_width, st.part_width, back, S, S)
      product(x, y, rows, w + st.query_part * S, S, st.part_width - st.query_part, S);
    }
    for (int64_t b = first; b < last; b++) {
      if (z->C) add_scaled(d_kept + b * st.KS, 1, back + b * st.KS, st.KS);
      cell_backward(z, a, st, t, b, d_kept + b * st.KS, a->d_bias + index * z->K * z->G);
    }
    for (int64_t k = 0; k < z->K; k++) {
      GATHER(1, a->d_products + step * z->K * st.product_width, st.product_width, st.product_width, back, S, S)
      product(x, y, rows, a->from_state_t + k * st.product_width * S, S, st.product_width, S);
      for (int64_t b = first; b < last; b++)
        if (ROW(a->active, t, b, z->K)[k]) add_scaled(a->d_h + b * st.KS + k * S, 1, back + b * st.KS + k * S, S);
    }
    for (int64_t b = first; b < last; b++)
      if (a->starts && a->starts[t * z->B + b]) {
        memset(a->d_h + b * st.KS, 0, state_bytes);
        if (z->lstm) memset(a->d_c + b * st.KS, 0, state_bytes);
      }
  }
  free(x), free(y), free(d_kept), free(back), free(d_messages);
}

/* ---------------------------------------------------------------- threads */

static void *forward_slice(void *job) {
  const Slice *s = job;
  run_forward(s->sizes, s->arrays, s->first, s->last);
  return NULL;
}

static void *backward_slice(void *job) {
  const Slice *s = job;
  run_backward(s->sizes, s->arrays, s->first, s->last, s->index);
  return NULL;
}

static void in_slices(const Sizes *z, const Arrays *a, void *(*work)(void *)) {
  int64_t count = z->threads < z->B ? z->threads : z->B;
  count = count < 1 ? 1 : count > MOST_THREADS ? MOST_THREADS : count;
  Slice slices[MOST_THREADS];
  pthread_t threads[MOST_THREADS];
  int started[MOST_THREADS] = {0};
  for (int64_t i = 0; i < count; i++) slices[i] = (Slice){z, a, i * z->B / count, (i + 1) * z->B / count, i};
  for (int64_t i = 1; i < count; i++) started[i] = !pthread_create(&threads[i], NULL, work, &slices[i]);
  work(&slices[0]);
  for (int64_t i = 1; i < count; i++)
    if (started[i]) pthread_join(threads[i], NULL);
    else work(&slices[i]);
}

void rim_forward(const Sizes *sizes, const Arrays *arrays) { in_slices(sizes, arrays, forward_slice); }
void rim_backward(const Sizes *sizes, const Arrays *arrays) { in_slices(sizes, arrays, backward_slice); }
