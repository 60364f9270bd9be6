import Glibc
import Testing

/// Every answer of the corpus: what is valid is passed on, what is not becomes a 502 or is cut so that it
/// cannot be taken for whole, and no other caller ever gets any of it.
@Suite("Response corpus", .serialized)
struct ResponseCorpusTests {
    @Test(
        "each answer is passed on, refused or cut, and reaches its own caller alone",
        arguments: [false, true])
    func responses(_ isKeyed: Bool) throws {
        let cases = try CorpusFile.read("responses.txt")
        try #require(cases.count >= 100)
        let upstream = try Upstream()
        let gateway = try Gateway(
            Setup(upstream).with {
                $0.routes = ["{ path: /**, \(isKeyed ? "" : "access: public, ")upstream: main }"]
                $0.upstream = "response_timeout: 5s"
            })
        let authorization = isKeyed ? "Authorization: Bearer \(TestKey.enterprise.secret)\r\n" : ""
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
        _ entry: CorpusCase, _ gateway: Gateway, _ upstream: Upstream, _ authorization: String
    ) throws -> [String] {
        let method = entry.request.first.map(String.init) ?? "GET"
        let isEarly = entry.request.contains("early")
        let steps = entry.steps
        let isPlayed = Collected<Bool>()
        upstream.play { exchange in
            defer { isPlayed.append(contentsOf: [true]) }
            if isEarly { exchange.recordHead() } else { try exchange.receiveBody() }
            try Self.play(steps, exchange)
        }
        var client = try CorpusClient(port: gateway.httpsPort)
        let length = method == "POST" ? "Content-Length: \(isEarly ? 100_000 : 3)\r\n" : ""
        let version = entry.request.contains("1.0") ? "HTTP/1.0" : "HTTP/1.1"
        let body = method == "POST" && !isEarly ? "abc" : ""
        try client.send(
            Array("\(method) /x \(version)\r\nHost: a\r\n\(authorization)\(length)\r\n\(body)".utf8))
        let answers = client.answers(1, to: method)
        var problems = problems(entry, answers)
        // What an upstream says unasked is told from an answer by coming before the question.
        try Deadline(seconds: 5).wait("the upstream to have said all") { !isPlayed.values.isEmpty }
        for text in ["first", "second"] {
            upstream.play(Upstream.answer(text))
            var other = try CorpusClient(port: gateway.httpsPort)
            try other.send(Array("GET /\(text) HTTP/1.1\r\nHost: a\r\n\(authorization)\r\n".utf8))
            let answer = other.answers(1)
            if answer.count != 1 || answer[0].body != Array(text.utf8) {
                problems.append("UNSAFE: another caller got \(answer.map { String(latin1: $0.body) })")
            }
        }
        return problems
    }

    private static func play(_ steps: [CorpusCase.Step], _ exchange: UpstreamExchange) throws {
        for step in steps {
            guard case .action(let action) = step else {
                try exchange.send(CorpusCase.bytes(of: step))
                continue
            }
            switch action {
            case "close":
                exchange.close()
                return
            case "reset":
                exchange.reset()
                return
            default:
                // Time itself is what is tested: the bytes so far arrive on their own.
                poll(nil, 0, 40)
            }
        }
    }

    private func problems(_ entry: CorpusCase, _ answers: [CorpusClient.Answer]) -> [String] {
        let expected = entry.expected
        guard let final = answers.first(where: { $0.status >= 200 }) else { return ["no answer: \(answers)"] }
        if expected["bad"] != nil {
            return final.status == 502 && final.isWhole ? [] : ["\(final.status) instead of 502"]
        }
        if expected["cut"] != nil {
            return final.status == 502 || !final.isWhole ? [] : ["half an answer looks whole"]
        }
        var problems: [String] = []
        if final.status != expected["pass"] { problems.append("status \(final.status)") }
        if !final.isWhole { problems.append("the answer is cut") }
        let interim = answers.filter { $0.status < 200 }
        for check in entry.checks where !holds(check, final, interim) {
            let head = final.head.map { String(latin1: $0) }.joined(separator: " | ")
            problems.append("not so: \(check) in \(head.prefix(600))")
        }
        return problems
    }

    private func holds(
        _ check: String, _ answer: CorpusClient.Answer, _ interim: [CorpusClient.Answer]
    ) -> Bool {
        let word = String(check.prefix { $0 != " " })
        let value = CorpusCase.unescape(String(check.dropFirst(word.count + 1)))
        let text = String(latin1: value)
        func isNamed(_ line: [UInt8]) -> Bool {
            String(latin1: line).lowercased().hasPrefix(text.lowercased() + ":")
        }
        func lacks(_ lines: [[UInt8]]) -> Bool {
            !lines.contains { String(latin1: $0).lowercased().contains(text) }
        }
        switch word {
        case "body": return answer.body == value
        case "has": return answer.head.contains(value)
        case "has-name": return answer.head.contains(where: isNamed)
        case "lacks": return lacks(answer.head)
        case "trailer": return answer.trailers.contains(value)
        case "no-trailer": return !answer.trailers.contains(where: isNamed)
        case "interim": return interim.contains { $0.status == Int(text) }
        case "no-interim": return interim.isEmpty
        case "interim-lacks": return interim.allSatisfy { lacks($0.head) }
        default: return false
        }
    }
}
