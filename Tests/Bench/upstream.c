// A light upstream: one thread, epoll, keep-alive, fixed bodies: /…1k, /…10k, /…1m by the end of the path.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
    char *bytes;
    size_t count;
} Answer;

typedef struct {
    int fd;
    const Answer *answer;
    size_t sent;
} Connection;

static Answer make(size_t size) {
    Answer answer;
    answer.bytes = malloc(size + 256);
    int head = sprintf(answer.bytes, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", size);
    memset(answer.bytes + head, 'x', size);
    answer.count = head + size;
    return answer;
}

int main(int count, char **arguments) {
    if (count != 2) return 64;
    Answer small = make(1024), middle = make(10240), large = make(1 << 20);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(atoi(arguments[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) return 1;
    int poller = epoll_create1(0);
    static Connection listening;
    listening.fd = listener;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listening}, events[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    static char buffer[65536];
    while (1) {
        int n = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < n; i++) {
            Connection *c = events[i].data.ptr;
            if (c->fd == listener) {
                int fd;
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    Connection *fresh = calloc(1, sizeof *fresh);
                    fresh->fd = fd;
                    struct epoll_event first = {.events = EPOLLIN, .data.ptr = fresh};
                    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &first);
                }
                continue;
            }
            if (!c->answer) {
                // Requests have no body and come one at a time: a read that ends with a blank line is one.
                ssize_t got = recv(c->fd, buffer, sizeof buffer - 1, 0);
                if (got <= 0) {
                    if (got < 0 && errno == EAGAIN) continue;
                    close(c->fd);
                    free(c);
                    continue;
                }
                buffer[got] = 0;
                char *space = memchr(buffer + 4, ' ', got > 4 ? got - 4 : 0);
                char last = space ? space[-1] : 0, before = space ? space[-2] : 0;
                c->answer = last == 'm' ? &large : before == '0' ? &middle : &small;
                c->sent = 0;
            }
            ssize_t put = send(c->fd, c->answer->bytes + c->sent, c->answer->count - c->sent, MSG_NOSIGNAL);
            if (put < 0 && errno != EAGAIN) {
                // The caller's caller has gone in the middle of an answer.
                close(c->fd);
                free(c);
                continue;
            }
            if (put > 0) c->sent += put;
            int isDone = c->sent == c->answer->count;
            if (isDone) c->answer = NULL;
            if (!isDone || (events[i].events & EPOLLOUT)) {
                struct epoll_event next = {.events = isDone ? EPOLLIN : EPOLLOUT, .data.ptr = c};
                epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &next);
            }
        }
    }
}
