"""An upstream of HTTP/1.1 over TLS that does what the last part of the path says.

Arguments: certificate chain, private key. Prints its port, then answers each line on standard input with the number of
connections it has seen.
"""

import hashlib
import socket
import ssl
import sys
import threading

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
connections = 0
LARGE = b"".join(b"%08d" % index for index in range(400_000))


def answer(content):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content


def serve(stream):
    reader = stream.makefile("rb")
    while line := reader.readline():
        length = 0
        while (field := reader.readline()) not in (b"\r\n", b""):
            if field.lower().startswith(b"content-length:"):
                length = int(field[15:])
        body = reader.read(length)
        what = line.split()[1].rsplit(b"/", 1)[1]
        if what == b"large":
            stream.sendall(answer(LARGE))
        elif what == b"digest":
            stream.sendall(answer(hashlib.sha256(body).hexdigest().encode()))
        elif what in (b"goodbye", b"silence"):
            stream.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf or whole")
            if what == b"goodbye":
                stream.unwrap()
            stream.shutdown(socket.SHUT_RDWR)
            return
        else:
            stream.sendall(answer(b"ok"))


def run(plain):
    global connections
    try:
        with context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False) as stream:
            connections += 1
            serve(stream)
    except OSError:
        pass


def accept(listener):
    while True:
        threading.Thread(target=run, args=(listener.accept()[0],), daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0), backlog=128)
threading.Thread(target=accept, args=(listener,), daemon=True).start()
print(listener.getsockname()[1], flush=True)
for line in sys.stdin:
    print(connections, flush=True)
