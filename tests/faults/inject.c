/* Lets calls of the C library on files of one folder fail: to be loaded with LD_PRELOAD.
 *
 * It reaches what Python cannot: SQLite's calls, and those of other libraries. */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
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

enum mode { COUNT, ONCE, FULL, KILL };

static char folder[4096], log_path[4096];
static size_t folder_length;
static long target;
static int error, mode;
static atomic_long seen;
static atomic_int armed, is_full;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* From now on the `at`-th call fails (ONCE), finds the disk full (FULL), or is the last (KILL). */
void faults_arm(const char *of, const char *log, int how, long at, int number)
{
    strncpy(folder, of, sizeof folder - 1);
    strncpy(log_path, log, sizeof log_path - 1);
    folder_length = strlen(folder);
    mode = how;
    target = at;
    error = number;
    seen = 0;
    is_full = 0;
    armed = 1;
}

long faults_seen(void) { return seen; }

static void note(const char *call, const char *path)
{
    char line[8192];
    int length = snprintf(line, sizeof line, "%s %s\n", call, path);
    __typeof__(&open) real_open = (__typeof__(&open))dlsym(RTLD_NEXT, "open");
    __typeof__(&write) real_write = (__typeof__(&write))dlsym(RTLD_NEXT, "write");
    int fd = real_open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) {
        if (real_write(fd, line, length) < 0) { /* then the sweep sees that it is short */ }
        close(fd);
    }
}

static int within(const char *path)
{
    return armed && path && !strncmp(path, folder, folder_length) &&
           (path[folder_length] == '/' || !path[folder_length]);
}

/* Whether this call is not to be done; `takes_room` is whether a full disk refuses it. */
static int refused(const char *call, const char *path, int takes_room)
{
    int before = errno;
    if (!within(path)) return 0;
    long number = atomic_fetch_add(&seen, 1) + 1;
    note(call, path);
    int now = number == target;
    if (now && mode == KILL) kill(getpid(), SIGKILL);
    if (now && mode == FULL) is_full = 1;
    if ((now && mode == ONCE) || (is_full && takes_room)) {
        errno = error;
        return 1;
    }
    errno = before;
    return 0;
}

static int refused_file(const char *call, int fd, int takes_room)
{
    char link[64], path[4096];
    if (!armed || fd < 3) return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return refused(call, path, takes_room);
}

#define MODE_OF(flags) \
    mode_t access = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        access = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *path, int flags, ...)
{
    MODE_OF(flags)
    REAL(open);
    return refused("open", path, flags & O_CREAT) ? -1 : real(path, flags, access);
}

int open64(const char *path, int flags, ...)
{
    MODE_OF(flags)
    REAL(open64);
    return refused("open", path, flags & O_CREAT) ? -1 : real(path, flags, access);
}

int __open_2(const char *path, int flags) { return open(path, flags); }
int __open64_2(const char *path, int flags) { return open64(path, flags); }

int openat(int at, const char *path, int flags, ...)
{
    MODE_OF(flags)
    REAL(openat);
    return refused("open", path, flags & O_CREAT) ? -1 : real(at, path, flags, access);
}

int openat64(int at, const char *path, int flags, ...)
{
    MODE_OF(flags)
    REAL(openat64);
    return refused("open", path, flags & O_CREAT) ? -1 : real(at, path, flags, access);
}

FILE *fopen(const char *path, const char *how)
{
    REAL(fopen);
    return refused("open", path, how[0] != 'r') ? NULL : real(path, how);
}

FILE *fopen64(const char *path, const char *how)
{
    REAL(fopen64);
    return refused("open", path, how[0] != 'r') ? NULL : real(path, how);
}

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    return refused_file("write", fd, 1) ? -1 : real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(writev);
    return refused_file("write", fd, 1) ? -1 : real(fd, parts, count);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    REAL(pwrite);
    return refused_file("write", fd, 1) ? -1 : real(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    REAL(pwrite64);
    return refused_file("write", fd, 1) ? -1 : real(fd, data, size, at);
}

int ftruncate(int fd, off_t size)
{
    REAL(ftruncate);
    return refused_file("truncate", fd, 0) ? -1 : real(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    REAL(ftruncate64);
    return refused_file("truncate", fd, 0) ? -1 : real(fd, size);
}

int fsync(int fd)
{
    REAL(fsync);
    return refused_file("fsync", fd, 0) ? -1 : real(fd);
}

int fdatasync(int fd)
{
    REAL(fdatasync);
    return refused_file("fsync", fd, 0) ? -1 : real(fd);
}

int rename(const char *from, const char *to)
{
    REAL(rename);
    return refused("rename", to, 0) ? -1 : real(from, to);
}

int renameat(int at, const char *from, int there, const char *to)
{
    REAL(renameat);
    return refused("rename", to, 0) ? -1 : real(at, from, there, to);
}

int unlink(const char *path)
{
    REAL(unlink);
    return refused("unlink", path, 0) ? -1 : real(path);
}

int mkdir(const char *path, mode_t access)
{
    REAL(mkdir);
    return refused("mkdir", path, 1) ? -1 : real(path, access);
}
