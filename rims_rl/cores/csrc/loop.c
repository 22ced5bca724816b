/* The time loop of a RIM, forward and backward, for one processor's threads: where a reader begins.
 *
 * Equations and names are those of rim.py; sections are those of Goyal et al. 2021. What can wait (the weights'
 * gradients) is left to one large product each, outside. Units that are not active are skipped: no gates, no query, no
 * message. A batch is cut into slices, one a thread: sequences never see each other.
 *
 *   arrays.h         what is read and written, and a slice's scratch memory
 *   dense.h          products with few rows, exponentials
 *   attention.h      input attention and selection, one slot or several
 *   cells.h          GRU and LSTM
 *   communication.h  the attention between units
 *   forward.h        the loop over time, forward
 *   backward.h       and backward
 *
 * Compiled as one unit, twice: with REAL float and REAL double.
 */

#include <pthread.h>

#include "backward.h"
#include "forward.h"

enum { MOST_THREADS = 64, DONE = 0, NO_MEMORY = 1 };

/* OpenMP's GOMP_parallel: let so many threads do a function on some data. PyTorch's own threads go on spinning for a while
 * after its operations; other threads would have to share the processor with them. */
typedef void (*Team)(void (*)(void *), void *, unsigned, unsigned);

static void *forward_slice(void *slice) {
  run_forward(slice);
  return NULL;
}

static void *backward_slice(void *slice) {
  run_backward(slice);
  return NULL;
}

/* What OpenMP's threads share: each takes the next slice until none is left, however many threads there are. */
typedef struct {
  Slice *slices;
  void *(*work)(void *);
  int64_t count, next;
} Job;

static void take_slices(void *shared) {
  Job *job = shared;
  for (;;) {
    int64_t i = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
    if (i >= job->count) return;
    job->work(&job->slices[i]);
  }
}

/* Do the slices side by side in threads of our own. */
static void in_own_threads(Slice *slices, int64_t count, void *(*work)(void *)) {
  pthread_t threads[MOST_THREADS];
  int started[MOST_THREADS] = {0};
  for (int64_t i = 1; i < count; i++) started[i] = !pthread_create(&threads[i], NULL, work, &slices[i]);
  work(&slices[0]);
  for (int64_t i = 1; i < count; i++)
    if (started[i]) pthread_join(threads[i], NULL);
    else work(&slices[i]);
}

/* Do the work in slices, each with scratch memory of its own, all of which is had before anything is begun. */
static int in_slices(const Sizes *z, const Arrays *a, void *(*work)(void *)) {
  int64_t count = z->threads < z->B ? z->threads : z->B;
  count = count < 1 ? 1 : count > MOST_THREADS ? MOST_THREADS : count;
  Slice slices[MOST_THREADS];
  size_t bytes = lay_out(&slices[0].s, z, z->B / count + 1, 0);
  char *scratch = calloc((size_t)count, bytes); /* zeros: see Scratch.lanes */
  if (!scratch) return NO_MEMORY;
  for (int64_t i = 0; i < count; i++) {
    slices[i] = (Slice){.z = z, .a = a, .st = strides_of(z), .index = i};
    slices[i].first = i * z->B / count, slices[i].last = (i + 1) * z->B / count;
    lay_out(&slices[i].s, z, z->B / count + 1, (uintptr_t)scratch + (size_t)i * bytes);
  }
  if (count > 1 && z->team) {
    Job job = {slices, work, count, 0};
    ((Team)(intptr_t)z->team)(take_slices, &job, (unsigned)count, 0);
  } else {
    in_own_threads(slices, count, work);
  }
  free(scratch);
  return DONE;
}

/* Both return DONE, or NO_MEMORY, and have then written nothing. */
int rim_forward(const Sizes *sizes, const Arrays *arrays) { return in_slices(sizes, arrays, forward_slice); }
int rim_backward(const Sizes *sizes, const Arrays *arrays) { return in_slices(sizes, arrays, backward_slice); }
