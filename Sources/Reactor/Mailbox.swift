import CLinux
import Glibc
import Synchronization

/// Wakes a loop from another thread through an eventfd.
public final class Wakeup: Sendable {
    public let descriptor: Descriptor

    public init() throws(SystemError) {
        let raw = eventfd(0, O_CLOEXEC | O_NONBLOCK)
        guard raw >= 0 else { throw .last("eventfd") }
        descriptor = Descriptor(rawValue: raw)
    }

    deinit { Socket.close(descriptor) }

    /// Makes the descriptor readable. It cannot block: a counter that is already high stays readable.
    public func signal() {
        var one: UInt64 = 1
        _ = unsafe write(descriptor.rawValue, &one, 8)
    }

    /// Takes the signal, so that the descriptor is quiet until the next one.
    public func drain() {
        var value: UInt64 = 0
        _ = unsafe read(descriptor.rawValue, &value, 8)
    }
}

/// Messages to one thread, in order, with a wake-up.
public final class Mailbox<Message: Sendable>: Sendable {
    private let messages = Mutex<[Message]>([])
    public let wakeup: Wakeup

    public init() throws(SystemError) {
        wakeup = try Wakeup()
    }

    public func post(_ message: Message) {
        messages.withLock { $0.append(message) }
        wakeup.signal()
    }

    /// Posts unless so many wait already.
    public func post(_ message: Message, atMost limit: Int) {
        messages.withLock { if $0.count < limit { $0.append(message) } }
        wakeup.signal()
    }

    /// All messages so far; empties the box and quiets the wake-up.
    public func takeAll() -> [Message] {
        wakeup.drain()
        return messages.withLock { box in
            let taken = box
            box = []
            return taken
        }
    }
}
