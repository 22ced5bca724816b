/* The time loop forward: for every step the paper's five lines, units that are not active skipped. */

#ifndef RIMS_RL_FORWARD_H
#define RIMS_RL_FORWARD_H

#include "attention.h"
#include "cells.h"
#include "communication.h"

/* Take the state over from the step before, zeros where an episode starts. */
static void begin_step(const Slice *l, int64_t t, int64_t b) {
  const Arrays *a = l->a;
  int64_t KS = l->st.KS;
  size_t bytes = (size_t)KS * sizeof(real);
  int fresh = a->starts && a->starts[t * l->z->B + b];
  const real *h = t ? a->outputs + ((t - 1) * l->z->B + b) * KS : a->h0 + b * KS;
  real *into = ROW(a->h_before, t, b, KS);
  if (fresh) memset(into, 0, bytes);
  else memcpy(into, h, bytes);
  if (!l->z->lstm) return;
  const real *c = t ? a->c_last + b * KS : a->c0 + b * KS;
  into = ROW(a->c_before, t, b, KS);
  if (fresh) memset(into, 0, bytes);
  else memcpy(into, c, bytes);
}

/* Zeros for units that are not active: they have no part in the gradient of the input weights. */
static void blank_attended(const Slice *l, int64_t t) {
  int64_t K = l->z->K, width = l->st.attended_width;
  for (int64_t b = l->first; b < l->last; b++)
    for (int64_t k = 0; k < K; k++)
      if (!ROW(l->a->active, t, b, K)[k])
        memset(ROW(l->a->attended, t, b, K * width) + k * width, 0, (size_t)width * sizeof(real));
}

static void attend(const Slice *l, int64_t t) {
  const Sizes *z = l->z;
  const Arrays *a = l->a;
  int64_t queries = z->H * z->D, width = l->st.product_width;
  for (int64_t k = 0; k < z->K; k++) {
    int64_t rows =
        gather(l, t, k, ALL, ROW(a->h_before, t, 0, l->st.KS), z->S, ROW(a->queries, t, 0, z->K * queries), queries, 0);
    product(l->s.x, l->s.y, rows, a->from_state + k * z->S * width + z->G, width, z->S, queries);
  }
  if (a->slots) make_probes(l, t);
  for (int64_t b = l->first; b < l->last; b++)
    if (a->slots) attend_slots(l, t, b);
    else attend_one(l, t, b);
  if (a->slots) map_values(l, t);
  if (z->keep && !a->ready) blank_attended(l, t);
}

/* The sums of ready products under unit k's attention. */
static void read_ready(const Slice *l, int64_t t, int64_t k) {
  const Sizes *z = l->z;
  for (int64_t b = l->first; b < l->last; b++) {
    if (!ROW(l->a->active, t, b, z->K)[k]) continue;
    const real *attention = ROW(l->a->attention, t, b, z->K * z->H) + k * z->H;
    real *input = l->s.input + (b - l->first) * z->G;
    memcpy(input, l->a->bias + k * z->G, (size_t)z->G * sizeof(real));
    for (int64_t h = 0; h < z->H; h++)
      add_scaled(input, attention[h], l->a->ready + (((h * z->T + t) * z->B + b) * z->K + k) * z->G, z->G);
  }
}

/* Products of what unit k attended to with its input weights, one row (G) by sequence of the slice. */
static void read_input(const Slice *l, int64_t t, int64_t k) {
  const Sizes *z = l->z;
  int64_t width = l->st.attended_width;
  const real *attended = ROW(l->a->attended, t, 0, z->K * width);
  int64_t rows = 0;
  for (int64_t b = l->first; b < l->last; b++)
    if (ROW(l->a->active, t, b, z->K)[k]) {
      l->s.x[rows] = attended + (b * z->K + k) * width;
      l->s.y[rows++] = l->s.input + (b - l->first) * z->G;
    }
  product(l->s.x, l->s.y, rows, l->a->from_input + k * width * z->G, z->G, width, z->G);
  for (int64_t r = 0; r < rows; r++) add_scaled(l->s.y[r], 1, l->a->bias + k * z->G, z->G);
}

