"""TLS by hand. With `caller PORT TRUST KEY`: a caller whose record comes in two pieces while another's handshake fails.
With `upstream CHAIN KEY`: an upstream whose records do what the path says; it prints its port.
"""

import os
import socket
import ssl
import sys
import threading


class Session:
    """A TLS session whose records are sent by whoever holds it."""

    def __init__(self, stream, context, **more):
        self.stream, self.inbound, self.outbound = stream, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.inbound, self.outbound, **more)
        self.wait(self.tls.do_handshake)

    def wait(self, step, *arguments):
        while True:
            try:
                result = step(*arguments)
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                part = self.stream.recv(65_536)
                if not part:
                    raise EOFError
                self.inbound.write(part)

    def flush(self):
        self.stream.sendall(self.outbound.read())

    def read(self):
        return self.wait(self.tls.read, 65_536)


def call(port, trust, key):
    def connect():
        stream = socket.create_connection(("127.0.0.1", port), 5)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream

    caller = Session(connect(), ssl.create_default_context(cafile=trust), server_hostname="localhost")
    caller.tls.write(f"GET /api/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
    record = caller.outbound.read()
    for _ in range(20):
        stranger = connect()
        stranger.sendall(b"\x16\x03\x01\x00\x05hello")
        # Until the alert has come, and the end: then its handshake has failed.
        while stranger.recv(1_024):
            pass
        stranger.close()
        caller.stream.sendall(record[:1])
        record = record[1:]
    caller.stream.sendall(record)
    print(caller.read().split(b"\r\n")[0].decode(), flush=True)


def serve(stream, context):
    session = Session(stream, context, server_side=True)
    count = 0
    while head := session.read():
        path = head.split()[1]
        count += 1
        if path.endswith(b"/garbage"):
            stream.sendall(b"\x17\x03\x03\x00\x40" + os.urandom(64))
        elif path.endswith(b"/goodbye") and count > 1:
            session.wait(lambda: None)
            try:
                session.tls.unwrap()
            except ssl.SSLWantReadError:
                pass
            session.flush()
            stream.close()
            return
        else:
            session.wait(session.tls.write, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def run(stream, context):
    try:
        serve(stream, context)
    except (OSError, EOFError):
        stream.close()


if sys.argv[1] == "caller":
    call(int(sys.argv[2]), sys.argv[3], sys.argv[4])
else:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(sys.argv[2], sys.argv[3])
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def accept():
        while True:
            threading.Thread(target=run, args=(listener.accept()[0], server), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    for line in sys.stdin:
        pass
