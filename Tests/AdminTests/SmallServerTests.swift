import Glibc
import Reactor
import Testing

@testable import Admin

/// Clients that take their time, on a clock that the test moves on.
@Suite("Admin listener's connections", .serialized)
struct SmallServerTests {
    /// A server with its loop.
    private final class Scene {
        let poller: Poller
        let server: SmallServer
        private var events = EventList(capacity: 64)
        var now: Int64 = 1_000_000_000

        /// - Parameter bytes: of the answer to `/large`.
        init(connections: Int, bytes: Int) throws {
            poller = try Poller()
            let large = [UInt8](repeating: 120, count: bytes)
            server = try SmallServer(
                address: "0.0.0.0:0", poller: poller, firstToken: 1, connectionsMax: connections
            ) { request in
                request.path == "/large" ? SmallAnswer(200, "", large) : SmallAnswer(200, "", "ok")
            }
        }

        /// Does what there is to do, until nothing has been for some milliseconds.
        func settle() {
            repeat {
                poller.wait(timeoutMilliseconds: 4, into: &events)
                for index in 0..<events.count { server.handle(events[index], nowMicroseconds: now) }
            } while events.count > 0
            server.tick(nowMicroseconds: now)
        }

        func pass(seconds: Int64) {
            now += seconds * 1_000_000
            settle()
        }

        func client(from address: UInt32 = 0x7F00_0001, asks path: String) throws -> Client {
            let client = try Client(from: address, port: server.address.port)
            client.ask(path)
            settle()
            return client
        }
    }

    private final class Client {
        private let descriptor: Int32
        private(set) var received = 0
        /// The server has closed the connection.
        private(set) var isClosed = false

        init(from address: UInt32, port: UInt16) throws {
            descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
            // What the kernel holds for a client counts as taken.
            var size: Int32 = 65_536
            unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, 4)
            func reach(_ host: UInt32, _ port: UInt16, isOwn: Bool) -> Int32 {
                var there = sockaddr_in()
                there.sin_family = sa_family_t(AF_INET)
                there.sin_addr.s_addr = host.bigEndian
                there.sin_port = port.bigEndian
                let length = socklen_t(MemoryLayout<sockaddr_in>.size)
                return unsafe withUnsafePointer(to: &there) { pointer in
                    unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                        unsafe isOwn ? bind(descriptor, $0, length) : connect(descriptor, $0, length)
                    }
                }
            }
            try #require(reach(address, 0, isOwn: true) == 0)
            try #require(reach(0x7F00_0001, port, isOwn: false) == 0)
        }

        deinit { close(descriptor) }

        func ask(_ path: String) {
            let text = Array("GET \(path) HTTP/1.1\r\nHost: a\r\n\r\n".utf8)
            _ = unsafe text.withUnsafeBytes { unsafe send(descriptor, $0.baseAddress, $0.count, 0) }
        }

        /// Takes at most so many bytes of what is there.
        func read(_ most: Int) {
            var buffer = [UInt8](repeating: 0, count: 65_536)
            var left = most
            while left > 0 {
                let count = unsafe buffer.withUnsafeMutableBytes {
                    unsafe recv(descriptor, $0.baseAddress, min(left, $0.count), Int32(MSG_DONTWAIT))
                }
                guard count > 0 else {
                    isClosed = count == 0 || errno != EAGAIN
                    return
                }
                received += count
                left -= count
            }
        }

        /// Takes all that comes, until no more does.
        func readToEnd(_ scene: Scene) {
            var before = -1
            while !isClosed, received > before {
                before = received
                read(.max)
                scene.settle()
            }
        }
    }

    private static let large = 4_000_000

    @Test("clients that do not read their answers shut nobody out")
    func unread() throws {
        let scene = try Scene(connections: 8, bytes: Self.large)
        var slow: [Client] = []
        for _ in 0..<8 {
            slow.append(try scene.client(asks: "/large"))
            scene.pass(seconds: 1)
        }
        for _ in 0..<3 {
            scene.pass(seconds: 3)
            let probe = try scene.client(asks: "/")
            probe.read(1_000)
            #expect(probe.received > 0)
        }
        // The first of them has waited longest, and gets no more than was under way.
        for client in slow { client.readToEnd(scene) }
        #expect(slow[0].received < Self.large)
        #expect(slow.dropFirst().allSatisfy { $0.received > Self.large })
    }

    @Test("who has just come keeps its place while others do not read their answers")
    func justCome() throws {
        let scene = try Scene(connections: 8, bytes: Self.large)
        let slow = try (0..<7).map { _ in try scene.client(asks: "/large") }
        let probe = try Client(from: 0x7F00_0001, port: scene.server.address.port)
        scene.settle()
        let more = try (0..<5).map { _ in try scene.client(asks: "/large") }
        probe.ask("/")
        scene.settle()
        probe.read(1_000)
        #expect(probe.received > 0 && slow.count + more.count == 12)
    }

    @Test("of the address that holds most connections one makes room, not the scrape that has taken longest")
    func mostOfAll() throws {
        let scene = try Scene(connections: 8, bytes: 2_000_000)
        let scrape = try scene.client(from: 0x7F00_0002, asks: "/large")
        var others: [Client] = []
        for _ in 0..<20 {
            scene.pass(seconds: 1)
            others.append(try scene.client(asks: "/large"))
        }
        scrape.readToEnd(scene)
        #expect(scrape.received > 2_000_000 && !scrape.isClosed)
    }

    @Test("a client that takes a little now and then is closed in the end")
    func trickle() throws {
        let scene = try Scene(connections: 8, bytes: Self.large)
        let client = try scene.client(asks: "/large")
        var seconds = 0
        // Every time enough for the kernel to take more of the answer.
        while !client.isClosed, client.received < Self.large {
            for _ in 0..<4 {
                client.read(60_000)
                scene.settle()
            }
            scene.pass(seconds: 25)
            seconds += 25
        }
        #expect(seconds > 30 && client.received < Self.large)
    }

    @Test("a client that takes nothing more is closed after half a minute, whatever it has taken before")
    func stops() throws {
        let scene = try Scene(connections: 8, bytes: Self.large)
        let client = try scene.client(asks: "/large")
        while client.received < Self.large / 2 {
            client.read(.max)
            scene.settle()
        }
        scene.pass(seconds: 29)
        scene.pass(seconds: 2)
        client.read(.max)
        #expect(client.isClosed && client.received < Self.large)
    }

    @Test("an answer of megabytes gets through a slow line")
    func slowLine() throws {
        let scene = try Scene(connections: 8, bytes: Self.large)
        let client = try scene.client(asks: "/large")
        var seconds = 0
        while client.received < Self.large, !client.isClosed {
            client.read(120_000)
            scene.pass(seconds: 6)
            seconds += 6
        }
        #expect(client.received > Self.large && seconds > 120)
    }
}
