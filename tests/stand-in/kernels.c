// Stands in for the part of the CUDA driver that loads and launches kernels: a GPU of compute capability 9.0 whose memory is the
// host's. The fused kernels of torch-ext/kernels are written again here, program by program, for maps of float32.

#include "gpu.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { NOT_FOUND = 500 };
enum { MAJOR = 75, MINOR = 76 };

// What one program of a kernel works on.
enum { BLOCK = 1024, ROWS = 16, CHANNELS = 64 };

// Where a program stands in its grid, and the places of its arguments.
struct program {
    int64_t across, down, programs;
    void **arguments;
};

static float *floats(const struct program *at, int place) { return *(float **)at->arguments[place]; }
static int64_t *longs(const struct program *at, int place) { return *(int64_t **)at->arguments[place]; }
static int64_t whole(const struct program *at, int place) { return *(int64_t *)at->arguments[place]; }
static int flag(const struct program *at, int place) { return *(int32_t *)at->arguments[place]; }
static float number(const struct program *at, int place) { return *(float *)at->arguments[place]; }
static int64_t least(int64_t one, int64_t other) { return one < other ? one : other; }

// Like the kernels: what is not a number stays.
static float larger(float one, float other) { return one > other || isnan(one) ? one : other; }
static float smaller(float one, float other) { return one < other || isnan(one) ? one : other; }

static void attack_step(const struct program *at) {
    const float *candidate = floats(at, 0), *gradient = floats(at, 1), *images = floats(at, 2);
    const float step = number(at, 5), eps = number(at, 6);
    for (int64_t i = at->across * BLOCK; i < least((at->across + 1) * BLOCK, whole(at, 4)); ++i) {
        const float sign = (float)(gradient[i] > 0) - (float)(gradient[i] < 0);
        const float moved = larger(candidate[i] + sign * step, larger(images[i] - eps, 0));
        floats(at, 3)[i] = smaller(moved, smaller(images[i] + eps, 1));
    }
}

static void sgd_judge(const struct program *at) {
    const int64_t count = whole(at, 5), share = whole(at, 6), begin = at->across * share;
    int64_t place = count;
    float found[3] = {0, 0, 0};
    const float *buffers[3] = {floats(at, 1), floats(at, 2), floats(at, 0)};
    for (int64_t i = begin; i < least(begin + share, count); ++i) {
        for (int which = 0; which < 3; ++which) found[which] = larger(fabsf(buffers[which][i]), found[which]);
        if (!isfinite(buffers[0][i]) && i < place) place = i;
    }
    for (int which = 0; which < 3; ++which) floats(at, 3)[which * at->programs + at->across] = found[which];
    longs(at, 4)[at->across] = place;
}

static void sgd_update(const struct program *at) {
    if (!**(char **)at->arguments[3]) return;
    float *values = floats(at, 0), *velocity = floats(at, 2);
    const float rate = *floats(at, 4), momentum = number(at, 6), decay = number(at, 7);
    for (int64_t i = at->across * BLOCK; i < least((at->across + 1) * BLOCK, whole(at, 5)); ++i) {
        const float gradient = floats(at, 1)[i] + decay * values[i];
        velocity[i] = momentum * velocity[i] + gradient;
        values[i] -= rate * (flag(at, 8) ? gradient + momentum * velocity[i] : velocity[i]);
    }
}

static void log_softmax(const float *logits, int64_t classes, double *out) {
    double most = -INFINITY, sum = 0;
    for (int64_t k = 0; k < classes; ++k) most = fmax(most, logits[k]);
    for (int64_t k = 0; k < classes; ++k) sum += exp(logits[k] - most);
    for (int64_t k = 0; k < classes; ++k) out[k] = logits[k] - most - log(sum);
}

