import Reactor
import Redis
import Synchronization
import TestSupport

/// What several threads look at.
final class Shared<Value: Sendable>: Sendable {
    private let cell: Mutex<Value>

    init(_ value: Value) { cell = Mutex(value) }

    var value: Value { cell.withLock { $0 } }

    func update(_ change: (inout Value) -> Void) {
        cell.withLock { value in
            var copy = value
            change(&copy)
            value = copy
        }
    }
}

/// A server that says what a test wants to each command that it reads.
final class ScriptedServer: Sendable {
    /// What is said to one command; nil is nothing at all.
    typealias Answer = @Sendable (_ command: [String]) -> String?

    let address: SocketAddress
    /// Commands read so far.
    let commands = Shared<[[String]]>([])
    /// Connections that the other side has closed.
    let closedConnections = Shared(0)

    private let listener: Descriptor
    private let stopping: Wakeup
    private let drip: Int?
    private let answer: Answer
    private let thread = Shared<ThreadHandle?>(nil)

    /// - Parameter dripMilliseconds: between two bytes of an answer; nil sends it whole.
    init(dripMilliseconds: Int? = nil, _ answer: @escaping Answer) throws {
        listener = try Socket.listen(
            on: SocketAddress(ipv4: 0x7F00_0001, port: 0), reusePort: false, backlog: 16)
        guard let address = Socket.localAddress(listener) else {
            throw RedisServer.Failure(description: "the system names no port")
        }
        self.address = address
        self.answer = answer
        drip = dripMilliseconds
        stopping = try Wakeup()
        let started = try Thread.start(name: "scripted") { [self] in serve() }
        thread.update { $0 = started }
    }

    /// Ends the thread, which keeps the server alive until then.
    func stop() {
        stopping.signal()
        thread.value?.join()
        thread.update { $0 = nil }
    }

    private func serve() {
        guard let poller = try? Poller(), (try? poller.add(listener, token: 0, .read)) != nil,
            (try? poller.add(stopping.descriptor, token: 1, .read)) != nil
        else { return }
        var connections: [UInt64: (descriptor: Descriptor, reader: ReplyReader)] = [:]
        var next: UInt64 = 2
        var events = EventList()
        while true {
            poller.wait(timeoutMilliseconds: -1, into: &events)
            for index in 0..<events.count {
                let token = events[index].token
                if token == 1 {
                    for entry in connections.values { Socket.close(entry.descriptor) }
                    Socket.close(listener)
                    Socket.close(poller.descriptor)
                    return
                }
                if token == 0 {
                    guard case .accepted(let accepted, _) = Socket.accept(on: listener) else { continue }
                    try? poller.add(accepted, token: next, .read)
                    connections[next] = (accepted, ReplyReader())
                    next += 1
                } else if let entry = connections[token], !talk(entry.descriptor, entry.reader) {
                    Socket.close(entry.descriptor)
                    connections[token] = nil
                    closedConnections.update { $0 += 1 }
                }
            }
        }
    }

    /// - Returns: false when the connection is over.
    private func talk(_ descriptor: Descriptor, _ reader: ReplyReader) -> Bool {
        var received = Block.allocate(capacity: 65_536)
        defer { received.deallocate() }
        guard case .bytes = Socket.receive(descriptor, into: &received) else { return false }
        reader.feed(received.readable)
        while let parsed = try? reader.next() {
            let command = (0..<parsed.count).map { parsed.element($0).text }
            commands.update { $0.append(command) }
            guard let text = answer(command) else { continue }
            let bytes = Array(text.utf8)
            var sent = 0
            while sent < bytes.count {
                let end = drip == nil ? bytes.count : sent + 1
                switch Socket.send(descriptor, bytes.span.extracting(sent..<end)) {
                case .bytes(let n): sent += n
                case .wouldBlock:
                    _ = Readiness.wait(descriptor, forWriting: true, timeoutMilliseconds: 50)
                    if Readiness.pause(milliseconds: 0, unless: stopping) { return false }
                case .endOfStream, .failed: return false
                }
                if let drip, Readiness.pause(milliseconds: drip, unless: stopping) { return false }
            }
        }
        return true
    }
}
