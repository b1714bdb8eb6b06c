// Stands in for NCCL between processes of one machine, on memory that they share. Sums are made in the order of the ranks.
//
//   IAD_STAND_IN_FAULT  what goes wrong, any of these, separated by commas:
//     connect:R        rank R never connects            refuse:R   rank R's connection fails
//     hang:R:N         rank R's N-th collective never ends
//     error:R:N        rank R's N-th collective never ends, and an error is reported
//     abort:R          rank R's communicator cannot be aborted
//     refuse-capture:R rank R's collectives cannot be captured
//     window:R         rank R's window is refused
//     no-window:R      rank R's GPU reaches no other's memory, and its window is null
//     hang-capture:R   rank R's calls that capture a collective never return
//
// Collectives of a captured stream become part of its graph. They get their numbers when they are done, and all ranks must have
// captured them or none. A communicator outlives the graphs that use it: destroying it waits for them.

#include "gpu.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };
enum { INT64 = 4, FLOAT32 = 7, FLOAT64 = 8, BFLOAT16 = 9 };
enum { MOST_RANKS = 8, PIECE = 1 << 18 };

struct id {
    char path[128];
};

struct config {
    size_t size;
    unsigned magic, version;
    int blocking;
};

struct shared {
    atomic_int arrived, round;
    int gpus[MOST_RANKS], captured[MOST_RANKS];
    char hosts[MOST_RANKS][64];
    _Alignas(64) char pieces[MOST_RANKS][PIECE];
};

struct communicator {
    int rank, ranks;
    // The memory of its window, if it has one.
    char *window;
    size_t window_size;
    struct shared *shared;
    atomic_long count;
    atomic_int aborted, trouble, graphs;
};

struct collective {
    struct communicator *communicator;
    char *values;
    size_t bytes;
    int type, is_sum, captured;
    long number;
};

static const char *last_error = "";

// By this the program knows that it is not NCCL itself.
void iad_stand_in_for_nccl(void) {}

// Whether this fault was ordered; N is 0 where it has no number.
static int fault(const char *kind, int rank, long number) {
    char wanted[64];
    if (number) snprintf(wanted, sizeof wanted, "%s:%d:%ld", kind, rank, number);
    else snprintf(wanted, sizeof wanted, "%s:%d", kind, rank);
    char list[256];
    snprintf(list, sizeof list, "%s", getenv("IAD_STAND_IN_FAULT") ? getenv("IAD_STAND_IN_FAULT") : "");
    for (char *rest = list, *one; (one = strsep(&rest, ","));) {
        if (strcmp(one, wanted) == 0) return 1;
    }
    return 0;
}

static void for_ever(void) {
    for (;;) pause();
}

// Waits for all ranks; 0 where the communicator was aborted meanwhile.
static int meet(struct communicator *communicator) {
    struct shared *shared = communicator->shared;
    const int round = atomic_load(&shared->round);
    if (atomic_fetch_add(&shared->arrived, 1) + 1 == communicator->ranks) {
        atomic_store(&shared->arrived, 0);
        atomic_fetch_add(&shared->round, 1);
        return 1;
    }
    while (atomic_load(&shared->round) == round) {
        if (atomic_load(&communicator->aborted)) return 0;
        usleep(20);
    }
    return 1;
}

// --- connecting ------------------------------------------------------------------------------------------------------

int ncclGetVersion(int *version) {
    *version = 22800;
    return SUCCESS;
}

const char *ncclGetErrorString(int code) { return code == SYSTEM_ERROR ? "a system error" : "an error of the stand-in"; }

const char *ncclGetLastError(struct communicator *communicator) {
    (void)communicator;
    return last_error;
}

