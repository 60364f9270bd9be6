"""Measures the gateway beside its peers: CPU per request by the scheduler's accounting, alternated, pinned."""

import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

import peers

UNKNOWN = "sk_live_unknown"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process, seconds=10):
    deadline = time.time() + seconds
    while time.time() < deadline:
        if process.poll() is not None:
            return False
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.02)
    return False


def family(root):
    """A process and its children."""
    found = [root]
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(open(f"/proc/{entry}/stat").read().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            if parent in found:
                found.append(int(entry))
    return found


def cpu_nanoseconds(processes):
    total = 0
    for process in processes:
        for task in os.listdir(f"/proc/{process}/task"):
            try:
                total += int(open(f"/proc/{process}/task/{task}/schedstat").read().split()[0])
            except OSError:
                pass
    return total


def system_seconds(processes):
    """Time in the kernel, in ticks of 10 ms."""
    total = 0
    for process in processes:
        total += int(open(f"/proc/{process}/stat").read().rsplit(")", 1)[1].split()[12])
    return total / os.sysconf("SC_CLK_TCK")


class Bench:
    def __init__(self, options):
        self.options = options
        self.folder = options.folder
        self.processes = []
        self.subjects = {}
        self.versions = {}

    def start(self, name, command, port, core, environment=None):
        with open(os.path.join(self.folder, f"{name}.out"), "w") as out:
            process = subprocess.Popen(
                ["taskset", "-c", str(core)] + command, stdout=out, stderr=out,
                env={**os.environ, **(environment or {})})
        self.processes.append(process)
        if not wait_for(port, process):
            text = open(os.path.join(self.folder, f"{name}.out")).read()[-400:]
            print(f"{name} does not start and is left out: {text}", file=sys.stderr)
            return None
        return process

    def subject(self, name, command, port):
        process = self.start(name, command, port, 0)
        if process:
            time.sleep(0.3)
            self.subjects[name] = (family(process.pid), port)

    def prepare(self):
        folder = self.folder
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9",
             "-subj", "/CN=localhost", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/certificate.pem"],
            check=True, stderr=subprocess.DEVNULL)
        with open(f"{folder}/keys", "w") as file:
            file.write("\n".join(peers.KEYS) + "\n")
        with open(f"{folder}/unknown", "w") as file:
            file.write(UNKNOWN + "\n")
        with open(f"{folder}/limited", "w") as file:
            file.write(peers.LIMITED + "\n")
        upstream = free_port()
        self.start("upstream", [f"{folder}/upstream", str(upstream)], upstream, 1)
        redis = free_port()
        self.start("redis", ["redis-server", "--port", str(redis), "--save", "", "--dir", folder], redis, 1)
        self.redis = redis
        commands, script = [], None
        for number, key in enumerate(peers.KEYS):
            digest = hashlib.sha256(key.encode()).hexdigest()
            commands.append(f"HSET gateway:key:{digest} tier bench account a{number} scopes bench:read")
            digest = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
            commands.append(f"HSET bench:key:{digest} tier bench account a{number} scopes bench:read")
        self.redis_cli([], "\n".join(commands) + "\n")
        script = self.redis_cli(["SCRIPT", "LOAD", peers.LUA_SCRIPT]).strip()
        gateway = self.options.gateway
        port = free_port()
        self.subject("gateway", [gateway, "run", "--config", peers.gateway(folder, port, free_port(), upstream)], port)
        port = free_port()
        self.subject(
            "gateway-redis",
            [gateway, "run", "--config", peers.gateway(folder, port, free_port(), upstream, redis)], port)
        messages = free_port()
        self.start("messages", [f"{folder}/messages", str(messages)], messages, 1)
        with open(f"{folder}/message", "wb") as file:
            file.write(b"\0\0\0\0\x40" + b"x" * 64)
        port = free_port()
        self.subject("gateway-grpc", [
            gateway, "run", "--config", peers.gateway(folder, port, free_port(), upstream, grpc=messages)], port)
        if shutil.which("nginx"):
            port = free_port()
            self.subject("nginx-grpc", ["nginx", "-c", peers.nginx_grpc(folder, port, messages)], port)
        self.versions["gateway"] = self.text([gateway, "--version"])
        if shutil.which("nginx"):
            self.versions["nginx"] = self.text(["nginx", "-v"])
            port = free_port()
            self.subject("nginx", ["nginx", "-c", peers.nginx(folder, "nginx", port, upstream)], port)
            port = free_port()
            self.subject("nginx-limit", ["nginx", "-c", peers.nginx_limit(folder, port, upstream)], port)
            port = free_port()
            self.subject(
                "nginx-lua-redis", ["nginx", "-c", peers.nginx_lua(folder, port, upstream, redis, script)], port)
        if shutil.which("haproxy"):
            self.versions["haproxy"] = self.text(["haproxy", "-v"]).split("\n")[0]
            for guarded in [False, True]:
                port = free_port()
                name = "haproxy-guarded" if guarded else "haproxy"
                self.subject(name, ["haproxy", "-db", "-f", peers.haproxy(folder, port, upstream, guarded)], port)

        envoy = self.options.envoy or shutil.which("envoy")
        if envoy:
            self.versions["envoy"] = self.text([envoy, "--version"]).split("version:")[-1].strip()
            port = free_port()
            self.subject("envoy-guarded", [
                envoy, "-c", peers.envoy(folder, port, upstream), "--concurrency", "1", "--disable-hot-restart",
                "--log-level", "error"], port)

    def redis_cli(self, arguments, text=None):
        return subprocess.run(
            ["redis-cli", "-p", str(self.redis)] + arguments, input=text, capture_output=True, text=True).stdout

    @staticmethod
    def text(command):
        done = subprocess.run(command, capture_output=True, text=True)
        return (done.stdout + done.stderr).strip()

    def load(self, port, row, seconds):
        if "streams" in row:
            return self.load_http2(port, row, seconds)
        command = ["taskset", "-c", "1", f"{self.folder}/load", "--port", str(port), "--path", row["path"],
                   "--seconds", str(seconds), "--status", str(row.get("status", 200)),
                   "--keys", f"{self.folder}/{row.get('keys', 'keys')}", "--connections",
                   str(row.get("connections", 64))]
        if "body" in row:
            command += ["--body", str(row["body"])]
        if row.get("handshakes"):
            command.append("--handshakes")
        for option in ("rate", "tolerate"):
            if option in row:
                command += [f"--{option}", str(row[option])]
        done = subprocess.run(command, capture_output=True, text=True)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def load_http2(self, port, row, seconds):
        """The same over HTTP/2 by h2load, which tells no percentiles of a run that time ends."""
        command = ["taskset", "-c", "1", "h2load", "-D", str(int(max(1, seconds))), "-c", str(row["connections"]), "-m",
                   str(row["streams"]), "-H", f"authorization: Bearer {peers.KEYS[0]}"]
        if "message" in row:
            command += ["-d", row["message"], "-H", "content-type: application/grpc", "-H", "te: trailers"]
        done = subprocess.run(command + [f"https://127.0.0.1:{port}{row['path']}"], capture_output=True, text=True)
        counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
        answers = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", done.stdout)
        body = re.search(r"\((\d+)\) data", done.stdout)
        if not counts or not answers or not body:
            return None
        requests, errors = int(counts[1]), int(counts[2]) + int(counts[3]) + sum(int(answers[n]) for n in (2, 3, 4))
        # Whole bodies only: what was under way at the end may add some.
        if int(body[1]) < requests * row["body"]:
            errors += 1
        return {"requests": requests, "errors": errors, "seconds": max(1, int(seconds)), "p50_us": 0, "p99_us": 0}

    def measure(self, name, row, seconds):
        processes, port = self.subjects[name]
        before, system = cpu_nanoseconds(processes), system_seconds(processes)
        commands = self.redis_commands() if name == "gateway-redis" else 0
        result = self.load(port, row, seconds)
        if not result or result["errors"] or not result["requests"]:
            return None
        spent = cpu_nanoseconds(processes) - before
        result["us"] = spent / 1000 / result["requests"]
        result["busy"] = spent / 1e9 / result["seconds"]
        result["system"] = (system_seconds(processes) - system) * 1e6 / result["requests"]
        if name == "gateway-redis":
            result["redis"] = (self.redis_commands() - commands) / result["requests"]
        return result

    def redis_commands(self):
        """What clients have sent; commands inside scripts are not theirs."""
        info = self.redis_cli(["INFO", "commandstats"])
        return sum(int(n) for n in re.findall(r"cmdstat_(?:evalsha|hgetall):calls=(\d+)", info))

    def alternate(self, row, names):
        """One round after the other, every subject in each: what disturbs one of them disturbs all. Rounds with wrong
        answers are missing."""
        rounds = {name: [] for name in names}
        for _ in range(self.options.rounds):
            for name in names:
                result = self.measure(name, row, self.options.seconds)
                if result:
                    rounds[name].append(result)
        return rounds

    def table(self, title, row, names, against):
        if self.options.only and self.options.only not in title:
            return {}
        names = [name for name in names if name in self.subjects]
        for name in names:
            self.measure(name, row, min(1, self.options.seconds))
        rounds = self.alternate(row, names)
        print(f"\n### {title}\n")
        print("| subject | CPU us/request | of it system | gateway / subject | requests/s | p99 us | core busy | rounds |")
        print("|---|---|---|---|---|---|---|---|")
        means = {}
        for name, results in rounds.items():
            if len(results) < self.options.rounds:
                print(f"| {name} | no number: {self.options.rounds - len(results)} rounds had wrong answers | | | | | | |")
                continue
            # The least disturbed quarter: what others on the machine took is not the subject's doing.
            best = sorted(result["us"] for result in results)[: max(1, (len(results) + 3) // 4)]
            means[name] = statistics.mean(best)
        for name in means:
            results = rounds[name]
            ratio = means.get(against, 0) / means[name]
            extra = f", {statistics.mean(r['redis'] for r in results):.3f} Redis commands" if "redis" in results[0] else ""
            print(f"| {name} | {means[name]:.2f}{extra} | {statistics.median(r['system'] for r in results):.1f} | {ratio:.2f} | "
                  f"{statistics.median(r['requests'] / r['seconds'] for r in results):.0f} | "
                  f"{statistics.median(r['p99_us'] for r in results):.0f} | "
                  f"{statistics.median(r['busy'] for r in results):.2f} | {len(results)} |")
        sys.stdout.flush()
        return {name: statistics.median(r["requests"] / r["seconds"] for r in rounds[name]) for name in means}

    def latency_table(self, names, tops):
        """The same calls at a fixed rate that all can bear, so that nobody's slowness thins out its own load."""
        rate = int(min(tops[name] for name in names if name in tops) / 2)
        row = {"path": "/1k", "body": 1024, "rate": rate}
        rounds = self.alternate(row, [name for name in names if name in tops])
        print(f"\n### Latency at {rate} requests/s, open loop, counted from when each was due\n")
        print("| subject | p50 us | p99 us | gateway / subject (p99) | CPU us/request | core busy | rounds |")
        print("|---|---|---|---|---|---|---|")
        p99 = {name: statistics.median(r["p99_us"] for r in results) for name, results in rounds.items() if results}
        for name in p99:
            results = rounds[name]
            print(f"| {name} | {statistics.median(r['p50_us'] for r in results):.0f} | {p99[name]:.0f} | "
                  f"{p99.get('gateway', 0) / p99[name]:.2f} | {statistics.median(r['us'] for r in results):.2f} | "
                  f"{statistics.median(r['busy'] for r in results):.2f} | {len(results)} |")
        sys.stdout.flush()

    def system_calls(self, name):
        processes, port = self.subjects[name]
        out = f"{self.folder}/strace"
        tracer = subprocess.Popen(
            ["strace", "-f", "-c", "-o", out] + [f for p in processes for f in ("-p", str(p))],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        result = self.load(port, {"path": "/1k"}, 3)
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        lines = [line.split() for line in open(out) if re.match(r"\s*\d+\.\d+", line)]
        total = sum(int(fields[3]) for fields in lines if fields[-1] != "total")
        return total / result["requests"] if result else 0

    def allocations(self):
        """The gateway again, under an interposed allocator."""
        port = free_port()
        upstream = [p for p in self.processes][0].args[-1]
        path = peers.gateway(self.folder, port, free_port(), upstream)
        count = f"{self.folder}/allocations"
        process = self.start(
            "gateway-counted", [self.options.gateway, "run", "--config", path], port, 0,
            {"LD_PRELOAD": f"{self.folder}/allocations.so", "ALLOCATIONS": count})
        if not process:
            return None

        def read():
            if os.path.exists(count):
                os.remove(count)
            os.kill(process.pid, signal.SIGUSR1)
            deadline = time.time() + 2
            while time.time() < deadline and not (os.path.exists(count) and os.path.getsize(count)):
                time.sleep(0.02)
            return [int(word) for word in open(count).read().split()]

        time.sleep(0.3)
        self.load(port, {"path": "/1k"}, 1)
        # Connections cost allocations: two runs of different length differ by their requests only.
        first = read()
        short = self.load(port, {"path": "/1k"}, 1)
        second = read()
        long = self.load(port, {"path": "/1k"}, 4)
        third = read()
        process.terminate()
        requests = long["requests"] - short["requests"]
        return [((third[i] - second[i]) - (second[i] - first[i])) / requests for i in (0, 1)]

    def idle_memory(self, name, wanted):
        processes, port = self.subjects[name]

        def resident():
            total = 0
            for process in processes:
                for line in open(f"/proc/{process}/smaps_rollup"):
                    if line.startswith("Anonymous:"):
                        total += int(line.split()[1])
            return total

        before = resident()
        holder = subprocess.Popen(
            ["taskset", "-c", "1", f"{self.folder}/load", "--port", str(port), "--path", "/1k", "--idle", "--seconds",
             "60", "--connections", str(wanted), "--keys", f"{self.folder}/keys"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = holder.stdout.readline()
        time.sleep(0.5)
        after = resident()
        holder.stdin.close()
        holder.wait()
        opened = json.loads(line)["connections"]
        return (after - before) / opened, opened

    def stop(self):
        for process in self.processes:
            for member in family(process.pid):
                try:
                    os.kill(member, signal.SIGTERM)
                except ProcessLookupError:
                    pass
        for process in self.processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--envoy", help="the Envoy program; left out when there is none")
    parser.add_argument("--only", help="rows whose title contains this")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--quick", action="store_true", help="two short rounds, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 2, 1
    bench = Bench(options)
    try:
        bench.prepare()
        load = os.getloadavg()[0]
        print(f"{options.rounds} rounds of {options.seconds:g} s, alternated; subject on core 0, load, upstream and Redis "
              f"on core 1; load average before {load:.2f}{' (noisy)' if load > 0.5 else ''}")
        for name, version in bench.versions.items():
            print(f"- {name}: {version}")
        everyone = ["gateway", "gateway-redis", "nginx", "nginx-limit", "nginx-lua-redis", "haproxy", "haproxy-guarded",
                    "envoy-guarded"]
        tops = bench.table("1 KB over kept-alive TLS 1.3, 64 connections, 1,000 accounts",
                    {"path": "/1k", "body": 1024}, everyone, "gateway")
        if tops:
            bench.latency_table(["gateway", "nginx-limit", "haproxy-guarded"], tops)
        pair = ["gateway", "nginx", "haproxy"]
        bench.table("10 KB", {"path": "/10k", "body": 10240}, pair, "gateway")
        bench.table("1 MB", {"path": "/1m", "body": 1 << 20, "connections": 32}, pair, "gateway")
        if shutil.which("h2load"):
            bench.table("HTTP/2: 1 KB, 32 streams on each of 8 connections",
                        {"path": "/1k", "body": 1024, "connections": 8, "streams": 32}, pair, "gateway")
            bench.table("gRPC: unary calls of 64 bytes to an HTTP/2 upstream, 32 streams on each of 8 connections",
                        {"path": "/bench.Echo/Unary", "body": 69, "connections": 8, "streams": 32,
                         "message": f"{bench.folder}/message"}, ["gateway-grpc", "nginx-grpc"], "gateway-grpc")
        bench.table("401: unknown key", {"path": "/1k", "status": 401, "keys": "unknown"},
                    ["gateway", "nginx-limit", "haproxy-guarded"], "gateway")
        bench.table("429: an account past its limit",
                    {"path": "/1k", "status": 429, "keys": "limited", "tolerate": 2},
                    ["gateway", "nginx-limit", "haproxy-guarded"], "gateway")
        bench.table("connect, full handshake, one call, close", {"path": "/1k", "body": 1024, "handshakes": True},
                    pair, "gateway")
        if options.only:
            return
        print("\n### System calls a request, under strace\n")
        for name in pair:
            if name in bench.subjects and shutil.which("strace"):
                print(f"- {name}: {bench.system_calls(name):.2f}")
        counted = bench.allocations()
        if counted:
            print(f"\nAllocations a request in steady state: {counted[0]:.4f} by the gateway, {counted[1]:.2f} by OpenSSL "
                  "(its record buffers, released between records)")
        print("\n### Memory of an idle TLS connection\n")
        for name in pair:
            if name in bench.subjects:
                kib, opened = bench.idle_memory(name, 2000 if options.quick else 9000)
                print(f"- {name}: {kib:.1f} KiB over {opened} connections")
    finally:
        bench.stop()


if __name__ == "__main__":
    main()
