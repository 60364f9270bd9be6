import CLinux
import Glibc

/// DNS and /etc/hosts by the system's resolver. It blocks: never on a worker.
public enum NameResolver {
    /// The addresses of a name in the resolver's order; empty when it has none or nobody can tell.
    public static func resolve(host: String, port: UInt16) -> [SocketAddress] {
        if let literal = SocketAddress(ip: host, port: port) { return [literal] }
        var hints = unsafe addrinfo()
        unsafe hints.ai_family = AF_UNSPEC
        unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        guard unsafe getaddrinfo(host, nil, &hints, &list) == 0 else { return [] }
        defer { unsafe freeaddrinfo(list) }
        var found: [SocketAddress] = []
        var item = unsafe list
        while let entry = unsafe item {
            if let raw = unsafe entry.pointee.ai_addr {
                var text = [CChar](repeating: 0, count: 64)
                let length = unsafe entry.pointee.ai_addrlen
                let result = unsafe text.withUnsafeMutableBufferPointer { buffer in
                    unsafe getnameinfo(
                        raw, length, buffer.baseAddress, socklen_t(buffer.count), nil, 0, NI_NUMERICHOST)
                }
                if result == 0 {
                    let bytes = text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
                    let name = String(decoding: bytes, as: UTF8.self)
                    if let address = SocketAddress(ip: name, port: port), !found.contains(address) {
                        found.append(address)
                    }
                }
            }
            unsafe item = entry.pointee.ai_next
        }
        return found
    }
}

/// Waits on one descriptor, for threads that may block.
public enum Readiness {
    /// - Returns: whether the descriptor became ready (or broke) in time.
    public static func wait(
        _ descriptor: Descriptor, forWriting: Bool, timeoutMilliseconds: Int
    ) -> Bool {
        var waiting = pollfd(
            fd: descriptor.rawValue, events: Int16(forWriting ? POLLOUT : POLLIN), revents: 0)
        while true {
            let n = unsafe poll(&waiting, 1, Int32(clamping: timeoutMilliseconds))
            if n > 0 { return true }
            if n == 0 { return false }
            if errno != EINTR { return false }
        }
    }

    /// Waits for a while, or until the wake-up is signalled.
    ///
    /// - Returns: whether it was.
    public static func pause(milliseconds: Int, unless wakeup: Wakeup) -> Bool {
        wait(wakeup.descriptor, forWriting: false, timeoutMilliseconds: milliseconds)
    }
}

extension Readiness {
    /// Waits for a while, on a thread that may.
    public static func pause(milliseconds: Int) { _ = poll(nil, 0, Int32(clamping: milliseconds)) }

    /// Waits until one of two descriptors is readable; -1 waits without limit.
    public static func wait(_ first: Descriptor, _ second: Descriptor, timeoutMilliseconds: Int = -1) {
        var waiting = [
            pollfd(fd: first.rawValue, events: Int16(POLLIN), revents: 0),
            pollfd(fd: second.rawValue, events: Int16(POLLIN), revents: 0),
        ]
        _ = unsafe poll(&waiting, 2, Int32(clamping: timeoutMilliseconds))
    }
}
