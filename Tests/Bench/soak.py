#!/usr/bin/env python3
"""A gateway of two workers under mixed traffic, while what it stands on comes and goes: Tests/Bench/soak [--minutes 30]

Callers of HTTP/1.1 and HTTP/2 with small and large bodies, uploads, WebSockets, event streams, wrong keys, full
windows, and callers who leave. Meanwhile reloads (good, bad, of certificates), revoked keys, restarts of Redis,
upstreams that die or hang, and logs that are moved. Every call has an X-Request-Id of its own, which the gateway
keeps: a call that failed must have its line in the access log, with a reason that fits the caller or something that
was done at that time. Prints one line of JSON; exit status 1 when something is unexplained.
"""

import argparse
import asyncio
import collections
import datetime
import glob
import http.client
import itertools
import json
import os
import signal
import ssl
import subprocess
import sys
import time

import httpx
import websockets.asyncio.client
import websockets.asyncio.server
import websockets.exceptions

from bench import free_port, wait_for
from fleet_lab import Redis, make_certificate

# What explains a reason: the callers that provoke it, or the deeds after which it may be seen, for how many seconds.
UPSTREAM_DEEDS = {"upstream dies": 25, "upstream hangs": 25}
CALLERS = {
    "key_unknown": {"stranger"}, "too_many_failures": {"stranger"}, "limited": {"limited"}, "caller_gone": {"leaver"},
}
DEEDS = {
    "connect_failed": UPSTREAM_DEEDS, "upstream_closed": UPSTREAM_DEEDS, "upstream_timeout": UPSTREAM_DEEDS,
    "tunnel_cut": {"upstream dies": 2},
    "no_healthy_endpoint": UPSTREAM_DEEDS, "key_revoked": {"key revoked": 10},
    "store_unavailable": {"Redis restarts": 15, "the log says why": 15},
}
LARGE = b"x" * (1 << 20)


async def serve_upstream(web_port, socket_port):
    """What stands behind the gateway: bodies of 1 KiB and 1 MiB, lengths of uploads, events, echoes of messages."""

    async def events(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in itertools.count():
            text = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%s\r\n" % (len(text), text))
            await writer.drain()
            await asyncio.sleep(1)

    async def body_length(reader, fields):
        if "content-length" in fields:
            return len(await reader.readexactly(int(fields["content-length"])))
        total = 0
        while "transfer-encoding" in fields:
            size = int(await reader.readline(), 16)
            await reader.readexactly(size + 2)
            total += size
            if size == 0:
                break
        return total

    async def web(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                fields = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:] if line)}
                path = lines[0].split()[1]
                length = await body_length(reader, fields)
                if path == "/api/events":
                    await events(writer)
                body = LARGE if path == "/api/large" else b"%d" % length if length else LARGE[:1024]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def echo(socket):
        try:
            async for message in socket:
                await socket.send(message)
        except websockets.exceptions.ConnectionClosed:
            pass

    await asyncio.start_server(web, "127.0.0.1", web_port)
    async with websockets.asyncio.server.serve(echo, "127.0.0.1", socket_port, ping_interval=None):
        await asyncio.Future()


class Upstream:
    def __init__(self):
        self.ports = free_port(), free_port()
        self.start()

    def start(self):
        self.process = subprocess.Popen([sys.executable, __file__, "--upstream", *map(str, self.ports)])
        for port in self.ports:
            wait_for(port, self.process)


