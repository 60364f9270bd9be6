"""Servers behind the gateway: WebSocket, gRPC, and HTTP/1.1 with events. Prints their ports as JSON, then serves
until standard input ends."""

import asyncio
import http.server
import json
import sys
import threading
from concurrent import futures

import grpc
import websockets.asyncio.server


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body, kind="text/plain"):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path.startswith("/api/events"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for number in range(5):
                self.wfile.write(f"id: {number}\ndata: event {number}\n\n".encode())
                self.wfile.flush()
                # The next event is not sent before the caller says that it has this one.
                if not heard.acquire(timeout=5):
                    return
            self.close_connection = True
        elif self.path.startswith("/api/heard"):
            heard.release()
            self.answer(b"ok")
        else:
            self.answer(f"GET {self.path}".encode())

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])), "application/octet-stream")

    def log_message(self, *arguments):
        pass


heard = threading.Semaphore(0)
left = threading.Semaphore(0)


async def echo(socket):
    async for message in socket:
        if message == "close":
            await socket.close(4001, "asked for")
        elif message == "headers":
            await socket.send(json.dumps(dict(socket.request.headers.raw_items())))
        else:
            await socket.send(message)


def handlers():
    """A service without generated code: messages are bytes."""

    def unary(request, context):
        if request == b"fail":
            context.set_trailing_metadata((("reason", "asked for"),))
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "asked for")
        if request == b"wait":
            threading.Event().wait(5)
        context.set_trailing_metadata((("tail", "yes"),))
        return request + b"|" + dict(context.invocation_metadata()).get("x-gateway-account", "none").encode()

    def down(request, context):
        for number in range(20):
            yield request + str(number).encode()

    def up(requests, context):
        return str(sum(len(request) for request in requests)).encode()

    def both(requests, context):
        for request in requests:
            yield request[::-1]

    def hang(request, context):
        """A stream without an end, which counts how often its caller has left."""
        context.add_callback(left.release)
        yield b"begun"
        threading.Event().wait(20)

    def was_left(request, context):
        return b"yes" if left.acquire(timeout=5) else b"no"

    def metadata(request, context):
        found = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-begin", "1"), ("x-begin-bin", b"\0\xff")))
        context.set_trailing_metadata((("x-end-bin", found.get("x-raw-bin", b"")),))
        return json.dumps(sorted(name for name in found)).encode()

    return grpc.method_handlers_generic_handler(
        "test.Echo",
        {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Down": grpc.unary_stream_rpc_method_handler(down),
            "Up": grpc.stream_unary_rpc_method_handler(up),
            "Hang": grpc.unary_stream_rpc_method_handler(hang),
            "WasLeft": grpc.unary_unary_rpc_method_handler(was_left),
            "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
            "Both": grpc.stream_stream_rpc_method_handler(both),
        },
    )


async def main():
    http.server.ThreadingHTTPServer.request_queue_size = 512
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    web.daemon_threads = True
    threading.Thread(target=web.serve_forever, daemon=True).start()
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((handlers(),))
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    async with websockets.asyncio.server.serve(
        echo, "127.0.0.1", 0, subprotocols=["chat"], ping_interval=None, max_size=None
    ) as sockets:
        ports = {
            "web": web.server_port,
            "grpc": grpc_port,
            "websocket": sockets.sockets[0].getsockname()[1],
        }
        print(json.dumps(ports), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.stop(0)


asyncio.run(main())
