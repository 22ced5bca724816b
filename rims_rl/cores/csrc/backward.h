/* The time loop backward. The weights' gradients, one product each over all steps, are left to the caller. */

#ifndef RIMS_RL_BACKWARD_H
#define RIMS_RL_BACKWARD_H

#include "attention.h"
#include "cells.h"
#include "communication.h"

/* From d_h to what the units showed, added to d_kept. */
static void communication_backward(const Slice *l, int64_t t) {
  const Sizes *z = l->z;
  const Arrays *a = l->a;
  int64_t S = z->S, KS = l->st.KS, part = l->st.part_width, query_part = l->st.query_part, width = l->st.messages_width;
  for (int64_t b = l->first; b < l->last; b++) said_backward(l, t, b);
  for (int64_t k = 0; k < z->K; k++) {
    int64_t rows = gather(l, t, k, ACTIVE, ROW(a->d_messages_out, t, 0, KS), S, a->d_messages, width, 0);
    product(l->s.x, l->s.y, rows, a->from_message_t + k * S * width, width, S, width);
  }
  for (int64_t b = l->first; b < l->last; b++) messages_backward(l, t, b, a->d_messages + b * z->K * width);
  const real *d_parts = ROW(a->d_parts, t, 0, z->K * part);
  for (int64_t k = 0; k < z->K; k++) {
    const real *w = a->to_message_t + k * part * S;
    int64_t rows = gather(l, t, k, ACTIVE, d_parts, part, a->d_back, S, 0);
    product(l->s.x, l->s.y, rows, w, S, part, S);
    rows = gather(l, t, k, INACTIVE, d_parts + query_part, part, a->d_back, S, 0);
    product(l->s.x, l->s.y, rows, w + query_part * S, S, part - query_part, S);
  }
  for (int64_t b = l->first; b < l->last; b++) add_scaled(a->d_kept + b * KS, 1, a->d_back + b * KS, KS);
}

/* A unit that is not active passes d_kept on and gives nothing to anybody. */
static void pass_on(const Slice *l, int64_t t, int64_t b, int64_t k) {
  const Sizes *z = l->z;
  const Arrays *a = l->a;
  memcpy(a->d_h + (b * z->K + k) * z->S, a->d_kept + (b * z->K + k) * z->S, (size_t)z->S * sizeof(real));
  memset(ROW(a->d_products, t, b, z->K * l->st.product_width) + k * l->st.product_width, 0,
         (size_t)l->st.product_width * sizeof(real));
  memset(ROW(a->d_inputs, t, b, z->K * z->G) + k * z->G, 0, (size_t)z->G * sizeof(real));
}

/* The units' dynamics of one sequence. */
static void cells_backward(const Slice *l, int64_t t, int64_t b) {
  const Sizes *z = l->z;
  const Arrays *a = l->a;
  real *d_bias = a->d_bias + l->index * z->K * z->G;
  for (int64_t k = 0; k < z->K; k++) {
    if (!ROW(a->active, t, b, z->K)[k]) {
      pass_on(l, t, b, k);
      continue;
    }
    int64_t unit = (b * z->K + k) * z->S;
    real *d_products = ROW(a->d_products, t, b, z->K * l->st.product_width) + k * l->st.product_width;
    real *d_input = ROW(a->d_inputs, t, b, z->K * z->G) + k * z->G;
    unit_backward(l, t, b, k, a->d_kept + unit, d_input, d_products, a->d_h + unit, z->lstm ? a->d_c + unit : NULL);
    add_scaled(d_bias + k * z->G, 1, d_input, z->G);
  }
}

/* From what the cells were given to the input and the queries. */
static void read_backward(const Slice *l, int64_t t) {
  const Sizes *z = l->z;
  const Arrays *a = l->a;
  int64_t width = l->st.attended_width;
  const real *d_inputs = ROW(a->d_inputs, t, 0, z->K * z->G);
  for (int64_t k = 0; k < z->K && !a->ready; k++) {
    int64_t rows = gather(l, t, k, ACTIVE, d_inputs, z->G, ROW(a->d_attended, t, 0, z->K * width), width, 0);
    product(l->s.x, l->s.y, rows, a->from_input_t + k * z->G * width, width, z->G, width);
  }
  if (!a->slots) {
    for (int64_t b = l->first; b < l->last; b++) one_backward(l, t, b);
    return;
  }
  const real *d_read = values_backward(l, t);
  for (int64_t b = l->first; b < l->last; b++) slots_backward(l, t, b, d_read + b * z->K * l->st.probe_width);
  probes_backward(l, t);
}

/* From the state's products to the state before the step, added to d_h. */
static void state_backward(const Slice *l, int64_t t) {
  const Sizes *z = l->z;
  const Arrays *a = l->a;
  int64_t S = z->S, width = l->st.product_width;
  for (int64_t k = 0; k < z->K; k++) {
    int64_t rows = gather(l, t, k, ACTIVE, ROW(a->d_products, t, 0, z->K * width), width, a->d_back, S, 0);
    product(l->s.x, l->s.y, rows, a->from_state_t + k * width * S, S, width, S);
    for (int64_t r = 0; r < rows; r++) add_scaled(a->d_h + (l->s.y[r] - a->d_back), 1, l->s.y[r], S);
  }
}

static void run_backward(const Slice *l) {
  const Sizes *z = l->z;
  const Arrays *a = l->a;
  int64_t KS = l->st.KS;
  size_t bytes = (size_t)KS * sizeof(real);
  for (int64_t t = z->T - 1; t >= 0; t--) {
    for (int64_t b = l->first; b < l->last; b++) {
      add_scaled(a->d_h + b * KS, 1, a->d_outputs + (t * z->B + b) * KS, KS);
      memcpy(a->d_kept + b * KS, a->d_h + b * KS, bytes);
    }
    if (z->C) communication_backward(l, t);
    for (int64_t b = l->first; b < l->last; b++) cells_backward(l, t, b);
    read_backward(l, t);
    state_backward(l, t);
    for (int64_t b = l->first; b < l->last; b++)
      if (a->starts && a->starts[t * z->B + b]) {
        memset(a->d_h + b * KS, 0, bytes);
        if (z->lstm) memset(a->d_c + b * KS, 0, bytes);
      }
  }
}

#endif
