/// The head of an HTTP/1 message as it stood on the wire.
struct Head: Sendable {
    /// Everything up to and including the blank line.
    let text: String
    let startLine: String
    /// In order, names as sent.
    let fields: [(name: String, value: String)]

    init(_ text: String) {
        self.text = text
        let lines = text.split(separator: "\r\n", omittingEmptySubsequences: true)
        startLine = String(lines.first ?? "")
        fields = lines.dropFirst().map { line in
            let colon = line.firstIndex(of: ":") ?? line.endIndex
            let value = line[colon...].dropFirst().drop { $0 == " " }
            return (String(line[..<colon]), String(value))
        }
    }

    /// All values under a name, in order, whatever its case.
    func values(_ name: String) -> [String] {
        fields.filter { $0.name.lowercased() == name.lowercased() }.map(\.value)
    }
    /// The value of a field that stands once; nil when it is missing or stands twice.
    subscript(name: String) -> String? {
        let values = values(name)
        return values.count == 1 ? values[0] : nil
    }
}

/// A response as a caller received it.
struct Response: Sendable {
    let head: Head
    let body: [UInt8]
    /// Fields after a chunked body.
    let trailers: Head

    var status: Int { Int(head.startLine.split(separator: " ").dropFirst().first ?? "") ?? 0 }
    var text: String { String(decoding: body, as: UTF8.self) }
    subscript(name: String) -> String? { head[name] }
}

/// Reads HTTP/1 messages off a stream, leniently: it is the tests that judge.
struct MessageReader {
    let stream: ByteStream
    /// Received and not yet consumed.
    private(set) var buffered: [UInt8] = []
    private(set) var isAtEnd = false
    var timeoutSeconds = 10.0

    init(_ stream: ByteStream) { self.stream = stream }

    /// Reads more; false at the end of the stream.
    mutating func fill() throws -> Bool {
        if isAtEnd { return false }
        let bytes = try stream.read(within: timeoutSeconds)
        isAtEnd = bytes.isEmpty
        buffered += bytes
        return !isAtEnd
    }

    mutating func take(_ count: Int) throws -> [UInt8] {
        while buffered.count < count {
            guard try fill() else {
                throw HarnessError("the stream ended \(count - buffered.count) bytes early")
            }
        }
        defer { buffered.removeFirst(count) }
        return Array(buffered.prefix(count))
    }

    /// Bytes through the next occurrence of `mark`; nil at a clean end before the first byte.
    mutating func take(through mark: String) throws -> [UInt8]? {
        let mark = Array(mark.utf8)
        var searched = 0
        while true {
            while searched + mark.count <= buffered.count {
                if buffered[searched..<searched + mark.count].elementsEqual(mark) {
                    return try take(searched + mark.count)
                }
                searched += 1
            }
            if try !fill() {
                if buffered.isEmpty { return nil }
                throw HarnessError("the stream ended inside: \(String(decoding: buffered, as: UTF8.self))")
            }
        }
    }

    mutating func takeHead() throws -> Head? {
        try take(through: "\r\n\r\n").map { Head(String(decoding: $0, as: UTF8.self)) }
    }

    /// A chunked body: its content, its bytes as sent, its trailers.
    mutating func takeChunked() throws -> (content: [UInt8], raw: [UInt8], trailers: Head) {
        var content: [UInt8] = []
        var raw: [UInt8] = []
        while true {
            guard let line = try take(through: "\r\n") else { throw HarnessError("no chunk") }
            raw += line
            let digits = String(decoding: line, as: UTF8.self).prefix { $0.isHexDigit }
            guard let size = Int(digits, radix: 16) else { throw HarnessError("not a chunk size: \(line)") }
            if size == 0 { break }
            let chunk = try take(size + 2)
            raw += chunk
            content += chunk.dropLast(2)
        }
        var trailers = "\r\n"
        while let line = try take(through: "\r\n") {
            raw += line
            if line.count == 2 { break }
            trailers += String(decoding: line, as: UTF8.self)
        }
        return (content, raw, Head("trailers" + trailers))
    }

    mutating func takeAll() throws -> [UInt8] {
        while try fill() {}
        defer { buffered = [] }
        return buffered
    }

    /// A whole response, interim ones included when `keepsInterim`.
    mutating func takeResponse(to method: String = "GET", keepsInterim: Bool = false) throws -> Response? {
        while let head = try takeHead() {
            let response = Response(head: head, body: [], trailers: Head(""))
            if (100..<200).contains(response.status), response.status != 101 {
                if keepsInterim { return response }
                continue
            }
            if method == "HEAD" || [101, 204, 304].contains(response.status) { return response }
            if head["Transfer-Encoding"]?.lowercased() == "chunked" {
                let (content, _, trailers) = try takeChunked()
                return Response(head: head, body: content, trailers: trailers)
            }
            if let length = head["Content-Length"].flatMap({ Int($0) }) {
                return Response(head: head, body: try take(length), trailers: Head(""))
            }
            return Response(head: head, body: try takeAll(), trailers: Head(""))
        }
        return nil
    }
}