/* Run the active units' dynamics; the others keep h and c. */
static void update(const Slice *l, int64_t t) {
  const Sizes *z = l->z;
  const Arrays *a = l->a;
  int64_t KS = l->st.KS, width = l->st.product_width, gates = l->st.gate_width;
  for (int64_t b = l->first; b < l->last; b++) {
    memcpy(ROW(a->kept, t, b, KS), ROW(a->h_before, t, b, KS), (size_t)KS * sizeof(real));
    if (z->lstm) memcpy(a->c_last + b * KS, ROW(a->c_before, t, b, KS), (size_t)KS * sizeof(real));
  }
  for (int64_t k = 0; k < z->K; k++) {
    int64_t rows =
        gather(l, t, k, ACTIVE, ROW(a->h_before, t, 0, KS), z->S, ROW(a->gates, t, 0, z->K * gates), gates, 0);
    product(l->s.x, l->s.y, rows, a->from_state + k * z->S * width, width, z->S, z->G);
    if (a->ready) read_ready(l, t, k);
    else read_input(l, t, k);
    for (int64_t b = l->first; b < l->last; b++)
      if (ROW(a->active, t, b, z->K)[k]) update_unit(l, t, b, k, l->s.input + (b - l->first) * z->G);
  }
}

static void make_message_parts(const Slice *l, int64_t t) {
  const Sizes *z = l->z;
  int64_t S = z->S, part = l->st.part_width, query_part = l->st.query_part;
  const real *kept = ROW(l->a->kept, t, 0, l->st.KS);
  real *parts = ROW(l->a->message_parts, t, 0, z->K * part);
  for (int64_t k = 0; k < z->K; k++) {
    const real *w = l->a->to_message + k * S * part;
    int64_t rows = gather(l, t, k, ACTIVE, kept, S, parts, part, 0);
    product(l->s.x, l->s.y, rows, w, part, S, part);
    rows = gather(l, t, k, INACTIVE, kept, S, parts + query_part, part, 0); /* these ask nothing */
    product(l->s.x, l->s.y, rows, w + query_part, part, S, part - query_part);
  }
}

static void communicate(const Slice *l, int64_t t) {
  const Sizes *z = l->z;
  const Arrays *a = l->a;
  int64_t S = z->S, KS = l->st.KS, width = l->st.messages_width;
  make_message_parts(l, t);
  for (int64_t b = l->first; b < l->last; b++) read_messages(l, t, b);
  for (int64_t k = 0; k < z->K; k++) {
    int64_t rows = gather(l, t, k, ACTIVE, ROW(a->messages, t, 0, z->K * width), width, ROW(a->said, t, 0, KS), S, 0);
    product(l->s.x, l->s.y, rows, a->from_message + k * width * S, S, width, S);
    for (int64_t b = l->first; b < l->last; b++) {
      if (!ROW(a->active, t, b, z->K)[k]) continue;
      real *said = ROW(a->said, t, b, KS) + k * S;
      if (z->bounded) tangents(said, S);
      add_scaled(a->outputs + (t * z->B + b) * KS + k * S, 1, said, S);
    }
  }
}

static void run_forward(const Slice *l) {
  int64_t KS = l->st.KS;
  for (int64_t t = 0; t < l->z->T; t++) {
    for (int64_t b = l->first; b < l->last; b++) begin_step(l, t, b);
    attend(l, t);
    update(l, t);
    for (int64_t b = l->first; b < l->last; b++)
      memcpy(l->a->outputs + (t * l->z->B + b) * KS, ROW(l->a->kept, t, b, KS), (size_t)KS * sizeof(real));
    if (l->z->C) communicate(l, t);
  }
}

#endif