int ncclGetUniqueId(struct id *id) {
    const char *folder = getenv("TMPDIR") ? getenv("TMPDIR") : "/dev/shm";
    static int ids;
    snprintf(id->path, sizeof id->path, "%s/stand-in-%d-%d", folder, (int)getpid(), ids++);
    trace("id");
    const int file = open(id->path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (file < 0 || ftruncate(file, sizeof(struct shared))) return SYSTEM_ERROR;
    close(file);
    return SUCCESS;
}

int ncclCommInitRankConfig(struct communicator **made, int ranks, struct id id, int rank, struct config *config) {
    trace("connect %d of %d on GPU %d", rank, ranks, current_gpu());
    if (config->size != 80 || config->magic != 0xcafebeef || config->blocking != 1) return INVALID_ARGUMENT;
    if (current_gpu() < 0 || ranks > MOST_RANKS) return INVALID_USAGE;
    if (fault("connect", rank, 0)) for_ever();
    if (fault("refuse", rank, 0)) {
        last_error = "no route to host";
        return SYSTEM_ERROR;
    }
    const int file = open(id.path, O_RDWR);
    if (file < 0) return SYSTEM_ERROR;
    struct communicator *communicator = calloc(1, sizeof *communicator);
    communicator->rank = rank;
    communicator->ranks = ranks;
    communicator->shared = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (communicator->shared == MAP_FAILED) return SYSTEM_ERROR;
    // NCCL, too, tells hosts by this variable, and refuses two ranks on one GPU of one host.
    struct shared *shared = communicator->shared;
    shared->gpus[rank] = current_gpu();
    snprintf(shared->hosts[rank], sizeof shared->hosts[rank], "%s", getenv("NCCL_HOSTID") ? getenv("NCCL_HOSTID") : "");
    meet(communicator);
    if (rank == 0) unlink(id.path);
    for (int other = 0; other < ranks; ++other) {
        if (other != rank && shared->gpus[other] == shared->gpus[rank] &&
            strcmp(shared->hosts[other], shared->hosts[rank]) == 0) {
            last_error = "Duplicate GPU";
            return INVALID_USAGE;
        }
    }
    *made = communicator;
    return SUCCESS;
}

int ncclCommGetAsyncError(struct communicator *communicator, int *code) {
    *code = atomic_load(&communicator->trouble);
    return SUCCESS;
}

int ncclCommAbort(struct communicator *communicator) {
    trace("abort");
    if (fault("abort", communicator->rank, 0)) for_ever();
    atomic_store(&communicator->aborted, 1);
    return SUCCESS;
}

int ncclCommDestroy(struct communicator *communicator) {
    while (atomic_load(&communicator->graphs)) usleep(1000);
    trace("destroy after %ld, %ld events", atomic_load(&communicator->count), events_made());
    return SUCCESS;
}

// --- windows ---------------------------------------------------------------------------------------------------------

// Without them it is an NCCL from before 2.27.
#ifndef WITHOUT_WINDOWS
int ncclMemAlloc(void **memory, size_t size) {
    if (current_gpu() < 0) return INVALID_USAGE;
    trace("window of %zu bytes", size);
    *memory = malloc(size);
    return SUCCESS;
}

int ncclMemFree(void *memory) {
    trace("free the window");
    free(memory);
    return SUCCESS;
}

// All ranks make the call, and meet in it.
int ncclCommWindowRegister(struct communicator *communicator, void *memory, size_t size, void **window, int flags) {
    trace("register the window");
    if (current_gpu() < 0 || flags != 1) return INVALID_USAGE;
    if (!meet(communicator)) return SYSTEM_ERROR;
    *window = NULL;
    if (fault("window", communicator->rank, 0)) {
        last_error = "no room for the window";
        return SYSTEM_ERROR;
    }
    if (fault("no-window", communicator->rank, 0)) return SUCCESS;
    communicator->window = *window = memory;
    communicator->window_size = size;
    return SUCCESS;
}

int ncclCommWindowDeregister(struct communicator *communicator, void *window) {
    trace("give back the window");
    if (current_gpu() < 0 || !window || window != communicator->window) return INVALID_ARGUMENT;
    communicator->window = NULL;
    return meet(communicator) ? SUCCESS : SYSTEM_ERROR;
}
#endif

// Whether the values lie in the communicator's window; they may not lie in it in part.
static int in_window(const struct communicator *communicator, const char *values, size_t bytes) {
    return communicator->window && values >= communicator->window &&
           values + bytes <= communicator->window + communicator->window_size;
}

// --- collectives -----------------------------------------------------------------------------------------------------

static float widen(uint16_t value) {
    const uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

// To the nearest, ties to even. Sums of the tests are finite.
static uint16_t narrow(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#define ADD(type) \
    for (size_t index = 0; index < bytes / sizeof(type); ++index) ((type *)to)[index] += ((const type *)from)[index]

static void add(char *to, const char *from, size_t bytes, int type) {
    if (type == FLOAT32) ADD(float);
    else if (type == FLOAT64) ADD(double);
    else if (type == INT64) ADD(int64_t);
    else
        for (size_t index = 0; index < bytes / 2; ++index) {
            uint16_t *sum = (uint16_t *)to + index;
            *sum = narrow(widen(*sum) + widen(((const uint16_t *)from)[index]));
        }
}

static void perform(void *argument) {
    struct collective *work = argument;
    struct communicator *communicator = work->communicator;
    struct shared *shared = communicator->shared;
    const long number = work->captured ? atomic_fetch_add(&communicator->count, 1) + 1 : work->number;
    const int error = fault("error", communicator->rank, number);
    if (error || fault("hang", communicator->rank, number)) {
        if (error) {
            last_error = "connection reset by peer";
            atomic_store(&communicator->trouble, SYSTEM_ERROR);
        }
        while (!atomic_load(&communicator->aborted)) usleep(1000);
    }
    shared->captured[communicator->rank] = work->captured;
    for (size_t done = 0; done < work->bytes && !atomic_load(&communicator->aborted); done += PIECE) {
        const size_t bytes = work->bytes - done < PIECE ? work->bytes - done : PIECE;
        char *values = work->values + done;
        memcpy(shared->pieces[communicator->rank], values, bytes);
        if (!meet(communicator)) break;
        for (int rank = 0; rank < communicator->ranks; ++rank) {
            if (shared->captured[rank] != work->captured) {
                last_error = "captured on some ranks only";
                atomic_store(&communicator->trouble, INVALID_USAGE);
            }
        }
        memcpy(values, shared->pieces[0], bytes);
        for (int rank = 1; work->is_sum && rank < communicator->ranks; ++rank) {
            add(values, shared->pieces[rank], bytes, work->type);
        }
        if (!meet(communicator)) break;
    }
}

static void forget(void *argument) { atomic_fetch_sub(&((struct collective *)argument)->communicator->graphs, 1); }

static int start(struct communicator *communicator, void *values, size_t count, int type, int is_sum,
                 struct stream *stream) {
    const size_t size = type == BFLOAT16 ? 2 : type == FLOAT32 ? 4 : 8;
    if (type != INT64 && type != FLOAT32 && type != FLOAT64 && type != BFLOAT16) return INVALID_ARGUMENT;
    struct collective work = {communicator, values, count * size, type, is_sum, 1, 0};
    const char *name = in_window(communicator, values, work.bytes) ? "window sum" : is_sum ? "sum" : "broadcast";
    if (captures(stream) && fault("hang-capture", communicator->rank, 0)) for_ever();
    if (captures(stream) && fault("refuse-capture", communicator->rank, 0)) {
        last_error = "no memory for the graph";
        return SYSTEM_ERROR;
    }
    if (capture_work(stream, perform, forget, &work, sizeof work)) {
        atomic_fetch_add(&communicator->graphs, 1);
        trace("captured %s: %zu of type %d", name, count, type);
        return SUCCESS;
    }
    work.captured = 0;
    work.number = atomic_fetch_add(&communicator->count, 1) + 1;
    trace("%s %ld: %zu of type %d", name, work.number, count, type);
    queue(stream, perform, &work, sizeof work);
    return SUCCESS;
}

int ncclAllReduce(const void *from, void *to, size_t count, int type, int operation, struct communicator *communicator,
                  struct stream *stream) {
    if (from != to || operation != 0) return INVALID_ARGUMENT;
    return start(communicator, to, count, type, 1, stream);
}

int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, struct communicator *communicator,
                  struct stream *stream) {
    if (from != to || root != 0) return INVALID_ARGUMENT;
    return start(communicator, to, count, type, 0, stream);
}
