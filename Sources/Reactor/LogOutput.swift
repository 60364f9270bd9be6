import CLinux
import Glibc

/// Where lines go that nobody may wait for: a disk that is full, a pipe that nobody reads and a syslog that
/// is away cost the lines, never more than a moment of the thread that writes them.
public final class LogOutput {
    private enum Kind { case file, stream, syslog }

    /// Longest datagram that a syslog daemon takes for certain; longer lines are cut.
    private static let datagramBytes = 8_192
    /// What a pipe takes at once when it is writable at all (POSIX's PIPE_BUF on Linux).
    private static let pipeBytes = 4_096
    /// `local0.info` (RFC 5424 section 6.2.1).
    private static let priority = "<134>"

    private let descriptor: Descriptor
    private let kind: Kind
    private let ownsDescriptor: Bool
    private let path: String
    /// The last line written may lack its end.
    private var isTorn = false

    /// Writes to a descriptor that stays open.
    public init(_ descriptor: Descriptor) {
        self.descriptor = descriptor
        kind = gw_is_regular_file(descriptor.rawValue) == 1 ? .file : .stream
        ownsDescriptor = false
        path = ""
    }

    /// Appends to a file, or to whatever stands in its place.
    public init(appendingTo path: String) throws(SystemError) {
        descriptor = try FileReader.openForAppending(path: path)
        kind = gw_is_regular_file(descriptor.rawValue) == 1 ? .file : .stream
        ownsDescriptor = true
        self.path = path
    }

    /// Sends to a syslog daemon's socket.
    public init(syslog path: String) throws(SystemError) {
        let raw = socket(
            AF_UNIX,
            Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { throw .last("socket") }
        descriptor = Descriptor(rawValue: raw)
        kind = .syslog
        ownsDescriptor = true
        self.path = path
    }

    deinit { if ownsDescriptor { Socket.close(descriptor) } }

    /// Writes whole lines.
    ///
    /// - Parameter patienceMilliseconds: how long a pipe or a daemon may take to have room.
    /// - Returns: how many lines were lost, and why.
    public func write(
        _ lines: [UInt8], patienceMilliseconds: Int
    ) -> (lost: Int, reason: String) {
        kind == .syslog ? sendLines(lines, patienceMilliseconds) : writeStream(lines, patienceMilliseconds)
    }

    private func writeStream(_ lines: [UInt8], _ patience: Int) -> (lost: Int, reason: String) {
        var bytes = lines
        if isTorn { bytes.insert(UInt8(ascii: "\n"), at: 0) }
        var offset = 0
        while offset < bytes.count {
            var room = bytes.count - offset
            if kind == .stream {
                guard Readiness.wait(descriptor, forWriting: true, timeoutMilliseconds: patience) else {
                    return lose(bytes, offset, "nobody reads it")
                }
                room = min(room, Self.pipeBytes)
            }
            let n = unsafe bytes.withUnsafeBytes { buffer in
                unsafe Glibc.write(descriptor.rawValue, buffer.baseAddress.map { unsafe $0 + offset }, room)
            }
            if n >= 0 {
                offset += n
            } else if errno != EINTR {
                return lose(bytes, offset, SystemError.last("write").reason)
            }
        }
        isTorn = false
        return (0, "")
    }

    private func lose(_ bytes: [UInt8], _ offset: Int, _ reason: String) -> (lost: Int, reason: String) {
        let lost = bytes[offset...].count { $0 == UInt8(ascii: "\n") }
        // The line break that was to end a torn line ends no line of its own.
        if offset == 0, isTorn { return (lost - 1, reason) }
        isTorn = offset > 0 && bytes[offset - 1] != UInt8(ascii: "\n")
        return (lost, reason)
    }

    /// A daemon's socket holds few lines: it is waited for, and once in vain is enough for all of them.
    private func sendLines(_ lines: [UInt8], _ patience: Int) -> (lost: Int, reason: String) {
        var wait = timeval(tv_sec: patience / 1_000, tv_usec: patience % 1_000 * 1_000)
        _ = unsafe setsockopt(
            descriptor.rawValue, SOL_SOCKET, SO_SNDTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
        var waits = patience > 0
        var lost = 0
        var reason = ""
        let head = Array("\(Self.priority)gateway[\(getpid())]: ".utf8)
        for line in lines.split(separator: UInt8(ascii: "\n")) {
            let datagram = head + line.prefix(Self.datagramBytes - head.count)
            if !send(datagram, waits: waits) {
                lost += 1
                reason = SystemError.last("send").reason
                waits = false
            }
        }
        return (lost, reason)
    }

    /// Each goes to whoever listens at the path by now: a daemon may have been started anew.
    private func send(_ datagram: [UInt8], waits: Bool) -> Bool {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return false }
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
        let sent = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { target in
                unsafe sendto(
                    descriptor.rawValue, datagram, datagram.count,
                    Int32(MSG_NOSIGNAL) | (waits ? 0 : Int32(MSG_DONTWAIT)), target,
                    socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        return sent == datagram.count
    }
}
