// What every function of the shim does with a C++ exception.
#pragma once

#include <cstdlib>
#include <cstring>
#include <exception>

// Null, or a message that the caller gives to iad_free.
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
