/// A request as some server would read it.
struct ReadRequest: Equatable, CustomStringConvertible {
    var method: String
    var target: String
    var host: String
    var body: [UInt8]
    /// Head and trailer lines, for checks; every reader splits them in its own way.
    var lines: [[UInt8]] = []
    var trailers: [[UInt8]] = []

    var description: String { "\(method) \(target) at \(host) with \(body.count) bytes" }

    static func == (one: ReadRequest, other: ReadRequest) -> Bool {
        one.method == other.method && one.target == other.target && one.host == other.host
            && one.body == other.body
    }
}

/// Reads HTTP/1 requests the way a server might, strictly or with a tolerance that is found in the wild.
///
/// Whatever readers disagree about can be used to smuggle.
struct RequestReader: Sendable {
    let name: String
    /// A lone LF ends a line.
    var takesLineFeeds = false
    /// `Content-Length` counts more than `Transfer-Encoding`.
    var prefersLength = false
    /// A coding that contains `chunked` is chunked; chunk sizes end at the first byte that is no digit.
    var isLoose = false
    /// White space and control characters around names are dropped, what is no letter and no digit is a dash.
    var trimsNames = false
    /// The last of several fields counts instead of the first.
    var takesLast = false
    /// A line that begins with white space goes on with the one before.
    var unfolds = false

    static let strict = RequestReader(name: "strict")
    static let all = [
        strict,
        RequestReader(name: "line feeds", takesLineFeeds: true),
        RequestReader(name: "length first", takesLineFeeds: true, prefersLength: true, takesLast: true),
        RequestReader(name: "loose", isLoose: true, trimsNames: true),
        RequestReader(name: "CGI", takesLineFeeds: true, isLoose: true, trimsNames: true, takesLast: true),
        RequestReader(name: "folding", prefersLength: true, isLoose: true, unfolds: true),
    ]

    /// - Returns: the whole requests, and how many bytes they take.
    func read(_ bytes: [UInt8]) -> (requests: [ReadRequest], taken: Int) {
        var requests: [ReadRequest] = []
        var taken = 0
        var rest = bytes[...]
        while let request = one(&rest) {
            requests.append(request)
            taken = rest.startIndex
        }
        return (requests, taken)
    }

    private func one(_ rest: inout ArraySlice<UInt8>) -> ReadRequest? {
        var lines: [[UInt8]] = []
        while true {
            guard let line = line(&rest) else { return nil }
            if line.isEmpty {
                if lines.isEmpty { continue }
                break
            }
            if unfolds, line[0] == 0x20 || line[0] == 0x09, lines.count > 1 {
                lines[lines.count - 1] += line
            } else {
                lines.append(line)
            }
        }
        let words = lines[0].split(
            maxSplits: isLoose ? .max : 2, omittingEmptySubsequences: isLoose,
            whereSeparator: { isLoose ? $0 <= 0x20 : $0 == 0x20 })
        guard words.count >= 3 else { return nil }
        var request = ReadRequest(
            method: text(words[0]), target: text(words[1]), host: "", body: [], lines: lines)
        request.host = value("host", lines) ?? ""
        let coding = value("transfer-encoding", lines)
        let length = value("content-length", lines)
        if let coding, coding == "chunked" || isLoose && coding.contains("chunked"),
            !prefersLength || length == nil
        {
            guard let (body, trailers) = chunks(&rest) else { return nil }
            request.body = body
            request.trailers = trailers
        } else if let length {
            guard let count = Int(isLoose ? String(length.prefix { $0.isNumber }) : length), count >= 0,
                rest.count >= count
            else { return nil }
            request.body = Array(rest.prefix(count))
            rest = rest.dropFirst(count)
        }
        return request
    }

    private func chunks(_ rest: inout ArraySlice<UInt8>) -> (body: [UInt8], trailers: [[UInt8]])? {
        var body: [UInt8] = []
        while true {
            guard let head = line(&rest) else { return nil }
            let digits = text(head.prefix { isLoose ? UInt8.isHexDigit($0) : $0 != 0x3B })
            guard let size = Int(digits, radix: 16), size >= 0 else { return nil }
            if size == 0 { break }
            guard rest.count >= size else { return nil }
            body += rest.prefix(size)
            rest = rest.dropFirst(size)
            guard let end = line(&rest), end.isEmpty else { return nil }
        }
        var trailers: [[UInt8]] = []
        while let line = line(&rest) {
            if line.isEmpty { return (body, trailers) }
            trailers.append(line)
        }
        return nil
    }

    /// The next line without its end.
    private func line(_ rest: inout ArraySlice<UInt8>) -> [UInt8]? {
        var search = rest
        while let feed = search.firstIndex(of: 0x0A) {
            let hasReturn = feed > rest.startIndex && rest[feed - 1] == 0x0D
            if hasReturn || takesLineFeeds {
                let line = rest[rest.startIndex..<(hasReturn ? feed - 1 : feed)]
                rest = rest[(feed + 1)...]
                return Array(line)
            }
            search = search[(feed + 1)...]
        }
        return nil
    }

    private func value(_ name: String, _ lines: [[UInt8]]) -> String? {
        var found: [String] = []
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: 0x3A) else { continue }
            var own = text(line[..<colon]).lowercased()
            if trimsNames {
                own = String(own.filter { $0 > " " }.map { $0.isLetter || $0.isNumber ? $0 : "-" })
            }
            guard own == name else { continue }
            let value = text(line[(colon + 1)...])
            found.append(value.drop { $0 == " " || $0 == "\t" }.lowercased())
        }
        return takesLast ? found.last : found.first
    }

    /// Byte for byte, so that nothing is normalised away.
    private func text(_ bytes: some Sequence<UInt8>) -> String { String(latin1: bytes) }
}

extension UInt8 {
    fileprivate static func isHexDigit(_ byte: UInt8) -> Bool {
        byte &- 48 < 10 || (byte | 0x20) &- 97 < 6
    }
}

extension String {
    /// One character for each byte.
    init(latin1 bytes: some Sequence<UInt8>) {
        var scalars = String.UnicodeScalarView()
        for byte in bytes { scalars.append(Unicode.Scalar(byte)) }
        self.init(scalars)
    }
}
