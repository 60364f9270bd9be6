import Reactor
import Redis
import Synchronization
import TLS

/// A way to Redis that ends at a chosen command: so a program can be stopped at every point of what it does.
///
/// Commands are passed on one by one, each with its whole answer, and counted.
package final class FaultProxy: Sendable {
    /// Where the way ends.
    package enum Point: Sendable, CaseIterable {
        /// The command does not reach Redis.
        case before
        /// Redis has done the command, and its answer reaches nobody.
        case after
    }

    private struct Fault: Sendable {
        var command: Int
        var point: Point
        var action: @Sendable () -> Void
    }

    package let port: UInt16
    private let redisPort: UInt16
    private let listener: Descriptor
    private let stopping: Wakeup
    private let fault = Mutex<Fault?>(nil)
    private let watcher = Mutex<(@Sendable ([UInt8]) -> Void)?>(nil)
    private let passed = Atomic<Int>(0)
    private let thread = Mutex<ThreadHandle?>(nil)

    package init(to redisPort: UInt16) throws {
        self.redisPort = redisPort
        port = try Ports.free()
        listener = try Socket.listen(
            on: SocketAddress(ipv4: 0x7F00_0001, port: port), reusePort: false, backlog: 16)
        stopping = try Wakeup()
        let started = try Thread.start(name: "proxy") { [self] in accept() }
        thread.withLock { $0 = started }
    }

    /// Ends all connections, and then the proxy.
    package func stop() {
        stopping.signal()
        thread.withLock { handle in
            handle?.join()
            handle = nil
        }
    }

    /// Commands passed on since the last `arm`.
    package var commands: Int { passed.load(ordering: .sequentiallyConsistent) }

    /// Begins counting anew, and ends the way at a command: 0 is the first. `action` is called before the
    /// program can notice.
    package func arm(at command: Int?, _ point: Point, action: @escaping @Sendable () -> Void = {}) {
        passed.store(0, ordering: .sequentiallyConsistent)
        fault.withLock { $0 = command.map { Fault(command: $0, point: point, action: action) } }
    }

    /// Has `action` called with every command before it reaches Redis: another program can come first.
    package func watch(_ action: @escaping @Sendable ([UInt8]) -> Void) {
        watcher.withLock { $0 = action }
    }

    private func accept() {
        var threads: [ThreadHandle] = []
        while true {
            Readiness.wait(listener, stopping.descriptor, timeoutMilliseconds: -1)
            if Readiness.pause(milliseconds: 0, unless: stopping) { break }
            guard case .accepted(let client, _) = Socket.accept(on: listener) else { continue }
            let started = try? Thread.start(name: "proxied") { [self] in
                serve(client)
                Socket.close(client)
            }
            if let started { threads.append(started) }
        }
        for thread in threads { thread.join() }
        Socket.close(listener)
    }

    private func serve(_ client: Descriptor) {
        let address = SocketAddress(ipv4: 0x7F00_0001, port: redisPort)
        guard
            let redis = try? BlockingConnection(
                to: address, serverName: nil, caPath: nil, timeoutMilliseconds: 5_000)
        else { return }
        let commands = ReplyReader()
        var block = Block.allocate(capacity: 65_536)
        defer { block.deallocate() }
        while true {
            Readiness.wait(client, stopping.descriptor, timeoutMilliseconds: -1)
            if Readiness.pause(milliseconds: 0, unless: stopping) { return }
            block.clear()
            switch Socket.receive(client, into: &block) {
            case .bytes: commands.feed(block.readable)
            case .wouldBlock: continue
            case .endOfStream, .failed: return
            }
            while let command = try? commands.next() {
                let arguments = (0..<command.count).map { command.element($0).byteArray }
                guard pass(CommandWriter.bytes(arguments), redis, client) else { return }
            }
        }
    }

    /// - Returns: false when the way has ended.
    private func pass(_ command: [UInt8], _ redis: BlockingConnection, _ client: Descriptor) -> Bool {
        let number = passed.add(1, ordering: .sequentiallyConsistent).oldValue
        let fault = fault.withLock { $0 }
        let isLast = fault.map { number >= $0.command } ?? false
        if isLast, fault?.point == .before || fault.map({ number > $0.command }) ?? false {
            fault?.action()
            return false
        }
        watcher.withLock { $0 }?(command)
        var block = Block.constant(bytes: command)
        defer { block.deallocate() }
        guard (try? redis.send(block, timeoutMilliseconds: 5_000)) != nil else { return false }
        let reader = ReplyReader()
        var answer: [UInt8] = []
        var received = Block.allocate(capacity: 65_536)
        defer { received.deallocate() }
        while true {
            if (try? reader.next()) != nil { break }
            received.clear()
            guard (try? redis.receive(into: &received, timeoutMilliseconds: 5_000)) == true else {
                return false
            }
            let bytes = received.readable
            for index in 0..<bytes.count { answer.append(bytes[index]) }
            reader.feed(bytes)
        }
        if isLast {
            fault?.action()
            return false
        }
        var sent = 0
        while sent < answer.count {
            switch Socket.send(client, answer.span.extracting(sent...)) {
            case .bytes(let count): sent += count
            case .wouldBlock: _ = Readiness.wait(client, forWriting: true, timeoutMilliseconds: 50)
            case .endOfStream, .failed: return false
            }
        }
        return true
    }
}
