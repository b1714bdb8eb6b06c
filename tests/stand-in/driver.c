// Stands in for the CUDA driver: a stream is a thread that does its work in order, and the memory of GPUs is the host's.
// The null stream is the calling thread itself, as tensors of the host are computed at once.
//
// Captures are in capture.c.
//
//   IAD_STAND_IN_GPUS   the GPUs that ranks see, "0 1;1" for 0 and 1 on rank 0 and 1 on all others; by default eight
//   IAD_STAND_IN_TRACE  a folder for the calls of each rank, in files rank-N

#include "capture.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

struct task {
    void (*work)(void *);
    struct task *next;
    _Alignas(16) char argument[];
};

// A piece of work that names one record of an event.
struct point {
    struct event *event;
    long record;
};

// How many events were made.
static long events;

long events_made(void) { return events; }

static __thread int current = -1;

int current_gpu(void) { return current; }

int launcher_rank(void) {
    const char *names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"};
    for (size_t index = 0; index < 3; ++index) {
        const char *value = getenv(names[index]);
        if (value) return atoi(value);
    }
    return 0;
}

void trace(const char *format, ...) {
    const char *folder = getenv("IAD_STAND_IN_TRACE");
    if (!folder) return;
    char path[4096];
    snprintf(path, sizeof path, "%s/rank-%d", folder, launcher_rank());
    FILE *file = fopen(path, "a");
    if (!file) return;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(file, format, arguments);
    va_end(arguments);
    fputc('\n', file);
    fclose(file);
}

// The numbers on the machine of the GPUs that this rank sees.
static int visible(int *gpus) {
    const char *text = getenv("IAD_STAND_IN_GPUS");
    if (!text) text = "0 1 2 3 4 5 6 7";
    for (int rank = launcher_rank(); rank > 0 && strchr(text, ';'); --rank) text = strchr(text, ';') + 1;
    int count = 0;
    while (*text && *text != ';' && count < 16) {
        char *end;
        gpus[count] = (int)strtol(text, &end, 10);
        if (end == text) break;
        text = end;
        ++count;
    }
    return count;
}

// In a capture, the stream that it began on is libtorch's.
static const char *name_of(const struct stream *stream) {
    return !stream || capture_origin(stream) ? "torch" : stream->number == 1 ? "own 2" : "own";
}

// --- devices ---------------------------------------------------------------------------------------------------------

int cuInit(unsigned flags) {
    (void)flags;
    return SUCCESS;
}

int cuDeviceGetCount(int *count) {
    int gpus[16];
    *count = visible(gpus);
    return SUCCESS;
}

int cuDeviceGet(int *device, int number) {
    int gpus[16];
    if (number >= visible(gpus)) return INVALID_VALUE;
    *device = gpus[number];
    return SUCCESS;
}

int cuDeviceGetName(char *name, int size, int device) {
    (void)device;
    snprintf(name, (size_t)size, "Stand-in");
    return SUCCESS;
}

int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    memset(uuid, 0, 16);
    uuid[15] = (unsigned char)(device + 1);
    return SUCCESS;
}

int cuDeviceGetPCIBusId(char *place, int size, int device) {
    snprintf(place, (size_t)size, "0000:%02X:00.0", device + 1);
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = (void *)(size_t)(device + 1);
    return SUCCESS;
}

int cuCtxSetCurrent(void *context) {
    current = (int)(size_t)context - 1;
    return SUCCESS;
}

int cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return SUCCESS;
}

int cuGetErrorString(int error, const char **text) {
    *text = error == INVALID_CONTEXT                              ? "no GPU is current in this thread"
            : error >= CAPTURE_UNSUPPORTED && error < CAPTURE_END ? "not while a stream is captured"
                                                                  : "an error of the stand-in";
    return SUCCESS;
}

// Memory and whole-device waits are here to be refused in captures; the memory of GPUs is the host's.
int cuMemAlloc_v2(void **memory, size_t size) {
    if (forbidden()) return CAPTURE_UNSUPPORTED;
    *memory = malloc(size);
    return SUCCESS;
}

struct copying {
    void *to;
    const void *from;
    size_t size;
};

static void copy(void *argument) {
    const struct copying *copying = argument;
    memcpy(copying->to, copying->from, copying->size);
}

static void nothing(void *argument) { (void)argument; }

int cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t size, struct stream *stream) {
    if (current < 0) return INVALID_CONTEXT;
    struct copying copying = {to, from, size};
    if (capture_work(stream, copy, nothing, &copying, sizeof copying)) return SUCCESS;
    if (stream) queue(stream, copy, &copying, sizeof copying);
    else copy(&copying);
    return SUCCESS;
}

