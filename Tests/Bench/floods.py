"""What floods cost: the gateway's CPU and memory during each kind, and a good caller's time meanwhile.

Each kind is played for some seconds by two processes on connections of their own, one after the other; the good caller
is a third, on one HTTP/2 and one HTTP/1.1 connection. Arguments: seconds of each kind, words that its name contains.
"""

import multiprocessing
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import hpack

binary = os.environ["GATEWAY_BINARY"]
seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4
words = sys.argv[2:]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)


def frame(kind, flags=0, stream=0, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def number(value, size=4):
    return value.to_bytes(size, "big")


def block(*more, method=b"GET", path=b"/x"):
    fields = [(b":method", method), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", path)]
    return b"".join(
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in [*fields, *more]
    )


class Link:
    """A connection that takes what has come before it says more, or the gateway would only wait for it."""

    def __init__(self, stream):
        self.stream = stream

    def sendall(self, content):
        self.take()
        self.stream.settimeout(2)
        self.stream.sendall(content)

    def take(self):
        self.stream.settimeout(0)
        try:
            while self.stream.recv(65_536):
                pass
            raise OSError("ended")
        except (ssl.SSLWantReadError, BlockingIOError):
            pass


def connect(port, trust, protocol="h2"):
    context = ssl.create_default_context(cafile=trust)
    context.set_alpn_protocols([protocol])
    plain = socket.create_connection(("127.0.0.1", port), 5)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link = Link(context.wrap_socket(plain, server_hostname="localhost"))
    if protocol == "h2":
        link.sendall(PREFACE)
    return link


def odd(count):
    return range(1, 2 * count, 2)


GET, POST = block(), block(method=b"POST")


def again(content, times=400, first=b"", batch=50):
    """Says the same thing until the gateway ends the connection; returns how often."""

    def play(link):
        link.sendall(first)
        for sent in range(times):
            link.sendall(content * batch)
        return times * batch

    return play


def series(make, count, batch=20, first=b""):
    """Frames that differ by their stream."""

    def play(link):
        link.sendall(first)
        frames = [make(stream) for stream in odd(count)]
        for start in range(0, count, batch):
            link.sendall(b"".join(frames[start : start + batch]))
        return count

    return play


def waits(content, pause=1):
    def play(link):
        link.sendall(content)
        time.sleep(pause)
        return 1

    return play


def header_bomb(link):
    """One field in the table, then thousands of references to it."""
    encoder = hpack.Encoder()
    link.sendall(frame(HEADERS, 5, 1, encoder.encode([(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/x"), (b"x-b", b"a" * 3_900)])))
    for stream in range(3, 403, 2):
        link.sendall(frame(HEADERS, 5, stream, block() + b"\xbe" * 16_000))
    return 200


def table_bomb(link):
    """The table made small and large again, over and over."""
    for stream in odd(300):
        link.sendall(frame(HEADERS, 5, stream, b"\x20\x3f\xe1\x1f" + block() + b"".join(b"\x40\x02x" + bytes([97 + n % 26]) + b"\x7f" + number(97) * 30 for n in range(20))))
    return 300


def one_byte_records(link):
    for _ in range(400):
        for byte in frame(PING, 0, 0, b"12345678"):
            link.sendall(bytes([byte]))
    return 400


def tiny_windows(link):
    link.sendall(frame(SETTINGS, 0, 0, number(4, 2) + number(0)))
    link.sendall(b"".join(frame(HEADERS, 5, stream, block(path=b"/large")) for stream in odd(50)))
    for _ in range(200):
        link.sendall(b"".join(frame(WINDOW, 0, stream, number(1)) for stream in odd(50)))
    return 200 * 50


REQUEST = b"GET /x HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
KINDS = [
    ("none", "h2", None),
    ("rapid reset", "h2", series(lambda s: frame(HEADERS, 5, s, GET) + frame(RST, 0, s, number(8)), 4_000)),
    ("reset by the gateway", "h2", series(lambda s: frame(HEADERS, 4, s, POST) + frame(WINDOW, 0, s, number(0)), 4_000)),
    ("requests to be refused", "h2", series(lambda s: frame(HEADERS, 5, s, block(path=b"/keyed")), 4_000)),
    ("requests that are malformed", "h2", series(lambda s: frame(HEADERS, 5, s, block((b"connection", b"x"))), 4_000)),
    ("settings", "h2", again(frame(SETTINGS, 0, 0, number(3, 2) + number(100)))),
    ("ping", "h2", again(frame(PING, 0, 0, b"12345678"))),
    ("priority", "h2", again(frame(PRIORITY, 0, 3, number(1) + b"\x0f"))),
    ("priority update", "h2", again(frame(0x10, 0, 0, number(1) + b"u=1"))),
    ("window update", "h2", again(frame(WINDOW, 0, 0, number(1)))),
    ("unknown frames", "h2", again(frame(0x77, 0, 0, b"x" * 8))),
    ("goaway", "h2", again(frame(GOAWAY, 0, 0, bytes(8)))),
    ("empty data", "h2", again(frame(DATA, 0, 1), first=frame(HEADERS, 4, 1, POST))),
    ("data of one byte", "h2", again(frame(DATA, 0, 1, b"x"), first=frame(HEADERS, 4, 1, POST))),
    ("resets of closed streams", "h2", again(frame(RST, 0, 1, number(8)), first=frame(HEADERS, 5, 1, GET))),
    ("continuations", "h2", again(frame(CONTINUATION, 0, 1), first=frame(HEADERS, 1, 1, GET))),
    ("header bomb", "h2", header_bomb),
    ("table bomb", "h2", table_bomb),
    ("idle streams", "h2", waits(b"".join(frame(HEADERS, 4, s, POST) for s in odd(128)))),
    ("windows of zero", "h2", waits(frame(SETTINGS, 0, 0, number(4, 2) + number(0)) + b"".join(frame(HEADERS, 5, s, block(path=b"/large")) for s in odd(128)))),
    ("windows of one byte", "h2", tiny_windows),
    ("records of one byte", "h2", one_byte_records),
    ("half a head", "h2", waits(frame(HEADERS, 1, 1, GET))),
    ("handshakes", "h2", lambda link: 1),
    ("pipelined requests", "http/1.1", again(REQUEST + b"\r\n", 200)),
    ("pipelined refusals", "http/1.1", again(REQUEST.replace(b"/x", b"/keyed") + b"\r\n", 200)),
    ("malformed requests", "http/1.1", again(REQUEST + b"X : 1\r\n\r\n")),
    ("chunk extensions", "http/1.1", again(b"1;a=" + b"b" * 100 + b"\r\nx\r\n", first=CHUNKED)),
    ("chunks of one byte", "http/1.1", again(b"1\r\nx\r\n", first=CHUNKED)),
    ("fields without end", "http/1.1", again(b"X: 1\r\n", first=REQUEST)),
    ("empty lines", "http/1.1", again(b"\r\n")),
    ("expectations", "http/1.1", again(b"POST /x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", 100)),
    ("upgrades", "http/1.1", again(REQUEST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 100)),
]


def attack(kind, port, trust, end, result):
    _, protocol, play = next(each for each in KINDS if each[0] == kind)
    connections = said = 0
    while time.time() < end:
        try:
            link = connect(port, trust, protocol)
        except OSError:
            continue
        connections += 1
        try:
            said += play(link)
        except OSError:
            pass
        link.stream.close()
    result.put((connections, said))


def good_caller(port, trust, end, result):
    """Calls on two connections in turn; the times in milliseconds, and how many failed."""
    import httpx

    context = ssl.create_default_context(cafile=trust)
    clients = [httpx.Client(http2=http2, verify=context, timeout=10) for http2 in (True, False)]
    times, failed = [], 0
    while time.time() < end or not times:
        for client in clients:
            start = time.monotonic()
            try:
                if client.get(f"https://localhost:{port}/good").status_code != 200:
                    failed += 1
            except httpx.HTTPError:
                failed += 1
            times.append(1_000 * (time.monotonic() - start))
        time.sleep(0.002)
    result.put((sorted(times), failed))


def serve(port):
    """An upstream that answers at once, and takes what comes."""
    listener = socket.create_server(("127.0.0.1", port), backlog=1_024)

    def handle(stream):
        buffer = b""
        try:
            while part := stream.recv(65_536):
                buffer = buffer[-4:] + part
                for _ in range(buffer.count(b"GET ")):
                    size = 200_000 if b"/large" in buffer else 100
                    stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
                buffer = b""
        except OSError:
            pass
        stream.close()

    while True:
        threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()


class Gateway:
    def __init__(self, folder, upstream, other):
        run = lambda *command: subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        self.trust = f"{folder}/cert.pem"
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{folder}/key.pem", "-out", self.trust)
        self.port, self.admin = free_port(), free_port()
        with open(f"{folder}/gateway.conf", "w") as out:
            out.write(f"""
listen:
  https:
    address: "127.0.0.1:{self.port}"
    certificates: [{{ chain: {self.trust}, private_key: {folder}/key.pem }}]
admin: {{ address: "127.0.0.1:{self.admin}" }}
store: {{ url: "memory:" }}
tiers: {{ standard: {{ limits: [100/minute] }} }}
upstreams:
  main: {{ endpoints: ["http://127.0.0.1:{upstream}"], connections: 4096 }}
  good: {{ endpoints: ["http://127.0.0.1:{other}"] }}
routes:
  - {{ path: /good, access: public, upstream: good }}
  - {{ path: /keyed, upstream: main }}
  - {{ path: /**, access: public, upstream: main }}
timeouts: {{ drain_delay: 0s, drain: 0s }}
workers: 1
""")
        self.process = subprocess.Popen([binary, "run", "--config", f"{folder}/gateway.conf"], stdout=subprocess.DEVNULL, stderr=open(f"{folder}/log", "w"))
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            if self.process.poll() is not None:
                sys.exit(open(f"{folder}/log").read())
            time.sleep(0.05)

    def cpu(self):
        tasks = f"/proc/{self.process.pid}/task"
        return sum(int(open(f"{tasks}/{task}/schedstat").read().split()[0]) for task in os.listdir(tasks)) / 1e9

    def memory(self):
        lines = open(f"/proc/{self.process.pid}/status").read().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1_024

    def ended(self):
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics").read().decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("gateway_http2_floods_total"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(kind, play, gateway):
    results, good = multiprocessing.Queue(), multiprocessing.Queue()
    end = time.time() + seconds
    attackers = [
        multiprocessing.Process(target=attack, args=(kind, gateway.port, gateway.trust, end, results))
        for _ in range(2 if play else 0)
    ]
    caller = multiprocessing.Process(target=good_caller, args=(gateway.port, gateway.trust, end, good))
    cpu, start, ended, peak = gateway.cpu(), time.time(), gateway.ended(), 0.0
    for process in [*attackers, caller]:
        process.start()
    while time.time() < end:
        peak = max(peak, gateway.memory())
        time.sleep(0.05)
    share = 100 * (gateway.cpu() - cpu) / (time.time() - start)
    times, failed = good.get(timeout=30)
    said = [results.get(timeout=30) for _ in attackers]
    for process in [*attackers, caller]:
        process.join(10)
    at = lambda part: times[min(len(times) - 1, int(len(times) * part))]
    print(
        f"| {kind} | {sum(each[0] for each in said)} | {int(gateway.ended() - ended)} | {share:.0f} % | {peak:.0f} | "
        f"{len(times)} | {failed} | {at(0.5):.1f} | {at(0.99):.1f} | {times[-1]:.0f} |",
        flush=True,
    )


def main():
    with tempfile.TemporaryDirectory() as folder:
        # The good caller has an upstream of its own: what a flood makes its own wait for is not measured.
        ports = [free_port(), free_port()]
        upstreams = [multiprocessing.Process(target=serve, args=(port,), daemon=True) for port in ports]
        for upstream in upstreams:
            upstream.start()
        gateway = Gateway(folder, *ports)
        print("| flood | connections | ended as floods | CPU of one core | peak RSS, MiB | good calls | failed | p50, ms | p99, ms | worst, ms |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        try:
            for kind, _, play in KINDS:
                if all(word in kind for word in words):
                    measure(kind, play, gateway)
        finally:
            gateway.process.kill()
            for upstream in upstreams:
                upstream.kill()


if __name__ == "__main__":
    main()
