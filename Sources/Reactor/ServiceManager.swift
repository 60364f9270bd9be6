import CLinux
import Glibc

/// What systemd is told (sd_notify(3)); nothing where there is no systemd.
public struct ServiceManager: Sendable {
    private let path: String?
    /// Half of what systemd waits between two signs of life, in microseconds; 0 when it does not watch.
    public let watchdogMicroseconds: Int64

    /// - Parameter environment: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    public init(environment: [String: String], processIdentifier: Int32 = ProcessLimits.processIdentifier) {
        path = environment["NOTIFY_SOCKET"].flatMap { $0.hasPrefix("/") || $0.hasPrefix("@") ? $0 : nil }
        let isOurs = environment["WATCHDOG_PID"].map { $0 == "\(processIdentifier)" } ?? true
        let period = environment["WATCHDOG_USEC"].flatMap { Int64($0) } ?? 0
        watchdogMicroseconds = isOurs && path != nil && period > 0 ? max(1_000, period / 2) : 0
    }

    public func ready() { send("READY=1\nSTATUS=Serving") }
    public func stopping() { send("STOPPING=1\nSTATUS=Draining") }
    public func isAlive() { send("WATCHDOG=1") }

    /// With the time on the clock that systemd compares it with.
    public func reloading() { send("RELOADING=1\nMONOTONIC_USEC=\(MonotonicClock.systemMicroseconds())") }

    /// Another process is the service from now on.
    public func handOver(to processIdentifier: Int32) {
        send("MAINPID=\(processIdentifier)\nREADY=1\nSTATUS=Serving")
    }

    private func send(_ text: String) {
        guard let path else { return }
        let raw = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { return }
        defer { _ = close(raw) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return }
        // A name in the abstract space begins with a zero.
        if bytes[0] == UInt8(ascii: "@") { bytes[0] = 0 }
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
        let length = socklen_t(2 + bytes.count)
        let message = Array(text.utf8)
        _ = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { target in
                unsafe sendto(
                    raw, message, message.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT), target, length)
            }
        }
    }
}
