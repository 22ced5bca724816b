/* What the units read of the input (sections 2.1 and 2.2), forward and backward: one slot, or several.
 *
 * One slot: the softmax over {null, slot} is a logistic function. Several: keys and values of all slots would be most
 * of the work and of the memory. The score q (x W_key)^T is (q W_key^T) x^T, so the key map meets the queries
 * ("probes") instead of the slots; and the sum of p_n (x_n W_value) is (the sum of p_n x_n) W_value, so the value map
 * meets what was read, of active units only.
 */

#ifndef RIMS_RL_ATTENTION_H
#define RIMS_RL_ATTENTION_H

#include "arrays.h"

/* Whether attention a on the null row comes before b; NaN comes last, as torch sorts it. */
static int before(real a, real b) { return a < b || (b != b && a == a); }

/* Mark the active_units units with the least attention on the null row; ties go to the lower index. */
static void select_active(const Sizes *z, const real *unread, uint8_t *active) {
  for (int64_t k = 0; k < z->K; k++) {
    int64_t rank = 0;
    for (int64_t j = 0; j < z->K; j++) rank += before(unread[j], unread[k]) || (j < k && !before(unread[k], unread[j]));
    active[k] = rank < z->active_units;
  }
}

/* ---------------------------------------------------------------- one slot */

static void attend_one(const Slice *l, int64_t t, int64_t b) {
  const Sizes *z = l->z;
  const real *keys = l->a->keys + (t * z->B + b) * z->H * z->D;
  const real *queries = ROW(l->a->queries, t, b, z->K * z->H * z->D);
  real *attention = ROW(l->a->attention, t, b, z->K * z->H), *unread = l->s.unread, *null = l->s.weights;
  real scale = 1 / (real)sqrt((double)z->D);
  memset(unread, 0, (size_t)z->K * sizeof(real));
  for (int64_t i = 0; i < z->K * z->H; i++)
    attention[i] = dot(queries + i * z->D, keys + (i % z->H) * z->D, z->D) * scale;
  for (int64_t h = 0; h < z->H; h++) {
    for (int64_t k = 0; k < z->K; k++) null[k] = -attention[k * z->H + h];
    sigmoids(null, z->K);
    for (int64_t k = 0; k < z->K; k++) unread[k] += null[k];
  }
  sigmoids(attention, z->K * z->H);
  uint8_t *active = ROW(l->a->active, t, b, z->K);
  select_active(z, unread, active);
  if (!l->a->values) return;
  const real *values = l->a->values + (t * z->B + b) * l->st.attended_width;
  real *attended = ROW(l->a->attended, t, b, z->K * l->st.attended_width);
  for (int64_t i = 0; i < z->K * z->H; i++)
    for (int64_t v = 0; active[i / z->H] && v < z->V; v++)
      attended[i * z->V + v] = attention[i] * values[i % z->H * z->V + v];
}

/* From the gradient of p times what unit k's head h reads (width numbers) to what is read, the key and the query. */
static void one_head_backward(const Slice *l, int64_t t, int64_t b, int64_t k, int64_t h, const real *d_sum,
                              const real *read, real *d_read, int64_t width) {
  const Sizes *z = l->z;
  int64_t key = ((t * z->B + b) * z->H + h) * z->D;
  const real *query = ROW(l->a->queries, t, b, z->K * z->H * z->D) + (k * z->H + h) * z->D;
  real *d_query = ROW(l->a->d_products, t, b, z->K * l->st.product_width) + k * l->st.product_width + z->G + h * z->D;
  real p = ROW(l->a->attention, t, b, z->K * z->H)[k * z->H + h];
  real d_score = dot(d_sum, read, width) * p * (1 - p) / (real)sqrt((double)z->D);
  add_scaled(d_read, p, d_sum, width);
  for (int64_t d = 0; d < z->D; d++) d_query[d] = d_score * l->a->keys[key + d];
  add_scaled(l->a->d_keys + key, d_score, query, z->D);
}

/* From what the cells of one sequence were given to its slot and the queries. */
static void one_backward(const Slice *l, int64_t t, int64_t b) {
  const Sizes *z = l->z;
  const Arrays *a = l->a;
  int64_t width = l->st.attended_width, row = t * z->B + b;
  memset(a->d_keys + row * z->H * z->D, 0, (size_t)(z->H * z->D) * sizeof(real));
  if (a->values) memset(a->d_values + row * width, 0, (size_t)width * sizeof(real));
  for (int64_t k = 0; k < z->K; k++)
    for (int64_t h = 0; h < z->H; h++) {
      int64_t value = row * width + h * z->V, ready = ((h * z->T * z->B + row) * z->K + k) * z->G;
      if (!a->values) memset(a->d_ready + ready, 0, (size_t)z->G * sizeof(real));
      if (!ROW(a->active, t, b, z->K)[k]) continue;
      const real *d_input = ROW(a->d_inputs, t, b, z->K * z->G) + k * z->G;
      const real *d_attended = ROW(a->d_attended, t, b, z->K * width) + k * width + h * z->V;
      if (a->values) one_head_backward(l, t, b, k, h, d_attended, a->values + value, a->d_values + value, z->V);
      else one_head_backward(l, t, b, k, h, d_input, a->ready + ready, a->d_ready + ready, z->G);
    }
}

