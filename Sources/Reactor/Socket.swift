import CLinux
import Glibc

// The only callers of the socket functions. `EINTR` is retried here, `EAGAIN` is a value, and a code that
// only our own bug can cause (a bad descriptor, a bad pointer) traps.

/// What `accept` came to.
public enum AcceptResult {
    case accepted(Descriptor, SocketAddress)
    case wouldBlock
    /// The process or the system has no descriptor left.
    case outOfDescriptors
    case failed(Int32)
}

public enum Socket {
    /// Listens on an IP address, non-blocking and close-on-exec.
    ///
    /// - Parameters:
    ///   - reusePort: lets every worker own a queue of its own on the same port.
    ///   - backlog: connections that may wait, cut by the kernel to `net.core.somaxconn`.
    public static func listen(
        on address: SocketAddress, reusePort: Bool, backlog: Int32 = 4_096
    ) throws(SystemError) -> Descriptor {
        let family = address.isIPv4 ? AF_INET : AF_INET6
        let raw = socket(family, Int32(SOCK_STREAM.rawValue) | socketFlags, 0)
        guard raw >= 0 else { throw .last("socket") }
        let descriptor = Descriptor(rawValue: raw)
        set(descriptor, SOL_SOCKET, SO_REUSEADDR, 1)
        if reusePort { set(descriptor, SOL_SOCKET, SO_REUSEPORT, 1) }
        if !address.isIPv4 { set(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 0) }
        let bound = unsafe withSystemAddress(address) { pointer, length in
            unsafe bind(raw, pointer, length)
        }
        guard bound == 0, Glibc.listen(raw, backlog) == 0 else {
            let error = SystemError.last("bind")
            close(descriptor)
            throw error
        }
        return descriptor
    }

    /// Another descriptor of the same socket.
    public static func duplicate(_ descriptor: Descriptor) throws(SystemError) -> Descriptor {
        let raw = gw_duplicate(descriptor.rawValue)
        guard raw >= 0 else { throw .last("dup") }
        return Descriptor(rawValue: raw)
    }

