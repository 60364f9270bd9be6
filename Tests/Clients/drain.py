"""Callers of HTTP/2 that keep many calls under way on each connection, open no stream once they are told to go away, and
retry nothing. Arguments: port, certificate, key, connections, calls under way on each, and "end" or "again": what a
caller does that was told to go. Prints "busy" when all are, and at the end, or upon a line on standard input where they
go on, how many calls there were and what became of those that failed."""

import json
import sys
import threading

import hyperframe.frame as frames

from frames import PREFACE, Connection

port, trust, key, connections, under_way = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
goes_on = sys.argv[6] == "again"
fields = [
    (b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/api/x"),
    (b"authorization", b"Bearer " + key.encode()),
]
lock = threading.Lock()
result = {"calls": 0, "rounds": 0, "failed": []}
busy = [threading.Event() for _ in range(connections)]
is_over = threading.Event()


class Caller:
    def __init__(self):
        self.connection = Connection(port, trust)
        self.open = {}
        self.next = 1
        self.was_told = False
        self.count = 0

    def ask(self):
        out = []
        while len(self.open) < under_way and not self.was_told and not is_over.is_set():
            out += self.connection.headers(self.next, fields, True)
            self.open[self.next] = 0
            self.next += 2
        if out:
            self.connection.send(*out)

    def end(self, stream, what):
        status = self.open.pop(stream, None)
        with lock:
            result["calls"] += 1
            if what or status != 200:
                result["failed"].append(what or f"status {status}")
        self.count += 1

    def take(self, frame):
        if isinstance(frame, frames.SettingsFrame) and "ACK" not in frame.flags:
            self.connection.send(frames.SettingsFrame(0, flags=["ACK"]))
        elif isinstance(frame, frames.PingFrame) and "ACK" not in frame.flags:
            self.connection.send(frames.PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]))
        elif isinstance(frame, frames.GoAwayFrame):
            self.was_told = True
            for stream in [s for s in self.open if s > frame.last_stream_id]:
                self.end(stream, "not looked at")
        elif isinstance(frame, frames.HeadersFrame):
            named = dict(self.connection.decoder.decode(bytes(frame.data), raw=True))
            self.open[frame.stream_id] = int(named.get(b":status", b"0"))
        elif isinstance(frame, frames.DataFrame) and frame.data:
            self.connection.send(frames.WindowUpdateFrame(0, window_increment=len(frame.data)))
        elif isinstance(frame, frames.RstStreamFrame):
            self.end(frame.stream_id, f"reset {frame.error_code}")
        if "END_STREAM" in frame.flags:
            self.end(frame.stream_id, "")

    def run(self, event):
        self.connection.socket.sendall(PREFACE)
        self.connection.send(frames.SettingsFrame(0))
        self.ask()
        while self.open:
            try:
                frame = self.connection.receive()
            except OSError as error:
                frame, what = None, f"{error}"
            else:
                what = "the connection ended"
            if frame is None:
                for stream in list(self.open):
                    self.end(stream, what)
                break
            self.take(frame)
            if self.count > 100:
                event.set()
            try:
                self.ask()
            except OSError as error:
                for stream in list(self.open):
                    self.end(stream, f"{error}")
        self.connection.socket.close()
        with lock:
            result["rounds"] += 1


def call(event):
    while not is_over.is_set():
        try:
            caller = Caller()
        except OSError as error:
            with lock:
                result["failed"].append(f"connecting: {error}")
            return
        caller.run(event)
        if not goes_on:
            return


threads = [threading.Thread(target=call, args=(event,)) for event in busy]
for thread in threads:
    thread.start()
for event in busy:
    event.wait(30)
print("busy", flush=True)
if goes_on:
    sys.stdin.readline()
    is_over.set()
for thread in threads:
    thread.join(60)
print(json.dumps(result), flush=True)