int cuCtxSynchronize(void) { return forbidden() ? CAPTURE_UNSUPPORTED : SUCCESS; }

// --- streams and events ----------------------------------------------------------------------------------------------

static void *run(void *argument) {
    struct stream *stream = argument;
    for (;;) {
        pthread_mutex_lock(&lock);
        while (!stream->first) pthread_cond_wait(&changed, &lock);
        struct task *task = stream->first;
        stream->first = task->next;
        if (!stream->first) stream->last = &stream->first;
        pthread_mutex_unlock(&lock);
        task->work(task->argument);
        free(task);
    }
    return NULL;
}

void queue(struct stream *stream, void (*work)(void *), const void *argument, size_t size) {
    struct task *task = malloc(sizeof *task + size);
    task->work = work;
    task->next = NULL;
    memcpy(task->argument, argument, size);
    pthread_mutex_lock(&lock);
    *stream->last = task;
    stream->last = &task->next;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

int cuStreamCreateWithPriority(struct stream **stream, unsigned flags, int priority) {
    if (current < 0) return INVALID_CONTEXT;
    *stream = calloc(1, sizeof **stream);
    (*stream)->last = &(*stream)->first;
    pthread_t thread;
    if (!capture_meets(*stream) || pthread_create(&thread, NULL, run, *stream)) return INVALID_VALUE;
    trace("stream %s, priority %d", flags == 1 ? "non-blocking" : "blocking", priority);
    return SUCCESS;
}

int cuEventDestroy_v2(struct event *event);

static void release(struct event *event) {
    if (--event->holders == 0) free(event);
}

static void reach(void *argument) {
    struct point *point = argument;
    pthread_mutex_lock(&lock);
    if (point->event->reached < point->record) point->event->reached = point->record;
    release(point->event);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void wait_for(void *argument) {
    struct point *point = argument;
    pthread_mutex_lock(&lock);
    while (point->event->reached < point->record) pthread_cond_wait(&changed, &lock);
    release(point->event);
    pthread_mutex_unlock(&lock);
}

// The newest record of an event, after a new one if `again`.
static struct point point_of(struct event *event, int again) {
    pthread_mutex_lock(&lock);
    ++event->holders;
    event->recorded += again;
    const struct point point = {event, event->recorded};
    pthread_mutex_unlock(&lock);
    return point;
}

int cuEventCreate(struct event **event, unsigned flags) {
    (void)flags;
    if (current < 0) return INVALID_CONTEXT;
    *event = calloc(1, sizeof **event);
    (*event)->holders = 1;
    pthread_mutex_lock(&lock);
    ++events;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int cuEventRecord(struct event *event, struct stream *stream) {
    trace("record on %s", name_of(stream));
    if (capture_record(event, stream)) return SUCCESS;
    struct point point = point_of(event, 1);
    if (stream) queue(stream, reach, &point, sizeof point);
    else reach(&point);
    return SUCCESS;
}

int cuStreamWaitEvent(struct stream *stream, struct event *event, unsigned flags) {
    (void)flags;
    trace("%s waits", name_of(stream));
    int error;
    if (capture_wait(stream, event, &error)) return error;
    struct point point = point_of(event, 0);
    if (stream) queue(stream, wait_for, &point, sizeof point);
    else wait_for(&point);
    return SUCCESS;
}

int cuEventQuery(struct event *event) {
    if (current < 0) return INVALID_CONTEXT;
    if (capture_asks(event)) return CAPTURED_EVENT;
    if (forbidden()) return CAPTURE_UNSUPPORTED;
    pthread_mutex_lock(&lock);
    const int done = event->reached >= event->recorded;
    pthread_mutex_unlock(&lock);
    return done ? SUCCESS : NOT_READY;
}

int cuEventSynchronize(struct event *event) {
    if (capture_asks(event)) return CAPTURED_EVENT;
    if (forbidden()) return CAPTURE_UNSUPPORTED;
    struct point point = point_of(event, 0);
    wait_for(&point);
    return SUCCESS;
}

// Waits for what is queued by an event behind it.
int cuStreamSynchronize(struct stream *stream) {
    if (capture_breaks(stream) || forbidden()) return CAPTURE_UNSUPPORTED;
    struct event *event;
    if (!stream || cuEventCreate(&event, 0)) return SUCCESS;
    struct point point = point_of(event, 1);
    queue(stream, reach, &point, sizeof point);
    point = point_of(event, 0);
    wait_for(&point);
    return cuEventDestroy_v2(event);
}

int cuEventDestroy_v2(struct event *event) {
    pthread_mutex_lock(&lock);
    release(event);
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}
