/* The units' own dynamics (section 2.3): GRU and LSTM, forward and backward. */

#ifndef RIMS_RL_CELLS_H
#define RIMS_RL_CELLS_H

#include "arrays.h"

/* The cell of one active unit: `gates` holds the state's products and becomes what the backward pass needs. */
static void update_unit(const Slice *l, int64_t t, int64_t b, int64_t k, const real *input) {
  int64_t S = l->z->S;
  real *gates = ROW(l->a->gates, t, b, l->z->K * l->st.gate_width) + k * l->st.gate_width;
  const real *h = ROW(l->a->h_before, t, b, l->st.KS) + k * S;
  real *kept = ROW(l->a->kept, t, b, l->st.KS) + k * S;
  if (!l->z->lstm) {
    real *n = gates + 2 * S, *hn = gates + 3 * S;
    for (int64_t i = 0; i < S; i++) hn[i] = n[i] + l->a->bias_hn[k * S + i];
    for (int64_t i = 0; i < 2 * S; i++) gates[i] += input[i];
    sigmoids(gates, 2 * S);
    for (int64_t i = 0; i < S; i++) n[i] = input[2 * S + i] + gates[i] * hn[i];
    tangents(n, S);
    for (int64_t i = 0; i < S; i++) kept[i] = n[i] + gates[S + i] * (h[i] - n[i]);
    return;
  }
  const real *c = ROW(l->a->c_before, t, b, l->st.KS) + k * S;
  real *c_new = l->a->c_last + b * l->st.KS + k * S, *tanh_c = gates + 4 * S;
  for (int64_t i = 0; i < 4 * S; i++) gates[i] += input[i];
  sigmoids(gates, 2 * S);
  tangents(gates + 2 * S, S);
  sigmoids(gates + 3 * S, S);
  for (int64_t i = 0; i < S; i++) tanh_c[i] = c_new[i] = gates[S + i] * c[i] + gates[i] * gates[2 * S + i];
  tangents(tanh_c, S);
  for (int64_t i = 0; i < S; i++) kept[i] = gates[3 * S + i] * tanh_c[i];
}

/* From d_kept (S) of one active unit to the gates' inputs (G), the state's products (G), and d_h, d_c (S). */
static void unit_backward(const Slice *l, int64_t t, int64_t b, int64_t k, const real *d_kept, real *d_input,
                          real *d_hidden, real *d_h, real *d_c) {
  int64_t S = l->z->S;
  const real *gates = ROW(l->a->gates, t, b, l->z->K * l->st.gate_width) + k * l->st.gate_width;
  if (!l->z->lstm) {
    const real *h = ROW(l->a->h_before, t, b, l->st.KS) + k * S;
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
  const real *c = ROW(l->a->c_before, t, b, l->st.KS) + k * S;
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

#endif
