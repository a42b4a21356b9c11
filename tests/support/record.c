/* Preloaded into a relay under test: writes down what it does to a directory, and kills it at a named call.
 *
 * RECORD_DIR    the directory; calls on it and on what is below it are watched.
 * RECORD_LOG    a file outside of it; a record for each call that changed something, in the order of the calls,
 *               and one for each answer to an app and each event's way to and answer from upstream:
 *                 create INO PATH | mkdir INO PATH | unlink PATH | rename FROM TO | truncate INO LENGTH
 *                 write INO OFFSET LENGTH + data | sync INO | sync-dir PATH
 *                 told FD LENGTH + data | sent FD LENGTH + data | heard FD LENGTH + data
 *               Paths are relative to RECORD_DIR and have no spaces.
 * KILL_AT       "CALL NAME N": SIGKILL at the N-th such call on a file of that name, instead of the call; for
 *               "told answer" instead of it, for "sent event" and "heard answer" right after it.
 * KILL_ARMED    a file: calls are counted for KILL_AT only while it exists. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) static __typeof__(&name) real_##name; if (!real_##name) real_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
enum { NAME_MAX_BYTES = 4096, SHOWN = 4096, FDS = 65536 };

/* Held over a call and its record, so that the records are in the order of the calls. */
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static char carries_event[FDS];

static void put(const char *data, size_t length) {
    static int log_fd = -1;
    const char *path = getenv("RECORD_LOG");
    if (!path) return;
    if (log_fd < 0) log_fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    while (length > 0) {
        ssize_t n = syscall(SYS_write, log_fd, data, length);
        if (n <= 0) abort();
        data += n;
        length -= n;
    }
}

static void note(const char *format, ...) {
    char line[2 * NAME_MAX_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    put(line, n);
}

/* The path below RECORD_DIR, or NULL; "." is the directory itself. */
static const char *below(const char *path) {
    const char *dir = getenv("RECORD_DIR");
    size_t length = dir ? strlen(dir) : 0;
    if (!length || strncmp(path, dir, length) != 0) return NULL;
    if (path[length] == 0) return ".";
    return path[length] == '/' ? path + length + 1 : NULL;
}

static const char *watched(int fd, char path[NAME_MAX_BYTES]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, NAME_MAX_BYTES - 1);
    if (n <= 0) return NULL;
    path[n] = 0;
    return below(path);
}

static long inode(int fd) {
    struct stat about;
    return fstat(fd, &about) == 0 ? (long)about.st_ino : -1;
}

static void kill_at(const char *call, const char *name) {
    static long count;
    char wanted_call[32], wanted_name[64];
    long n;
    const char *at = getenv("KILL_AT"), *armed = getenv("KILL_ARMED");
    const char *last = strrchr(name, '/');
    if (!at || sscanf(at, "%31s %63s %ld", wanted_call, wanted_name, &n) != 3) return;
    if (strcmp(call, wanted_call) != 0 || strcmp(last ? last + 1 : name, wanted_name) != 0) return;
    if (armed && access(armed, F_OK) != 0) return;
    if (++count >= n) kill(getpid(), SIGKILL);
}

/* --- what changes files */

static void wrote(int fd, const void *data, ssize_t n, off_t offset) {
    if (n <= 0) return;
    note("write %ld %ld %ld\n", inode(fd), (long)offset, (long)n);
    put(data, n);
}

