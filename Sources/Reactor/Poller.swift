import CLinux
import Glibc

/// What a descriptor is watched for.
public struct Interest: OptionSet, Sendable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
    @inlinable public static var read: Interest { Interest(rawValue: 1) }
    @inlinable public static var write: Interest { Interest(rawValue: 2) }
    /// Only that the connection broke.
    @inlinable public static var none: Interest { Interest(rawValue: 0) }

    /// Tells of bytes once, when they come, instead of as long as they are there: who takes them takes all,
    /// or arms the descriptor again.
    @inlinable public static var edgeTriggered: Interest { Interest(rawValue: 4) }

    /// The union, without the generic machinery of option sets.
    @inlinable
    public func adding(_ other: Interest) -> Interest { Interest(rawValue: rawValue | other.rawValue) }

    var epollEvents: UInt32 {
        // A peer's half-close is asked for only with reading: nobody would take it, and a
        // level-triggered descriptor would report it for ever.
        var events: UInt32 = 0
        if rawValue & 1 != 0 { events |= Event.readable | Event.peerClosed }
        if rawValue & 2 != 0 { events |= Event.writable }
        if rawValue & 4 != 0 { events |= Event.edgeTriggered }
        return events
    }
}

/// One descriptor's news.
public struct Event {
    /// As given to `Poller.add`.
    public let token: UInt64
    let events: UInt32

    static let readable = UInt32(gw_epoll_in)
    static let writable = UInt32(gw_epoll_out)
    static let peerClosed = UInt32(gw_epoll_peer_closed)
    static let edgeTriggered = UInt32(gw_epoll_edge_triggered)

    public var isReadable: Bool { events & Event.readable != 0 }
    public var isWritable: Bool { events & Event.writable != 0 }
    /// Both directions are over, or the connection failed.
    public var isHangup: Bool { events & UInt32(gw_epoll_hangup | gw_epoll_error) != 0 }
    /// The peer has said that it sends no more.
    public var isPeerClosed: Bool { events & Event.peerClosed != 0 }
}

/// Room for the events of one turn, made once.
@safe
public struct EventList {
    let storage: UnsafeMutablePointer<epoll_event>
    let capacity: Int
    public internal(set) var count = 0

    public init(capacity: Int = 512) {
        self.capacity = capacity
        unsafe storage = .allocate(capacity: capacity)
    }

    public subscript(index: Int) -> Event {
        precondition(index >= 0 && index < count, "no such event")
        return unsafe Event(
            token: gw_epoll_token(storage + index), events: gw_epoll_events(storage + index))
    }
}

/// epoll, level-triggered unless asked for otherwise: after a short read the socket is empty, so nothing is
/// re-armed per request.
public struct Poller: Sendable {
    public let descriptor: Descriptor

    public init() throws(SystemError) {
        let raw = epoll_create1(O_CLOEXEC)
        guard raw >= 0 else { throw .last("epoll_create1") }
        descriptor = Descriptor(rawValue: raw)
    }

    /// - Throws: when the kernel is out of memory or over `fs.epoll.max_user_watches`.
    public func add(
        _ watched: Descriptor, token: UInt64, _ interest: Interest
    ) throws(SystemError) {
        guard control(EPOLL_CTL_ADD, watched, token, interest.epollEvents) == 0 else {
            throw .last("epoll_ctl")
        }
    }

    public func modify(_ watched: Descriptor, token: UInt64, _ interest: Interest) {
        let result = control(EPOLL_CTL_MOD, watched, token, interest.epollEvents)
        precondition(result == 0, "only a watched descriptor is modified")
    }

    /// Stops watching; closing a descriptor does the same.
    public func remove(_ watched: Descriptor) {
        _ = control(EPOLL_CTL_DEL, watched, 0, 0)
    }

    /// Waits for news. A signal or the timeout leaves the list empty.
    ///
    /// - Parameter timeoutMilliseconds: -1 waits without limit, 0 only looks.
    public func wait(timeoutMilliseconds: Int32, into list: inout EventList) {
        let n = unsafe epoll_wait(
            descriptor.rawValue, list.storage, Int32(list.capacity), timeoutMilliseconds)
        precondition(n >= 0 || errno == EINTR, "epoll_wait only fails when interrupted")
        list.count = Int(max(0, n))
    }

    private func control(
        _ operation: Int32, _ watched: Descriptor, _ token: UInt64, _ events: UInt32
    ) -> Int32 {
        gw_epoll_control(descriptor.rawValue, operation, watched.rawValue, events, token)
    }
}
