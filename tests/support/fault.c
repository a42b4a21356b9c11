/* Preloaded into a relay under test: makes the disk fail on demand.
 *
 * FAULT_FILE names a file whose first word is read before each call: "eio-sync" fails every fsync and
 * fdatasync with EIO, "slow-sync" delays them by 50 ms; "eio-write", "enospc" and "erofs" fail what
 * makes, grows or changes files with that error, "eio-read" fails reads, "eio-far" those behind the first megabyte.
 * Only files whose path has FAULT_DIR in it are affected. Each read that failed adds a byte to FAULT_FILE.reads. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int mode_is(const char *wanted) {
    const char *path = getenv("FAULT_FILE");
    char word[32] = {0};
    if (!path) return 0;
    /* Not by the calls that are replaced here. */
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = syscall(SYS_read, fd, word, sizeof word - 1);
    close(fd);
    return n > 0 && strncmp(word, wanted, strlen(wanted)) == 0;
}

static int watched(int fd) {
    const char *dir = getenv("FAULT_DIR");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0 || !dir) return 0;
    path[n] = 0;
    return strstr(path, dir) != NULL;
}

static int sync_fails(int fd) {
    if (!watched(fd)) return 0;
    if (mode_is("slow-sync")) {
        struct timespec pause = {0, 50 * 1000 * 1000};
        nanosleep(&pause, NULL);
    }
    return mode_is("eio-sync");
}

/* The error that changing a file meets now, or 0. */
static int change_fails(void) {
    if (mode_is("eio-write")) return EIO;
    if (mode_is("enospc")) return ENOSPC;
    return mode_is("erofs") ? EROFS : 0;
}

static void count_failed_read(void) {
    char path[4096];
    snprintf(path, sizeof path, "%s.reads", getenv("FAULT_FILE"));
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) return;
    if (syscall(SYS_write, fd, "r", 1) != 1) abort();
    close(fd);
}

/* `offset`: where a read begins, or -1 for a change. */
static int fails(int fd, off_t offset) {
    int is_read = offset >= 0;
    if (!watched(fd)) return 0;
    int error = change_fails();
    if (is_read) error = mode_is("eio-read") || (offset >= 1 << 20 && mode_is("eio-far")) ? EIO : 0;
    if (error && is_read) count_failed_read();
    if (error) errno = error;
    return error;
}

#define REAL(name) static __typeof__(&name) real_##name; if (!real_##name) real_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t length) {
    REAL(write);
    return fails(fd, -1) ? -1 : real_write(fd, data, length);
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    REAL(pwrite);
    return fails(fd, -1) ? -1 : real_pwrite(fd, data, length, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) {
    REAL(pwrite64);
    return fails(fd, -1) ? -1 : real_pwrite64(fd, data, length, offset);
}
int ftruncate64(int fd, off_t length) {
    REAL(ftruncate64);
    return fails(fd, -1) ? -1 : real_ftruncate64(fd, length);
}
ssize_t read(int fd, void *data, size_t length) {
    REAL(read);
    off_t offset = lseek(fd, 0, SEEK_CUR);
    return fails(fd, offset < 0 ? 0 : offset) ? -1 : real_read(fd, data, length);
}
ssize_t pread64(int fd, void *data, size_t length, off_t offset) {
    REAL(pread64);
    return fails(fd, offset) ? -1 : real_pread64(fd, data, length, offset);
}

static int opening_fails(const char *path, int flags) {
    const char *dir = getenv("FAULT_DIR");
    if (!dir || !strstr(path, dir) || !(flags & (O_CREAT | O_TRUNC))) return 0;
    /* What is there can still be opened, but not for writing where nothing can be written. */
    int error = change_fails();
    if (error == EROFS || (error && access(path, F_OK) != 0)) errno = error;
    else error = 0;
    return error;
}
#define MODE_OF(flags) \
    mode_t mode = 0; \
    if ((flags) & O_CREAT) { va_list rest; va_start(rest, flags); mode = va_arg(rest, int); va_end(rest); }
int open(const char *path, int flags, ...) {
    REAL(open);
    MODE_OF(flags)
    return opening_fails(path, flags) ? -1 : real_open(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    REAL(open64);
    MODE_OF(flags)
    return opening_fails(path, flags) ? -1 : real_open64(path, flags, mode);
}

int fsync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    if (sync_fails(fd)) { errno = EIO; return -1; }
    return real(fd);
}

int fdatasync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    if (sync_fails(fd)) { errno = EIO; return -1; }
    return real(fd);
}
