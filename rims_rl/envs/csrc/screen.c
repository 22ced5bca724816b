/* From two grey frames to the newest picture of an observation, as OpenCV's INTER_AREA makes it, bit for bit.

   Every picture's pixel is the mean of the screen it covers: sums of float products along a row, then over rows, in
   OpenCV's order. A row like the one above it, of which Atari's screens are full, is not summed again.
   Compile without contraction: a fused multiply-add rounds once where OpenCV rounds twice. */

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { SIDE = 84, TAPS = 8, WIDEST = 512 };

/* Which pixels along an axis each of the 84 covers, and with which weights; unused ones have weight 0. */
typedef struct {
    int from[TAPS][SIDE];
    float weight[TAPS][SIDE];
    int taps;
} Cover;

static void take(Cover *cover, int place, int *taps, int from, double weight) {
    cover->from[*taps][place] = from;
    cover->weight[*taps][place] = (float)weight;
    ++*taps;
}

static void cover_axis(Cover *cover, int size) {
    double scale = (double)size / SIDE;
    memset(cover, 0, sizeof *cover);
    for (int place = 0; place < SIDE; ++place) {
        double start = place * scale, end = start + scale, length = fmin(scale, size - start);
        int first = (int)ceil(start), last = (int)floor(end), taps = 0;
        last = last < size - 1 ? last : size - 1;
        first = first < last ? first : last;
        if (first - start > 1e-3)
            take(cover, place, &taps, first - 1, (first - start) / length);
        for (int pixel = first; pixel < last; ++pixel)
            take(cover, place, &taps, pixel, 1.0 / length);
        if (end - last > 1e-3)
            take(cover, place, &taps, last, fmin(fmin(end - last, 1.0), length) / length);
        cover->taps = taps > cover->taps ? taps : cover->taps;
    }
}

static void sum_row(const Cover *across, const uint8_t *row, int width, float *sums) {
    float pixels[WIDEST];
    for (int x = 0; x < width; ++x)
        pixels[x] = row[x];
    for (int place = 0; place < SIDE; ++place)
        sums[place] = pixels[across->from[0][place]] * across->weight[0][place];
    for (int tap = 1; tap < across->taps; ++tap)
        for (int place = 0; place < SIDE; ++place)
            sums[place] += pixels[across->from[tap][place]] * across->weight[tap][place];
}

/* The covers of the last size that this thread has shrunk: screens of one game are all of one size. */
static _Thread_local Cover down, across;
static _Thread_local int known_height, known_width;

static void know(int height, int width) {
    if (height == known_height && width == known_width)
        return;
    cover_axis(&down, height);
    cover_axis(&across, width);
    known_height = height, known_width = width;
}

static void shrink(const uint8_t *screen, int height, int width, uint8_t *picture) {
    float row[SIDE], total[SIDE];
    const float whole = 8388608.0f; /* 2^23: adding it rounds to the nearest whole number, halves to the even one */
    int summed = -1;
    know(height, width);
    for (int place = 0; place < SIDE; ++place, picture += SIDE) {
        memset(total, 0, sizeof total);
        for (int tap = 0; tap < down.taps && down.weight[tap][place] > 0; ++tap) {
            int from = down.from[tap][place];
            const uint8_t *pixels = screen + from * width;
            if (from != summed && (summed != from - 1 || from == 0 || memcmp(pixels, pixels - width, width)))
                sum_row(&across, pixels, width, row);
            summed = from;
            for (int x = 0; x < SIDE; ++x)
                total[x] += down.weight[tap][place] * row[x];
        }
        for (int x = 0; x < SIDE; ++x)
            picture[x] = (uint8_t)(int)((total[x] + whole) - whole);
    }
}

/* Keep in `newest` the brighter pixel of both frames (height, width); put it, shrunk, at the stack's end.

   The stack (pictures, 84, 84) loses its first picture. Screens have 85 to 512 pixels along either axis. */
void push(uint8_t *newest, const uint8_t *previous, uint8_t *stack, int height, int width, int pictures) {
    for (int i = 0; i < height * width; ++i)
        newest[i] = newest[i] > previous[i] ? newest[i] : previous[i];
    memmove(stack, stack + SIDE * SIDE, (size_t)(pictures - 1) * SIDE * SIDE);
    shrink(newest, height, width, stack + (size_t)(pictures - 1) * SIDE * SIDE);
}
