import CLinux
import Glibc

// How listening sockets outlive a process: systemd hands them to the first one (`LISTEN_FDS`,
// sd_listen_fds(3)), and a gateway hands them to the one that replaces it. A socket that somebody holds is
// never closed, so no caller that waits at it is refused or reset.

/// Listening sockets that another process has opened.
public struct InheritedSockets: Sendable {
    /// One socket, and what its giver calls it.
    private struct Entry: Sendable {
        var name: String
        var descriptor: Descriptor
    }

    /// The first descriptor that systemd passes.
    private static let firstDescriptor: Int32 = 3
    /// Name of the variable by which a gateway passes its own: `https=5,https=6,admin=7`.
    static let variable = "GATEWAY_SOCKETS"

    private var entries: [Entry] = []

    /// None.
    public init() {}

    /// Takes what the environment names, and makes it ours: non-blocking, not for programs that we start.
    ///
    /// - Parameters:
    ///   - environment: of this process.
    ///   - processIdentifier: systemd names the process that its sockets are for.
    public init(environment: [String: String], processIdentifier: Int32 = ProcessLimits.processIdentifier) {
        if let count = environment["LISTEN_FDS"].flatMap({ Int32($0) }), count > 0, count < 1_024,
            environment["LISTEN_PID"] == "\(processIdentifier)"
        {
            let names = (environment["LISTEN_FDNAMES"] ?? "").split(
                separator: ":", omittingEmptySubsequences: false)
            for index in 0..<count {
                let name = Int(index) < names.count ? String(names[Int(index)]) : ""
                add(name, Self.firstDescriptor + index)
            }
        }
        for item in (environment[Self.variable] ?? "").split(separator: ",") {
            let parts = item.split(separator: "=")
            if parts.count == 2, let number = Int32(parts[1]) { add(String(parts[0]), number) }
        }
    }

    private mutating func add(_ name: String, _ number: Int32) {
        let flags = gw_descriptor_flags(number)
        // Nothing is open there, or it is no listener: not a socket that we could serve.
        guard flags >= 0, gw_is_listening(number) == 1 else { return }
        gw_claim_descriptor(number)
        entries.append(Entry(name: name, descriptor: Descriptor(rawValue: number)))
    }

    public var isEmpty: Bool { entries.isEmpty }

    /// The sockets that listen on an address, for the caller to own. With port 0, those of the name.
    public mutating func take(_ address: SocketAddress, named name: String) -> [Descriptor] {
        var taken: [Descriptor] = []
        entries.removeAll { entry in
            let isWanted =
                address.port == 0
                ? entry.name == name : Socket.localAddress(entry.descriptor) == address
            if isWanted { taken.append(entry.descriptor) }
            return isWanted
        }
        return taken
    }

    /// Closes what nobody has taken.
    public mutating func closeRest() {
        for entry in entries { Socket.close(entry.descriptor) }
        entries = []
    }
}

/// A program that takes over from this one.
public enum Successor {
    /// What it is told by, and the descriptor on which it says that it serves.
    private static let readyVariable = "GATEWAY_READY"
    /// The number of the descriptor with what the program is told in confidence.
    private static let secretVariable = "GATEWAY_SECRET"

    /// Starts the program with the listening sockets.
    ///
    /// - Parameters:
    ///   - path: of the program.
    ///   - arguments: without the program's name.
    ///   - environment: for it; variables about sockets are replaced.
    ///   - sockets: each with its name.
    ///   - secret: sealed memory for it; it stays the caller's to close.
    /// - Returns: its process, a child of our parent, and a descriptor that becomes readable when it serves,
    ///   or ends without.
    public static func start(
        path: String, arguments: [String], environment: [String: String],
        sockets: [(name: String, descriptor: Descriptor)], secret: Descriptor?
    ) throws(SystemError) -> (processIdentifier: Int32, ready: Descriptor) {
        var ends: (Int32, Int32) = (-1, -1)
        guard unsafe gw_pipe(&ends.0, &ends.1) == 0 else { throw .last("pipe") }
        defer { _ = close(ends.1) }
        var environment = environment
        for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"] { environment[name] = nil }
        environment[InheritedSockets.variable] =
            sockets.map { "\($0.name)=\($0.descriptor.rawValue)" }.joined(separator: ",")
        environment[readyVariable] = "\(ends.1)"
        environment[secretVariable] = secret.map { "\($0.rawValue)" }
        let kept = sockets.map(\.descriptor.rawValue) + [ends.1] + (secret.map { [$0.rawValue] } ?? [])
        do {
            let started = try spawn(path, arguments, environment, kept)
            return (started, Descriptor(rawValue: ends.0))
        } catch {
            _ = close(ends.0)
            throw error
        }
    }

    private static func spawn(
        _ path: String, _ arguments: [String], _ environment: [String: String], _ kept: [Int32]
    ) throws(SystemError) -> Int32 {
        guard unsafe access(path, X_OK) == 0 else { throw .last("start \(path)") }
        let argumentPointers = unsafe ([path] + arguments).map { unsafe strdup($0) } + [nil]
        let environmentPointers = unsafe environment.map { unsafe strdup("\($0)=\($1)") } + [nil]
        defer {
            for index in unsafe argumentPointers.indices { unsafe free(argumentPointers[index]) }
            for index in unsafe environmentPointers.indices { unsafe free(environmentPointers[index]) }
        }
        let started = unsafe gw_start_beside(
            path, argumentPointers, environmentPointers, kept, Int32(kept.count))
        guard started > 0 else { throw .last("start \(path)") }
        return started
    }

    /// Whether another process waits for this one to serve, to hand the service over.
    public static func isAwaited(environment: [String: String]) -> Bool { environment[readyVariable] != nil }

    /// What the process that started this one has told it in confidence; nil without one. Only once.
    public static func takeSecret(environment: [String: String]) -> [UInt8]? {
        environment[secretVariable].flatMap { Int32($0) }.flatMap(SealedMemory.take)
    }

    /// Tells the process that started this one that it may go; nothing without one.
    public static func sayReady(environment: [String: String]) {
        guard let number = environment[readyVariable].flatMap({ Int32($0) }), number > 2,
            gw_descriptor_flags(number) >= 0
        else { return }
        var byte: UInt8 = 1
        _ = unsafe write(number, &byte, 1)
        _ = close(number)
    }

    /// Whether a started program has said that it serves; false when it has ended or said nothing.
    public static func isReady(_ ready: Descriptor) -> Bool {
        var byte: UInt8 = 0
        return unsafe read(ready.rawValue, &byte, 1) == 1
    }

    /// Where this program is, to start it, or what has replaced it since, again. As it was called when that
    /// was a path, so that a symbolic link may lead elsewhere by then.
    public static func ownPath(calledAs name: String) -> String? {
        var buffer = [CChar](repeating: 0, count: 4_096)
        if name.contains("/") {
            if name.hasPrefix("/") { return name }
            guard unsafe getcwd(&buffer, 4_096) != nil else { return nil }
            return text(buffer) + "/" + name
        }
        let count = unsafe readlink("/proc/self/exe", &buffer, 4_095)
        return count > 0 ? text(buffer) : nil
    }

    private static func text(_ buffer: [CChar]) -> String {
        String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Ends a program that we have started.
    public static func kill(_ processIdentifier: Int32) { _ = Glibc.kill(processIdentifier, SIGKILL) }

    /// Collects programs that have ended: ours, and whatever the first process of a container inherits.
    public static func reap() {
        var status: Int32 = 0
        while unsafe waitpid(-1, &status, WNOHANG) > 0 {}
    }
}
