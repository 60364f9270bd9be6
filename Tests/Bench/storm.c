// A storm of callers that mean no good, from many addresses of this machine: one thread, epoll.
//
//   storm --port N --connections N --seconds S [--mode silent|half|whole] [--sources 8] [--pending 1024] [--again]
//         [--rate R]
//
// silent connects and says nothing, half sends the first half of a ClientHello, whole finishes the handshake and then
// is silent. With --again whoever is closed comes back until the time is over, at most --rate a second. Prints one line
// of JSON.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    int fd, isConnected, isEstablished;
    SSL *ssl;
} Connection;

enum { silent, half, whole };

static SSL_CTX *context;
static int port, connections = 1000, sources = 8, pendingMax = 1024, mode = silent, again = 0, poller;
static double seconds = 10, rate = 1e9;
static unsigned char hello[4096];
static int helloCount;
static Connection *all, **closedOnes;
static int closedCount, pending;
static long started, connected, established, closed, failed, alive, most;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what) {
    fprintf(stderr, "storm: %s\n", what);
    exit(1);
}

static void makeHello(void) {
    SSL *ssl = SSL_new(context);
    BIO *output = BIO_new(BIO_s_mem());
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), output);
    SSL_set_connect_state(ssl);
    SSL_do_handshake(ssl);
    helloCount = BIO_read(output, hello, sizeof hello) / 2;
    SSL_free(ssl);
}

static void start(Connection *c) {
    memset(c, 0, sizeof *c);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) fail("no file descriptors left: raise the limit (ulimit -n)");
    int one = 1;
    // The port is chosen at connect, so that every source has all ports for this destination.
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + started % sources)};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from)) fail("cannot bind");
    started++;
    pending++;
    alive++;
    if (alive > most) most = alive;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) fail("cannot connect");
}

static void end(Connection *c) {
    if (!c->isConnected || (mode == whole && !c->isEstablished)) pending--;
    alive--;
    SSL_free(c->ssl);
    close(c->fd);
    closedOnes[closedCount++] = c;
}

static void watchInput(Connection *c) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static void shake(Connection *c) {
    int result = SSL_do_handshake(c->ssl);
    if (result == 1) {
        c->isEstablished = 1;
        established++;
        pending--;
    } else {
        int error = SSL_get_error(c->ssl, result);
        if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return;
        closed++;
        end(c);
    }
}

static void handle(Connection *c) {
    if (!c->isConnected) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            failed++;
            end(c);
            return;
        }
        c->isConnected = 1;
        connected++;
        watchInput(c);
        if (mode == whole) {
            c->ssl = SSL_new(context);
            SSL_set_fd(c->ssl, c->fd);
            SSL_set_tlsext_host_name(c->ssl, "localhost");
            SSL_set_connect_state(c->ssl);
            shake(c);
            return;
        }
        pending--;
        if (mode == half) send(c->fd, hello, helloCount, MSG_NOSIGNAL);
        return;
    }
    if (mode == whole && !c->isEstablished) {
        shake(c);
        return;
    }
    char bytes[4096];
    ssize_t got = recv(c->fd, bytes, sizeof bytes, 0);
    if (got > 0 || (got < 0 && errno == EAGAIN)) return;
    closed++;
    end(c);
}

int main(int count, char **arguments) {
    for (int i = 1; i < count; i++) {
        if (!strcmp(arguments[i], "--again")) again = 1;
        else if (i + 1 >= count) fail("an option without a value");
        else if (!strcmp(arguments[i], "--port")) port = atoi(arguments[++i]);
        else if (!strcmp(arguments[i], "--connections")) connections = atoi(arguments[++i]);
        else if (!strcmp(arguments[i], "--seconds")) seconds = atof(arguments[++i]);
        else if (!strcmp(arguments[i], "--rate")) rate = atof(arguments[++i]);
        else if (!strcmp(arguments[i], "--sources")) sources = atoi(arguments[++i]);
        else if (!strcmp(arguments[i], "--pending")) pendingMax = atoi(arguments[++i]);
        else if (!strcmp(arguments[i], "--mode")) {
            i++;
            mode = !strcmp(arguments[i], "half") ? half : !strcmp(arguments[i], "whole") ? whole : silent;
        } else fail("unknown option");
    }
    struct rlimit descriptors = {connections + 64, connections + 64};
    if (setrlimit(RLIMIT_NOFILE, &descriptors)) fail("too few file descriptors: raise the limit (ulimit -Hn)");
    signal(SIGPIPE, SIG_IGN);
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    makeHello();
    poller = epoll_create1(0);
    all = calloc(connections, sizeof *all);
    closedOnes = calloc(connections, sizeof *closedOnes);
    double begin = now(), allStarted = 0;
    struct epoll_event events[512];
    while (now() < begin + seconds) {
        while (pending < pendingMax && started < connections) start(&all[started]);
        while (again && pending < pendingMax && closedCount && started < connections + rate * (now() - begin)) start(closedOnes[--closedCount]);
        if (!allStarted && started >= connections && !pending) allStarted = now() - begin;
        int n = epoll_wait(poller, events, 512, 20);
        for (int i = 0; i < n; i++) handle(events[i].data.ptr);
    }
    printf("{\"started\":%ld,\"connected\":%ld,\"established\":%ld,\"closed\":%ld,\"failed\":%ld,\"open_at_most\":%ld,"
           "\"open_at_end\":%ld,\"seconds_to_start\":%.2f}\n",
           started, connected, established, closed, failed, most, alive, allStarted);
    return 0;
}
