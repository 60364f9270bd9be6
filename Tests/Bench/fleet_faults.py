"""What several gateways let in while everything that can break does, beside the limit, the bound, and the ideal."""

import random
import signal
import threading
import time
from collections import deque

from fleet_lab import Caller, Relay, Sentinels


class Storm:
    """Callers of one account that hammer all gateways, and every decision that they were told."""

    def __init__(self, gateways, key, callers=9):
        self.gateways, self.key = gateways, key
        # (when the call began, when it was answered, its status, its gateway)
        self.outcomes = []
        self.over = False
        # Gateways whose callers call at present; the others' keep still.
        self.turn = set(range(len(gateways)))
        self.threads = [threading.Thread(target=self.hammer, args=(index % len(gateways),), daemon=True)
                        for index in range(callers)]
        self.start = time.monotonic()
        for thread in self.threads:
            thread.start()

    def hammer(self, index):
        while not self.over:
            try:
                caller = Caller(self.gateways[index].port, self.key)
                while not self.over:
                    if index not in self.turn:
                        time.sleep(0.002)
                        continue
                    start = time.monotonic()
                    status = caller.call()
                    self.outcomes.append((start, time.monotonic(), status, index))
                    if random.random() < 0.2:
                        time.sleep(random.random() * 0.005)
            except OSError:
                time.sleep(0.01)

    def end(self):
        self.over = True
        for thread in self.threads:
            thread.join(10)
        for gateway in self.gateways:
            gateway.process.kill()
        return self.outcomes

    @property
    def admitted(self):
        return sum(outcome[2] == 200 for outcome in self.outcomes)


def worst(outcomes, window):
    """Most calls that were surely let in within one window: begun and answered in it."""
    admitted = sorted(outcome for outcome in outcomes if outcome[2] == 200)
    most = 0
    for index, (start, *_) in enumerate(admitted):
        count = 0
        for later in admitted[index:]:
            if later[0] > start + window:
                break
            count += later[1] <= start + window
        most = max(most, count)
    return most


def ideal(outcomes, limit, window, stranded=()):
    """What one exact window lets in of the calls that were decided, when it lacks what dead and unreachable holders
    had on lease: `stranded` has (from when, until when, permits)."""
    decided = sorted(outcome[1] for outcome in outcomes if outcome[2] in (200, 429))
    events = sorted([(since, permits) for since, _, permits in stranded]
                    + [(until, -permits) for _, until, permits in stranded])
    admitted, inside, missing, position = 0, deque(), 0, 0
    for instant in decided:
        while position < len(events) and events[position][0] <= instant:
            missing += events[position][1]
            position += 1
        while inside and inside[0] < instant - window:
            inside.popleft()
        if len(inside) + missing < limit:
            inside.append(instant)
            admitted += 1
    return admitted


class Leases:
    """What gateways hold on lease of one window, read from Redis when somebody is about to strand it."""

    def __init__(self, redis, account, window):
        self.redis, self.name, self.window = redis, f"gateway:limit:{{{account}}}:{window}s", window
        self.stranded = []

    def strand(self, gateways, seconds=0):
        """These gateways do not report what they hold, for so long: it counts until a window after its end."""
        head = self.redis.command("LINDEX", self.name, 0) or ""
        now = time.monotonic()
        # A holder is named after host, process and chance, and a worker of it.
        processes = {str(gateway.process.pid) for gateway in gateways}
        permits = sum(int(lease.split("=")[1].split(":")[0]) for lease in head.split(";")[1:]
                      if lease.split("=")[0].split("-")[-2] in processes)
        if permits:
            length = min(0.5, max(0.01, self.window / 32))
            self.stranded.append((now, now + seconds + length + self.window, permits))


