/* What the units tell each other (section 2.4), forward and backward: active units read from all units. */

#ifndef RIMS_RL_COMMUNICATION_H
#define RIMS_RL_COMMUNICATION_H

#include "arrays.h"

/* Messages of one sequence; units that are not active read nothing. */
static void read_messages(const Slice *l, int64_t t, int64_t b) {
  const Sizes *z = l->z;
  int64_t part = l->st.part_width, query_part = l->st.query_part;
  const uint8_t *active = ROW(l->a->active, t, b, z->K);
  const real *parts = ROW(l->a->message_parts, t, b, z->K * part);
  real scale = 1 / (real)sqrt((double)z->P);
  for (int64_t k = 0; k < z->K; k++) {
    real *message = ROW(l->a->messages, t, b, z->K * l->st.messages_width) + k * l->st.messages_width;
    memset(message, 0, (size_t)l->st.messages_width * sizeof(real));
    if (!active[k]) continue;
    real *weights = ROW(l->a->communication, t, b, z->K * z->C * z->K) + k * z->C * z->K;
    for (int64_t c = 0; c < z->C; c++) {
      real *w = weights + c * z->K, most = -INFINITY, sum = 0;
      for (int64_t j = 0; j < z->K; j++) {
        w[j] = dot(parts + k * part + c * z->P, parts + j * part + query_part + c * z->P, z->P) * scale;
        most = w[j] > most ? w[j] : most;
      }
      for (int64_t j = 0; j < z->K; j++) w[j] -= most;
      exponentials(w, z->K);
      for (int64_t j = 0; j < z->K; j++) sum += w[j];
      for (int64_t j = 0; j < z->K; j++) {
        w[j] /= sum;
        add_scaled(message + c * z->E, w[j], parts + j * part + 2 * query_part + c * z->E, z->E);
      }
    }
  }
}

/* From d_h to the messages' products; nothing was said to units that are not active. */
static void said_backward(const Slice *l, int64_t t, int64_t b) {
  const Sizes *z = l->z;
  real *d_out = ROW(l->a->d_messages_out, t, b, l->st.KS);
  const real *d_h = l->a->d_h + b * l->st.KS, *said = ROW(l->a->said, t, b, l->st.KS);
  for (int64_t k = 0; k < z->K; k++) {
    int64_t from = k * z->S, to = from + z->S;
    if (!ROW(l->a->active, t, b, z->K)[k]) memset(d_out + from, 0, (size_t)z->S * sizeof(real));
    else if (z->bounded)
      for (int64_t i = from; i < to; i++) d_out[i] = d_h[i] * (1 - said[i] * said[i]);
    else memcpy(d_out + from, d_h + from, (size_t)z->S * sizeof(real));
  }
}

/* From the messages (K, C*E) of one sequence to the units' queries, keys and values. */
static void messages_backward(const Slice *l, int64_t t, int64_t b, const real *d_messages) {
  const Sizes *z = l->z;
  int64_t part = l->st.part_width, query_part = l->st.query_part;
  const uint8_t *active = ROW(l->a->active, t, b, z->K);
  const real *parts = ROW(l->a->message_parts, t, b, z->K * part);
  real *d_parts = ROW(l->a->d_parts, t, b, z->K * part), *d_weight = l->s.weights;
  real scale = 1 / (real)sqrt((double)z->P);
  memset(d_parts, 0, (size_t)(z->K * part) * sizeof(real));
  for (int64_t k = 0; k < z->K; k++) {
    if (!active[k]) continue;
    const real *weights = ROW(l->a->communication, t, b, z->K * z->C * z->K) + k * z->C * z->K;
    for (int64_t c = 0; c < z->C; c++) {
      const real *w = weights + c * z->K, *d_message = d_messages + k * l->st.messages_width + c * z->E;
      int64_t query = k * part + c * z->P;
      real sum = 0;
      for (int64_t j = 0; j < z->K; j++) {
        int64_t value = j * part + 2 * query_part + c * z->E;
        d_weight[j] = dot(d_message, parts + value, z->E);
        sum += w[j] * d_weight[j];
        add_scaled(d_parts + value, w[j], d_message, z->E);
      }
      for (int64_t j = 0; j < z->K; j++) {
        int64_t key = j * part + query_part + c * z->P;
        real d_score = w[j] * (d_weight[j] - sum) * scale;
        add_scaled(d_parts + query, d_score, parts + key, z->P);
        add_scaled(d_parts + key, d_score, parts + query, z->P);
      }
    }
  }
}

#endif
