// Captures of streams, graphs and their launches, as the CUDA driver makes them: work and events in a captured stream are
// remembered and not done, an event carries the capture into the stream that waits for it, and what could wait for work that
// nobody does is refused. A launch does all work of a graph, each piece in a thread of its own behind those it depends on.

#include "capture.h"

#include <stdlib.h>
#include <string.h>

enum { GLOBAL = 0, RELAXED = 2 };

struct node {
    void (*work)(void *);
    void (*release)(void *);
    void *argument;
    struct tips behind;
    struct node *next;
    // While the capture ends: whether its origin comes behind this node.
    int joined;
    // In a launch.
    int done;
    pthread_t thread;
};

struct capture {
    long number;
    struct stream *origin;
    int mode, spoilt;
    pthread_t thread;
    struct node *nodes;
    struct capture *next;
};

struct graph {
    struct node *nodes;
    // The graph and what was made executable of it.
    int holders;
};

// All under `lock`.
static struct capture *under_way;
// The streams of the process, for the end of a capture to free its own.
static struct stream *streams[64];
static long made;

static __thread int thread_mode = GLOBAL;

int capture_meets(struct stream *stream) {
    pthread_mutex_lock(&lock);
    stream->number = 0;
    while ((size_t)stream->number < sizeof streams / sizeof *streams && streams[stream->number]) ++stream->number;
    const int room = (size_t)stream->number < sizeof streams / sizeof *streams;
    if (room) streams[stream->number] = stream;
    pthread_mutex_unlock(&lock);
    return room;
}

int cuThreadExchangeStreamCaptureMode(int *mode) {
    const int before = thread_mode;
    thread_mode = *mode;
    *mode = before;
    return SUCCESS;
}