// The rows of a program are told by the number of classes that the kernel is made for.
static void divergence(const struct program *at) {
    const int64_t samples = whole(at, 7), classes = whole(at, 8);
    const int64_t rows = classes <= 16 ? 32 : classes <= 128 ? 4 : 1;
    double q[1024], p[1024], t[1024];
    for (int64_t row = at->across * rows; row < least((at->across + 1) * rows, samples); ++row) {
        log_softmax(floats(at, 0) + row * classes, classes, q);
        log_softmax(floats(at, 1) + row * classes, classes, p);
        double each = 0, factor = 1;
        for (int64_t k = 0; k < classes; ++k) each += exp(p[k]) * (p[k] - q[k]);
        if (flag(at, 10)) {
            log_softmax(floats(at, 2) + row * classes, classes, t);
            factor = exp(number(at, 9) * t[longs(at, 3)[row]]);
            if (flag(at, 10) == 2) factor = 1 - factor;
        }
        floats(at, 4)[row] = (float)(factor * each);
        for (int64_t k = 0; k < classes; ++k) {
            floats(at, 5)[row * classes + k] = (float)(factor * (exp(q[k]) - exp(p[k])));
            if (flag(at, 11)) floats(at, 6)[row * classes + k] = (float)(factor * exp(p[k]) * (p[k] - q[k] - each));
        }
    }
}

// --- batch norm ------------------------------------------------------------------------------------------------------

static void batch_norm_statistics(const struct program *at) {
    const int64_t rows = whole(at, 3), channels = whole(at, 4), share = whole(at, 5), begin = at->across * share;
    const int64_t end = least(begin + share, rows);
    for (int64_t c = at->down * CHANNELS; c < least((at->down + 1) * CHANNELS, channels); ++c) {
        double sum = 0, squares = 0;
        for (int64_t row = begin; row < end; ++row) sum += floats(at, 0)[row * channels + c];
        const double mean = sum / (double)(end - begin);
        for (int64_t row = begin; row < end; ++row) squares += pow(floats(at, 0)[row * channels + c] - mean, 2);
        floats(at, 1)[at->across * channels + c] = (float)mean;
        floats(at, 2)[at->across * channels + c] = (float)squares;
    }
}

static void batch_norm_combine(const struct program *at) {
    const int64_t rows = whole(at, 4), channels = whole(at, 5), share = whole(at, 6);
    for (int64_t c = at->across * CHANNELS; c < least((at->across + 1) * CHANNELS, channels); ++c) {
        double mean = 0, squares = 0;
        for (int part = 0; part < flag(at, 7); ++part) {
            mean += floats(at, 0)[part * channels + c] * (double)least(share, rows - part * share) / (double)rows;
        }
        for (int part = 0; part < flag(at, 7); ++part) {
            const double apart = floats(at, 0)[part * channels + c] - mean;
            squares += floats(at, 1)[part * channels + c] + apart * apart * (double)least(share, rows - part * share);
        }
        floats(at, 2)[c] = (float)mean;
        floats(at, 3)[c] = (float)(squares / (double)rows);
    }
}

static void batch_norm_apply(const struct program *at) {
    const int64_t rows = whole(at, 7), channels = whole(at, 8);
    for (int64_t row = at->across * ROWS; row < least((at->across + 1) * ROWS, rows); ++row) {
        for (int64_t c = at->down * CHANNELS; c < least((at->down + 1) * CHANNELS, channels); ++c) {
            const int64_t i = row * channels + c;
            const float inverse = 1 / sqrtf(floats(at, 4)[c] + number(at, 9));
            float out = (floats(at, 0)[i] - floats(at, 3)[c]) * inverse * floats(at, 5)[c] + floats(at, 6)[c];
            if (flag(at, 11)) out += floats(at, 1)[i];
            floats(at, 2)[i] = flag(at, 10) && out < 0 ? 0 : out;
        }
    }
}

// The gradient behind the normalisation at one place, whose normalised value goes to `h`. Both backward passes begin with the
// same seven arguments; `numbers` is the place of epsilon.
static float before_relu(const struct program *at, int64_t i, int64_t c, int numbers, float *h) {
    *h = (floats(at, 1)[i] - floats(at, 3)[c]) / sqrtf(floats(at, 4)[c] + number(at, numbers));
    const float out = flag(at, numbers + 2) ? floats(at, 2)[i] : *h * floats(at, 5)[c] + floats(at, 6)[c];
    return flag(at, numbers + 1) && out <= 0 ? 0 : floats(at, 0)[i];
}

