import Reactor
import Synchronization

/// The keys that encrypt session tickets: shared by all workers, so that a client resumes on any of them,
/// and replaced regularly, so that a stolen key opens little (RFC 5077 section 5.5).
package final class TicketKeys: Sendable {
    struct Key: Sendable {
        /// 16 bytes that name the key in the ticket.
        var name: [UInt8]
        var cipher: [UInt8]
        var mac: [UInt8]

        static func make() -> Key {
            Key(
                name: RandomSource.bytes(16), cipher: RandomSource.bytes(32), mac: RandomSource.bytes(32))
        }
    }

    private struct Generations {
        var current: Key
        var previous: Key?
        /// When `current` stops sealing, by the monotonic clock, which all processes of a machine share.
        var rotatesAtMicroseconds: Int64
    }

    /// How long a key seals tickets. OpenSSL's tickets live for two hours: each finds its key, current or
    /// previous, and no key is kept longer than that takes.
    package static let lifetimeMicroseconds: Int64 = 7_200_000_000
    /// What a hand-over begins with: another layout has another.
    private static let mark = Array("gateway tickets 1".utf8)
    private static let keyBytes = 80

    private let generations: Mutex<Generations>

    package init() {
        generations = Mutex(
            Generations(
                current: .make(), previous: nil,
                rotatesAtMicroseconds: MonotonicClock.nowMicroseconds() + Self.lifetimeMicroseconds))
    }

    /// The keys of the process before this one, so that its clients' tickets resume here.
    ///
    /// - Parameter bytes: what `handOver` gave; of another version, or too old, the keys are new.
    package convenience init(handedOver bytes: [UInt8]) {
        self.init()
        guard let taken = Self.read(bytes), taken.rotatesAtMicroseconds > MonotonicClock.nowMicroseconds(),
            taken.rotatesAtMicroseconds <= generations.withLock({ $0.rotatesAtMicroseconds })
        else { return }
        generations.withLock { $0 = taken }
    }

    /// The keys, for the process that takes over from this one and for nobody else.
    package func handOver() -> [UInt8] {
        generations.withLock { keys in
            var bytes = Self.mark
            for shift in stride(from: 56, through: 0, by: -8) {
                bytes.append(UInt8(truncatingIfNeeded: keys.rotatesAtMicroseconds >> Int64(shift)))
            }
            for key in [keys.current] + (keys.previous.map { [$0] } ?? []) {
                bytes += key.name + key.cipher + key.mac
            }
            return bytes
        }
    }

    private static func read(_ bytes: [UInt8]) -> Generations? {
        guard bytes.starts(with: mark), bytes.count >= mark.count + 8 else { return nil }
        var rest = bytes.dropFirst(mark.count)
        var rotatesAt: Int64 = 0
        for _ in 0..<8 { rotatesAt = rotatesAt << 8 | Int64(rest.removeFirst()) }
        guard rest.count == keyBytes || rest.count == 2 * keyBytes else { return nil }
        func key() -> Key {
            defer { rest = rest.dropFirst(keyBytes) }
            let parts = Array(rest.prefix(keyBytes))
            return Key(name: Array(parts[0..<16]), cipher: Array(parts[16..<48]), mac: Array(parts[48...]))
        }
        let current = key()
        return Generations(
            current: current, previous: rest.isEmpty ? nil : key(), rotatesAtMicroseconds: rotatesAt)
    }

    /// Starts a new key; tickets of the previous one still resume until the next rotation.
    package func rotate() {
        generations.withLock { keys in
            keys.previous = keys.current
            keys.current = .make()
            keys.rotatesAtMicroseconds = MonotonicClock.nowMicroseconds() + Self.lifetimeMicroseconds
        }
    }

    /// The same once the key has sealed for its time.
    package func rotateIfDue(nowMicroseconds now: Int64) {
        if generations.withLock({ $0.rotatesAtMicroseconds <= now }) { rotate() }
    }

    var current: Key { generations.withLock { $0.current } }

    /// The key of a ticket's name, and whether the ticket should be renewed.
    func find(name: [UInt8]) -> (key: Key, isOld: Bool)? {
        generations.withLock { keys in
            if keys.current.name == name { return (keys.current, false) }
            if let previous = keys.previous, previous.name == name { return (previous, true) }
            return nil
        }
    }
}
