/* A disk that fails on demand. Preloaded into the daemon, it counts the calls that open, write, sync,
 * rename or look at a file whose path contains a given text, and makes some of them fail or wait. A
 * shared control file, which tests/support/failing_disk.rs writes, says which. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct control {
    _Atomic int first;    /* the first call that fails or waits, counted from 1; 0: none */
    _Atomic int count;    /* how many calls from there on */
    _Atomic int error;    /* errno of a call that fails; 0: it only waits */
    _Atomic int delay_ms; /* how long it waits */
    _Atomic int seen;     /* matching calls so far */
    _Atomic int kinds;    /* which kinds of calls match: the sum of OPEN_CALL, ... */
    char part[104];       /* text that the path contains */
};

enum { OPEN_CALL = 1, WRITE_CALL = 2, SYNC_CALL = 4, RENAME_CALL = 8, LOOK_CALL = 16 };

static struct control *control;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAILING_DISK");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) control = map;
    close(fd);
}

/* Whether this call fails; errno is set then. */
static int fails(int kind, const char *path) {
    char whole[4096];
    int fd, end = 0;
    if (!control || !(control->kinds & kind)) return 0;
    /* The path begins with the descriptor of the folder. */
    if (sscanf(path, "/proc/self/fd/%d/%n", &fd, &end) == 1 && end > 0) {
        char link[40];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, whole, sizeof whole - 1);
        if (length > 0) {
            snprintf(whole + length, sizeof whole - length, "/%s", path + end);
            path = whole;
        }
    }
    if (!control->part[0] || !strstr(path, control->part)) return 0;
    int number = ++control->seen, first = control->first;
    if (first == 0 || number < first || number - first >= control->count) return 0;
    if (control->delay_ms > 0) {
        struct timespec time = {control->delay_ms / 1000, control->delay_ms % 1000 * 1000000L};
        nanosleep(&time, NULL);
    }
    errno = control->error;
    return control->error != 0;
}

static int fails_fd(int kind, int fd) {
    char link[40], path[4096];
    if (!control || !(control->kinds & kind)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(kind, path);
}

#define REAL(name, ...) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name); \
    return real(__VA_ARGS__)

ssize_t write(int fd, const void *data, size_t size) {
    if (fails_fd(WRITE_CALL, fd)) return -1;
    REAL(write, fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    if (fails_fd(WRITE_CALL, fd)) return -1;
    REAL(pwrite, fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    if (fails_fd(WRITE_CALL, fd)) return -1;
    REAL(pwrite64, fd, data, size, at);
}
int fsync(int fd) {
    if (fails_fd(SYNC_CALL, fd)) return -1;
    REAL(fsync, fd);
}
int fdatasync(int fd) {
    if (fails_fd(SYNC_CALL, fd)) return -1;
    REAL(fdatasync, fd);
}
/* The mode argument exists when a file may be created. */
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        if (fails(OPEN_CALL, path)) return -1; \
        REAL(name, path, flags, mode); \
    }
#define OPEN_AT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        if (fails(OPEN_CALL, path)) return -1; \
        REAL(name, folder, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
OPEN_AT(openat)
OPEN_AT(openat64)
int statx(int folder, const char *restrict path, int flags, unsigned mask,
          struct statx *restrict found) {
    if (*path ? fails(LOOK_CALL, path) : fails_fd(LOOK_CALL, folder)) return -1;
    REAL(statx, folder, path, flags, mask, found);
}
int rename(const char *from, const char *to) {
    if (fails(RENAME_CALL, to)) return -1;
    REAL(rename, from, to);
}
