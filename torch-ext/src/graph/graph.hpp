// Work of a device that is recorded once and replayed at will.
#pragma once

namespace iad {

struct Graph {
    virtual ~Graph() = default;
    // Between these two, this thread's work is recorded and has no effect. Whatever happened in between, `end` comes once;
    // it throws where there is nothing to replay.
    virtual void begin() = 0;
    virtual void end() = 0;
    // Queues the work once more: it reads and writes the memory that it was recorded with.
    virtual void replay() = 0;
};

} // namespace iad
