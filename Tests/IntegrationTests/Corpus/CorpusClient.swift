import Reactor
import TLS

/// A caller in this process: a TLS connection, bytes sent as they are, and the answers that came.
struct CorpusClient: ~Copyable {
    /// An answer, final or interim.
    struct Answer {
        var status: Int
        var head: [[UInt8]]
        var body: [UInt8]
        var trailers: [[UInt8]] = []
        /// Whether all of it has come, by its own framing.
        var isWhole: Bool
    }

    private let connection: BlockingConnection
    private(set) var received: [UInt8] = []
    private(set) var hasEnded = false
    /// Whether the end came with the goodbye that makes it trustworthy.
    private(set) var endedProperly = false

    init(port: UInt16) throws {
        guard let address = SocketAddress(ip: "127.0.0.1", port: port) else {
            throw HarnessError("no address")
        }
        connection = try BlockingConnection(
            to: address, serverName: "localhost", caPath: try Certificate.shared.get().chainPath,
            timeoutMilliseconds: 5_000)
    }

    func send(_ bytes: [UInt8]) throws {
        guard !bytes.isEmpty else { return }
        var block = Block.allocate(capacity: bytes.count)
        defer { block.deallocate() }
        block.append(bytes.span)
        try connection.send(block, timeoutMilliseconds: 5_000)
    }

    /// Waits for more bytes. False at the end, or when nothing came in time.
    mutating func receive(within milliseconds: Int) -> Bool {
        if hasEnded { return false }
        var block = Block.allocate(capacity: 65_536)
        defer { block.deallocate() }
        do {
            guard try connection.receive(into: &block, timeoutMilliseconds: milliseconds) else {
                hasEnded = true
                endedProperly = true
                return false
            }
        } catch {
            hasEnded = !error.isTimeout
            return false
        }
        let bytes = block.readable
        for index in 0..<bytes.count { received.append(bytes[index]) }
        return true
    }

    /// Waits until that many final answers are there, or the end.
    mutating func answers(
        _ count: Int, to method: String = "GET", within milliseconds: Int = 8_000
    ) -> [Answer] {
        var answers = Self.parse(received, method: method, hasEnded: endedProperly)
        while answers.filter({ $0.status >= 200 && $0.isWhole }).count < count, receive(within: milliseconds)
        {
            answers = Self.parse(received, method: method, hasEnded: endedProperly)
        }
        return Self.parse(received, method: method, hasEnded: endedProperly)
    }

    /// Waits for the end.
    mutating func waitForEnd(within milliseconds: Int = 4_000) { while receive(within: milliseconds) {} }

    /// - Parameter hasEnded: whether a body that ends with the connection has ended.
    static func parse(_ bytes: [UInt8], method: String, hasEnded: Bool) -> [Answer] {
        var answers: [Answer] = []
        var rest = bytes[...]
        while let head = takeHead(&rest) {
            let words = head[0].split(separator: 0x20, maxSplits: 2)
            let status = words.count > 1 ? Int(String(latin1: words[1])) ?? 0 : 0
            var answer = Answer(status: status, head: head, body: [], isWhole: true)
            let isFirstFinal = answers.allSatisfy { $0.status < 200 }
            let hasBody =
                status >= 200 && status != 204 && status != 304 && !(method == "HEAD" && isFirstFinal)
            if status == 101 || hasBody { takeBody(&answer, &rest, hasEnded) }
            answers.append(answer)
            if !answer.isWhole { break }
        }
        return answers
    }

    private static func takeHead(_ rest: inout ArraySlice<UInt8>) -> [[UInt8]]? {
        var lines: [[UInt8]] = []
        var search = rest
        while let line = takeLine(&search) {
            if line.isEmpty {
                guard !lines.isEmpty else { return nil }
                rest = search
                return lines
            }
            lines.append(line)
        }
        return nil
    }

    private static func takeLine(_ rest: inout ArraySlice<UInt8>) -> [UInt8]? {
        guard let feed = rest.firstIndex(of: 0x0A), feed > rest.startIndex, rest[feed - 1] == 0x0D else {
            return nil
        }
        defer { rest = rest[(feed + 1)...] }
        return Array(rest[..<(feed - 1)])
    }

    private static func takeBody(_ answer: inout Answer, _ rest: inout ArraySlice<UInt8>, _ hasEnded: Bool) {
        if answer.value("transfer-encoding") == "chunked" {
            while let line = takeLine(&rest), let size = Int(String(latin1: line), radix: 16) {
                if size == 0 {
                    while let trailer = takeLine(&rest) {
                        if trailer.isEmpty { return }
                        answer.trailers.append(trailer)
                    }
                    break
                }
                guard rest.count >= size + 2 else { break }
                answer.body += rest.prefix(size)
                rest = rest.dropFirst(size + 2)
            }
            answer.isWhole = false
        } else if let length = answer.value("content-length").flatMap({ Int($0) }) {
            answer.body = Array(rest.prefix(length))
            answer.isWhole = answer.body.count == length
            rest = rest.dropFirst(length)
        } else {
            answer.body = Array(rest)
            answer.isWhole = hasEnded
            rest = []
        }
    }
}

extension CorpusClient.Answer {
    /// The value of a field, without white space around it.
    func value(_ name: String) -> String? {
        for line in head.dropFirst() {
            guard let colon = line.firstIndex(of: 0x3A),
                String(latin1: line[..<colon]).lowercased() == name
            else { continue }
            return String(String(latin1: line[(colon + 1)...]).drop { $0 == " " })
        }
        return nil
    }
}
