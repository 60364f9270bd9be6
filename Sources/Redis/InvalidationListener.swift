package import Reactor

// Redis tells which records change, on one connection whose tracking redirects to itself (RESP2): what breaks
// the source of the news breaks its target too, so silence never looks like peace. A PING with a number of
// its own goes out every 100 ms on the same connection. Redis writes to one socket in order, so the answer to
// a PING proves that every change before it has been told: until when the news is complete is known to the
// instant at which the last answered PING was sent. A connection that stops answering is given up before
// that proof is a second old, whatever TCP believes.

/// What the listener has to tell, in order.
package enum InvalidationNews: Sendable, Equatable {
    /// Changes are heard from now on. Those of the time before were not: all that is cached is in doubt.
    case established
    /// The record of this name was written, deleted or has expired.
    case changed([UInt8])
    /// Permits on lease are wanted back: the name of the lease's key.
    case recalled([UInt8])
    /// The whole database was emptied.
    case everything
    /// Every change before this instant of `MonotonicClock` has been told.
    case verified(sentMicroseconds: Int64)
    /// Changes are not heard any more, or an attempt to hear them has failed.
    case lost(RedisError)
}

/// Hears which records change, on a thread that may wait.
package final class InvalidationListener {
    private static let channel = "__redis__:invalidate"
    private static let beatMicroseconds: Int64 = 100_000
    /// An unanswered PING of this age ends the connection. With the beat before it, and one more to notice,
    /// the last proof is less than a second old.
    private static let silenceMicroseconds: Int64 = 700_000
    /// For connecting, and for every command of the preamble.
    private static let timeoutMilliseconds = 500

    private let options: StoreOptions
    private let prefix: String
    private let recallChannel: String?
    private var number: Int64 = 0
    /// PINGs without an answer, the oldest first; as many as fit into the silence, about seven.
    private var unanswered: [(number: Int64, sentMicroseconds: Int64)] = []

    /// - Parameters:
    ///   - prefix: of the names to be told about. It must not cover the windows of the limits, or every debit
    ///     would be news.
    ///   - recallChannel: where leases are called back; nil when there are none.
    package init(_ options: StoreOptions, prefix: String, recallChannel: String? = nil) {
        self.options = options
        self.prefix = prefix
        self.recallChannel = recallChannel
    }

    /// Listens, and connects again when the connection is lost, until `stopping` is signalled; then it
    /// returns within half a second.
    package func run(until stopping: Wakeup, _ tell: (InvalidationNews) -> Void) {
        var delay = ReconnectDelay()
        var random = FastRandom(seed: RandomSource.word())
        while !Readiness.pause(milliseconds: 0, unless: stopping) {
            do throws(RedisError) {
                let client = try RedisClient(options, timeoutMilliseconds: Self.timeoutMilliseconds)
                try subscribe(client)
                tell(.established)
                delay.reset()
                try follow(client, until: stopping, tell)
                return
            } catch {
                tell(.lost(error))
            }
            let milliseconds = Int(delay.take(random: random.next()) / 1_000) + 1
            if Readiness.pause(milliseconds: milliseconds, unless: stopping) { return }
        }
    }

    private func subscribe(_ client: RedisClient) throws(RedisError) {
        guard let identifier = try client.command(["CLIENT", "ID"]).integer else {
            throw .protocolViolation("the answer to CLIENT ID is no number")
        }
        let tracking = try client.command([
            "CLIENT", "TRACKING", "ON", "REDIRECT", "\(identifier)", "BCAST", "PREFIX", prefix,
        ])
        guard tracking == .status("OK") else {
            throw .protocolViolation("Redis does not say that it tracks changes")
        }
        let channels = [Self.channel] + (recallChannel.map { [$0] } ?? [])
        var subscription = try? client.command(["SUBSCRIBE"] + channels)
        // Who may not hear the second channel is better off with the first than with none.
        if subscription == nil { subscription = try client.command(["SUBSCRIBE", Self.channel]) }
        guard let elements = subscription?.elements, elements.count == 3, elements[0].text == "subscribe",
            elements[1].text == Self.channel
        else { throw .protocolViolation("Redis does not say that it tells of changes") }
    }

    private func follow(
        _ client: RedisClient, until stopping: Wakeup, _ tell: (InvalidationNews) -> Void
    ) throws(RedisError) {
        unanswered.removeAll(keepingCapacity: true)
        var nextBeat = MonotonicClock.nowMicroseconds()
        while !Readiness.pause(milliseconds: 0, unless: stopping) {
            let now = MonotonicClock.nowMicroseconds()
            if let oldest = unanswered.first, now - oldest.sentMicroseconds > Self.silenceMicroseconds {
                throw .timeout
            }
            if now >= nextBeat {
                number += 1
                // The instant before sending: what is proved must not be later than what Redis has seen.
                unanswered.append((number, now))
                try client.send(["PING", "\(number)"])
                nextBeat = now + Self.beatMicroseconds
            }
            let left = max(1, Int((nextBeat - now + 999) / 1_000))
            if let message = try client.nextMessage(timeoutMilliseconds: left) { take(message, tell) }
        }
    }

    private func take(_ message: RedisValue, _ tell: (InvalidationNews) -> Void) {
        guard let elements = message.elements else { return }
        if elements.count == 2, elements[0].text == "pong" {
            guard let answered = elements[1].text.flatMap({ Int64($0) }),
                let index = unanswered.firstIndex(where: { $0.number == answered })
            else { return }
            tell(.verified(sentMicroseconds: unanswered[index].sentMicroseconds))
            unanswered.removeSubrange(...index)
            return
        }
        guard elements.count == 3, elements[0].text == "message" else { return }
        if let recallChannel, elements[1].text == recallChannel {
            if case .string(let name) = elements[2] { tell(.recalled(name)) }
            return
        }
        guard elements[1].text == Self.channel else { return }
        guard let names = elements[2].elements else {
            // No list of names.
            tell(.everything)
            return
        }
        for case .string(let name) in names { tell(.changed(name)) }
    }
}
