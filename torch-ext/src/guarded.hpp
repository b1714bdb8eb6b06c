// Exceptions of libtorch as messages: null, or a string that the caller gives to iad_free.
#pragma once

#include <cstring>
#include <exception>

template <typename Body>
char *guarded(Body body) {
    try {
        body();
        return nullptr;
    } catch (const std::exception &error) {
        return strdup(error.what());
    } catch (...) {
        return strdup("unknown C++ exception");
    }
}
