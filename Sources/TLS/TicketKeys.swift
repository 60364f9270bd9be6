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
    }

    /// How long a key seals tickets. OpenSSL's tickets live for two hours: each finds its key, current or
    /// previous, and no key is kept longer than that takes.
    package static let lifetimeMicroseconds: Int64 = 7_200_000_000

    private let generations = Mutex(Generations(current: .make(), previous: nil))

    package init() {}

    /// Starts a new key; tickets of the previous one still resume until the next rotation.
    package func rotate() {
        generations.withLock { keys in
            keys.previous = keys.current
            keys.current = .make()
        }
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
