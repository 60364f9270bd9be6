// A light TLS 1.3 load generator: one thread, epoll, closed loop, keep-alive or a handshake for every request.
//
//   load --port N [--path /1k] [--connections 64] [--seconds 3] [--keys FILE] [--status 200] [--body 1024]
//        [--rate R] [--start T] [--slice SECONDS --out FILE] [--tolerate N] [--requests N] [--handshakes] [--idle]
//
// Every answer's status and body length are checked; one wrong answer (N with --tolerate) and the run counts for
// nothing. With --rate the loop is open: R requests a second, latency from when each was due, the first at T of
// CLOCK_MONOTONIC. With --slice every latency goes to a file with the number of the slice of time in which its request
// was due: a count (64 bits), as many floats of microseconds, as many numbers of 32 bits. Prints one line of
// JSON. With --idle it opens the connections, prints a line and waits for its input.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    int fd;
    SSL *ssl;
    int connected, handshaken, inHead, status;
    long length, received;
    char head[8192];
    int headCount;
    double started;
} Connection;

static SSL_CTX *context;
static int port, connections = 64, handshakes = 0, idle = 0, wantedStatus = 200, poller;
static long wantedBody = -1;
static double seconds = 3;
// Open loop: requests a second, sent when they are due whether or not earlier ones were answered; 0 for closed loop.
static double rate = 0;
static double start = 0, slice = 0;
static const char *out = NULL;
static unsigned *slices;
static Connection **waiting;
static int waitingCount;
static long tolerated = 0, other = 0;
static const char *path = "/";
static char **keys;
static int keyCount, nextKey;
static Connection *all;
static int opened;
static long finished, errors, wanted = 0;
static double *latencies;
static long latencyCount;
#define LATENCIES 16000000
static char scratch[262144];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what) {
    fprintf(stderr, "load: %s\n", what);
    exit(1);
}

static void watch(Connection *c, int operation, unsigned events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &event);
}

static void openConnection(Connection *c) {
    memset(c, 0, sizeof *c);
    c->inHead = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->started = now();
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) fail("cannot connect");
    c->ssl = SSL_new(context);
    SSL_set_fd(c->ssl, c->fd);
    SSL_set_tlsext_host_name(c->ssl, "localhost");
    SSL_set_connect_state(c->ssl);
    watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

static void closeConnection(Connection *c) {
    SSL_free(c->ssl);
    close(c->fd);
    c->ssl = NULL;
}

static void sendRequest(Connection *c) {
    char text[1024];
    const char *key = keys[nextKey++ % keyCount];
    int count = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", path, key);
    c->inHead = 1;
    c->headCount = 0;
    c->received = 0;
    if (!handshakes && rate <= 0) c->started = now();
    if (SSL_write(c->ssl, text, count) != count) errors++;
}

// Takes the bytes of an answer; returns 1 when it is whole.
static int take(Connection *c, const char *bytes, int count) {
    if (c->inHead) {
        if (c->headCount + count >= (int)sizeof c->head) {
            int room = (int)sizeof c->head - 1 - c->headCount;
            count = count < room ? count : room;
        }
        memcpy(c->head + c->headCount, bytes, count);
        c->headCount += count;
        c->head[c->headCount] = 0;
        char *end = strstr(c->head, "\r\n\r\n");
        if (!end) return 0;
        c->status = atoi(c->head + 9);
        char *length = strcasestr(c->head, "\r\ncontent-length:");
        c->length = length && length < end ? atol(length + 17) : -1;
        if (c->length < 0) {
            errors++;
            return 1;
        }
        c->received = c->headCount - (end + 4 - c->head);
        c->inHead = 0;
    } else {
        c->received += count;
    }
    if (c->received < c->length) return 0;
    if (c->status != wantedStatus && other < tolerated) other++;
    else if (c->received > c->length || c->status != wantedStatus || (wantedBody >= 0 && c->length != wantedBody)) errors++;
    return 1;
}

// Goes on with a connection; returns 1 when an answer was completed.
static void handle(Connection *c, unsigned events) {
    if (!c->handshaken) {
        int result = SSL_do_handshake(c->ssl);
        if (result != 1) {
            int error = SSL_get_error(c->ssl, result);
            if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) fail("handshake failed");
            if (error == SSL_ERROR_WANT_READ) watch(c, EPOLL_CTL_MOD, EPOLLIN);
            return;
        }
        c->handshaken = 1;
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
        if (rate > 0) {
            waiting[waitingCount++] = c;
            return;
        }
        if (!idle) {
            sendRequest(c);
            return;
        }
        // One at a time from here on: handshakes at once would be measured as if they were connections.
        finished++;
        if (opened < connections) openConnection(&all[opened++]);
        return;
    }
    while (1) {
        int n = SSL_read(c->ssl, scratch, sizeof scratch);
        if (n <= 0) {
            if (SSL_get_error(c->ssl, n) == SSL_ERROR_WANT_READ) return;
            // Session tickets arrive on idle connections too; an end is an error everywhere.
            errors++;
            closeConnection(c);
            openConnection(c);
            return;
        }
        // A head and a large body may come in one record: the head buffer keeps what it can.
        int offset = 0, done = 0;
        while (offset < n && !done) {
            int before = c->headCount, wasHead = c->inHead;
            done = take(c, scratch + offset, n - offset);
            offset = wasHead && c->inHead == 0 && c->headCount - before < n - offset ? offset + c->headCount - before : n;
        }
        if (!done) continue;
        finished++;
        if (latencyCount < LATENCIES) {
            if (out) slices[latencyCount] = (unsigned)((c->started - start) / slice);
            latencies[latencyCount++] = now() - c->started;
        }
        if (handshakes) {
            SSL_shutdown(c->ssl);
            closeConnection(c);
            openConnection(c);
            return;
        }
        if (rate > 0) {
            waiting[waitingCount++] = c;
            return;
        }
        sendRequest(c);
        // What arrives later raises an event: a read that finds nothing would take time from the subject's peers.
        if (!SSL_has_pending(c->ssl)) return;
    }
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void readKeys(const char *file) {
    static char *one[] = {"none"};
    keys = one;
    keyCount = 1;
    if (!file) return;
    FILE *stream = fopen(file, "r");
    if (!stream) fail("cannot read the keys");
    keys = calloc(1000000, sizeof *keys);
    keyCount = 0;
    char line[512];
    while (keyCount < 1000000 && fgets(line, sizeof line, stream)) {
        line[strcspn(line, "\r\n")] = 0;
        if (*line) keys[keyCount++] = strdup(line);
    }
    fclose(stream);
}