    /// Listens on a Unix socket; a stale socket file in its place is removed.
    public static func listen(onUnixPath path: String) throws(SystemError) -> Descriptor {
        let raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | socketFlags, 0)
        guard raw >= 0 else { throw .last("socket") }
        unsafe unlink(path)
        let bound = try unsafe withUnixAddress(path) { pointer, length in unsafe bind(raw, pointer, length) }
        guard bound == 0, Glibc.listen(raw, 4_096) == 0 else {
            let error = SystemError.last("bind")
            close(Descriptor(rawValue: raw))
            throw error
        }
        return Descriptor(rawValue: raw)
    }

    /// Bytes that the kernel holds for a peer whose window is full. Without a bound it takes megabytes, and
    /// tells of progress a third of them later: for a slow and steady reader longer than any timeout.
    private static let unsentBytesMax: Int32 = 262_144

    /// Takes one waiting connection, non-blocking, close-on-exec, without Nagle's delay.
    public static func accept(on listener: Descriptor) -> AcceptResult {
        while true {
            var storage = sockaddr_storage()
            var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
            let raw = unsafe withUnsafeMutablePointer(to: &storage) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    unsafe gw_accept4(listener.rawValue, $0, &length, socketFlags)
                }
            }
            if raw >= 0 {
                let descriptor = Descriptor(rawValue: raw)
                set(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
                set(descriptor, Int32(IPPROTO_TCP), TCP_NOTSENT_LOWAT, unsentBytesMax)
                return .accepted(descriptor, decode(storage))
            }
            switch errno {
            case EINTR, ECONNABORTED: continue
            case EAGAIN: return .wouldBlock
            case EMFILE, ENFILE, ENOBUFS, ENOMEM: return .outOfDescriptors
            default: return .failed(errno)
            }
        }
    }

    /// Starts a connection; `inProgress` says that writability will tell how it ended.
    public static func connect(
        to address: SocketAddress
    ) throws(SystemError) -> (descriptor: Descriptor, inProgress: Bool) {
        let family = address.isIPv4 ? AF_INET : AF_INET6
        let raw = socket(family, Int32(SOCK_STREAM.rawValue) | socketFlags, 0)
        guard raw >= 0 else { throw .last("socket") }
        set(Descriptor(rawValue: raw), Int32(IPPROTO_TCP), TCP_NODELAY, 1)
        let result = unsafe withSystemAddress(address) { pointer, length in
            unsafe Glibc.connect(raw, pointer, length)
        }
        return try conclude(raw, result)
    }

    /// Starts a connection to a Unix socket.
    public static func connect(
        toUnixPath path: String
    ) throws(SystemError) -> (descriptor: Descriptor, inProgress: Bool) {
        let raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | socketFlags, 0)
        guard raw >= 0 else { throw .last("socket") }
        let result = try unsafe withUnixAddress(path) { pointer, length in
            unsafe Glibc.connect(raw, pointer, length)
        }
        return try conclude(raw, result)
    }

    private static func conclude(
        _ raw: Int32, _ result: Int32
    ) throws(SystemError) -> (descriptor: Descriptor, inProgress: Bool) {
        if result == 0 { return (Descriptor(rawValue: raw), false) }
        if errno == EINPROGRESS || errno == EINTR { return (Descriptor(rawValue: raw), true) }
        let error = SystemError.last("connect")
        close(Descriptor(rawValue: raw))
        throw error
    }

    /// How a connection that was in progress ended: 0, or `errno`.
    public static func pendingError(_ descriptor: Descriptor) -> Int32 {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        guard unsafe getsockopt(descriptor.rawValue, SOL_SOCKET, SO_ERROR, &value, &length) == 0 else {
            return errno
        }
        return value
    }

    /// Reads what has arrived into the block's free room, at most `limit` bytes.
    @inline(never)
    public static func receive(
        _ descriptor: Descriptor, into block: inout Block, limit: Int = .max
    ) -> IOResult {
        let room = min(block.freeCount, limit)
        precondition(room > 0, "a read needs room")
        while true {
            let n = unsafe recv(descriptor.rawValue, block.writableAddress, room, 0)
            if n > 0 {
                block.advanceEnd(n)
                return .bytes(n)
            }
            if n == 0 { return .endOfStream }
            if errno == EINTR { continue }
            return errno == EAGAIN ? .wouldBlock : .failed(errno)
        }
    }

    /// Writes as much as the kernel takes.
    @inline(never)
    public static func send(_ descriptor: Descriptor, _ bytes: Span<UInt8>) -> IOResult {
        while true {
            let n = unsafe bytes.withUnsafeBufferPointer { buffer in
                unsafe Glibc.send(
                    descriptor.rawValue, buffer.baseAddress, buffer.count, Int32(MSG_NOSIGNAL))
            }
            if n >= 0 { return .bytes(n) }
            if errno == EINTR { continue }
            return errno == EAGAIN ? .wouldBlock : .failed(errno)
        }
    }

    /// Writes two pieces with one system call.
    @inline(never)
    public static func send(
        _ descriptor: Descriptor, _ first: Span<UInt8>, _ second: Span<UInt8>
    ) -> IOResult {
        if second.isEmpty { return send(descriptor, first) }
        if first.isEmpty { return send(descriptor, second) }
        while true {
            let n = unsafe first.withUnsafeBufferPointer { a in
                unsafe second.withUnsafeBufferPointer { b in unsafe sendPair(descriptor.rawValue, a, b) }
            }
            if n >= 0 { return .bytes(n) }
            if errno == EINTR { continue }
            return errno == EAGAIN ? .wouldBlock : .failed(errno)
        }
    }

    private static func sendPair(
        _ raw: Int32, _ a: UnsafeBufferPointer<UInt8>, _ b: UnsafeBufferPointer<UInt8>
    ) -> Int {
        var parts = unsafe (
            iovec(iov_base: UnsafeMutableRawPointer(mutating: a.baseAddress), iov_len: a.count),
            iovec(iov_base: UnsafeMutableRawPointer(mutating: b.baseAddress), iov_len: b.count)
        )
        return unsafe withUnsafeMutableBytes(of: &parts) { raw2 -> Int in
            var message = unsafe msghdr()
            unsafe message.msg_iov = raw2.baseAddress?.assumingMemoryBound(to: iovec.self)
            unsafe message.msg_iovlen = 2
            return unsafe sendmsg(raw, &message, Int32(MSG_NOSIGNAL))
        }
    }

    public static func shutdownWrite(_ descriptor: Descriptor) {
        _ = shutdown(descriptor.rawValue, Int32(SHUT_WR))
    }

    /// Ends a descriptor. On Linux `close` releases it even when it reports an error, so none is retried;
    /// EBADF can only be our own double close.
    public static func close(_ descriptor: Descriptor) {
        guard descriptor.isOpen else { return }
        let result = Glibc.close(descriptor.rawValue)
        precondition(result == 0 || errno != EBADF, "a descriptor is closed once")
    }

    /// The address that a socket is bound to; tells the port that the kernel chose for port 0.
    public static func localAddress(_ descriptor: Descriptor) -> SocketAddress? {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = unsafe withUnsafeMutablePointer(to: &storage) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe getsockname(descriptor.rawValue, $0, &length)
            }
        }
        return result == 0 ? decode(storage) : nil
    }

    /// One sentence for the operator whose address could not be bound.
    public static func bindSentence(_ error: SystemError, address: String) -> String {
        switch error.code {
        case EADDRINUSE:
            return
                "cannot listen on \(address): another process uses this port; stop it or change the address"
        case EACCES:
            return "cannot listen on \(address): ports below 1024 need CAP_NET_BIND_SERVICE; "
                + "choose a higher port or grant the capability"
        case EADDRNOTAVAIL:
            return "cannot listen on \(address): this machine has no such address"
        case EMFILE, ENFILE:
            return "cannot listen on \(address): no file descriptors left; raise the limit (ulimit -n)"
        default:
            return "cannot listen on \(address): \(error.reason)"
        }
    }

    // MARK: Addresses in the system's form

    private static let socketFlags = Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)

    private static func set(_ descriptor: Descriptor, _ level: Int32, _ name: Int32, _ value: Int32) {
        var value = value
        _ = unsafe setsockopt(
            descriptor.rawValue, level, name, &value, socklen_t(MemoryLayout<Int32>.size))
    }

    private static func decode(_ storage: sockaddr_storage) -> SocketAddress {
        var storage = storage
        let family = Int32(storage.ss_family)
        return unsafe withUnsafeBytes(of: &storage) { bytes in
            switch family {
            case AF_INET:
                let four = unsafe bytes.loadUnaligned(as: sockaddr_in.self)
                return SocketAddress(
                    ipv4: UInt32(bigEndian: four.sin_addr.s_addr), port: UInt16(bigEndian: four.sin_port))
            case AF_INET6:
                let port = unsafe UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
                let high = unsafe UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
                let low = unsafe UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
                let scope = unsafe bytes.loadUnaligned(fromByteOffset: 24, as: UInt32.self)
                return SocketAddress(ipv6High: high, low: low, port: port, scope: scope)
            default:
                return .unspecified
            }
        }
    }

    private static func withSystemAddress(
        _ address: SocketAddress, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        var storage = sockaddr_storage()
        let length: Int
        if address.isIPv4 {
            var four = sockaddr_in()
            four.sin_family = sa_family_t(AF_INET)
            four.sin_port = address.port.bigEndian
            four.sin_addr.s_addr = UInt32(truncatingIfNeeded: address.low).bigEndian
            unsafe withUnsafeMutableBytes(of: &storage) {
                unsafe $0.storeBytes(of: four, as: sockaddr_in.self)
            }
            length = MemoryLayout<sockaddr_in>.size
        } else {
            unsafe withUnsafeMutableBytes(of: &storage) { bytes in
                unsafe bytes.storeBytes(of: sa_family_t(AF_INET6), as: sa_family_t.self)
                unsafe bytes.storeBytes(of: address.port.bigEndian, toByteOffset: 2, as: UInt16.self)
                unsafe bytes.storeBytes(of: address.high.bigEndian, toByteOffset: 8, as: UInt64.self)
                unsafe bytes.storeBytes(of: address.low.bigEndian, toByteOffset: 16, as: UInt64.self)
                unsafe bytes.storeBytes(of: address.scope, toByteOffset: 24, as: UInt32.self)
            }
            length = MemoryLayout<sockaddr_in6>.size
        }
        return unsafe withUnsafePointer(to: &storage) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe body($0, socklen_t(length))
            }
        }
    }

    private static func withUnixAddress(
        _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) throws(SystemError) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
            throw SystemError(code: ENAMETOOLONG, operation: "socket path \(path)")
        }
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
        return unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}
