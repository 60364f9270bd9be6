import Foundation
import Testing

/// The page on grammar and framing names a proof for every rule; a proof that is not there proves nothing.
@Suite("Grammar page")
struct GrammarPageTests {
    private static let root = URL(filePath: #filePath).resolvingSymlinksInPath()
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    private static func text(_ path: String) throws -> String {
        try String(contentsOf: root.appending(path: path), encoding: .utf8)
    }

    @Test("every rule has a source and proofs that exist")
    func proofs() throws {
        let page = try Self.text("Sources/HTTPWire/HTTPWire.docc/GrammarAndFraming.md")
        let rows = page.split(separator: "\n").filter { $0.hasPrefix("| ") && !$0.hasPrefix("| Rule") }
        try #require(rows.count > 30)
        for row in rows {
            let columns = row.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
            try #require(columns.count == 4, "\(row)")
            #expect(columns[1].contains("RFC "), "\(row)")
            if columns[3] == "the same" { continue }
            let quoted = columns[3].matches(of: /`([^`]+)`/).map { String($0.1) }
            for kind in ["requests", "responses", "http2"] where columns[3].contains("\(kind):") {
                let cases = try Self.text("Tests/Corpus/\(kind).txt").split(separator: "\n")
                #expect(!quoted.isEmpty, "\(row)")
                for prefix in quoted {
                    #expect(cases.contains { $0.hasPrefix("== \(prefix)") }, "\(kind): \(prefix)")
                }
            }
            try checkClients(columns[3], quoted)
            for name in columns[3].matches(of: /"([^"]+)"/).map({ String($0.1) }) {
                let isThere = SourceTree.repository.swift.contains { $0.text.contains("\"\(name)\"") }
                #expect(isThere, "no test is called \(name)")
            }
        }
    }

    /// Proofs that are cases of the programs in `Tests/Clients`.
    private func checkClients(_ proof: String, _ quoted: [String]) throws {
        guard proof.contains("conformance:") || proof.contains("protocols:") else { return }
        let cases = try ["conformance", "websocket_cases", "grpc_cases", "event_cases"]
            .map { try Self.text("Tests/Clients/\($0).py") }.joined()
        for prefix in quoted {
            let function = prefix.replacingOccurrences(of: " ", with: "_")
            #expect(
                cases.contains("    (\"\(prefix)") || cases.contains("\ndef \(function)"),
                "no case: \(prefix)")
        }
    }
}
