"""An upstream of HTTP/2 over TLS whose settings come with the end of its handshake, before the client's: a server may
speak that early (RFC 8446 section 4.4.4), and some do, if only to hand out tickets.

Arguments: certificate chain, private key. Prints its port; answers every call with "early".
"""

import ctypes
import socket
import sys
import threading

from wire import *

library = ctypes.CDLL("libssl.so.3")
for name in ("TLS_server_method", "SSL_CTX_new", "SSL_new"):
    getattr(library, name).restype = ctypes.c_void_p
FINISHED = 2

SELECT = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(ctypes.c_ubyte), ctypes.c_void_p,
    ctypes.c_uint, ctypes.c_void_p)
CHOSEN = ctypes.create_string_buffer(b"h2")


@SELECT
def select(session, out, count, offered, offered_count, argument):
    out[0] = ctypes.cast(CHOSEN, ctypes.c_char_p)
    count[0] = 2
    return 0


context = ctypes.c_void_p(library.SSL_CTX_new(ctypes.c_void_p(library.TLS_server_method())))
library.SSL_CTX_use_certificate_chain_file(context, sys.argv[1].encode())
library.SSL_CTX_use_PrivateKey_file(context, sys.argv[2].encode(), 1)
library.SSL_CTX_set_alpn_select_cb(context, select, None)


def serve(stream):
    session = ctypes.c_void_p(library.SSL_new(context))
    # In one piece, so that whoever reads gets the end of the handshake and what follows it at once.
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    library.SSL_set_fd(session, stream.fileno())
    room, count = ctypes.create_string_buffer(65_536), ctypes.c_size_t()
    settings = frame(SETTINGS)
    if library.SSL_read_early_data(session, room, len(room), ctypes.byref(count)) != FINISHED:
        raise EOFError
    if library.SSL_write_early_data(session, settings, len(settings), ctypes.byref(count)) != 1:
        raise EOFError
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(size):
        nonlocal buffer
        while len(buffer) < size:
            got = library.SSL_read(session, room, len(room))
            if got <= 0:
                raise EOFError
            buffer += room.raw[:got]
        part, buffer = buffer[:size], buffer[size:]
        return part

    buffer = b""
    read(len(PREFACE))
    while True:
        head = read(9)
        read(int.from_bytes(head[:3], "big"))
        kind, flags, number_ = head[3], head[4], int.from_bytes(head[5:], "big")
        if kind == HEADERS and flags & END_STREAM:
            answer = frame(HEADERS, END_HEADERS, number_, b"\x88") + frame(DATA, END_STREAM, number_, b"early")
            library.SSL_write(session, answer, len(answer))


def run(stream):
    try:
        serve(stream)
    except EOFError:
        pass
    finally:
        stream.close()


listener = socket.create_server(("127.0.0.1", 0))


def accept():
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=run, args=(stream,), daemon=True).start()


threading.Thread(target=accept, daemon=True).start()
print(listener.getsockname()[1], flush=True)
for line in sys.stdin:
    pass
