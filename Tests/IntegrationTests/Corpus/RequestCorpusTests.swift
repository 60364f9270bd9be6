import Testing

/// Every request of the corpus, with the key check on and off, in front of an upstream that records: what
/// must be refused is refused, what is valid arrives unchanged in meaning, and what arrives has one reading.
@Suite("Request corpus", .serialized)
struct RequestCorpusTests {
    @Test("each request is refused or arrives with one reading", arguments: [false, true])
    func requests(_ isKeyed: Bool) throws {
        let cases = try CorpusFile.read("requests.txt")
        try #require(cases.count >= 350)
        let upstream = try RecordingUpstream()
        defer { upstream.stop() }
        let gateway = try Gateway(
            Setup().with {
                $0.upstreamEndpoints = ["http://127.0.0.1:\(upstream.port)"]
                $0.routes = ["{ path: /**, \(isKeyed ? "" : "access: public, ")upstream: main }"]
                $0.timeouts = "drain_delay: 0s, head: 1s, body: 1s"
            })
        let authorization = isKeyed ? "Authorization: Bearer \(TestKey.enterprise.secret)" : nil
        var met = 0
        for entry in cases {
            let problems = try replay(entry, gateway, upstream, authorization)
            for problem in problems { Issue.record("\(entry.label): \(problem)") }
            if problems.isEmpty { met += 1 }
        }
        #expect(met == cases.count, "\(met) of \(cases.count) met")
    }

    /// - Returns: what is not as it must be.
    private func replay(
        _ entry: CorpusCase, _ gateway: Gateway, _ upstream: RecordingUpstream, _ authorization: String?
    ) throws -> [String] {
        let expected = entry.expected
        let sent = entry.bytes(authorization: authorization)
        let method = String(latin1: sent.prefix { $0 != 0x20 })
        let forwards = expected["forward"].map { abs($0) } ?? 0
        let isAnswered = expected["refuse"] != nil || expected["answer"] != nil
        var client = try CorpusClient(port: gateway.httpsPort)
        try client.send(sent)
        let answers = client.answers(forwards + (isAnswered ? 1 : 0), to: method).filter { $0.status >= 200 }
        if expected["refuse"] != nil { client.waitForEnd() }
        // Whatever was on its way has arrived before this call's own answer comes.
        var other = try CorpusClient(port: gateway.httpsPort)
        try other.send(
            Array("GET /barrier HTTP/1.1\r\nHost: barrier\r\n\(authorization ?? "X: 1")\r\n\r\n".utf8))
        let barrier = other.answers(1)
        let arrived = upstream.take()
        var problems = Self.readings(arrived, entry, forwards)
        // What is wrong from the first is refused before an upstream hears of it, also where none of its
        // connections waits. A body that is late, too large, or comes in pieces is known only later.
        if forwards == 0, sent.count < 4_096, ![408, 413].contains(expected["refuse"] ?? 0),
            arrived.contains(where: { !$0.isEmpty && !$0.starts(with: Array("GET /barrier".utf8)) })
        {
            problems.append("bytes of it have arrived upstream")
        }
        if barrier.first?.status != 200 { problems.append("another caller got no answer of its own") }
        let statuses = answers.map(\.status)
        if !statuses.prefix(forwards).allSatisfy({ $0 == 200 }) || statuses.count < forwards {
            problems.append("\(forwards) answers of the upstream expected, got \(statuses)")
        }
        if isAnswered {
            let last = statuses.dropFirst(forwards).first ?? 0
            let wanted = max(expected["refuse"] ?? -1, expected["answer"] ?? -1)
            if wanted > 0 ? last != wanted : !(400..<600).contains(last) || last == 502 {
                problems.append("answered \(statuses)")
            }
            if expected["refuse"] != nil, !client.hasEnded { problems.append("the connection goes on") }
        }
        return problems
    }

    /// Reads what has arrived in all ways, and checks it.
    static func readings(_ arrived: [[UInt8]], _ entry: CorpusCase, _ forwards: Int) -> [String] {
        var problems: [String] = []
        var requests: [ReadRequest] = []
        for bytes in arrived {
            let strict = RequestReader.strict.read(bytes)
            for reader in RequestReader.all where reader.read(bytes).requests != strict.requests {
                problems.append("UNSAFE: the \(reader.name) reader reads \(reader.read(bytes).requests)")
            }
            requests += strict.requests
        }
        requests.removeAll { $0.target == "/barrier" && $0.host == "barrier" }
        guard requests.count == forwards else {
            return problems + ["\(forwards) requests expected upstream, got \(requests)"]
        }
        guard let first = requests.first else { return problems }
        for check in entry.checks where !holds(check, first) {
            let head = first.lines.map { String(latin1: $0) }.joined(separator: " | ")
            problems.append("not so: \(check.prefix(120)) in \(head.prefix(900))")
        }
        return problems
    }

    private static func holds(_ check: String, _ request: ReadRequest) -> Bool {
        let word = String(check.prefix { $0 != " " })
        let value = CorpusCase.unescape(String(check.dropFirst(word.count + 1)))
        let text = String(latin1: value)
        let lines = request.lines.map { String(latin1: $0) }
        let lower = lines.map { $0.lowercased() }
        func isNamed(_ line: String) -> Bool { line.lowercased().hasPrefix(text.lowercased() + ":") }
        switch word {
        case "target": return request.target == text
        case "method": return request.method == text
        case "body": return request.body == value
        case "body-count": return request.body.count == Int(text)
        case "has": return request.lines.contains(value)
        case "has-name": return lines.contains(where: isNamed)
        case "lacks": return !lower.contains { $0.contains(text) }
        case "has-any": return lower.contains(text.lowercased())
        case "count":
            let parts = text.split(separator: " ")
            return lower.filter { $0.hasPrefix("\(parts[0]):") }.count == Int(parts.last ?? "")
        case "no-value":
            return !lines.contains { $0.hasSuffix(": " + text) }
        case "trailer": return request.trailers.contains(value)
        case "no-trailer": return !request.trailers.map { String(latin1: $0) }.contains(where: isNamed)
        case "identity":
            return lower.filter { $0.hasPrefix("x-gateway-account:") }.count
                == (lower.contains { $0 == "x-gateway-account: initech" } ? 1 : 0)
        default: return false
        }
    }
}
