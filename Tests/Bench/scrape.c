// Scrapes /metrics ten times a second on a kept connection, in every other slice of time and in none of the others.
//
//   scrape PORT START SLICE_SECONDS SLICES
//
// START is an instant of CLOCK_MONOTONIC. Of each two slices one is scraped, which of them alternates like the
// Thue-Morse sequence, so that no drift favours either. Prints one line of JSON: scrapes, and bytes of one.
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

int main(int count, char **arguments) {
    if (count != 5) fail("PORT START SLICE_SECONDS SLICES");
    double start = atof(arguments[2]), slice = atof(arguments[3]);
    long slices = atol(arguments[4]), scrapes = 0, size = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(atoi(arguments[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("cannot connect");
    for (long tick = 0;; tick++) {
        // In the middle of each tenth of a second.
        double due = tick * 0.1 + 0.05;
        long number = (long)(due / slice);
        if (number >= slices) break;
        if ((number & 1) != (__builtin_popcountl(number >> 1) & 1)) continue;
        double at = start + due;
        struct timespec until = {.tv_sec = (time_t)at, .tv_nsec = (long)((at - (time_t)at) * 1e9)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {}
        size = scrape(fd);
        scrapes++;
    }
    printf("{\"scrapes\":%ld,\"bytes\":%ld}\n", scrapes, size);
    return 0;
}
