import CLinux
import Glibc

/// A system call that failed: what was tried, and why it did not work.
public struct SystemError: Error, Equatable, Sendable, CustomStringConvertible {
    /// `errno`.
    public let code: Int32
    /// The call or the purpose, like "bind".
    public let operation: String

    public init(code: Int32, operation: String) {
        self.code = code
        self.operation = operation
    }

    /// From the `errno` of the call that has just failed.
    static func last(_ operation: String) -> SystemError {
        SystemError(code: errno, operation: operation)
    }

    /// The system's words for the code, like "Connection refused".
    public var reason: String {
        var buffer = [CChar](repeating: 0, count: 128)
        let size = buffer.count
        let result = unsafe buffer.withUnsafeMutableBufferPointer { text -> Int32 in
            guard let base = text.baseAddress else { return -1 }
            return unsafe gw_error_text(code, base, size)
        }
        guard result == 0 else { return "error \(code)" }
        let bytes = buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Whether it is this machine that lacks something, whoever was to be reached: descriptors or memory. A
    /// lack of ports looks like an address that cannot be reached from here.
    public var isShortage: Bool {
        switch code {
        case EMFILE, ENFILE, ENOMEM, ENOBUFS, ENOSPC: true
        default: false
        }
    }

    public var description: String { "\(operation): \(reason)" }
}

/// What one read or write came to.
public enum IOResult {
    case bytes(Int)
    case wouldBlock
    case endOfStream
    /// The connection is broken; the value is `errno`.
    case failed(Int32)
}

/// A file descriptor's number. It owns nothing: the slot that holds it closes it.
public struct Descriptor: Equatable, Hashable, Sendable {
    public let rawValue: Int32

    @inlinable
    public init(rawValue: Int32) { self.rawValue = rawValue }

    @inlinable public static var none: Descriptor { Descriptor(rawValue: -1) }
    @inlinable public var isOpen: Bool { rawValue >= 0 }
}
