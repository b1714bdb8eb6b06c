// Captures on the stand-in for the CUDA driver: what is refused, by which code, and in which order a launch does its work.
// Prints a line for each case; tests/tests/captured.rs knows what they should say.

#include "../capture.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct graph;

int cuCtxSetCurrent(void *context);
int cuStreamCreateWithPriority(struct stream **stream, unsigned flags, int priority);
int cuThreadExchangeStreamCaptureMode(int *mode);
int cuStreamBeginCapture_v2(struct stream *stream, int mode);
int cuStreamEndCapture(struct stream *stream, struct graph **graph);
int cuStreamIsCapturing(struct stream *stream, int *status);
int cuGraphInstantiateWithFlags(struct graph **executable, struct graph *graph, unsigned long long flags);
int cuGraphLaunch(struct graph *executable, struct stream *stream);
int cuGraphDestroy(struct graph *graph);
int cuEventCreate(struct event **event, unsigned flags);
int cuEventRecord(struct event *event, struct stream *stream);
int cuStreamWaitEvent(struct stream *stream, struct event *event, unsigned flags);
int cuEventQuery(struct event *event);
int cuEventSynchronize(struct event *event);
int cuStreamSynchronize(struct stream *stream);
int cuMemAlloc_v2(void **memory, size_t size);
int cuCtxSynchronize(void);

enum { GLOBAL, THREAD_LOCAL, RELAXED };

static struct stream *torch, *own, *other;
static struct event *fork_event, *join_event, *before;
static struct graph *graph;
static char said[256];
static size_t letters;

// Small letters take their time, d less than b: what comes behind them waits, and what lies beside them does not.
static void say(void *argument) {
    const char letter = *(char *)argument;
    usleep(letter >= 'a' ? 20000 * (unsigned)('f' - letter) : 0);
    pthread_mutex_lock(&lock);
    said[letters++] = letter;
    pthread_mutex_unlock(&lock);
}

static void nothing(void *argument) { (void)argument; }

static void work(struct stream *stream, char letter) {
    if (!capture_work(stream, say, nothing, &letter, 1)) queue(stream, say, &letter, 1);
}

static void begin(int mode) {
    if (cuStreamBeginCapture_v2(torch, mode)) abort();
}

static void fork_to(struct stream *stream) {
    if (cuEventRecord(fork_event, torch) || cuStreamWaitEvent(stream, fork_event, 0)) abort();
}

static void join_from(struct stream *stream) {
    if (cuEventRecord(join_event, stream) || cuStreamWaitEvent(torch, join_event, 0)) abort();
}

static void told(const char *what, int code) {
    printf("%s: %d, then %d\n", what, code, cuStreamEndCapture(torch, &graph));
}

static void *query_elsewhere(void *mode) {
    cuCtxSetCurrent((void *)1);
    int exchanged = *(int *)mode;
    cuThreadExchangeStreamCaptureMode(&exchanged);
    return (void *)(long)cuEventQuery(before);
}

static int elsewhere(void *(*act)(void *), void *argument) {
    pthread_t thread;
    void *answer;
    if (pthread_create(&thread, NULL, act, argument) || pthread_join(thread, &answer)) abort();
    return (int)(long)answer;
}

static void *end_elsewhere(void *argument) {
    (void)argument;
    return (void *)(long)cuStreamEndCapture(torch, &graph);
}

