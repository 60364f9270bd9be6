"""An upstream that speaks HTTP/2 in clear and does what the last part of the path says. Prints its port, then answers
each line on standard input with what it has seen so far, as JSON; the line "release" ends the calls of "hold" first."""

import json
import socket
import sys
import threading
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions

seen = {"connections": 0, "calls": [], "resets": []}
refused = set()
connections = []


class Connection:
    def __init__(self, stream):
        seen["connections"] += 1
        self.number = seen["connections"]
        self.stream = stream
        self.waiting = {}
        self.calls = {}
        self.held = []
        # Bytes taken whose windows stay shut until "release", by stream.
        self.shut, self.is_open = {}, False
        # The same of bytes whose windows open again by little.
        self.dripping = {}
        self.lock = threading.Lock()
        connections.append(self)
        self.h2 = h2.connection.H2Connection(config=h2.config.H2Configuration(
            client_side=False, validate_outbound_headers=False, normalize_outbound_headers=False))
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        self.stream.sendall(self.h2.data_to_send())

    def serve(self):
        while True:
            data = self.stream.recv(65536)
            if not data:
                return
            with self.lock:
                for event in self.h2.receive_data(data):
                    self.take(event)
                self.flush()

    def release(self):
        with self.lock:
            for stream in self.held:
                self.answer(stream, b"held")
            self.held = []
            for stream, count in self.shut.items():
                self.h2.acknowledge_received_data(count, stream)
            self.shut, self.is_open = {}, True
            self.flush()

    def drip(self, stream):
        """Opens the windows again by little."""
        while self.dripping[stream]:
            time.sleep(0.2)
            with self.lock:
                part = min(self.dripping[stream], 6_000)
                self.dripping[stream] -= part
                self.h2.acknowledge_received_data(part, stream)
                self.flush()

    def take(self, event):
        if isinstance(event, h2.events.RequestReceived):
            fields = {name.decode(): value.decode() for name, value in event.headers}
            self.calls[event.stream_id] = {"fields": fields, "body": 0, "trailers": {}}
            seen["calls"].append([self.number, fields[":method"], fields[":path"]])
            self.play(event.stream_id, fields)
        elif isinstance(event, h2.events.DataReceived):
            call = self.calls[event.stream_id]
            call["body"] += len(event.data)
            if "/shut/" in call["fields"][":path"] and not self.is_open:
                self.shut[event.stream_id] = self.shut.get(event.stream_id, 0) + event.flow_controlled_length
            elif "/drip/" not in call["fields"][":path"]:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            else:
                is_first = event.stream_id not in self.dripping
                self.dripping[event.stream_id] = self.dripping.get(event.stream_id, 0) + event.flow_controlled_length
                if is_first:
                    threading.Thread(target=self.drip, args=(event.stream_id,), daemon=True).start()
        elif isinstance(event, h2.events.TrailersReceived):
            self.calls[event.stream_id]["trailers"] = {n.decode(): v.decode() for n, v in event.headers}
        elif isinstance(event, h2.events.StreamReset):
            seen["resets"].append([self.number, event.error_code])
            self.waiting.pop(event.stream_id, None)
        elif isinstance(event, h2.events.WindowUpdated):
            for stream in list(self.waiting):
                self.push(stream)
        elif isinstance(event, h2.events.StreamEnded):
            call = self.calls[event.stream_id]
            if call["fields"][":path"].endswith("/count"):
                self.answer(event.stream_id, json.dumps([call["body"], call["trailers"]]).encode())

    def answer(self, stream, body, *fields):
        self.h2.send_headers(stream, [(":status", "200"), *fields])
        self.waiting[stream] = body
        self.push(stream)

    def push(self, stream):
        body = self.waiting[stream]
        while body:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room <= 0:
                break
            self.h2.send_data(stream, body[:room])
            body = body[room:]
        self.waiting[stream] = body
        if not body:
            self.h2.end_stream(stream)
            del self.waiting[stream]

    def play(self, stream, fields):
        what = fields[":path"].rsplit("/", 1)[1]
        if what == "refuse" and fields[":path"] not in refused:
            refused.add(fields[":path"])
            self.h2.reset_stream(stream, 7)
        elif what == "refuse":
            self.answer(stream, b"second")
        elif what == "reset":
            self.h2.reset_stream(stream, 2)
        elif what == "half":
            self.h2.send_headers(stream, [(":status", "200"), ("content-length", "100")])
            self.h2.send_data(stream, b"half")
            self.flush()
            self.h2.reset_stream(stream, 2)
        elif what == "short":
            self.h2.send_headers(stream, [(":status", "200"), ("content-length", "10")])
            self.h2.send_data(stream, b"abc", end_stream=True)
        elif what == "close":
            self.stream.shutdown(socket.SHUT_RDWR)
        elif what == "goaway":
            self.answer(stream, b"last")
            self.h2.close_connection()
        elif what == "interim":
            self.h2.send_headers(stream, [(":status", "103"), ("link", "</style>")])
            self.answer(stream, b"final")
        elif what == "empty":
            self.h2.send_headers(stream, [(":status", "204")], end_stream=True)
        elif what == "hop":
            self.h2.send_headers(stream, [(":status", "200"), ("connection", "close")], end_stream=True)
        elif what == "big":
            self.answer(stream, b"z" * 3_000_000)
        elif what == "trailers":
            self.h2.send_headers(stream, [(":status", "200")])
            self.h2.send_data(stream, b"body")
            self.h2.send_headers(stream, [("x-sum", "4")], end_stream=True)
        elif what == "fields":
            self.answer(stream, json.dumps(fields).encode())
        elif what == "hold":
            self.held.append(stream)
        elif what == "ok":
            self.answer(stream, b"ok", ("content-length", "2"))


def accept(listener):
    while True:
        stream, _ = listener.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def run(stream=stream):
            try:
                Connection(stream).serve()
            except (OSError, h2.exceptions.ProtocolError):
                pass
            finally:
                stream.close()

        threading.Thread(target=run, daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=accept, args=(listener,), daemon=True).start()
print(listener.getsockname()[1], flush=True)
for line in sys.stdin:
    if line.strip() == "release":
        for connection in connections:
            connection.release()
    print(json.dumps(seen), flush=True)
