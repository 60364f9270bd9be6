// Scrapes /metrics on a kept connection, once in each tenth of a second, at a moment of it that is left to chance.
//
//   scrape PORT START SECONDS
//
// START is an instant of CLOCK_MONOTONIC. Prints one line of JSON: bytes of one scrape, the milliseconds behind START at
// which they began, and how long the answers took.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char request[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
static char bytes[1 << 20];

static void fail(const char *what) {
    fprintf(stderr, "scrape: %s\n", what);
    exit(1);
}

static long scrape(int fd) {
    if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) != sizeof request - 1) fail("cannot send");
    long count = 0, whole = -1;
    while (whole < 0 || count < whole) {
        ssize_t n = recv(fd, bytes + count, sizeof bytes - 1 - count, 0);
        if (n <= 0) fail("no answer");
        count += n;
        bytes[count] = 0;
        char *end = whole < 0 ? strstr(bytes, "\r\n\r\n") : NULL;
        if (!end) continue;
        char *length = strcasestr(bytes, "\r\ncontent-length:");
        if (!length || length > end) fail("an answer without a length");
        whole = end + 4 - bytes + atol(length + 17);
    }
    if (strncmp(bytes, "HTTP/1.1 200", 12)) fail("not 200");
    return whole;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int count, char **arguments) {
    if (count != 4) fail("PORT START SECONDS");
    double start = atof(arguments[2]), took = 0;
    long scrapes = atol(arguments[3]) * 10, size = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(atoi(arguments[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("cannot connect");
    srand48((long)(start * 1e6));
    printf("{\"at_ms\":[");
    for (long number = 0; number < scrapes; number++) {
        double at = start + (number + drand48()) * 0.1;
        struct timespec until = {.tv_sec = (time_t)at, .tv_nsec = (long)((at - (time_t)at) * 1e9)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {}
        double began = now();
        size = scrape(fd);
        took += now() - began;
        printf("%s%.1f", number ? "," : "", (began - start) * 1e3);
    }
    printf("],\"scrapes\":%ld,\"bytes\":%ld,\"mean_us\":%.1f}\n", scrapes, size, took / scrapes * 1e6);
    return 0;
}