int main(void) {
    cuCtxSetCurrent((void *)1);
    if (cuStreamCreateWithPriority(&own, 1, 0) || cuStreamCreateWithPriority(&other, 1, 0)) abort();
    if (cuStreamCreateWithPriority(&torch, 1, 0)) abort();
    if (cuEventCreate(&fork_event, 0) || cuEventCreate(&join_event, 0) || cuEventCreate(&before, 0)) abort();
    if (cuEventRecord(before, own) || cuEventSynchronize(before)) abort();

    // A, then b beside C and d, then E; twice. Nothing is done before the launch.
    begin(THREAD_LOCAL);
    work(torch, 'A');
    fork_to(own);
    work(own, 'b');
    work(torch, 'C');
    fork_to(other);
    work(other, 'd');
    join_from(other);
    join_from(own);
    work(torch, 'E');
    int status;
    cuStreamIsCapturing(own, &status);
    printf("captured: %d", status);
    const int ended = cuStreamEndCapture(torch, &graph);
    cuStreamIsCapturing(own, &status);
    printf(", %d, %d, %zu done\n", ended, status, letters);
    struct graph *executable;
    if (cuGraphInstantiateWithFlags(&executable, graph, 0) || cuGraphDestroy(graph)) abort();
    for (int twice = 0; twice < 2; ++twice) {
        if (cuGraphLaunch(executable, torch)) abort();
    }
    work(torch, 'Z');
    if (cuStreamSynchronize(torch)) abort();
    printf("launched: %s\n", said);

    begin(THREAD_LOCAL);
    fork_to(own);
    work(own, 'e');
    told("unjoined", 0);

    begin(THREAD_LOCAL);
    fork_to(own);
    work(own, 'e');
    join_from(own);
    told("query of a captured event", cuEventQuery(join_event));
    printf("query of it afterwards: %d\n", cuEventQuery(join_event));
    printf("wait for it afterwards: %d\n", cuStreamWaitEvent(own, join_event, 0));
    if (cuEventRecord(join_event, own) || cuEventSynchronize(join_event)) abort();
    printf("once it is recorded anew: %d\n", cuEventQuery(join_event));

    begin(THREAD_LOCAL);
    cuEventRecord(join_event, torch);
    told("synchronise with a captured event", cuEventSynchronize(join_event));

    begin(THREAD_LOCAL);
    told("synchronise with the stream", cuStreamSynchronize(torch));

    begin(THREAD_LOCAL);
    fork_to(own);
    told("synchronise with a forked stream", cuStreamSynchronize(own));

    void *memory;
    begin(THREAD_LOCAL);
    told("allocate", cuMemAlloc_v2(&memory, 64));
    begin(RELAXED);
    told("allocate, relaxed", cuMemAlloc_v2(&memory, 64));
    free(memory);

    begin(GLOBAL);
    told("synchronise with the device", cuCtxSynchronize());

    begin(THREAD_LOCAL);
    told("wait for work before the capture", cuStreamWaitEvent(torch, before, 0));

    begin(THREAD_LOCAL);
    if (cuStreamBeginCapture_v2(other, THREAD_LOCAL)) abort();
    cuEventRecord(fork_event, torch);
    const int merged = cuStreamWaitEvent(other, fork_event, 0);
    printf("the other capture: %d\n", cuStreamEndCapture(other, &graph));
    told("two captures in one", merged);

    begin(THREAD_LOCAL);
    told("query by the thread that captures", cuEventQuery(before));
    int mode = GLOBAL;
    begin(THREAD_LOCAL);
    told("query by another thread", elsewhere(query_elsewhere, &mode));
    begin(GLOBAL);
    told("query by another thread, strict", elsewhere(query_elsewhere, &mode));
    mode = RELAXED;
    begin(GLOBAL);
    told("query by a relaxed thread, strict", elsewhere(query_elsewhere, &mode));

    begin(THREAD_LOCAL);
    fork_to(own);
    told("end on another stream", cuStreamEndCapture(own, &graph));
    begin(THREAD_LOCAL);
    told("end by another thread", elsewhere(end_elsewhere, NULL));
    begin(THREAD_LOCAL);
    told("launch into it", cuGraphLaunch(executable, torch));
    begin(THREAD_LOCAL);
    told("a second capture of the stream", cuStreamBeginCapture_v2(torch, THREAD_LOCAL));
    printf("the null stream: %d\n", cuStreamBeginCapture_v2(NULL, THREAD_LOCAL));
    told("no capture", 0);
    return 0;
}
