/* A file system that fails, preloaded into the program: one of its calls on certain files goes wrong.
 *
 *   IAD_DISK_PATHS  calls on paths that begin with one of these, with colons between them, count from 1 on
 *   IAD_DISK_LOG    each of them adds a line to this file: NUMBER CALL PATH, and the fault where one happens
 *   IAD_DISK_FAULT  enospc, eio, short (a write takes half) or kill (the process dies; a write has taken half)
 *   IAD_DISK_CALL   the number of the call that goes wrong
 *   IAD_DISK_LASTS  if set, all calls after it go wrong as well
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum fault { NONE, ENOSPC_FAULT, EIO_FAULT, SHORT, KILL };

static const char *const names[] = {"", "enospc", "eio", "short", "kill"};

/* The libc function that this file replaces. */
#define NEXT(name, ...) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))(__VA_ARGS__)

static int counts(const char *path) {
    const char *prefix = getenv("IAD_DISK_PATHS");
    while (prefix && path) {
        size_t length = strcspn(prefix, ":");
        if (!strncmp(path, prefix, length)) return 1;
        prefix = prefix[length] ? prefix + length + 1 : NULL;
    }
    return 0;
}

/* What happens to this call. */
static enum fault strikes(const char *call, const char *path) {
    static atomic_long calls;
    if (!counts(path)) return NONE;
    long number = atomic_fetch_add(&calls, 1) + 1;
    const char *wanted = getenv("IAD_DISK_CALL"), *name = getenv("IAD_DISK_FAULT");
    enum fault fault = NONE;
    if (wanted && name && (number == atol(wanted) || (getenv("IAD_DISK_LASTS") && number > atol(wanted))))
        for (int kind = ENOSPC_FAULT; kind <= KILL; kind++)
            if (!strcmp(name, names[kind])) fault = kind;
    const char *log = getenv("IAD_DISK_LOG");
    int file = log ? NEXT(open, log, O_WRONLY | O_CREAT | O_APPEND, 0644) : -1;
    if (file >= 0) {
        char line[4200];
        int length = snprintf(line, sizeof line, "%ld %s %s %s\n", number, call, path, names[fault]);
        if (NEXT(write, file, line, (size_t)length) != length) abort();
        close(file);
    }
    return fault;
}

static enum fault strikes_file(const char *call, int file) {
    char link[64], path[4096];
    if (!getenv("IAD_DISK_PATHS")) return NONE;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return NONE;
    path[length] = 0;
    return strikes(call, path);
}

/* Makes a call fail that either happens or does not. A short write is a fault of writes alone. */
static int fails(enum fault fault) {
    if (fault == KILL) raise(SIGKILL);
    if (fault != ENOSPC_FAULT && fault != EIO_FAULT) return 0;
    errno = fault == ENOSPC_FAULT ? ENOSPC : EIO;
    return 1;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        int writes = (flags & O_ACCMODE) != O_RDONLY;                                                                  \
        return writes && fails(strikes("open", path)) ? -1 : NEXT(name, path, flags, mode);                            \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int file, const void *bytes, size_t count) {
    enum fault fault = strikes_file("write", file);
    if ((fault == SHORT || fault == KILL) && count > 1) {
        ssize_t half = NEXT(write, file, bytes, count / 2);
        if (fault == SHORT) return half;
    }
    return fails(fault) ? -1 : NEXT(write, file, bytes, count);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    enum fault fault = strikes_file("pwrite", file);
    if ((fault == SHORT || fault == KILL) && count > 1) {
        ssize_t half = NEXT(pwrite64, file, bytes, count / 2, at);
        if (fault == SHORT) return half;
    }
    return fails(fault) ? -1 : NEXT(pwrite64, file, bytes, count, at);
}

int fsync(int file) { return fails(strikes_file("fsync", file)) ? -1 : NEXT(fsync, file); }

int ftruncate64(int file, off64_t length) {
    return fails(strikes_file("truncate", file)) ? -1 : NEXT(ftruncate64, file, length);
}

int rename(const char *from, const char *to) { return fails(strikes("rename", to)) ? -1 : NEXT(rename, from, to); }

int unlink(const char *path) { return fails(strikes("unlink", path)) ? -1 : NEXT(unlink, path); }
