#!/usr/bin/env python3
"""Measures what several gateways on one Redis promise: Tests/Bench/fleet [--quick] [SECTION]...

Prints the figures of each measurement as they come, and at the end what was promised beside what was seen; the exit
status is 1 when a promise was broken. The sections, all when none is named:

exactness   what three gateways let in under a storm, without faults and with them, beside the limit
outages     the same while Redis is away, one gateway is cut off from it, or it comes back empty, beside the bound
failover    the same while sentinels replace the master: killed, stopped, or as planned, again and again
revocation  time from `HSET … status revoked` by another program to the last call let in, on three gateways
cost        Redis commands and CPU per call for 1, 100 and 10,000 accounts, beside one command a call; in a cluster
flood       1,000,000 well-formed unknown keys at full speed: commands on Redis, and what good keys notice
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback

from bench import free_port
from fleet_faults import exactness, failover, outages
from fleet_lab import Bench, Caller, Relay, generated_key, percentiles


class Watcher:
    """A process that calls again and again, and tells when the last call that was let in had been answered."""

    def __init__(self, port, key, pause):
        self.status, self.last = multiprocessing.Value("i", 0), multiprocessing.Value("d", 0)
        self.process = multiprocessing.Process(target=self.watch, args=(port, key, pause), daemon=True)
        self.process.start()

    def watch(self, port, key, pause):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        caller = Caller(port, key)
        while True:
            status = caller.call()
            if status == 200:
                self.last.value = time.monotonic()
            self.status.value = status
            time.sleep(pause)


def revocation(bench, trials, silent):
    """With the tracking connection silent, five keys are revoked at once in each round: a round takes long."""
    redis = bench.redis()
    keys = [f"sk_live_revoked{number}" for number in range(5 if silent else 1)]
    names = [redis.store(key, tier="bench", account=key) for key in keys]
    redis.stream.flush()
    for _ in keys:
        redis.reply()
    relay = Relay(redis.port)
    gateways = [bench.start(relay.port, extra=", failed_authentications: off") for _ in range(3)]
    watchers = {key: [Watcher(gateway.port, key, 0.005 if silent else 0.0005) for gateway in gateways]
                for key in keys}

    def wait(status):
        while any(watcher.status.value != status for key in keys for watcher in watchers[key]):
            time.sleep(0.001)

    lags = []
    while len(lags) < trials:
        for name in names:
            redis.command("HSET", name, "status", "active")
        wait(200)
        if silent:
            # The connections are new after every round: all of them have to be heard from first.
            while any(gateway.metric("gateway_revocation_lag_seconds") > 0.3 for gateway in gateways):
                time.sleep(0.02)
            relay.cut()
        time.sleep(random.random() * 0.01)
        starts = []
        for name in names:
            starts.append(time.monotonic())
            redis.command("HSET", name, "status", "revoked")
        wait(401)
        for key, start in zip(keys, starts):
            lags.append(max(0.0, max(watcher.last.value for watcher in watchers[key]) - start))
    for key in keys:
        for watcher in watchers[key]:
            watcher.process.kill()
    for gateway in gateways:
        gateway.process.kill()
    return percentiles(lags)


def cost(bench, accounts, seconds, rate):
    redis = bench.redis()
    keys = [f"sk_live_cost{number}" for number in range(accounts)]
    for number, key in enumerate(keys):
        redis.store(key, tier="bench", account=f"a{number}")
    redis.stream.flush()
    for _ in keys:
        redis.reply()
    gateway = bench.start(redis.port)
    # Every key is learned, and demand is known, before anything counts.
    bench.load(gateway, keys, "--connections", 32, "--seconds", 2 + accounts / 4000, "--rate", rate * 2).communicate()
    calls, looked, cpu, own = redis.calls("evalsha"), redis.calls("hgetall"), redis.cpu(), gateway.cpu()
    result = json.loads(
        bench.load(gateway, keys, "--connections", 32, "--seconds", seconds, "--rate", rate).communicate()[0])
    requests = result["requests"]
    figures = {
        "accounts": accounts, "requests": requests, "errors": result["errors"], "p99_us": result["p99_us"],
        "commands_per_request": round((redis.calls("evalsha") - calls) / requests, 4),
        "redis_cpu_us_per_request": round((redis.cpu() - cpu) / requests * 1e6, 2),
        "gateway_cpu_us_per_request": round((gateway.cpu() - own) / requests * 1e6, 1),
    }
    gateway.process.kill()
    return figures


def cluster(bench):
    """Three masters with a third of the slots each."""
    nodes, buses = [], [free_port() for _ in range(3)]
    for bus in buses:
        nodes.append(bench.redis(options=["--cluster-enabled", "yes", "--cluster-port", str(bus),
                                          "--cluster-config-file", f"nodes-{bus}.conf"]))
    for index, node in enumerate(nodes):
        node.command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        # Slots go before acquaintances come: what others say of slots would be taken for an owner's word.
        node.command("CLUSTER", "ADDSLOTS", *range(16384 * index // 3, 16384 * (index + 1) // 3))
    for index, node in enumerate(nodes[1:], 1):
        nodes[0].command("CLUSTER", "MEET", "127.0.0.1", node.port, buses[index])
    while any("cluster_state:ok" not in node.command("CLUSTER", "INFO")
              or "cluster_known_nodes:3" not in node.command("CLUSTER", "INFO") for node in nodes):
        time.sleep(0.05)
    return nodes


def cluster_cost(bench, seconds, rate):
    """One account at `rate` calls a second, on a cluster of three masters."""
    for attempt in range(3):
        try:
            nodes = cluster(bench)
            break
        except (OSError, RuntimeError):
            # A port that was free a moment ago is somebody's.
            if attempt == 2:
                raise
    key = "sk_live_cluster"
    name = "gateway:key:" + hashlib.sha256(key.encode()).hexdigest()
    slot = nodes[0].command("CLUSTER", "KEYSLOT", name)
    nodes[slot * 3 // 16384].command("HSET", name, "tier", "bench", "account", "busy")
    gateway = bench.start("redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes))
    bench.load(gateway, [key], "--connections", 32, "--seconds", 2, "--rate", rate).communicate()
    calls, cpu, own = sum(node.calls("evalsha") for node in nodes), sum(node.cpu() for node in nodes), gateway.cpu()
    load = bench.load(gateway, [key], "--connections", 32, "--seconds", seconds, "--rate", rate)
    time.sleep(seconds / 2)
    shown = json.loads(subprocess.run(
        [bench.gateway, "limits", "show", "busy", "--output", "json", "--config", gateway.path],
        capture_output=True, text=True).stdout)
    result = json.loads(load.communicate()[0])
    requests = result["requests"]
    figures = {
        "masters": 3, "accounts": 1, "requests": requests, "errors": result["errors"], "p99_us": result["p99_us"],
        "commands_per_request": round((sum(node.calls("evalsha") for node in nodes) - calls) / requests, 4),
        "redis_cpu_us_per_request": round((sum(node.cpu() for node in nodes) - cpu) / requests * 1e6, 2),
        "gateway_cpu_us_per_request": round((gateway.cpu() - own) / requests * 1e6, 1),
        "leases_shown": shown["policies"][0]["windows"][0]["leases"],
    }
    gateway.process.kill()
    return figures


def one_command_a_call(bench, accounts, seconds, rate):
    """The same script, asked once for every call at the same rate, without gathering and without leases."""
    redis = bench.redis()
    path = os.path.join(os.path.dirname(__file__), "../../Sources/Limits/TakeScript.swift")
    with open(path) as file:
        source = file.read().split('source = #"""')[1].split('"""#')[0]
    name = redis.command("SCRIPT", "LOAD", source.replace("\\#(graceMicroseconds)", "200000")
                         .replace("\\#(keptMicroseconds)", "86400000000"))
    arguments = [0, 0, 0, 0, 0, "me", 1, 1, "recall", "", 1, 1, 1, -1, 0, 0, 0, 0, 0, 1000000, 60000000]
    cpu, start, calls = redis.cpu(), time.monotonic(), 0
    while (due := start + calls / rate) < start + seconds:
        time.sleep(max(0.0, due - time.monotonic()))
        account = random.randrange(accounts)
        redis.command("EVALSHA", name, 1, f"limit:{{a{account}}}:60s", *arguments)
        calls += 1
    return {
        "accounts": accounts, "commands_per_request": 1,
        "redis_cpu_us_per_request": round((redis.cpu() - cpu) / calls * 1e6, 2),
    }


def beside(cores, idle=False):
    """What a program does before it starts: keeps to some cores, and gives way to all others when `idle`."""
    def prepare():
        if len(os.sched_getaffinity(0)) > 1:
            os.sched_setaffinity(0, cores)
        if idle:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    return prepare


def flood(bench, guessed_from_one_address, guesses):
    """The gateway has a core to itself; attackers give way to the good callers, Redis and the upstream."""
    redis = bench.redis()
    cores = sorted(os.sched_getaffinity(0))
    own, rest = {cores[0]}, set(cores[1:]) or {cores[0]}
    good = [f"sk_live_good{number}" for number in range(50)]
    for key in good:
        redis.store(key, tier="bench", account=key)
    redis.stream.flush()
    for _ in good:
        redis.reply()
    gateway = bench.start(redis.port, extra="" if guessed_from_one_address else ", failed_authentications: off")
    for thread in os.listdir(f"/proc/{gateway.process.pid}/task"):
        os.sched_setaffinity(int(thread), own)
    for process in (redis.process, bench.processes[0]):
        for thread in os.listdir(f"/proc/{process.pid}/task"):
            os.sched_setaffinity(int(thread), rest)
    measure = ("--connections", 8, "--rate", 500)
    before = json.loads(bench.load(
        gateway, good, *measure, "--seconds", 5, before=beside(rest)).communicate()[0])
    unknown = [generated_key() for _ in range(guesses)]
    asked = gateway.metric('gateway_store_duration_seconds_count{command="lookup"}')
    commands, cpu = redis.calls("hgetall") + redis.calls("evalsha"), gateway.cpu()
    start = time.monotonic()
    attack = bench.load(gateway, unknown, "--connections", 64, "--seconds", 150, "--status", 401, "--requests", guesses,
                        "--tolerate", 10_000_000, before=beside(rest, idle=True))
    time.sleep(1)
    during = json.loads(bench.load(
        gateway, good, *measure, "--seconds", 10, before=beside(rest)).communicate()[0])
    result = json.loads(attack.communicate()[0])
    took = time.monotonic() - start
    asked = gateway.metric('gateway_store_duration_seconds_count{command="lookup"}') - asked
    commands = redis.calls("hgetall") + redis.calls("evalsha") - commands
    busy = (gateway.cpu() - cpu) / took
    gateway.process.kill()
    return {
        "from_one_address": guessed_from_one_address, "guesses": result["requests"], "seconds": round(took, 1),
        "guesses_a_second": round(result["requests"] / took), "lookups_on_redis": asked,
        "lookups_a_second": round(asked / took), "commands_on_redis": commands, "gateway_cores": round(busy, 2),
        "good_p50_us_before": before["p50_us"], "good_p50_us_during": during["p50_us"],
        "good_p99_us_before": before["p99_us"], "good_p99_us_during": during["p99_us"],
        "good_errors": during["errors"] + before["errors"],
    }


class Report:
    """Figures as they come, and at the end what was promised beside what was seen."""

    def __init__(self):
        self.start, self.rows = time.monotonic(), []

    def add(self, what, figures, seen, promised, holds):
        print(what, json.dumps(figures), flush=True)
        self.rows.append((what, seen, promised, {True: "yes", False: "NO", None: ""}[holds]))

    def end(self):
        rows = [("what", "seen", "promised", "holds"), *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        print()
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        broken = sum(row[3] == "NO" for row in self.rows)
        print(f"\n{len(self.rows)} measurements in {(time.monotonic() - self.start) / 60:.1f} minutes: "
              + (f"{broken} promises broken" if broken else "every promise held"))
        return 1 if broken else 0


def measure_exactness(report, bench, options):
    runs = [(300, 2, 9, False)] + [(limit, 2, 4 * options.seconds, True) for limit in (300, 1000)]
    for limit, window, seconds, faults in runs:
        found = exactness(bench, limit, window, seconds, faults)
        report.add(
            f"exactness, {limit} in {window} s, {'faults' if faults else 'no faults'}", found,
            f"{found['worst_in_a_window']} in a window, {found['percent_of_ideal']} % of the ideal",
            f"{limit}, 99 %", found["worst_in_a_window"] <= limit and found["percent_of_ideal"] >= 99)


def measure_outages(report, bench, options):
    for outage, what in (("closed", "away"), ("closed", "cut off"), ("closed", "lost"), ("local", "away"),
                         ("local", "cut off"), ("local", "lost"), ("open", "away")):
        found = outages(bench, outage, what, 2 * options.seconds)
        bound = found["bound"]
        report.add(
            f"outages, {outage}, Redis {what}", found, f"{found['worst_in_a_window']} of {found['limit']} in a window",
            "no bound" if bound is None else str(bound), None if bound is None else found["worst_in_a_window"] <= bound)


def measure_failover(report, bench, options):
    for outage in ("closed", "local"):
        found = failover(bench, outage, ("killed", "stopped", "planned"), options.failovers)
        report.add(
            f"failover, {outage}, {3 * options.failovers} times", found,
            f"{found['worst_in_a_window']} of {found['limit']} in a window", str(found["bound"]),
            found["worst_in_a_window"] <= found["bound"])


def measure_revocation(report, bench, options):
    for trials, silent, most in ((options.trials, False, 1000), (options.silent_trials, True, 1300)):
        found = revocation(bench, trials, silent)
        report.add(
            "revocation, tracking silent" if silent else "revocation", found,
            f"p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms, max {found['max_ms']} ms", f"{most} ms",
            found["max_ms"] <= most)


def measure_cost(report, bench, options):
    def add(what, found, most):
        commands = found["commands_per_request"]
        gateway = found.get("gateway_cpu_us_per_request")
        report.add(
            what, found, f"{commands} commands, Redis {found['redis_cpu_us_per_request']} us"
            + (f", gateway {gateway} us" if gateway else "") + " a call",
            "" if most is None else f"{most} commands", None if most is None else commands <= most)

    for accounts in (1, 100, 10_000):
        add(f"cost, {accounts} accounts", cost(bench, accounts, options.seconds, 1000), 0.05 if accounts == 1 else 1)
        add(f"one command a call, {accounts} accounts",
            one_command_a_call(bench, accounts, options.seconds, 1000), None)
    add("cost, 1 account, cluster", cluster_cost(bench, options.seconds, 1000), 0.05)


def measure_flood(report, bench, options):
    for one in (True, False):
        found = flood(bench, one, options.guesses)
        # One worker's allowances: for addresses that have guessed, and for all keys that are new.
        most = 50 if one else 10_000
        report.add(
            f"flood from {'one address' if one else 'many addresses'}", found,
            f"{found['lookups_a_second']} look-ups a second, good p99 {found['good_p99_us_during'] / 1e3:.1f} ms "
            f"(before {found['good_p99_us_before'] / 1e3:.1f})", f"{most} look-ups",
            found["lookups_a_second"] <= most * 1.1 and found["good_errors"] == 0)


SECTIONS = {
    "exactness": measure_exactness, "outages": measure_outages, "failover": measure_failover,
    "revocation": measure_revocation, "cost": measure_cost, "flood": measure_flood,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--quick", action="store_true", help="a quarter of everything: about 5 minutes")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--silent-trials", type=int, default=300)
    parser.add_argument("--guesses", type=int, default=1_000_000)
    parser.add_argument("--failovers", type=int, default=2, help="of each way and on_outage")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("what", nargs="*", choices=[*SECTIONS, []], metavar="section", help="all when none is named")
    options = parser.parse_args()
    if options.quick:
        options.trials, options.silent_trials, options.guesses = 250, 50, 250_000
        options.failovers, options.seconds = 1, 3
    report = Report()
    running = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        for name in SECTIONS:
            if not options.what or name in options.what:
                run_section(name, options, report, running)
    finally:
        for process in running:
            process.terminate()
    sys.exit(report.end())


def run_section(name, options, report, running):
    """In a process of its own, so that nothing that one section leaves behind slows the next one down."""
    rows, end = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=serve_section, args=(name, options, end))
    process.start()
    running.append(process)
    end.close()
    try:
        while True:
            report.rows.append(rows.recv())
    except EOFError:
        process.join()
    running.remove(process)
    if process.exitcode != 0:
        report.rows.append((name, f"broke off with {process.exitcode}", "", "NO"))


def serve_section(name, options, end):
    sys.setswitchinterval(0.0005)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    report = Report()
    bench = Bench(options.folder, options.gateway)
    try:
        SECTIONS[name](report, bench, options)
    except Exception as problem:
        traceback.print_exc()
        report.rows.append((name, f"cannot be measured: {problem}", "", "NO"))
    finally:
        bench.end()
    for row in report.rows:
        end.send(row)


if __name__ == "__main__":
    main()
