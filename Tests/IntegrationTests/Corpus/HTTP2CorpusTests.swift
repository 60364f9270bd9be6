import Foundation
import Testing

/// Every request of the HTTP/2 corpus, sent frame by frame by a client that checks nothing: what becomes of
/// it in HTTP/1.1 has one reading, or nothing becomes of it.
@Suite("HTTP/2 corpus", .serialized, .enabled(if: Clients.areInstalled, "`make test` installs the clients"))
struct HTTP2CorpusTests {
    @Test("each request is refused or arrives with one reading", arguments: [false, true])
    func requests(_ isKeyed: Bool) throws {
        let cases = try CorpusFile.read("http2.txt")
        try #require(cases.count >= 150)
        let upstream = try RecordingUpstream()
        defer { upstream.stop() }
        let gateway = try Gateway(
            Setup().with {
                $0.upstreamEndpoints = ["http://127.0.0.1:\(upstream.port)"]
                $0.routes = ["{ path: /**, \(isKeyed ? "" : "access: public, ")upstream: main }"]
                $0.timeouts = "drain_delay: 0s, head: 1s, body: 1s"
            })
        let sender = try Clients.start(
            "frames.py", [String(gateway.httpsPort), try Certificate.shared.get().chainPath])
        let secret = isKeyed ? TestKey.enterprise.secret : nil
        var met = 0
        for entry in cases {
            let problems = try replay(entry, sender, upstream, secret)
            for problem in problems { Issue.record("\(entry.label): \(problem)") }
            if problems.isEmpty { met += 1 }
        }
        #expect(met == cases.count, "\(met) of \(cases.count) met")
    }

    private struct Conformance: Decodable {
        var cases: Int
        var failed: [String]
    }

    @Test(
        "the conformance cases of RFC 9113 and RFC 7541 are met, whoever answers and when",
        arguments: ["/open", "/early", "/keyed", "/none"])
    func conformance(_ target: String) throws {
        let upstream = try Upstream { exchange in
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"
            let body = exchange.request.method == "HEAD" ? "" : String(repeating: "x", count: 40)
            let isEarly = exchange.request.target == "/early"
            if isEarly { try exchange.send(answer + body) }
            try exchange.receiveBody()
            if !isEarly { try exchange.send(answer + body) }
        }
        let gateway = try Gateway(
            Setup(upstream).with {
                $0.routes = [
                    "{ path: /open, access: public, upstream: main }",
                    "{ path: /early, access: public, upstream: main }", "{ path: /keyed, upstream: main }",
                ]
            })
        let outcome = try Clients.run(
            "conformance.py", [String(gateway.httpsPort), try Certificate.shared.get().chainPath, target],
            within: 300)
        let result = try JSONDecoder().decode(Conformance.self, from: Data(outcome.output.utf8))
        #expect(result.cases >= 190)
        for problem in result.failed { Issue.record("\(problem)") }
    }

    private struct Frames: Encodable {
        var fields: [[String]] = []
        var data: [String] = []
        var trailers: [[String]]?
        var ends = true
    }

    private struct Outcome: Decodable {
        var status: Int
        var reset: Int
        var goaway: Int
        var closed: Bool
    }

    private func replay(
        _ entry: CorpusCase, _ sender: LineProcess, _ upstream: RecordingUpstream, _ secret: String?
    ) throws -> [String] {
        let request = try frames(entry, secret)
        let text = String(decoding: try JSONEncoder().encode(request), as: UTF8.self)
        let outcome = try JSONDecoder().decode(Outcome.self, from: Data(try sender.ask(text).utf8))
        let expected = entry.expected
        let forwards = expected["forward"] == nil ? 0 : 1
        var problems = RequestCorpusTests.readings(upstream.take(), entry, forwards)
        let isRefused = outcome.status >= 400 || outcome.reset > 0 || outcome.goaway > 0 || outcome.closed
        if forwards > 0 {
            if outcome.status != 200 { problems.append("\(outcome) instead of 200") }
        } else if let status = expected["answer"] {
            if outcome.status != status { problems.append("\(outcome) instead of \(status)") }
        } else if !isRefused || outcome.status == 502 {
            problems.append("\(outcome) instead of a refusal")
        }
        return problems
    }

    private func frames(_ entry: CorpusCase, _ secret: String?) throws -> Frames {
        var result = Frames()
        if let secret { result.fields.append(field("authorization", "Bearer \(secret)")) }
        for step in entry.steps {
            switch step {
            case .bytes(let text, _):
                guard let mark = text.range(of: " =") else { throw HarnessError("\(entry.name): \(text)") }
                let name = String(text[..<mark.lowerBound])
                let pair = field(name, String(text[mark.upperBound...].dropFirst()))
                if result.trailers == nil {
                    result.fields.append(pair)
                } else {
                    result.trailers?.append(pair)
                }
            case .action("trailers"): result.trailers = []
            case .action("open"): result.ends = false
            case .action(let action):
                result.data.append(Self.hexadecimal(String(action.dropFirst("data ".count))))
            }
        }
        // The key stands behind the pseudo-header fields.
        if secret != nil { result.fields.append(result.fields.removeFirst()) }
        return result
    }

    private func field(_ name: String, _ value: String) -> [String] {
        [Self.hexadecimal(name), Self.hexadecimal(value)]
    }

    private static func hexadecimal(_ text: String) -> String {
        CorpusCase.unescape(text).map { String(format: "%02x", $0) }.joined()
    }
}
