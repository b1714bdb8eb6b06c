// What the stand-ins for the CUDA driver and for NCCL share. Built into one library for tests only; never part of a release.
#pragma once

#include <pthread.h>
#include <stddef.h>

// The end of some work of a stream. One thread waits for another through `changed`, under `lock`.
extern pthread_mutex_t lock;
extern pthread_cond_t changed;

struct stream;

// Queues `work(argument)` on a stream, which is a thread.
void queue(struct stream *stream, void (*work)(void *), void *argument);

// The GPU of the calling thread, from 0 among those of the machine; -1 before cuCtxSetCurrent.
int current_gpu(void);

// How many events the driver has made.
long events_made(void);

// This process's rank, by its launcher's variable.
int launcher_rank(void);

// Adds a line to the trace of this rank, if one is wanted: IAD_STAND_IN_TRACE names the folder.
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
