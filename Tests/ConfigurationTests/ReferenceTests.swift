import Configuration
import Testing

/// The reference has every key that the loader reads, and no other.
@Suite("The configuration reference")
struct ReferenceTests {
    private static var sections: [SectionDescription] { ConfigurationReference.sections }

    @Test("the document is what `gateway config reference` prints")
    func document() throws {
        let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        let path = "/\(root)/Sources/gateway/gateway.docc/Configuration.md"
        let text = String(validating: try DiskFiles().read(path).get(), as: UTF8.self)
        #expect(
            text == ConfigurationReference.markdown + "\n", "print it anew with `gateway config reference`")
    }

    @Test("a key is described once, with a form and a meaning that fit into a table")
    func descriptions() {
        #expect(Set(Self.sections.map(\.path)).count == Self.sections.count)
        for section in Self.sections {
            #expect(Set(section.keys.map(\.name)).count == section.keys.count, "\(section.path)")
            for key in section.keys {
                #expect(!key.form.isEmpty && !key.meaning.isEmpty && key.standard != "", "\(key.name)")
                let texts = [key.form, key.meaning, key.standard ?? ""]
                #expect(!texts.contains { $0.contains("|") || $0.contains("\n") }, "\(key.name)")
            }
        }
    }

    /// A list of a list is a mistake everywhere: whoever reads the key complains of it.
    @Test("every key of the reference is read", arguments: sections.map(\.path))
    func read(_ path: String) throws {
        let section = try #require(Self.sections.first { $0.path == path })
        for key in section.keys {
            let problems = LoaderTests.problems(Self.text(path, replacing: key.name, with: "[[]]"))
            #expect(!problems.isEmpty, "\(path).\(key.name) is not read")
            #expect(!problems.contains { $0.contains("unknown key") }, "\(path).\(key.name): \(problems)")
        }
    }

    @Test("no other key is taken", arguments: sections.map(\.path))
    func unknown(_ path: String) {
        let problems = LoaderTests.problems(Self.text(path, replacing: "zzz", with: "1"))
        #expect(problems.count == 1 && problems[0].contains("unknown key \"zzz\""), "\(problems)")
    }

    @Test("a key without a default has to be there", arguments: sections.map(\.path))
    func required(_ path: String) throws {
        let section = try #require(Self.sections.first { $0.path == path })
        for key in section.keys {
            let problems = LoaderTests.problems(Self.text(path, replacing: key.name, with: nil))
            #expect(problems.isEmpty == (key.standard != nil), "\(path).\(key.name): \(problems)")
        }
    }

    /// A file with every section in it, as little as possible in each. `@` is followed by a section's path.
    private static let entries: [String: [(name: String, value: String)]] = [
        "": [
            ("listen", "@listen"), ("admin", "@admin"), ("store", "@store"), ("keys", "@keys"),
            ("tiers", "{ standard: @tiers.<name> }"), ("upstreams", "{ main: @upstreams.<name> }"),
            ("routes", "[@routes[]]"), ("limits", "@limits"), ("timeouts", "@timeouts"),
            ("access_log", "@access_log"), ("traces", "@traces"), ("log", "@log"),
        ],
        "listen": [("https", "@listen.https"), ("plaintext", "@listen.plaintext")],
        "listen.https": [
            ("address", "\"0.0.0.0:8443\""), ("certificates", "[@listen.https.certificates[]]"),
        ],
        "listen.https.certificates[]": [("chain", "/c.pem"), ("private_key", "/k.pem")],
        "listen.plaintext": [("address", "\"0.0.0.0:8080\"")],
        "admin": [("address", "\"127.0.0.1:9901\""), ("token_file", "/admin-token")],
        "store": [],
        "keys": [("cache", "@keys.cache"), ("static", "[@keys.static[]]")],
        "keys.cache": [],
        "keys.static[]": [("sha256", String(repeating: "ab", count: 32)), ("tier", "standard")],
        "tiers.<name>": [("limits", "100/minute")],
        "upstreams.<name>": [
            ("endpoints", "\"http://127.0.0.1:3000\""), ("health", "@upstreams.<name>.health"),
        ],
        "upstreams.<name>.health": [("path", "/healthz")],
        "routes[]": [("path", "/api/**"), ("upstream", "main")],
        "limits": [], "timeouts": [], "access_log": [], "log": [],
        "traces": [("endpoint", "\"http://127.0.0.1:4318\"")],
    ]

    /// That file with one key of one section replaced, or added, or gone.
    private static func text(_ path: String, replacing name: String, with value: String?) -> String {
        func render(_ section: String) -> String {
            var items = entries[section] ?? []
            if section == path {
                items.removeAll { $0.name == name }
                if let value { items.append((name, value)) }
            }
            let texts = items.map { item in
                guard let mark = item.value.firstIndex(of: "@") else { return "\(item.name): \(item.value)" }
                let rest = item.value[item.value.index(after: mark)...]
                // The longest path that is one: the marks of a list or mapping may stand behind it.
                let inner = entries.keys.filter { !$0.isEmpty && rest.hasPrefix($0) }.max {
                    $0.count < $1.count
                }
                let found = inner ?? ""
                return "\(item.name): \(item.value[..<mark])\(render(found))\(rest.dropFirst(found.count))"
            }
            return section.isEmpty
                ? texts.joined(separator: "\n") + "\n" : "{ \(texts.joined(separator: ", ")) }"
        }
        return render("")
    }
}