int forbidden(void) {
    int found = 0;
    pthread_mutex_lock(&lock);
    for (struct capture *capture = under_way; capture && thread_mode != RELAXED; capture = capture->next) {
        const int mine = pthread_equal(capture->thread, pthread_self());
        // A thread that is thread-local looks at its own captures alone.
        if (capture->mode == RELAXED || (!mine && (capture->mode != GLOBAL || thread_mode != GLOBAL))) continue;
        capture->spoilt = found = 1;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

int captures(struct stream *stream) {
    pthread_mutex_lock(&lock);
    const int found = stream && stream->capture;
    pthread_mutex_unlock(&lock);
    return found;
}

int capture_origin(const struct stream *stream) { return stream->capture && stream->capture->origin == stream; }

static struct tips copy(struct tips tips) {
    struct node **nodes = malloc(tips.count * sizeof *nodes + 1);
    if (tips.count) memcpy(nodes, tips.nodes, tips.count * sizeof *nodes);
    return (struct tips){nodes, tips.count};
}

static void add(struct tips *tips, struct tips more) {
    tips->nodes = realloc(tips->nodes, (tips->count + more.count) * sizeof *tips->nodes + 1);
    if (more.count) memcpy(tips->nodes + tips->count, more.nodes, more.count * sizeof *more.nodes);
    tips->count += more.count;
}

static void clear(struct tips *tips) {
    free(tips->nodes);
    *tips = (struct tips){NULL, 0};
}

static struct capture *numbered(long number) {
    struct capture *capture = under_way;
    while (capture && capture->number != number) capture = capture->next;
    return capture;
}

static struct capture *of(struct stream *stream) { return stream ? stream->capture : NULL; }

int capture_record(struct event *event, struct stream *stream) {
    pthread_mutex_lock(&lock);
    struct capture *capture = of(stream);
    clear(&event->tips);
    event->captured = capture ? capture->number : 0;
    if (capture) event->tips = copy(stream->tips);
    pthread_mutex_unlock(&lock);
    return capture != NULL;
}

int capture_wait(struct stream *stream, struct event *event, int *error) {
    pthread_mutex_lock(&lock);
    struct capture *mine = of(stream), *its = numbered(event->captured);
    const int concerned = mine || event->captured;
    *error = SUCCESS;
    if (!mine && !its) *error = CAPTURED_EVENT;
    else if (!its) *error = CAPTURE_ISOLATION, mine->spoilt = 1;
    else if (!stream) *error = CAPTURE_UNSUPPORTED, its->spoilt = 1;
    else if (mine && mine != its) *error = CAPTURE_MERGE, mine->spoilt = its->spoilt = 1;
    else {
        if (!mine) clear(&stream->tips);
        stream->capture = its;
        add(&stream->tips, event->tips);
    }
    pthread_mutex_unlock(&lock);
    return concerned;
}

int capture_asks(struct event *event) {
    pthread_mutex_lock(&lock);
    struct capture *capture = numbered(event->captured);
    if (capture) capture->spoilt = 1;
    pthread_mutex_unlock(&lock);
    return event->captured != 0;
}

int capture_breaks(struct stream *stream) {
    pthread_mutex_lock(&lock);
    struct capture *capture = of(stream);
    if (capture) capture->spoilt = 1;
    pthread_mutex_unlock(&lock);
    return capture != NULL;
}

int capture_work(struct stream *stream, void (*work)(void *), void (*release)(void *), const void *argument, size_t size) {
    pthread_mutex_lock(&lock);
    struct capture *capture = of(stream);
    if (capture) {
        struct node *node = calloc(1, sizeof *node);
        *node = (struct node){.work = work, .release = release, .argument = malloc(size), .next = capture->nodes};
        memcpy(node->argument, argument, size);
        capture->nodes = node;
        node->behind = stream->tips;
        stream->tips = copy((struct tips){&node, 1});
    }
    pthread_mutex_unlock(&lock);
    return capture != NULL;
}

int cuStreamBeginCapture_v2(struct stream *stream, int mode) {
    // The null stream cannot be captured.
    if (!stream) return CAPTURE_UNSUPPORTED;
    trace("begin capture");
    pthread_mutex_lock(&lock);
    const int free = !stream->capture;
    if (free) {
        struct capture *capture = calloc(1, sizeof *capture);
        *capture = (struct capture){++made, stream, mode, 0, pthread_self(), NULL, under_way};
        under_way = stream->capture = capture;
        clear(&stream->tips);
    }
    pthread_mutex_unlock(&lock);
    return free ? SUCCESS : ILLEGAL_STATE;
}

int cuStreamIsCapturing(struct stream *stream, int *status) {
    pthread_mutex_lock(&lock);
    struct capture *capture = of(stream);
    *status = !capture ? 0 : capture->spoilt ? 2 : 1;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

static void join(struct tips tips) {
    for (size_t place = 0; place < tips.count; ++place) {
        if (!tips.nodes[place]->joined) {
            tips.nodes[place]->joined = 1;
            join(tips.nodes[place]->behind);
        }
    }
}

static void let_go(struct graph *graph) {
    if (--graph->holders) return;
    for (struct node *node = graph->nodes, *next; node; node = next) {
        next = node->next;
        node->release(node->argument);
        clear(&node->behind);
        free(node->argument);
        free(node);
    }
    free(graph);
}

int cuStreamEndCapture(struct stream *stream, struct graph **graph) {
    *graph = NULL;
    if (!stream) return ILLEGAL_STATE;
    pthread_mutex_lock(&lock);
    struct capture *capture = stream->capture;
    int error = !capture                                                                        ? ILLEGAL_STATE
                : capture->origin != stream                                                     ? CAPTURE_UNMATCHED
                : capture->mode != RELAXED && !pthread_equal(capture->thread, pthread_self()) ? CAPTURE_WRONG_THREAD
                                                                                                : SUCCESS;
    if (error) {
        if (capture) capture->spoilt = 1;
        pthread_mutex_unlock(&lock);
        return error;
    }
    join(stream->tips);
    int unjoined = 0;
    for (struct node *node = capture->nodes; node; node = node->next) unjoined |= !node->joined;
    error = capture->spoilt ? CAPTURE_INVALIDATED : unjoined ? CAPTURE_UNJOINED : SUCCESS;
    *graph = calloc(1, sizeof **graph);
    **graph = (struct graph){capture->nodes, 1};
    if (error) {
        let_go(*graph);
        *graph = NULL;
    }
    for (size_t place = 0; place < sizeof streams / sizeof *streams; ++place) {
        if (streams[place] && streams[place]->capture == capture) {
            streams[place]->capture = NULL;
            clear(&streams[place]->tips);
        }
    }
    for (struct capture **place = &under_way; *place; place = &(*place)->next) {
        if (*place == capture) {
            *place = capture->next;
            break;
        }
    }
    free(capture);
    pthread_mutex_unlock(&lock);
    trace("end capture: %d", error);
    return error;
}

// --- graphs ----------------------------------------------------------------------------------------------------------

int cuGraphInstantiateWithFlags(struct graph **executable, struct graph *graph, unsigned long long flags) {
    (void)flags;
    pthread_mutex_lock(&lock);
    ++graph->holders;
    pthread_mutex_unlock(&lock);
    *executable = graph;
    return SUCCESS;
}

static void *do_node(void *argument) {
    struct node *node = argument;
    pthread_mutex_lock(&lock);
    for (size_t place = 0; place < node->behind.count; ++place) {
        while (!node->behind.nodes[place]->done) pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
    node->work(node->argument);
    pthread_mutex_lock(&lock);
    node->done = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void do_graph(void *argument) {
    struct graph *graph = *(struct graph **)argument;
    for (struct node *node = graph->nodes; node; node = node->next) node->done = 0;
    for (struct node *node = graph->nodes; node; node = node->next) pthread_create(&node->thread, NULL, do_node, node);
    for (struct node *node = graph->nodes; node; node = node->next) pthread_join(node->thread, NULL);
    pthread_mutex_lock(&lock);
    let_go(graph);
    pthread_mutex_unlock(&lock);
}

int cuGraphLaunch(struct graph *executable, struct stream *stream) {
    if (!stream || capture_breaks(stream)) return CAPTURE_UNSUPPORTED;
    trace("launch");
    pthread_mutex_lock(&lock);
    ++executable->holders;
    pthread_mutex_unlock(&lock);
    queue(stream, do_graph, &executable, sizeof executable);
    return SUCCESS;
}

int cuGraphDestroy(struct graph *graph) {
    pthread_mutex_lock(&lock);
    let_go(graph);
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int cuGraphExecDestroy(struct graph *executable) { return cuGraphDestroy(executable); }
