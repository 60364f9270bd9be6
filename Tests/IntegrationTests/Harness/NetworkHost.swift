import Foundation
import Glibc

/// A host of its own as far as the network goes: a namespace with a loopback interface, and one cable to the
/// machine's own namespace that can be pulled.
final class NetworkHost: Sendable {
    /// Whether this machine lets the tests make namespaces; in most containers it does not.
    static let arePermitted: Bool = {
        guard let host = try? NetworkHost(number: 250) else { return false }
        return (try? host.inside { true }) ?? false
    }()

    /// `setns`, which glibc has but does not show to Swift.
    private typealias Enter = @convention(c) (Int32, Int32) -> Int32
    private static let enter: Enter? = {
        let symbol = unsafe dlsym(nil, "setns")
        return unsafe unsafeBitCast(symbol, to: Enter?.self)
    }()
    private static let network: Int32 = 0x4000_0000

    private let name: String
    private let cable: String
    /// The machine's end of the cable.
    let gatewayAddress: String
    private let descriptor: Int32

    /// - Parameter number: 0 to 250, different for hosts that live at the same time.
    init(number: Int) throws {
        name = "gwt-\(getpid())-\(number)"
        cable = "gwt\(getpid() % 100_000)x\(number)"
        gatewayAddress = "198.18.\(number).1"
        try Self.ip("netns", "add", name)
        descriptor = unsafe open("/run/netns/\(name)", O_RDONLY | O_CLOEXEC)
        try Self.ip("link", "add", cable, "type", "veth", "peer", "name", "cable", "netns", name)
        try Self.ip("address", "add", "\(gatewayAddress)/30", "dev", cable)
        try Self.ip("link", "set", cable, "up")
        try Self.ip("-n", name, "address", "add", "198.18.\(number).2/30", "dev", "cable")
        try Self.ip("-n", name, "link", "set", "cable", "up")
        try Self.ip("-n", name, "link", "set", "lo", "up")
    }

    deinit {
        close(descriptor)
        _ = try? Self.ip("link", "delete", cable)
        _ = try? Self.ip("netns", "delete", name)
    }

    /// Runs something on this host: sockets that it opens and programs that it starts stay there.
    func inside<Result>(_ body: () throws -> Result) throws -> Result {
        let home = unsafe open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
        defer { close(home) }
        guard let enter = Self.enter, enter(descriptor, Self.network) == 0 else {
            throw HarnessError("the host \(name) cannot be entered: error \(errno)")
        }
        defer { _ = enter(home, Self.network) }
        return try body()
    }

    /// From now on nothing passes between this host and the machine; nobody is told.
    func pull() throws { try Self.ip("link", "set", cable, "down") }

    func plug() throws { try Self.ip("link", "set", cable, "up") }

    private static func ip(_ arguments: String...) throws {
        let outcome = try ChildProcess.run("ip", arguments, within: 10)
        guard outcome.status == 0 else { throw HarnessError("ip \(arguments): \(outcome.error)") }
    }
}
