// Loaded before a program's libraries: every name that ends in ".test" stands for 127.0.0.1, and takes to be looked up
// until the test lets it. The file SLOW_NAMES holds four bytes: whether look-ups are held back, milliseconds that each
// takes, whether one is held back, and how many were answered.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile unsigned char *state;

__attribute__((constructor)) static void find(void) {
    const char *path = getenv("SLOW_NAMES");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, 4, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) state = page;
    close(file);
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        dlsym(RTLD_NEXT, "getaddrinfo");
    size_t length = host ? strlen(host) : 0;
    if (!state || length < 5 || strcmp(host + length - 5, ".test")) return next(host, service, hints, found);
    while (state[0]) {
        state[2] = 1;
        poll(NULL, 0, 2);
    }
    poll(NULL, 0, state[1]);
    state[3]++;
    return next("127.0.0.1", service, hints, found);
}
