/* Stops the process, or fails, at a chosen file-system call below one folder.
 *
 * Loaded with LD_PRELOAD, it counts the calls that change something: open with O_CREAT,
 * write, fsync, rename, mkdir, unlink, rmdir, truncate and their kin. Before call `at`
 * it sends SIGKILL to its own process, or makes the call fail with `error`.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[512];
static atomic_long count;
static long at;
static int error;
static int sticky;

/* at: the call to fault, from 1; 0 only counts. error: 0 for SIGKILL, else an errno.
 * sticky: every later call fails too. An empty path disarms. */
void fault_arm(const char *path, long call, int errno_wanted, int stays) {
    folder[0] = 0;
    count = 0;
    at = call;
    error = errno_wanted;
    sticky = stays;
    strncpy(folder, path, sizeof folder - 1);
}

long fault_count(void) { return count; }

static int below(const char *path) {
    return folder[0] && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int fd_below(int fd) {
    char link[64], path[1024];
    if (!folder[0])
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return below(path);
}

static int at_below(int fd, const char *path) {
    return path && path[0] != '/' && fd != AT_FDCWD ? fd_below(fd) : below(path);
}

/* Counts one call; true if it must fail. */
static int faulty(void) {
    long call = ++count;
    if (!at || call < at || (call > at && !sticky))
        return 0;
    if (error == 0)
        kill(getpid(), SIGKILL);
    errno = error;
    return 1;
}

/* A function of the C library that fails where `touches` holds and we say so. */
#define FAULTY(type, name, params, args, touches)                                      \
    type name params {                                                                 \
        static __typeof__(&name) real;                                                 \
        if (!real)                                                                     \
            real = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                         \
        if ((touches) && faulty())                                                     \
            return -1;                                                                 \
        return real args;                                                              \
    }

/* The same for open and its kin, whose mode is there only when a file is made. */
#define FAULTY_OPEN(name, params, args, touches)                                       \
    int name params {                                                                  \
        static __typeof__(&name) real;                                                 \
        mode_t mode = 0;                                                               \
        if (flags & (O_CREAT | O_TMPFILE)) {                                           \
            va_list rest;                                                              \
            va_start(rest, flags);                                                     \
            mode = va_arg(rest, int);                                                  \
            va_end(rest);                                                              \
        }                                                                              \
        if (!real)                                                                     \
            real = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                         \
        if ((flags & O_CREAT) && (touches) && faulty())                                \
            return -1;                                                                 \
        return real args;                                                              \
    }

FAULTY_OPEN(open, (const char *p, int flags, ...), (p, flags, mode), below(p))
FAULTY_OPEN(open64, (const char *p, int flags, ...), (p, flags, mode), below(p))
FAULTY_OPEN(openat, (int d, const char *p, int flags, ...), (d, p, flags, mode),
            at_below(d, p))
FAULTY_OPEN(openat64, (int d, const char *p, int flags, ...), (d, p, flags, mode),
            at_below(d, p))

FAULTY(ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n), fd_below(fd))
FAULTY(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n),
       fd_below(fd))
FAULTY(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o),
       fd_below(fd))
FAULTY(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o),
       fd_below(fd))
FAULTY(int, fsync, (int fd), (fd), fd_below(fd))
FAULTY(int, fdatasync, (int fd), (fd), fd_below(fd))
FAULTY(int, ftruncate, (int fd, off_t n), (fd, n), fd_below(fd))
FAULTY(int, ftruncate64, (int fd, off64_t n), (fd, n), fd_below(fd))

FAULTY(int, rename, (const char *a, const char *b), (a, b), below(a) || below(b))
FAULTY(int, renameat, (int c, const char *a, int d, const char *b), (c, a, d, b),
       at_below(c, a) || at_below(d, b))
FAULTY(int, renameat2, (int c, const char *a, int d, const char *b, unsigned f),
       (c, a, d, b, f), at_below(c, a) || at_below(d, b))
FAULTY(int, mkdir, (const char *p, mode_t m), (p, m), below(p))
FAULTY(int, mkdirat, (int d, const char *p, mode_t m), (d, p, m), at_below(d, p))
FAULTY(int, unlink, (const char *p), (p), below(p))
FAULTY(int, unlinkat, (int d, const char *p, int f), (d, p, f), at_below(d, p))
FAULTY(int, rmdir, (const char *p), (p), below(p))
