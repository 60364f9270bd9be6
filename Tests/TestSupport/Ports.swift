import Glibc
import Synchronization

/// TCP ports of the loopback interface that nothing listens on.
///
/// They come from below the range that the kernel hands out to clients, each is given once before any is
/// given again, and two runs at the same time begin at different places. The ports 10,000 above them are
/// nobody's but the nodes' of a Redis cluster, which talk to each other there.
package enum Ports {
    private static let next = Mutex<UInt16>(8_000 + UInt16(getpid() % 200) * 50)

    package static func free() throws -> UInt16 {
        for _ in 0..<2_000 {
            let port = next.withLock { port in
                port = port >= 17_999 ? 8_000 : port + 1
                return port
            }
            if isFree(port) { return port }
        }
        throw RedisServer.Failure(description: "no port is free")
    }

    /// Binds without listening: a process that is being started has a copy of every descriptor until it runs
    /// its program, and the copy of one that listens would keep the port's owner-to-be from it.
    private static func isFree(_ port: UInt16) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        defer { close(descriptor) }
        var yes: Int32 = 1
        unsafe setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, 4)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let length = socklen_t(MemoryLayout<sockaddr_in>.size)
        return unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe bind(descriptor, $0, length) == 0
            }
        }
    }
}
