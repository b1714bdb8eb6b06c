// Streams and events of the stand-in, and what its driver asks of its captures.
#pragma once

#include "gpu.h"

struct task;
struct capture;
struct node;

// The work of a capture behind which something comes.
struct tips {
    struct node **nodes;
    size_t count;
};

struct stream {
    struct task *first, **last;
    // From 0.
    int number;
    // The capture that the stream is part of, if any, and its last work there.
    struct capture *capture;
    struct tips tips;
};

// Held by whoever made it and by each piece of work that names it. An event may be recorded again: who waits for it waits for
// the record that was the last when the wait was asked for. In a capture it stands for work that nobody does.
struct event {
    int holders;
    long recorded, reached;
    long captured;
    struct tips tips;
};

// Whether the calling thread may not make calls that could wait for the GPU: a capture that is not relaxed is under way.
// A call that is refused so spoils the captures of the thread.
int forbidden(void);

// Gives a new stream its number, if there is room for one more.
int capture_meets(struct stream *stream);

// Whether a capture began on this stream.
int capture_origin(const struct stream *stream);

// Whether the event was recorded in a capture; one that is not in a captured stream is an event of work again.
int capture_record(struct event *event, struct stream *stream);

// Whether stream or event are of a capture; then `error` is the answer.
int capture_wait(struct stream *stream, struct event *event, int *error);

// Whether the event was last recorded in a capture, which asking for it spoils.
int capture_asks(struct event *event);

// Whether the stream is captured, which waiting for it spoils.
int capture_breaks(struct stream *stream);