/* ---------------------------------------------------------------- several slots */

/* Lay rows (count, width) side by side: lane j of row i is rows[j][i]. */
static void side_by_side(const real *const *rows, int64_t count, int64_t width, real *side, int64_t lanes) {
  for (int64_t i = 0; i < width; i++)
    for (int64_t j = 0; j < count; j++) side[i * lanes + j] = rows[j][i];
}

/* Scores (N, lanes) become the softmax over {null, slots} of every lane; the null row's share is added to `unread`. */
static void softmax_with_null(real *scores, int64_t slots, int64_t lanes, real scale, real *unread) {
  for (int64_t j = 0; j < lanes; j += LANES) {
    vec most = {0}, sum; /* the null row's score is 0 */
    for (int64_t n = 0; n < slots; n++) {
      vec score = AT(scores + n * lanes + j) *= scale;
      for (int lane = 0; lane < LANES; lane++) most[lane] = score[lane] > most[lane] ? score[lane] : most[lane];
    }
    vec null = sum = exponential(-most);
    for (int64_t n = 0; n < slots; n++)
      sum += AT(scores + n * lanes + j) = exponential(AT(scores + n * lanes + j) - most);
    for (int64_t n = 0; n < slots; n++) AT(scores + n * lanes + j) /= sum;
    AT(unread + j) += null / sum;
  }
}

/* The queries of all units through the key map: a score is then one product with a slot. */
static void make_probes(const Slice *l, int64_t t) {
  const Sizes *z = l->z;
  const real *queries = ROW(l->a->queries, t, 0, z->K * z->H * z->D);
  real *probes = ROW(l->a->probes, t, 0, z->K * l->st.probe_width);
  for (int64_t h = 0; h < z->H; h++) {
    int64_t rows = gather_units(l, t, ALL, queries + h * z->D, z->H * z->D, probes + h * z->I, l->st.probe_width);
    product(l->s.x, l->s.y, rows, l->a->key_t + h * z->D * z->I, z->I, z->D, z->I);
  }
}

/* Attention on the slots, selection, and the slots' sums that the active units read. */
static void attend_slots(const Slice *l, int64_t t, int64_t b) {
  const Sizes *z = l->z;
  const Scratch *s = &l->s;
  const real *slots = l->a->slots + (t * z->B + b) * z->N * z->I;
  const real *probes = ROW(l->a->probes, t, b, z->K * l->st.probe_width);
  real *attention = ROW(l->a->attention, t, b, z->K * z->H * z->N);
  uint8_t *active = ROW(l->a->active, t, b, z->K);
  int64_t lanes = lanes_for(z->K);
  memset(s->unread, 0, (size_t)lanes * sizeof(real));
  for (int64_t h = 0; h < z->H; h++) {
    for (int64_t k = 0; k < z->K; k++) s->x[k] = probes + (k * z->H + h) * z->I;
    side_by_side(s->x, z->K, z->I, s->lanes, lanes);
    for (int64_t n = 0; n < z->N; n++) s->x[n] = slots + n * z->I, s->y[n] = s->scores + n * lanes;
    product(s->x, s->y, z->N, s->lanes, lanes, z->I, lanes);
    softmax_with_null(s->scores, z->N, lanes, 1 / (real)sqrt((double)z->D), s->unread);
    for (int64_t k = 0; k < z->K; k++)
      for (int64_t n = 0; n < z->N; n++) attention[(k * z->H + h) * z->N + n] = s->scores[n * lanes + k];
  }
  select_active(z, s->unread, active);
  real *read = ROW(l->a->read, t, b, z->K * l->st.probe_width);
  int64_t rows = 0;
  for (int64_t k = 0; k < z->K; k++)
    for (int64_t h = 0; active[k] && h < z->H; h++, rows++)
      s->x[rows] = attention + (k * z->H + h) * z->N, s->y[rows] = read + (k * z->H + h) * z->I;
  product(s->x, s->y, rows, slots, z->I, z->N, z->I);
}

