import Foundation

/// A caller that sends exactly the bytes a test wants over TLS, by way of `openssl s_client`.
final class TLSClient {
    private let child: ChildProcess
    private let folder: TemporaryFolder
    private(set) var reader: MessageReader

    /// - Parameter options: more of `s_client`'s options, such as `-alpn` or `-tls1_2`.
    init(port: UInt16, serverName: String = "localhost", options: [String] = []) throws {
        folder = try TemporaryFolder()
        let name = options.contains("-noservername") ? [] : ["-servername", serverName]
        child = try ChildProcess(
            "openssl",
            [
                "s_client", "-quiet", "-connect", "127.0.0.1:\(port)", "-CAfile",
                try Certificate.shared.get().chainPath,
            ]
                + name + options,
            input: .pipe, output: .pipe, error: .file(folder.path("err")))
        reader = MessageReader(
            ByteStream(input: child.outputDescriptor, output: child.inputDescriptor))
    }

    /// What `s_client` says about the connection.
    var diagnostics: String { (try? folder.read("err")) ?? "" }

    func send(_ text: String) throws { try reader.stream.write(Array(text.utf8)) }
    func send(_ bytes: [UInt8]) throws { try reader.stream.write(bytes) }

    /// The next response; throws when the connection ends before one.
    func response(to method: String = "GET", keepsInterim: Bool = false) throws -> Response {
        guard let response = try reader.takeResponse(to: method, keepsInterim: keepsInterim) else {
            throw HarnessError("the connection ended without a response. \(diagnostics)")
        }
        return response
    }

    func head() throws -> Head {
        guard let head = try reader.takeHead() else {
            throw HarnessError("the connection ended without a head")
        }
        return head
    }

    func take(_ count: Int) throws -> [UInt8] { try reader.take(count) }

    /// Everything until the gateway ends the connection.
    func rest(within seconds: Double = 10) throws -> [UInt8] {
        reader.timeoutSeconds = seconds
        return try reader.takeAll()
    }

    /// Whether the gateway ends the connection without another byte.
    func isClosedByGateway(within seconds: Double = 5) -> Bool {
        (try? rest(within: seconds).isEmpty) ?? false
    }

    /// Goes away without a word.
    func vanish() { child.end() }
}

/// A caller without TLS: for the plaintext port, and for plain bytes on the TLS port.
final class PlainClient {
    let connection: TCPConnection
    private(set) var reader: MessageReader

    init(port: UInt16) throws {
        connection = try TCPConnection(port: port)
        reader = MessageReader(connection.stream)
    }

    func send(_ text: String) throws { try connection.stream.write(Array(text.utf8)) }

    func response(to method: String = "GET", within seconds: Double = 10) throws -> Response {
        reader.timeoutSeconds = seconds
        guard let response = try reader.takeResponse(to: method) else {
            throw HarnessError("the connection ended without a response")
        }
        return response
    }

    func rest(within seconds: Double = 10) throws -> [UInt8] {
        reader.timeoutSeconds = seconds
        return try reader.takeAll()
    }

    /// One call on a connection of its own.
    static func exchange(port: UInt16, _ request: String) throws -> Response {
        let client = try PlainClient(port: port)
        try client.send(request)
        return try client.response()
    }
}

/// The caller that most people have.
enum Curl {
    /// One call; redirections are not followed, and nothing is retried.
    static func get(_ url: String, key: String? = nil, _ arguments: [String] = []) throws -> Response {
        let authorization = key.map { ["-H", "Authorization: Bearer \($0)"] } ?? []
        let outcome = try run(["-i", url] + authorization + arguments)
        let bytes = Array(outcome.output.utf8)
        let mark = Array("\r\n\r\n".utf8)
        var start = 0
        for index in bytes.indices.dropLast(3) where bytes[index..<index + 4].elementsEqual(mark) {
            let head = Head(String(decoding: bytes[start..<index + 4], as: UTF8.self))
            let response = Response(head: head, body: Array(bytes[(index + 4)...]), trailers: Head(""))
            if response.status >= 200 { return response }
            start = index + 4
        }
        throw HarnessError("curl: \(outcome.ending): \(outcome.error)")
    }

    /// Many calls at once; the status of each.
    static func statuses(_ url: String, key: String, count: Int, atOnce: Int) throws -> [Int] {
        let outcome = try run(
            [
                "--parallel", "--parallel-immediate", "--parallel-max", String(atOnce), "--no-keepalive",
                "-H", "Authorization: Bearer \(key)", "-o", "/dev/null", "-w", "%{http_code}\\n",
                "\(url)?[1-\(count)]",
            ], within: 120)
        return outcome.output.split(separator: "\n").compactMap { Int($0) }
    }

    @discardableResult
    static func run(_ arguments: [String], within seconds: Double = 30) throws -> ChildProcess.Outcome {
        let trust = ["--cacert", try Certificate.shared.get().chainPath]
        return try ChildProcess.run(
            "curl",
            ["-sS", "--http1.1", "--globoff"].filter { option in
                option != "--globoff" || !arguments.contains("--parallel")
            } + trust + arguments, within: seconds)
    }
}