static void batch_norm_backward_sums(const struct program *at) {
    const int64_t rows = whole(at, 9), channels = whole(at, 10), share = whole(at, 11), begin = at->across * share;
    for (int64_t c = at->down * CHANNELS; c < least((at->down + 1) * CHANNELS, channels); ++c) {
        double sum = 0, product = 0;
        for (int64_t row = begin; row < least(begin + share, rows); ++row) {
            float h;
            const float gradient = before_relu(at, row * channels + c, c, 12, &h);
            sum += gradient;
            product += gradient * h;
        }
        floats(at, 7)[at->across * channels + c] = (float)sum;
        floats(at, 8)[at->across * channels + c] = (float)product;
    }
}

static void batch_norm_backward_combine(const struct program *at) {
    const int64_t channels = whole(at, 4);
    for (int64_t c = at->across * CHANNELS; c < least((at->across + 1) * CHANNELS, channels); ++c) {
        for (int which = 0; which < 2; ++which) {
            double sum = 0;
            for (int part = 0; part < flag(at, 5); ++part) sum += floats(at, which)[part * channels + c];
            floats(at, 2 + which)[c] = (float)sum;
        }
    }
}

static void batch_norm_backward_apply(const struct program *at) {
    const int64_t rows = whole(at, 12), channels = whole(at, 13);
    for (int64_t row = at->across * ROWS; row < least((at->across + 1) * ROWS, rows); ++row) {
        for (int64_t c = at->down * CHANNELS; c < least((at->down + 1) * CHANNELS, channels); ++c) {
            const int64_t i = row * channels + c;
            float h;
            const float gradient = before_relu(at, i, c, 14, &h), count = *floats(at, 11);
            const float slope = floats(at, 5)[c] / sqrtf(floats(at, 4)[c] + number(at, 14));
            floats(at, 9)[i] = slope * (gradient - (floats(at, 7)[c] + h * floats(at, 8)[c]) / count);
            if (flag(at, 16)) floats(at, 10)[i] = gradient;
        }
    }
}

// --- the driver ------------------------------------------------------------------------------------------------------

static const struct kernel {
    const char *name;
    void (*run)(const struct program *);
} kernels[] = {
    {"attack_step", attack_step},
    {"sgd_judge", sgd_judge},
    {"sgd_update", sgd_update},
    {"divergence", divergence},
    {"batch_norm_statistics", batch_norm_statistics},
    {"batch_norm_combine", batch_norm_combine},
    {"batch_norm_apply", batch_norm_apply},
    {"batch_norm_backward_sums", batch_norm_backward_sums},
    {"batch_norm_backward_combine", batch_norm_backward_combine},
    {"batch_norm_backward_apply", batch_norm_backward_apply},
};

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    *value = attribute == MAJOR ? 9 : 0;
    return SUCCESS;
}

int cuModuleLoadData(const void **module, const void *image) {
    if (current_gpu() < 0) return INVALID_CONTEXT;
    // A cubin is an ELF file.
    if (memcmp(image, "\177ELF", 4) != 0) return NOT_FOUND;
    *module = image;
    return SUCCESS;
}

int cuModuleGetFunction(const struct kernel **function, const void *module, const char *name) {
    (void)module;
    for (size_t place = 0; place < sizeof kernels / sizeof *kernels; ++place) {
        if (strcmp(kernels[place].name, name) != 0) continue;
        *function = &kernels[place];
        return SUCCESS;
    }
    return NOT_FOUND;
}

int cuLaunchKernel(const struct kernel *function, unsigned across, unsigned down, unsigned deep, unsigned threads,
                   unsigned threads_down, unsigned threads_deep, unsigned shared, struct stream *stream, void **arguments,
                   void **extra) {
    (void)extra;
    if (current_gpu() < 0) return INVALID_CONTEXT;
    trace("launch %s on %s, grid %u %u %u, threads %u %u %u, shared %u", function->name, stream ? "own" : "torch", across, down,
          deep, threads, threads_down, threads_deep, shared);
    for (unsigned i = 0; i < across; ++i) {
        for (unsigned j = 0; j < down; ++j) function->run(&(struct program){i, j, across, arguments});
    }
    return SUCCESS;
}
