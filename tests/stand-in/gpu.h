// What the stand-ins for the CUDA driver and for NCCL share. Built into one library for tests only; never part of a release.
#pragma once

#include <pthread.h>
#include <stddef.h>

// The driver's answers.
enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    INVALID_CONTEXT = 201,
    ILLEGAL_STATE = 401,
    NOT_READY = 600,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_MERGE = 902,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_UNJOINED = 904,
    CAPTURE_ISOLATION = 905,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
    CAPTURE_END = 909,
};

// The end of some work of a stream. One thread waits for another through `changed`, under `lock`.
extern pthread_mutex_t lock;
extern pthread_cond_t changed;

struct stream;

// Queues `work(argument)` on a stream, which is a thread. The argument is copied.
void queue(struct stream *stream, void (*work)(void *), const void *argument, size_t size);

// Where the stream is captured: adds that work to its graph, and answers true. `release(argument)` is called when the graph is
// gone.
int capture_work(struct stream *stream, void (*work)(void *), void (*release)(void *), const void *argument, size_t size);

// Whether the stream is captured.
int captures(struct stream *stream);

// The GPU of the calling thread, from 0 among those of the machine; -1 before cuCtxSetCurrent.
int current_gpu(void);

// How many events the driver has made.
long events_made(void);

// This process's rank, by its launcher's variable.
int launcher_rank(void);

// Adds a line to the trace of this rank, if one is wanted: IAD_STAND_IN_TRACE names the folder.
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
