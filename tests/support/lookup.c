/* Preloaded into a relay under test: names are looked up for ever, as with a DNS server that does not answer. For each
 * that is, a byte is added to LOOKUP_FILE. */
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <unistd.h>

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    (void)name, (void)service, (void)hints, (void)found;
    int fd = open(getenv("LOOKUP_FILE"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, "l", 1) != 1) abort();
    close(fd);
    for (;;) pause();
}
