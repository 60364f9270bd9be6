"""An upstream that sends for as long as anybody takes it, then resets the connection; to calls for /…/ok it says so.

Prints its port, then answers each line on standard input with the number of connections that it has reset.
"""

import select
import socket
import struct
import sys
import threading

resets = 0
PART = b"x" * 65_536


def serve(stream):
    global resets
    while head := stream.recv(65_536):
        if head.split()[1].endswith(b"/ok"):
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            continue
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 30))
        stream.setblocking(False)
        # Until nothing has been taken for a while: whoever reads has stopped.
        while select.select([], [stream], [], 0.3)[1]:
            stream.send(PART)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
        resets += 1
        return


def run(stream):
    try:
        serve(stream)
    except OSError:
        stream.close()


listener = socket.create_server(("127.0.0.1", 0), backlog=128)


def accept():
    while True:
        threading.Thread(target=run, args=(listener.accept()[0],), daemon=True).start()


threading.Thread(target=accept, daemon=True).start()
print(listener.getsockname()[1], flush=True)
for line in sys.stdin:
    print(resets, flush=True)
