/* Small dense pieces: products with few rows, dot products, and the exponential and its kin, in vector registers. */

#ifndef RIMS_RL_DENSE_H
#define RIMS_RL_DENSE_H

#include <math.h>
#include <stdint.h>
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

/* Sums of a product that stay in registers: up to 6 rows times 4 vectors where there are 32 registers, else times 2. */
enum { MOST_ROWS = 6 };
#if defined(__AVX512F__)
#define MOST_VECS(ROWS) 4
#else
#define MOST_VECS(ROWS) ((ROWS) <= 2 ? 4 : 2)
#endif

/* Left alone, the compiler loads a column anew for every row, and loads that cross cache lines are what is dear. */
#if defined(__x86_64__) && defined(__AVX__)
#define IN_REGISTER(VECTOR) __asm__("" : "+v"(VECTOR))
#else
#define IN_REGISTER(VECTOR)
#endif

#define BLOCK(ROWS, VECS)                                                                                    \
  static void block_##ROWS##_##VECS(const real *const *x, real *const *y, const real *w, int64_t width,      \
                                    int64_t depth, int64_t n) {                                              \
    vec sum[ROWS][VECS];                                                                                     \
    memset(sum, 0, sizeof sum);                                                                              \
    for (int64_t s = 0; s < depth; s++) {                                                                    \
      vec columns[VECS];                                                                                     \
      for (int v = 0; v < VECS; v++) {                                                                       \
        columns[v] = CONST_AT(w + s * width + n + v * LANES);                                                \
        IN_REGISTER(columns[v]);                                                                             \
      }                                                                                                      \
      for (int r = 0; r < ROWS; r++) {                                                                       \
        real scalar = x[r][s];                                                                               \
        for (int v = 0; v < VECS; v++) sum[r][v] += scalar * columns[v];                                     \
      }                                                                                                      \
    }                                                                                                        \
    for (int r = 0; r < ROWS; r++)                                                                           \
      for (int v = 0; v < VECS; v++) AT(y[r] + n + v * LANES) = sum[r][v];                                   \
  }
typedef void (*Block)(const real *const *, real *const *, const real *, int64_t, int64_t, int64_t);
#define BLOCKS(VECS)                                                                                         \
  BLOCK(1, VECS) BLOCK(2, VECS) BLOCK(3, VECS) BLOCK(4, VECS) BLOCK(5, VECS) BLOCK(6, VECS)                  \
  static const Block blocks_##VECS[MOST_ROWS] = {block_1_##VECS, block_2_##VECS, block_3_##VECS,             \
                                                 block_4_##VECS, block_5_##VECS, block_6_##VECS};
BLOCKS(1)
BLOCKS(2)
BLOCKS(4)

/* Below one vector's width. */
static void narrow(const real *x, real *y, const real *w, int64_t width, int64_t depth, int64_t columns) {
  for (int64_t n = 0; n < columns; n++) y[n] = 0;
  for (int64_t s = 0; s < depth; s++)
    for (int64_t n = 0; n < columns; n++) y[n] += x[s] * w[s * width + n];
}

/* y[r][0..columns) = x[r][0..depth) w, with w (depth, columns) in rows of `width`. The last block of columns may
 * overlap the one before. Sums run over the depth in order, so a row does not depend on what else is multiplied. */
static void product(const real *const *x, real *const *y, int64_t rows, const real *w, int64_t width, int64_t depth,
                    int64_t columns) {
  if (columns < LANES) {
    for (int64_t r = 0; r < rows; r++) narrow(x[r], y[r], w, width, depth, columns);
    return;
  }
  int64_t turns = (rows + MOST_ROWS - 1) / MOST_ROWS, most = MOST_VECS(rows);
  for (int64_t n = 0, vecs; n < columns; n += vecs * LANES) {
    int64_t left = (columns - n + LANES - 1) / LANES;
    vecs = left >= most ? most : left >= 2 ? 2 : 1;
    while (vecs * LANES > columns) vecs /= 2;
    int64_t from = n + vecs * LANES <= columns ? n : columns - vecs * LANES;
    const Block *blocks = vecs == 1 ? blocks_1 : vecs == 2 ? blocks_2 : blocks_4;
    for (int64_t turn = 0; turn < turns; turn++) {
      int64_t first = turn * rows / turns, count = (turn + 1) * rows / turns - first;
      blocks[count - 1](x + first, y + first, w, width, depth, from);
    }
  }
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

#endif