static ssize_t positioned(ssize_t (*call)(int, const void *, size_t, off_t), int fd, const void *data, size_t length, off_t offset) {
    char path[NAME_MAX_BYTES];
    const char *name = watched(fd, path);
    if (!name) return call(fd, data, length, offset);
    pthread_mutex_lock(&order);
    kill_at("write", name);
    ssize_t n = call(fd, data, length, offset);
    wrote(fd, data, n, offset);
    pthread_mutex_unlock(&order);
    return n;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    REAL(pwrite);
    return positioned(real_pwrite, fd, data, length, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) {
    REAL(pwrite64);
    return positioned(real_pwrite64, fd, data, length, offset);
}

static int truncated(int (*call)(int, off_t), int fd, off_t length) {
    char path[NAME_MAX_BYTES];
    const char *name = watched(fd, path);
    if (!name) return call(fd, length);
    pthread_mutex_lock(&order);
    kill_at("truncate", name);
    int result = call(fd, length);
    if (result == 0) note("truncate %ld %ld\n", inode(fd), (long)length);
    pthread_mutex_unlock(&order);
    return result;
}

int ftruncate(int fd, off_t length) {
    REAL(ftruncate);
    return truncated(real_ftruncate, fd, length);
}
int ftruncate64(int fd, off_t length) {
    REAL(ftruncate64);
    return truncated(real_ftruncate64, fd, length);
}

static int synced(int (*call)(int), int fd) {
    char path[NAME_MAX_BYTES];
    struct stat about;
    const char *name = watched(fd, path);
    if (!name) return call(fd);
    pthread_mutex_lock(&order);
    kill_at("sync", name);
    int result = call(fd);
    if (result == 0 && fstat(fd, &about) == 0) {
        if (S_ISDIR(about.st_mode)) note("sync-dir %s\n", name);
        else note("sync %ld\n", (long)about.st_ino);
    }
    pthread_mutex_unlock(&order);
    return result;
}

int fsync(int fd) {
    REAL(fsync);
    return synced(real_fsync, fd);
}
int fdatasync(int fd) {
    REAL(fdatasync);
    return synced(real_fdatasync, fd);
}

/* --- what changes directories */

typedef int (*open_call)(const char *, int, ...);
static int opened(open_call call, const char *path, int flags, mode_t mode) {
    const char *name = flags & (O_CREAT | O_TRUNC) ? below(path) : NULL;
    if (!name) return call(path, flags, mode);
    pthread_mutex_lock(&order);
    int existed = access(path, F_OK) == 0;
    if (!existed) kill_at("create", name);
    int fd = call(path, flags, mode);
    if (fd >= 0 && !existed) note("create %ld %s\n", inode(fd), name);
    else if (fd >= 0 && flags & O_TRUNC) note("truncate %ld 0\n", inode(fd));
    pthread_mutex_unlock(&order);
    return fd;
}

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if ((flags) & O_CREAT) { va_list rest; va_start(rest, flags); mode = va_arg(rest, int); va_end(rest); }

int open(const char *path, int flags, ...) {
    REAL(open);
    MODE_OF(flags)
    return opened(real_open, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    REAL(open64);
    MODE_OF(flags)
    return opened(real_open64, path, flags, mode);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    const char *name = below(path);
    struct stat about;
    if (!name) return real_mkdir(path, mode);
    pthread_mutex_lock(&order);
    kill_at("mkdir", name);
    int result = real_mkdir(path, mode);
    if (result == 0 && stat(path, &about) == 0) note("mkdir %ld %s\n", (long)about.st_ino, name);
    pthread_mutex_unlock(&order);
    return result;
}

int unlink(const char *path) {
    REAL(unlink);
    const char *name = below(path);
    if (!name) return real_unlink(path);
    pthread_mutex_lock(&order);
    kill_at("unlink", name);
    int result = real_unlink(path);
    if (result == 0) note("unlink %s\n", name);
    pthread_mutex_unlock(&order);
    return result;
}

int rename(const char *from, const char *to) {
    REAL(rename);
    const char *name = below(from), *target = below(to);
    if (!name || !target) return real_rename(from, to);
    pthread_mutex_lock(&order);
    kill_at("rename", name);
    int result = real_rename(from, to);
    if (result == 0) note("rename %s %s\n", name, target);
    pthread_mutex_unlock(&order);
    return result;
}

/* --- what was told, sent and heard */

static int is_success(const char *data, size_t length) { return length > 10 && memcmp(data, "HTTP/1.1 2", 10) == 0; }

static void show(const char *what, int fd, const char *data, size_t length) {
    if (length > SHOWN) length = SHOWN;
    note("%s %d %ld\n", what, fd, (long)length);
    put(data, length);
}

/* Before bytes go to a socket: an answer counts from here on. Says whether an event goes to upstream. */
static int goes_out(int fd, const char *data, size_t length) {
    if (is_success(data, length) && memmem(data, length, "\"success\"", 9)) {
        pthread_mutex_lock(&order);
        kill_at("told", "answer");
        show("told", fd, data, length);
        pthread_mutex_unlock(&order);
    }
    int is_event = length > 13 && memcmp(data, "POST /events ", 13) == 0;
    if (is_event) {
        pthread_mutex_lock(&order);
        show("sent", fd, data, length);
        pthread_mutex_unlock(&order);
    }
    return is_event;
}

static void went_out(int fd, int is_event) {
    if (fd >= 0 && fd < FDS && is_event) carries_event[fd] = 1;
    if (is_event) kill_at("sent", "event");
}

static void came_in(int fd, const char *data, ssize_t n) {
    if (n <= 0 || fd < 0 || fd >= FDS || !carries_event[fd] || memcmp(data, "HTTP/1.1 ", n < 9 ? n : 9) != 0) return;
    carries_event[fd] = 0;
    if (!is_success(data, n)) return;
    pthread_mutex_lock(&order);
    show("heard", fd, data, n);
    kill_at("heard", "answer");
    pthread_mutex_unlock(&order);
}

ssize_t send(int fd, const void *data, size_t length, int flags) {
    REAL(send);
    int is_event = goes_out(fd, data, length);
    ssize_t n = real_send(fd, data, length, flags);
    went_out(fd, is_event);
    return n;
}

ssize_t recv(int fd, void *data, size_t length, int flags) {
    REAL(recv);
    ssize_t n = real_recv(fd, data, length, flags);
    came_in(fd, data, n);
    return n;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    char start[SHOWN], path[NAME_MAX_BYTES];
    size_t length = 0;
    if (watched(fd, path)) abort(); /* the relay has no vectored writes to files; not recorded */
    for (int i = 0; i < count && length < sizeof start; i++) {
        size_t part = parts[i].iov_len < sizeof start - length ? parts[i].iov_len : sizeof start - length;
        memcpy(start + length, parts[i].iov_base, part);
        length += part;
    }
    int is_event = goes_out(fd, start, length);
    ssize_t n = real_writev(fd, parts, count);
    went_out(fd, is_event);
    return n;
}

ssize_t write(int fd, const void *data, size_t length) {
    REAL(write);
    char path[NAME_MAX_BYTES];
    const char *name = watched(fd, path);
    if (!name) return real_write(fd, data, length);
    pthread_mutex_lock(&order);
    kill_at("write", name);
    ssize_t n = real_write(fd, data, length);
    wrote(fd, data, n, lseek(fd, 0, SEEK_CUR) - n);
    pthread_mutex_unlock(&order);
    return n;
}