class Soak:
    def __init__(self, options):
        self.options, self.folder = options, options.folder
        self.number = itertools.count()
        self.deeds, self.failures, self.samples = [], [], []
        self.calls = collections.Counter()
        # Calls that we ended ourselves, at the very end.
        self.left = set()
        self.over = False
        self.redis = Redis(self.folder, options=["--appendonly", "yes", "--appendfsync", "always"])
        self.upstreams = [Upstream(), Upstream()]
        for name in ("one", "two"):
            self.make_certificate(name)
        self.trust = self.context()
        self.link("one")
        self.store("main", "sk_live_main", "open")
        self.store("limited", "sk_live_limited", "tight")
        self.renew_key()
        self.start_gateway()

    def make_certificate(self, name):
        os.makedirs(f"{self.folder}/{name}")
        make_certificate(f"{self.folder}/{name}/chain.pem", f"{self.folder}/{name}/key.pem")

    def context(self):
        context = ssl.create_default_context()
        for name in ("one", "two"):
            context.load_verify_locations(f"{self.folder}/{name}/chain.pem")
        return context

    def link(self, name):
        """As mounted secrets change: a symbolic link that both paths go through."""
        os.symlink(name, f"{self.folder}/next")
        os.rename(f"{self.folder}/next", f"{self.folder}/now")
        self.certificate = name

    def store(self, account, key, tier):
        self.redis.store(key, id=f"key_{account}", account=account, tier=tier)
        self.redis.stream.flush()
        self.redis.reply()

    def renew_key(self):
        """The key that is revoked now and then; a new one takes its place."""
        self.passing = f"sk_live_passing{next(self.number)}"
        self.store("passing", self.passing, "open")

    def start_gateway(self):
        folder = self.folder
        self.port, self.admin = free_port(), free_port()
        with open(f"{folder}/token", "w") as file:
            file.write("the-token-of-the-soak")
        self.text = f"""
listen:
  https:
    address: "127.0.0.1:{self.port}"
    certificates: [{{ chain: "{folder}/now/chain.pem", private_key: "{folder}/now/key.pem" }}]
admin: {{ address: "127.0.0.1:{self.admin}", token_file: "{folder}/token" }}
store: {{ url: "redis://127.0.0.1:{self.redis.port}/0" }}
tiers:
  open: {{ limits: ["1000000/minute"] }}
  tight: {{ limits: ["60/minute"] }}
upstreams:
  web:
    endpoints: [{", ".join(f'"http://127.0.0.1:{u.ports[0]}"' for u in self.upstreams)}]
    response_timeout: 2s
    health: {{ path: /healthz, interval: 1s }}
  sockets: {{ endpoints: [{", ".join(f'"http://127.0.0.1:{u.ports[1]}"' for u in self.upstreams)}] }}
routes:
  - {{ path: /api/**, upstream: web, idle_timeout: 20s }}
  - {{ path: /ws/**, upstream: sockets }}
access_log: {{ path: "{folder}/access.log" }}
trusted_proxies: [127.0.0.1]
timeouts: {{ drain_delay: 0ms, drain: 5s }}
workers: 2
"""
        self.configure(self.text)
        self.log = open(f"{folder}/gateway.log", "w")
        self.gateway = subprocess.Popen(
            [self.options.gateway, "run", "--config", f"{folder}/gateway.conf"], stderr=self.log)
        if not wait_for(self.port, self.gateway) or not wait_for(self.admin, self.gateway):
            sys.exit(f"the gateway does not start: see {folder}/gateway.log")

    def configure(self, text):
        with open(f"{self.folder}/gateway.conf", "w") as file:
            file.write(text)

    # Callers

    def begin(self, kind, key):
        """Fields of one more call, and what is noted of it."""
        self.calls[kind] += 1
        call = {"id": f"soak-{next(self.number)}", "kind": kind, "began": time.time()}
        return call, {"Authorization": f"Bearer {key}", "X-Request-Id": call["id"]}

    def fail(self, call, what):
        self.failures.append({**call, "ended": time.time(), "what": str(what) or type(what).__name__})

    def passes(self, call, status, size, wanted):
        if status != 200:
            self.fail(call, status)
        elif size != wanted:
            self.fail(call, f"{size} bytes instead of {wanted}")

    async def connect(self):
        reader, writer = await asyncio.open_connection("localhost", self.port, ssl=self.trust)
        return reader, writer

    @staticmethod
    async def response(reader):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        return int(lines[0].split()[1]), {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}

    async def web1(self, kind, rate, path="/api/small", wanted=1024, upload=0, chunked=False, fresh=False, key=None):
        """Calls on HTTP/1.1, on one connection or on one for each."""
        line = None
        while not self.over:
            await asyncio.sleep(1 / rate)
            call, fields = self.begin(kind, key or "sk_live_main")
            try:
                line = line or await self.connect()
                reader, writer = line
                method = "POST" if upload else "GET"
                text = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
                text += "".join(f"{name}: {value}\r\n" for name, value in fields.items())
                body = LARGE[:upload]
                if chunked:
                    text += "Transfer-Encoding: chunked\r\n"
                    body = b"".join(b"4000\r\n" + LARGE[:0x4000] + b"\r\n" for _ in range(upload // 0x4000))
                    body += b"0\r\n\r\n"
                elif upload:
                    text += f"Content-Length: {upload}\r\n"
                writer.write(text.encode() + b"\r\n" + body)
                await writer.drain()
                status, answer = await self.response(reader)
                if kind == "leaver":
                    raise ConnectionError("left")
                got = await reader.readexactly(int(answer["content-length"]))
                self.passes(call, status, len(got), len(str(upload)) if upload else wanted)
                if answer.get("connection") == "close" or fresh:
                    raise EOFError
            except (OSError, EOFError, asyncio.IncompleteReadError) as end:
                if type(end) is not EOFError:
                    self.fail(call, end)
                if line:
                    line[1].transport.abort() if kind == "leaver" else line[1].close()
                line = None
        if line:
            line[1].close()

    async def web2(self, kind, rate, path="/api/small", wanted=1024, upload=0, key=None):
        """Calls on HTTP/2, three at a time on one connection."""
        # A context of its own: the client has it offer HTTP/2.
        async with httpx.AsyncClient(http2=True, http1=False, verify=self.context(), timeout=30) as client:

            async def one():
                call, fields = self.begin(kind, key or "sk_live_main")
                try:
                    answer = await client.request(
                        "POST" if upload else "GET", f"https://localhost:{self.port}{path}", headers=fields,
                        content=LARGE[:upload] if upload else None)
                    self.passes(call, answer.status_code, len(answer.content), len(str(upload)) if upload else wanted)
                except httpx.HTTPError as end:
                    self.fail(call, repr(end))

            while not self.over:
                await asyncio.gather(*[one() for _ in range(3)], asyncio.sleep(3 / rate))

    async def events(self):
        """An event stream after the other, of the key that is revoked now and then."""
        while not self.over:
            call, fields = self.begin("events", self.passing)
            try:
                reader, writer = await self.connect()
                text = "GET /api/events HTTP/1.1\r\nHost: localhost\r\n"
                text += "".join(f"{name}: {value}\r\n" for name, value in fields.items())
                writer.write(text.encode() + b"\r\n")
                status, _ = await self.response(reader)
                if status != 200:
                    self.fail(call, status)
                while status == 200 and not self.over:
                    size = int(await reader.readline() or b"0", 16)
                    await reader.readexactly(size + 2)
                    if size == 0:
                        raise ConnectionError("the stream ended")
            except (OSError, asyncio.IncompleteReadError) as end:
                self.fail(call, end)
            writer.close()
            if self.over:
                self.left.add(call["id"])
            await asyncio.sleep(1)

    async def socket(self):
        while not self.over:
            call, fields = self.begin("WebSocket", self.passing)
            try:
                async with websockets.asyncio.client.connect(
                        f"wss://localhost:{self.port}/ws/echo", ssl=self.trust, additional_headers=fields,
                        ping_interval=None) as socket:
                    while not self.over:
                        await socket.send("message")
                        await asyncio.wait_for(socket.recv(), 10)
                        await asyncio.sleep(0.5)
            except (OSError, EOFError, websockets.exceptions.WebSocketException, asyncio.TimeoutError) as end:
                self.fail(call, repr(end))
            await asyncio.sleep(1)

    # Deeds

    async def play(self):
        deeds = [
            self.reload, self.restart_redis, self.reload_badly, self.end_upstream, self.change_certificate,
            self.revoke, self.reload_over_api, self.hang_upstream, self.move_log]
        for deed in itertools.cycle(deeds):
            await asyncio.sleep(self.options.pause)
            if self.over:
                return
            await deed()

    def did(self, what):
        self.deeds.append((time.time(), what))

    async def reload(self):
        # The comment makes the text another one; the tier's limit as well.
        self.text = self.text.replace("1000000/minute", "999999/minute") if "1000000/" in self.text \
            else self.text.replace("999999/minute", "1000000/minute")
        self.configure(self.text)
        self.gateway.send_signal(signal.SIGHUP)
        self.did("reload")

    async def reload_badly(self):
        self.configure(self.text.replace("upstream: web", "upstream: wbe"))
        self.gateway.send_signal(signal.SIGHUP)
        self.did("bad reload")
        await asyncio.sleep(1)
        self.configure(self.text)

    async def change_certificate(self):
        self.link("two" if self.certificate == "one" else "one")
        self.did("certificate")

    async def reload_over_api(self):
        def post():
            connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
            connection.request("POST", "/v1/reload", headers={"Authorization": "Bearer the-token-of-the-soak"})
            return connection.getresponse().status
        status = await asyncio.to_thread(post)
        self.did("reload over the API" if status < 300 else f"reload over the API: {status}")

    async def restart_redis(self):
        self.did("Redis restarts")
        self.redis.process.kill()
        self.redis.process.wait()
        await asyncio.sleep(2)
        self.redis.start()
        self.did("Redis restarts")

    async def end_upstream(self):
        upstream = self.upstreams[len(self.deeds) % 2]
        self.did("upstream dies")
        upstream.process.kill()
        upstream.process.wait()
        await asyncio.sleep(3)
        await asyncio.to_thread(upstream.start)

    async def hang_upstream(self):
        upstream = self.upstreams[len(self.deeds) % 2]
        self.did("upstream hangs")
        upstream.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(4)
        upstream.process.send_signal(signal.SIGCONT)

    async def revoke(self):
        old = self.passing
        self.renew_key()
        self.redis.store(old, status="revoked")
        self.redis.stream.flush()
        self.redis.reply()
        self.did("key revoked")

    async def move_log(self):
        os.rename(f"{self.folder}/access.log", f"{self.folder}/access.log.{len(self.deeds)}")
        self.gateway.send_signal(signal.SIGUSR1)
        self.did("log moved")

    async def sample(self):
        while not self.over:
            process = f"/proc/{self.gateway.pid}"
            with open(f"{process}/status") as file:
                status = dict(line.split(":\t") for line in file if ":\t" in line)
            self.samples.append((
                int(status["VmRSS"].split()[0]), len(os.listdir(f"{process}/fd")), int(status["Threads"])))
            await asyncio.sleep(5)

    async def run(self):
        callers = [
            *[self.web1("HTTP/1.1", 10) for _ in range(4)],
            self.web1("HTTP/1.1, fresh", 2, fresh=True), self.web1("large", 0.5, "/api/large", 1 << 20),
            self.web1("upload", 0.5, upload=1 << 20), self.web1("chunked upload", 0.5, upload=1 << 19, chunked=True),
            self.web1("stranger", 1, key="sk_live_stranger"), self.web1("limited", 2, key="sk_live_limited"),
            self.web1("leaver", 0.3, "/api/large"),
            self.web2("HTTP/2", 12), self.web2("HTTP/2", 12), self.web2("HTTP/2 large", 0.5, "/api/large", 1 << 20),
            self.web2("HTTP/2 upload", 0.5, upload=1 << 18), self.web2("stranger", 0.5, key="sk_live_stranger"),
            *[self.events() for _ in range(4)], *[self.socket() for _ in range(4)]]
        tasks = [asyncio.create_task(each) for each in [*callers, self.play(), self.sample()]]
        finished, _ = await asyncio.wait(
            tasks, timeout=self.options.minutes * 60, return_when=asyncio.FIRST_EXCEPTION)
        self.over = True
        await asyncio.wait_for(asyncio.gather(*tasks), 60)
        self.gateway.terminate()
        self.ended = await asyncio.to_thread(self.gateway.wait, 30)

    # What came of it

    def lines(self):
        result = {}
        for path in glob.glob(f"{self.folder}/access.log*"):
            with open(path) as file:
                for line in file:
                    entry = json.loads(line)
                    result[entry["request_id"]] = entry
        return result

    def note_outages(self):
        """Redis may be late on a machine that is busy: the gateway's own log tells of it."""
        with open(f"{self.folder}/gateway.log") as file:
            for line in file:
                if " warning: store: " in line:
                    when = datetime.datetime.strptime(line.split()[0], "%Y-%m-%dT%H:%M:%SZ")
                    self.deeds.append((when.replace(tzinfo=datetime.UTC).timestamp(), "the log says why"))

    def explains(self, failure, line):
        reason = line and line["reason"]
        if failure["kind"] in CALLERS.get(reason, ()) or (failure["kind"], failure["what"]) == ("leaver", "left"):
            return True
        fitting = DEEDS.get(reason, {})
        return any(
            what in fitting and when <= failure["ended"] <= when + fitting[what] for when, what in self.deeds)

    def lags(self, lines):
        """How long after Redis had confirmed their key's revocation streams ended, by the gateway's own clock: these
        callers share a processor with everything here, and notice late."""
        result = collections.defaultdict(list)
        for line in lines.values():
            if line["reason"] == "key_revoked" and line["status"] < 300:
                ended = datetime.datetime.fromisoformat(line["time"]).timestamp()
                since = [ended - when for when, what in self.deeds if what == "key revoked" and when < ended + 0.1]
                result["WebSocket" if line["status"] == 101 else "event stream"].append(max(0, min(since)))
        return {kind: {"streams": len(found), "latest_ms": round(max(found) * 1e3)} for kind, found in result.items()}

    def report(self):
        lines = self.lines()
        deeds = dict(collections.Counter(what for _, what in self.deeds))
        self.note_outages()
        failed = {failure["id"] for failure in self.failures}
        reasons, unexplained = collections.Counter(), []
        for failure in self.failures:
            line = lines.get(failure["id"])
            reasons[f"{line['reason'] if line else 'no line'} {line['status'] if line else ''}".strip()] += 1
            if not self.explains(failure, line):
                unexplained.append({**failure, "line": line})
        settled = self.samples[max(1, min(12, len(self.samples) // 6)):]
        third = max(1, len(settled) // 3)
        first, last = settled[:third], settled[-third:]
        mean = lambda rows, place: sum(row[place] for row in rows) / len(rows)
        figures = {
            "minutes": self.options.minutes, "calls": dict(self.calls), "calls_in_all": sum(self.calls.values()),
            "lines": len(lines), "failures": dict(reasons), "unexplained": len(unexplained),
            "failed_in_log_alone": sum(
                line["reason"] != "ok" and name.startswith("soak-") and name not in failed | self.left
                for name, line in lines.items()),
            "deeds": deeds,
            "stream_end_after_revocation": self.lags(lines),
            "exit": self.ended,
        }
        for place, name in enumerate(("resident_KiB", "descriptors", "threads")):
            figures[name] = {
                "first_third": round(mean(first, place), 1), "last_third": round(mean(last, place), 1),
                "growth": f"{100 * (mean(last, place) / mean(first, place) - 1):+.1f} %",
                "max": max(row[place] for row in self.samples)}
        print(json.dumps(figures), flush=True)
        for each in unexplained[:20]:
            print("unexplained", json.dumps(each), file=sys.stderr)
        return 1 if unexplained or self.ended != 0 else 0

    def end(self):
        for process in [self.gateway, self.redis.process, *[u.process for u in self.upstreams]]:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder")
    parser.add_argument("--gateway")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--pause", type=float, default=8, help="seconds between two deeds")
    parser.add_argument("--upstream", nargs=2, type=int)
    options = parser.parse_args()
    if options.upstream:
        asyncio.run(serve_upstream(*options.upstream))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    soak = Soak(options)
    try:
        asyncio.run(soak.run())
        sys.exit(soak.report())
    finally:
        soak.end()


if __name__ == "__main__":
    main()
