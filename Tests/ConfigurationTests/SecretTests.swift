import Configuration
import Testing

/// Problems are read by people who may not read secrets.
@Suite("Secrets in a configuration")
struct SecretTests {
    static let secret = "hunter2"

    static let wrong: [String] = [
        // The url where a section is wanted, without its scheme, with another, or with a bad host.
        base("store: { url: \"memory:\" }", "store: \"redis://u:\(secret)@h/0\""),
        base("store: { url: \"memory:\" }", "store: { \"redis://u:\(secret)@h/0\" }"),
        base("memory:", "u:\(secret)@redis://h"),
        base("memory:", "u:\(secret)@h"),
        base("memory:", "redsi://u:\(secret)@h/0"),
        base("memory:", "redis://u:\(secret)@h h/0"),
        base("memory:", "redis://u:\(secret)/x@h/0"),
        base("memory:", "redis://\(secret)@h"),
        base("memory:", "redis+unix://u:\(secret)@run"),
        base("memory:", "redis+sentinel://u:\(secret)@h"),
        base("memory:", "redis+cluster://u:\(secret)@h:x"),
        // From the environment, with the default in the shell's other spelling, or in the wrong place.
        base("memory:", "redis://:${PW-\(secret)}@h/0"),
        base("memory:", "redis://:${PW}@h h/0"),
        base("url: \"memory:\"", "url: \"memory:\", timeout: \"${PW}\", on_outage: \"${PW}\""),
        base("http://127.0.0.1:3000", "http://u:\(secret)@h"),
        base("http://127.0.0.1:3000", "http://u:${PW}/@h"),
        base("http://127.0.0.1:3000", "ftp://u:\(secret)@h"),
        base("[100/minute]", "\"${PW}\""),
        // The secret itself where the path of its file is wanted.
        LoaderTests.base + "keys: { pepper_file: \(secret)missing }\n",
        LoaderTests.base + "keys: { pepper_file: /\(secret)missing+base64== }\n",
        LoaderTests.base + "admin: { address: \":1\", token_file: \"${PW}missing\" }\n",
        base("private_key: /k.pem", "private_key: \"-----missing-----\\n\(secret)\""),
        // A key where its digest, its entry or a prefix is wanted.
        LoaderTests.base + "keys: { static: [ { sha256: \(secret), tier: pro } ] }\n",
        LoaderTests.base + "keys: { static: [ \(secret) ] }\n",
        LoaderTests.base + "keys: { prefixes: [ \"\(secret) is a key\" ] }\n",
        // The parser's own messages quote the line.
        LoaderTests.base + "other: \"redis://u:\(secret)@h\u{1}\"\n",
        LoaderTests.base + "other: \"redis://u:\(secret)@h\n\t\"\": [\n",
        LoaderTests.base + "- redis://u:\(secret)@h: @\n",
    ]

    static func base(_ old: String, _ new: String) -> String { LoaderTests.base.replacing(old, with: new) }

    @Test("no problem shows one", arguments: wrong)
    func hidden(_ text: String) throws {
        let problem = try #require(throws: ConfigurationProblems.self) {
            try LoaderTests.load(text, ["PW": Self.secret])
        }
        #expect(!problem.lines.isEmpty)
        for line in problem.lines { #expect(!line.contains(Self.secret) && !line.contains("\n")) }
    }

    @Test("no description of a configuration shows one")
    func descriptions() throws {
        let configuration = try LoaderTests.load(
            Self.base("memory:", "redis://u:${PW}@h/0") + "keys: { pepper_file: /pepper }\n",
            ["PW": Self.secret])
        var dumped = ""
        dump(configuration, to: &dumped)
        for text in ["\(configuration)", String(reflecting: configuration), dumped] {
            #expect(!text.contains(Self.secret) && !text.contains("spice"))
        }
        #expect(configuration.store.password?.reveal() == Self.secret)
        #expect(configuration.keys.pepper?.reveal() == "spice")
    }

    @Test("a pepper that is empty or no text is refused", arguments: ["/empty", "/binary"])
    func pepper(_ path: String) {
        #expect(LoaderTests.problems(LoaderTests.base + "keys: { pepper_file: \(path) }\n").count == 1)
    }
}