// Connections for the open loop, before its clock starts.
static void openAll(struct epoll_event *events) {
    while (waitingCount < connections) {
        int n = epoll_wait(poller, events, 256, 1000);
        if (n <= 0) fail("connections do not open");
        for (int i = 0; i < n; i++) handle(events[i].data.ptr, events[i].events);
    }
}

static int waitUntil(double due, struct epoll_event *events) {
    double left = due - now();
    if (left < 0 || !waitingCount) left = waitingCount ? 0 : 0.1;
    struct timespec timeout = {.tv_sec = (time_t)left, .tv_nsec = (long)((left - (time_t)left) * 1e9)};
    return epoll_pwait2(poller, events, 256, &timeout, NULL);
}

static void writeSlices(void) {
    FILE *stream = fopen(out, "wb");
    if (!stream) fail("cannot write the latencies");
    fwrite(&latencyCount, sizeof latencyCount, 1, stream);
    for (long i = 0; i < latencyCount; i++) {
        float microseconds = (float)(latencies[i] * 1e6);
        fwrite(&microseconds, sizeof microseconds, 1, stream);
    }
    fwrite(slices, sizeof *slices, latencyCount, stream);
    fclose(stream);
}

int main(int count, char **arguments) {
    const char *keyFile = NULL;
    for (int i = 1; i < count; i++) {
        if (!strcmp(arguments[i], "--handshakes")) handshakes = 1;
        else if (!strcmp(arguments[i], "--idle")) idle = 1;
        else if (i + 1 >= count) fail("an option without a value");
        else if (!strcmp(arguments[i], "--port")) port = atoi(arguments[++i]);
        else if (!strcmp(arguments[i], "--path")) path = arguments[++i];
        else if (!strcmp(arguments[i], "--connections")) connections = atoi(arguments[++i]);
        else if (!strcmp(arguments[i], "--seconds")) seconds = atof(arguments[++i]);
        else if (!strcmp(arguments[i], "--keys")) keyFile = arguments[++i];
        else if (!strcmp(arguments[i], "--status")) wantedStatus = atoi(arguments[++i]);
        else if (!strcmp(arguments[i], "--tolerate")) tolerated = atol(arguments[++i]);
        else if (!strcmp(arguments[i], "--rate")) rate = atof(arguments[++i]);
        else if (!strcmp(arguments[i], "--start")) start = atof(arguments[++i]);
        else if (!strcmp(arguments[i], "--slice")) slice = atof(arguments[++i]);
        else if (!strcmp(arguments[i], "--out")) out = arguments[++i];
        else if (!strcmp(arguments[i], "--requests")) wanted = atol(arguments[++i]);
        else if (!strcmp(arguments[i], "--body")) wantedBody = atol(arguments[++i]);
        else fail("unknown option");
    }
    readKeys(keyFile);
    latencies = malloc(LATENCIES * sizeof *latencies);
    slices = malloc(LATENCIES * sizeof *slices);
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384");
    // One recv takes a record's head and body, and several records of a large answer.
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, 131072);
    poller = epoll_create1(0);
    all = calloc(connections, sizeof *all);
    waiting = calloc(connections, sizeof *waiting);
    while (opened < (idle && connections > 16 ? 16 : connections)) openConnection(&all[opened++]);
    struct epoll_event events[256];
    if (rate > 0) openAll(events);
    if (start <= 0) start = now();
    double end = start + seconds, due = start;
    while (now() < end) {
        int n = rate > 0 ? waitUntil(due, events) : epoll_wait(poller, events, 256, 100);
        for (int i = 0; i < n; i++) handle(events[i].data.ptr, events[i].events);
        // Latency counts from when a request was due, so that a stall is paid by all that it delayed.
        while (rate > 0 && waitingCount && due <= now() && due < end) {
            Connection *c = waiting[--waitingCount];
            c->started = due;
            due += 1 / rate;
            sendRequest(c);
        }
        if (idle ? finished >= connections : wanted && finished >= wanted) break;
    }
    double took = now() - start;
    if (idle) {
        printf("{\"connections\":%ld}\n", finished);
        fflush(stdout);
        char byte;
        return read(0, &byte, 1) < 0;
    }
    if (out) writeSlices();
    qsort(latencies, latencyCount, sizeof *latencies, compare);
    double p50 = latencyCount ? latencies[latencyCount / 2] : 0, p99 = latencyCount ? latencies[latencyCount * 99 / 100] : 0;
    double longest = latencyCount ? latencies[latencyCount - 1] : 0;
    printf("{\"requests\":%ld,\"errors\":%ld,\"tolerated\":%ld,\"seconds\":%.4f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n", finished,
           errors, other, took, p50 * 1e6, p99 * 1e6, longest * 1e6);
    return 0;
}
