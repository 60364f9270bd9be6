// A light gRPC upstream: one thread, epoll, HTTP/2 by prior knowledge; each call gets its request message back.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

// More than any message of the benchmark.
enum { MESSAGE_MAX = 4096 };

typedef struct {
    size_t count, sent;
    uint8_t bytes[MESSAGE_MAX];
} Call;

typedef struct {
    int fd;
    nghttp2_session *session;
} Connection;

#define FIELD(name, value) {(uint8_t *)name, (uint8_t *)value, sizeof name - 1, sizeof value - 1, 0}

static int on_begin(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    (void)user;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, calloc(1, sizeof(Call)));
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t count, void *user) {
    (void)flags, (void)user;
    Call *call = nghttp2_session_get_stream_user_data(session, stream);
    if (!call || call->count + count > MESSAGE_MAX) return NGHTTP2_ERR_CALLBACK_FAILURE;
    memcpy(call->bytes + call->count, bytes, count);
    call->count += count;
    return 0;
}

static ssize_t read_message(
    nghttp2_session *session, int32_t stream, uint8_t *target, size_t room, uint32_t *flags, nghttp2_data_source *source,
    void *user) {
    (void)user;
    Call *call = source->ptr;
    size_t count = call->count - call->sent;
    if (count > room) count = room;
    memcpy(target, call->bytes + call->sent, count);
    call->sent += count;
    if (call->sent == call->count) {
        nghttp2_nv status = FIELD("grpc-status", "0");
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        nghttp2_submit_trailer(session, stream, &status, 1);
    }
    return (ssize_t)count;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    (void)user;
    if ((frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    Call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!call) return 0;
    nghttp2_nv head[] = {FIELD(":status", "200"), FIELD("content-type", "application/grpc")};
    nghttp2_data_provider body = {.source.ptr = call, .read_callback = read_message};
    return nghttp2_submit_response(session, frame->hd.stream_id, head, 2, &body) ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *user) {
    (void)code, (void)user;
    free(nghttp2_session_get_stream_user_data(session, stream));
    return 0;
}

// Sends all that waits in one piece; what does not fit waits for the socket.
static int flush(Connection *c) {
    static uint8_t out[1 << 20];
    size_t count = 0;
    const uint8_t *bytes;
    ssize_t n;
    while (count < sizeof out / 2 && (n = nghttp2_session_mem_send(c->session, &bytes)) > 0) {
        memcpy(out + count, bytes, (size_t)n);
        count += (size_t)n;
    }
    for (size_t sent = 0; sent < count;) {
        n = send(c->fd, out + sent, count - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) return -1;
        if (n > 0) sent += (size_t)n;
    }
    return 0;
}

static void end(Connection *c) {
    nghttp2_session_del(c->session);
    close(c->fd);
    free(c);
}

int main(int count, char **arguments) {
    if (count != 2) return 64;
    nghttp2_session_callbacks *callbacks;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(atoi(arguments[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) return 1;
    int poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    static uint8_t in[1 << 18];
    while (1) {
        int n = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < n; i++) {
            Connection *c = events[i].data.ptr;
            if (!c) {
                int fd;
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    Connection *fresh = calloc(1, sizeof *fresh);
                    fresh->fd = fd;
                    nghttp2_session_server_new(&fresh->session, callbacks, fresh);
                    nghttp2_settings_entry streams = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1000};
                    nghttp2_submit_settings(fresh->session, NGHTTP2_FLAG_NONE, &streams, 1);
                    struct epoll_event first = {.events = EPOLLIN, .data.ptr = fresh};
                    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &first);
                    if (flush(fresh)) end(fresh);
                }
                continue;
            }
            ssize_t got = recv(c->fd, in, sizeof in, 0);
            if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0 || nghttp2_session_mem_recv(c->session, in, (size_t)got) < 0 || flush(c)) end(c);
        }
    }
}
