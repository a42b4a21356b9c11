/* Preloaded into a relay under test: makes the disk fail on demand.
 *
 * FAULT_FILE names a file whose first word is read before each call: "eio-sync" fails every fsync and
 * fdatasync with EIO, "slow-sync" delays them by 50 ms.
 * Only files whose path has FAULT_DIR in it are affected. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int mode_is(const char *wanted) {
    const char *path = getenv("FAULT_FILE");
    char word[32] = {0};
    if (!path) return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, word, sizeof word - 1);
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