/* What was read through the value map. */
static void map_values(const Slice *l, int64_t t) {
  const Sizes *z = l->z;
  real *attended = ROW(l->a->attended, t, 0, z->K * l->st.attended_width);
  const real *read = ROW(l->a->read, t, 0, z->K * l->st.probe_width);
  for (int64_t h = 0; l->a->value && h < z->H; h++) {
    int64_t width = l->st.attended_width;
    int64_t rows = gather_units(l, t, ACTIVE, read + h * z->I, l->st.probe_width, attended + h * z->V, width);
    product(l->s.x, l->s.y, rows, l->a->value + h * z->V, width, z->I, z->V);
  }
}

/* From the attended values to what was read, of the active units: (B, K, H*I) at the returned address. */
static const real *values_backward(const Slice *l, int64_t t) {
  const Sizes *z = l->z;
  int64_t width = l->st.attended_width, probe = l->st.probe_width;
  const real *d_attended = ROW(l->a->d_attended, t, 0, z->K * width);
  if (!l->a->value_t) return d_attended;
  for (int64_t h = 0; h < z->H; h++) {
    int64_t rows = gather_units(l, t, ACTIVE, d_attended + h * z->V, width, l->a->d_read + h * z->I, probe);
    product(l->s.x, l->s.y, rows, l->a->value_t + h * z->V * z->I, z->I, z->V, z->I);
  }
  return l->a->d_read;
}

/* From what was read (K, H*I) through the softmax to the probes and the slots. */
static void slots_backward(const Slice *l, int64_t t, int64_t b, const real *d_read) {
  const Sizes *z = l->z;
  const Scratch *s = &l->s;
  const uint8_t *active = ROW(l->a->active, t, b, z->K);
  const real *slots = l->a->slots + (t * z->B + b) * z->N * z->I;
  const real *probes = ROW(l->a->probes, t, b, z->K * l->st.probe_width);
  const real *attention = ROW(l->a->attention, t, b, z->K * z->H * z->N);
  real *d_probes = ROW(l->a->d_probes, t, b, z->K * l->st.probe_width), scale = 1 / (real)sqrt((double)z->D);
  int64_t count = 0, lanes = lanes_for(z->active_units), pairs = 2 * z->H * z->active_units;
  size_t slot_bytes = (size_t)z->I * sizeof(real);
  for (int64_t k = 0; k < z->K; k++)
    if (active[k]) s->units[count++] = k;
  for (int64_t h = 0; h < z->H; h++) {
    for (int64_t j = 0; j < count; j++) s->x[j] = d_read + (s->units[j] * z->H + h) * z->I;
    side_by_side(s->x, count, z->I, s->lanes, lanes);
    for (int64_t n = 0; n < z->N; n++) s->x[n] = slots + n * z->I, s->y[n] = s->scores + n * lanes;
    product(s->x, s->y, z->N, s->lanes, lanes, z->I, lanes);
    for (int64_t j = 0; j < count; j++) {
      int64_t row = s->units[j] * z->H + h, pair = h * count + j;
      const real *p = attention + row * z->N;
      real *d_score = s->d_scores + pair * z->N, mean = 0;
      for (int64_t n = 0; n < z->N; n++) d_score[n] = s->scores[n * lanes + j], mean += p[n] * d_score[n];
      for (int64_t n = 0; n < z->N; n++) d_score[n] = p[n] * (d_score[n] - mean) * scale;
      s->x[j] = d_score, s->y[j] = d_probes + row * z->I;
      if (!l->a->d_slots) continue;
      for (int64_t n = 0; n < z->N; n++) {
        s->mix[n * pairs + 2 * pair] = p[n];
        s->mix[n * pairs + 2 * pair + 1] = d_score[n];
      }
      memcpy(s->given + 2 * pair * z->I, d_read + row * z->I, slot_bytes);
      memcpy(s->given + (2 * pair + 1) * z->I, probes + row * z->I, slot_bytes);
    }
    product(s->x, s->y, count, slots, z->I, z->N, z->I);
  }
  if (!l->a->d_slots) return;
  for (int64_t n = 0; n < z->N; n++)
    s->x[n] = s->mix + n * pairs, s->y[n] = l->a->d_slots + ((t * z->B + b) * z->N + n) * z->I;
  product(s->x, s->y, z->N, s->given, z->I, pairs, z->I);
}

/* From the probes to the queries, (B, K, ...) behind the gates in the state's products. */
static void probes_backward(const Slice *l, int64_t t) {
  const Sizes *z = l->z;
  const real *d_probes = ROW(l->a->d_probes, t, 0, z->K * l->st.probe_width);
  int64_t probe = l->st.probe_width, width = l->st.product_width;
  real *d_queries = ROW(l->a->d_products, t, 0, z->K * width) + z->G;
  for (int64_t h = 0; h < z->H; h++) {
    int64_t rows = gather_units(l, t, ACTIVE, d_probes + h * z->I, probe, d_queries + h * z->D, width);
    product(l->s.x, l->s.y, rows, l->a->key + h * z->D, z->H * z->D, z->I, z->D);
  }
}

#endif