def disturb(bench, redis, storm, relay, leases):
    """One fault after the other."""
    pause = threading.Event()
    gateways = storm.gateways
    while not storm.over:
        pause.wait(0.4)
        victim = random.randrange(3)
        match random.randrange(8):
            case 0:
                gateways[victim].process.send_signal(signal.SIGSTOP)
                leases.strand([gateways[victim]])
                pause.wait(0.5)
                gateways[victim].process.send_signal(signal.SIGCONT)
            case 1:
                gateways[victim].process.kill()
                leases.strand([gateways[victim]])
                gateways[victim].process.wait()
                gateways[victim] = bench.start(relay.port, extra=", failed_authentications: off", outage="closed")
            case 2:
                redis.command("SCRIPT", "FLUSH")
            case 3:
                redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            case 4:
                leases.strand(gateways)
                redis.process.send_signal(signal.SIGSTOP)
                pause.wait(0.35)
                redis.process.send_signal(signal.SIGCONT)
            case 5:
                relay.cut()
            case 6:
                leases.strand(gateways)
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
    storm, leases = Storm(gateways, key), Leases(redis, "exact", window)
    disturber = threading.Thread(target=disturb, args=(bench, redis, storm, relay, leases), daemon=True)
    if faults:
        disturber.start()
    while time.monotonic() < storm.start + seconds:
        time.sleep(0.1)
    outcomes = storm.end()
    if faults:
        disturber.join(10)
    without = ideal(outcomes, limit, window)
    best = ideal(outcomes, limit, window, leases.stranded)
    return {
        "faults": faults, "limit": limit, "window_s": window, "decisions": len(outcomes),
        "worst_in_a_window": worst(outcomes, window), "bound": limit,
        "admitted": storm.admitted, "ideal": best, "percent_of_ideal": round(100 * storm.admitted / best, 2),
        "ideal_if_nothing_stranded": without, "least_percent": 99,
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
    storm = Storm(gateways, key)
    while time.monotonic() < storm.start + seconds:
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
    outcomes = storm.end()
    bound = {"closed": limit, "open": None,
             "local": limit + limit // 3 if what == "cut off" else limit + limit * 2 // 3}[outage]
    return {
        "on_outage": outage, "redis": what, "limit": limit, "bound": bound,
        "worst_in_a_window": worst(outcomes, window), "decisions": len(outcomes), "admitted": storm.admitted,
    }


def failover(bench, outage, ways, repeats):
    """One limit of 300 in 2 s over three gateways that follow sentinels. The master dies, stops, or is replaced as
    planned, again and again, half of the time with a replica that has not seen the last writes; one gateway alone
    is called before, the others alone after, or all of them all the time."""
    limit, window = 300, 2
    watched = Sentinels(bench)
    key = "sk_live_failover"
    watched.master.store(key, tier="bench", account="failover", limits=f"{limit}/{window}s")
    watched.master.stream.flush()
    watched.master.reply()
    gateways = [bench.start(watched.url, workers=2, extra=", failed_authentications: off", outage=outage)
                for _ in range(3)]
    # The share of each is known once all hearts have beaten twice.
    time.sleep(2.5)
    storm = Storm(gateways, key)
    marks = []
    for number in range(repeats):
        for way in ways:
            watched.wait_for_replica()
            plan = random.choice(["all", "all", "one before, the others after"])
            first = random.randrange(3)
            if plan != "all":
                storm.turn = {first}
            time.sleep(window + random.random() * window)
            is_behind = random.random() < 0.5
            if is_behind:
                watched.master.command("CLIENT", "KILL", "TYPE", "replica")
                time.sleep(random.random() * 0.5)
            since = time.monotonic()
            if plan != "all":
                storm.turn = {0, 1, 2} - {first}
            took = watched.replace_master(way)
            storm.turn = {0, 1, 2}
            # Until every gateway decides at the new master again, and a window more.
            while any(gateway.metric("gateway_store_up ") != 1 for gateway in gateways):
                time.sleep(0.05)
            time.sleep(window)
            watched.revive()
            marks.append((since, time.monotonic(), way, plan, is_behind, took))
    outcomes = storm.end()
    watched.end()
    cases = {}
    for since, until, way, plan, is_behind, took in marks:
        inside = [outcome for outcome in outcomes if since - window <= outcome[0] <= until]
        case = cases.setdefault(way, {"failovers": 0, "worst_in_a_window": 0, "longest_s": 0})
        case["failovers"] += 1
        case["worst_in_a_window"] = max(case["worst_in_a_window"], worst(inside, window))
        case["longest_s"] = max(case["longest_s"], round(took, 1))
        detail = f"{plan}{', replica behind' if is_behind else ''}"
        case[detail] = max(case.get(detail, 0), worst(inside, window))
    return {
        "on_outage": outage, "limit": limit, "bound": limit if outage == "closed" else limit + limit * 2 // 3,
        "worst_in_a_window": worst(outcomes, window), "decisions": len(outcomes), "admitted": storm.admitted,
        "ways": cases,
    }
