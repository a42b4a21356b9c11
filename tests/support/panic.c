/* Preloaded into a relay under test: once there is a file PANIC_FILE, the thread of the name in it is not told the time, once.
 * Rust's standard library panics there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int is_meant(void) {
    char wanted[16] = {0}, name[16] = {0};
    int fd = open(getenv("PANIC_FILE"), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, wanted, sizeof wanted - 1);
    close(fd);
    prctl(PR_GET_NAME, name);
    return n > 0 && strcmp(wanted, name) == 0;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    static int has_panicked;
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    if (id == CLOCK_MONOTONIC && is_meant() && !__atomic_exchange_n(&has_panicked, 1, __ATOMIC_RELAXED)) return -1;
    return real(id, now);
}
