"""A caller of HTTP/2 whose request has a body of one byte to a frame.

Arguments: port, certificate, path, bearer key, bytes. Prints the status of the answer.
"""

import sys

import hpack
from wire import *

port, trust, path, key, count = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode(), sys.argv[4].encode(), int(sys.argv[5])
link = Link(port, trust)
link.shake_hands()
fields = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", path)]
head = hpack.Encoder().encode([*fields, (b"authorization", b"Bearer " + key)], huffman=False)
link.send(frame(HEADERS, END_HEADERS, 1, head))
link.socket.settimeout(20)
for _ in range(count // 1_000):
    # More in one read would be a flood: the answer to the ping says that these have been read.
    link.send(frame(DATA, 0, 1, b"x") * 1_000 + frame(PING, 0, 0, bytes(8)))
    link.wait(lambda name, *_: True if name == "ping" else None)
link.send(frame(DATA, END_STREAM, 1, b"x" * (count % 1_000)))
status = 0
while (event := link.event()) is not None and event[0] != "end":
    if event[0] == "headers":
        status = event[1]
    if event[0] in ("goaway", "reset") or event[0] in ("headers", "data") and event[2]["flags"] & END_STREAM:
        break
print(status or link.seen[-1], flush=True)
