import Glibc
import Synchronization

/// Two descriptors that bytes come from and go to: a socket, or the pipes of a TLS client.
///
/// Every read has a deadline. Not closed by itself: the owner of the descriptors does that.
struct ByteStream: Sendable {
    let input: Int32
    let output: Int32

    /// Writes everything, or throws when the other side is gone or takes nothing for ten seconds.
    func write(_ bytes: some Collection<UInt8>) throws {
        var rest = Array(bytes)[...]
        let deadline = Deadline(seconds: 10)
        while !rest.isEmpty {
            var waiting = pollfd(fd: output, events: Int16(POLLOUT), revents: 0)
            guard unsafe poll(&waiting, 1, deadline.remainingMilliseconds) > 0 else {
                throw HarnessError("the other side takes no bytes")
            }
            let count = unsafe rest.withUnsafeBytes { bytes in
                unsafe Glibc.write(output, bytes.baseAddress, min(bytes.count, 65_536))
            }
            guard count > 0 else { throw HarnessError("write failed: error \(errno)") }
            rest = rest.dropFirst(count)
        }
    }

    /// What has arrived, at least one byte; empty at the end of the stream.
    ///
    /// A reset counts as the end: what matters to a test is that nothing more comes.
    func read(within seconds: Double) throws -> [UInt8] {
        var waiting = pollfd(fd: input, events: Int16(POLLIN), revents: 0)
        guard unsafe poll(&waiting, 1, Deadline(seconds: seconds).remainingMilliseconds) > 0 else {
            throw HarnessError("nothing arrived in \(seconds) s")
        }
        return unsafe [UInt8](unsafeUninitializedCapacity: 65_536) { buffer, count in
            count = unsafe max(0, Glibc.read(input, buffer.baseAddress, buffer.count))
        }
    }
}

/// A blocking TCP socket of the loopback interface, closed with its owner.
final class TCPConnection: Sendable {
    let descriptor: Int32
    private let isOpen = Mutex(true)

    var stream: ByteStream { ByteStream(input: descriptor, output: descriptor) }

    init(descriptor: Int32) { self.descriptor = descriptor }

    /// - Parameter receiveBytes: the size of the receive buffer; 0 leaves it to the kernel.
    convenience init(port: UInt16, receiveBytes: Int32 = 0) throws {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        if receiveBytes > 0 {
            var size = receiveBytes
            unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, 4)
        }
        var address = sockaddr_in.loopback(port)
        let code = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard code == 0 else {
            let problem = errno
            Glibc.close(descriptor)
            throw HarnessError("cannot connect to port \(port): error \(problem)")
        }
        self.init(descriptor: descriptor)
    }

    deinit { close() }

    /// Ends the connection properly.
    func close() {
        isOpen.withLock { isOpen in
            if isOpen { Glibc.close(descriptor) }
            isOpen = false
        }
    }

    /// Ends the connection with a reset.
    func reset() {
        var linger = Glibc.linger(l_onoff: 1, l_linger: 0)
        unsafe setsockopt(
            descriptor, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<Glibc.linger>.size))
        close()
    }

    /// Says that nothing more will be sent.
    func shutdownWrite() { shutdown(descriptor, Int32(SHUT_WR)) }
}

/// A listening socket of the loopback interface.
final class Listener: Sendable {
    let port: UInt16
    private let descriptor: Int32
    private let isOpen = Mutex(true)

    /// - Parameter port: 0 lets the kernel choose.
    init(port: UInt16 = 0) throws {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        self.descriptor = descriptor
        var yes: Int32 = 1
        unsafe setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, 4)
        var address = sockaddr_in.loopback(port)
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let code = unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                guard unsafe bind(descriptor, generic, size) == 0, listen(descriptor, 1024) == 0 else {
                    return errno
                }
                return unsafe getsockname(descriptor, generic, &size)
            }
        }
        guard code == 0 else {
            Glibc.close(descriptor)
            throw HarnessError("cannot listen on port \(port): error \(code)")
        }
        self.port = UInt16(bigEndian: address.sin_port)
    }

    deinit { stop() }

    /// The next connection; nil once the listener is stopped.
    func accept() -> TCPConnection? {
        let accepted = Glibc.accept(descriptor, nil, nil)
        guard accepted >= 0 else { return nil }
        var yes: Int32 = 1
        unsafe setsockopt(accepted, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, 4)
        return TCPConnection(descriptor: accepted)
    }

    /// Accepts no more; connections go on.
    func stop() {
        isOpen.withLock { isOpen in
            if isOpen {
                // `shutdown` wakes a thread that waits in `accept`, `close` alone does not.
                shutdown(descriptor, Int32(SHUT_RDWR))
                Glibc.close(descriptor)
            }
            isOpen = false
        }
    }
}

extension sockaddr_in {
    fileprivate static func loopback(_ port: UInt16) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return address
    }
}

extension TCPConnection {
    /// Takes nothing more; wakes a thread that reads.
    func shutdownRead() { shutdown(descriptor, Int32(SHUT_RD)) }
}
