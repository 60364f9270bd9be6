#!/usr/bin/env python3
"""Measures what several gateways on one Redis promise: Tests/Bench/fleet [exactness|outages|revocation|cost|flood]...

exactness   what three gateways let in under a storm, without faults and with them, beside the limit
outages     the same while Redis is away, one gateway is cut off from it, or it comes back empty, beside the bound
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

from bench import free_port
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


def hammer(gateways, index, key, outcomes, state):
    """Calls, reconnecting as often as need be; writes down when each call began, when it ended, and how."""
    while not state["over"]:
        try:
            caller = Caller(gateways[index].port, key)
            while not state["over"]:
                start = time.monotonic()
                status = caller.call()
                outcomes.append((start, time.monotonic(), status))
                if random.random() < 0.2:
                    time.sleep(random.random() * 0.005)
        except OSError:
            time.sleep(0.01)


def worst(outcomes, window):
    """Most calls that were surely let in within one window: begun and answered in it."""
    admitted = sorted(outcome for outcome in outcomes if outcome[2] == 200)
    most = 0
    for index, (start, _, _) in enumerate(admitted):
        count = 0
        for later in admitted[index:]:
            if later[0] > start + window:
                break
            count += later[1] <= start + window
        most = max(most, count)
    return most


def disturb(bench, redis, gateways, relay, stopping):
    """One fault after the other."""
    pause = threading.Event()
    while not stopping["over"]:
        pause.wait(0.4)
        victim = random.randrange(3)
        match random.randrange(8):
            case 0:
                gateways[victim].process.send_signal(signal.SIGSTOP)
                pause.wait(0.5)
                gateways[victim].process.send_signal(signal.SIGCONT)
            case 1:
                gateways[victim].process.kill()
                gateways[victim].process.wait()
                gateways[victim] = bench.start(relay.port, extra=", failed_authentications: off", outage="closed")
            case 2:
                redis.command("SCRIPT", "FLUSH")
            case 3:
                redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            case 4:
                redis.process.send_signal(signal.SIGSTOP)
                pause.wait(0.35)
                redis.process.send_signal(signal.SIGCONT)
            case 5:
                relay.cut()
            case 6:
                redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            case 7:
                redis.set_clock(random.choice([-3_600_000, -7_000, -300, 0, 200, 5_000, 3_600_000]) * 1_000)


def exactness(bench, limit, window, seconds, faults):
    redis = bench.redis(settable=True)
    key = "sk_live_exact"
    redis.store(key, tier="bench", account="exact", limits=f"{limit}/{window}s")
    redis.stream.flush()
    redis.reply()
    relay = Relay(redis.port)
    gateways = [bench.start(relay.port, extra=", failed_authentications: off", outage="closed") for _ in range(3)]
    outcomes, state = [], {"over": False}
    threads = [threading.Thread(target=hammer, args=(gateways, index % 3, key, outcomes, state), daemon=True)
               for index in range(9)]
    for thread in threads:
        thread.start()
    start = time.monotonic()
    disturber = threading.Thread(target=disturb, args=(bench, redis, gateways, relay, state), daemon=True)
    if faults:
        disturber.start()
    while time.monotonic() < start + seconds:
        time.sleep(0.1)
    state["over"] = True
    for thread in threads:
        thread.join(10)
    if faults:
        disturber.join(10)
    admitted = sum(outcome[2] == 200 for outcome in outcomes)
    for gateway in gateways:
        gateway.process.kill()
    return {
        "faults": faults, "limit": limit, "window_s": window, "decisions": len(outcomes), "admitted": admitted,
        "worst_in_a_window": worst(outcomes, window), "ideal": limit * (1 + int(seconds / window)),
        "statuses": sorted({outcome[2] for outcome in outcomes}),
    }


def outages(bench, outage, what, seconds):
    """One limit of 600 in 3 s over three gateways; `what` happens again and again, and ends."""
    limit, window = 600, 3
    redis = bench.redis()
    key = "sk_live_outage"

    def store(server):
        server.store(key, tier="bench", account="outage", limits=f"{limit}/{window}s")
        server.stream.flush()
        server.reply()

    store(redis)
    relays = [Relay(redis.port) for _ in range(3)]
    gateways = [bench.start(relay.port, extra=", failed_authentications: off", outage=outage) for relay in relays]
    # The share of each is known once all hearts have beaten twice.
    time.sleep(2.5)
    outcomes, state = [], {"over": False}
    threads = [threading.Thread(target=hammer, args=(gateways, index % 3, key, outcomes, state), daemon=True)
               for index in range(9)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(random.uniform(1, 3))
        if what == "away":
            redis.process.send_signal(signal.SIGSTOP)
            time.sleep(random.uniform(0.5, 2))
            redis.process.send_signal(signal.SIGCONT)
        elif what == "cut off":
            relays[0].dead = True
            relays[0].cut(everything=True)
            time.sleep(random.uniform(0.5, 2))
            relays[0].dead = False
        else:
            redis.process.kill()
            redis.process.wait()
            redis = bench.redis(port=redis.port)
            store(redis)
    state["over"] = True
    for thread in threads:
        thread.join(10)
    admitted = sum(outcome[2] == 200 for outcome in outcomes)
    for gateway in gateways:
        gateway.process.kill()
    bound = {"closed": {"lost": limit + limit * 2 // 3}.get(what, limit), "open": None,
             "local": limit + limit // 3 if what == "cut off" else limit + limit * 2 // 3}[outage]
    return {
        "on_outage": outage, "redis": what, "limit": limit, "bound": bound,
        "worst_in_a_window": worst(outcomes, window), "decisions": len(outcomes), "admitted": admitted,
    }


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


def cluster_cost(bench, seconds, rate):
    """One account at `rate` calls a second, on a cluster of three masters."""
    nodes, buses = [], [free_port() for _ in range(3)]
    for bus in buses:
        nodes.append(bench.redis(options=["--cluster-enabled", "yes", "--cluster-port", str(bus),
                                          "--cluster-config-file", f"nodes-{bus}.conf"]))
    for index, node in enumerate(nodes):
        node.command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        node.command("CLUSTER", "ADDSLOTS", *range(16384 * index // 3, 16384 * (index + 1) // 3))
        nodes[0].command("CLUSTER", "MEET", "127.0.0.1", node.port, buses[index])
    while any("cluster_state:ok" not in node.command("CLUSTER", "INFO")
              or "cluster_known_nodes:3" not in node.command("CLUSTER", "INFO") for node in nodes):
        time.sleep(0.05)
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
    unknown = [generated_key() for _ in range(1_000_000)]
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--silent-trials", type=int, default=300)
    parser.add_argument("--guesses", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("what", nargs="*", default=["exactness", "outages", "revocation", "cost", "flood"])
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    bench = Bench(options.folder, options.gateway)
    try:
        if "exactness" in options.what:
            print("exactness", json.dumps(exactness(bench, 300, 2, 9, False)), flush=True)
            for limit in (300, 1000):
                print("exactness", json.dumps(exactness(bench, limit, 2, 4 * options.seconds, True)), flush=True)
        if "outages" in options.what:
            for outage, what in (("closed", "away"), ("closed", "cut off"), ("closed", "lost"), ("local", "away"),
                                 ("local", "cut off"), ("local", "lost"), ("open", "away")):
                print("outages", json.dumps(outages(bench, outage, what, 2 * options.seconds)), flush=True)
        if "revocation" in options.what:
            print("revocation", json.dumps(revocation(bench, options.trials, False)), flush=True)
            print("revocation, tracking silent", json.dumps(revocation(bench, options.silent_trials, True)), flush=True)
        if "cost" in options.what:
            for accounts in (1, 100, 10_000):
                print("cost", json.dumps(cost(bench, accounts, options.seconds, 1000)), flush=True)
                plain = one_command_a_call(bench, accounts, options.seconds, 1000)
                print("one command a call", json.dumps(plain), flush=True)
            print("cost", json.dumps(cluster_cost(bench, options.seconds, 1000)), flush=True)
        if "flood" in options.what:
            for one in (True, False):
                print("flood", json.dumps(flood(bench, one, options.guesses)), flush=True)
    finally:
        bench.end()


if __name__ == "__main__":
    main()
