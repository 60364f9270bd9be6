import Configuration
import Testing

/// One wrong configuration and everything that is said about it.
struct Mistake: Sendable, CustomTestStringConvertible {
    /// Lines after `LoaderTests.base`, of which the first is line 14.
    var added = ""
    /// What is replaced in the base, and by what.
    var replaced = ("", "")
    /// Without the file's name.
    var problems: [String]

    var text: String {
        let base =
            replaced.0.isEmpty
            ? LoaderTests.base : LoaderTests.base.replacing(replaced.0, with: replaced.1)
        return base + added + "\n"
    }

    var testDescription: String { problems.first ?? "no problem" }
}

@Suite("Mistakes in a configuration")
struct MistakeTests {
    static func expect(_ mistake: Mistake) {
        #expect(LoaderTests.problems(mistake.text) == mistake.problems.map { "gateway.conf:\($0)" })
    }

    static let listen: [Mistake] = [
        Mistake(
            replaced: ("address: \"0.0.0.0:8443\"", "address: \"gateway.test:8443\""),
            problems: ["3:14: \"gateway.test:8443\" is not an address like 0.0.0.0:8443 or [::]:8443"]),
        Mistake(
            added: "admin: { address: \"[:::]:1\" }",
            problems: ["14:19: \"[:::]:1\" is not an address like 0.0.0.0:8443 or [::]:8443"]),
        Mistake(
            added: "admin: { address: \":8443\" }",
            problems: ["14:19: \":8443\" is already listened on by line 3"]),
        Mistake(
            replaced: ("    certificates:", "    client_ca:\n    certificates:"),
            problems: ["4:5: \"client_ca\" has no value"]),
        Mistake(
            replaced: ("    certificates:", "    minimum_version: 1.1\n    certificates:"),
            problems: ["4:22: \"1.1\" is not one of 1.2, 1.3 (did you mean \"1.2\"?)"]),
        Mistake(
            replaced: ("private_key: /k.pem", "private_key: /missing.pem"),
            problems: ["5:39: /missing.pem: the file does not exist"]),
        Mistake(
            replaced: (", private_key: /k.pem", ""), problems: ["5:9: a certificate needs \"private_key\""]),
        Mistake(
            replaced: ("listen:\n", "listen:\n  plaintext: { exposed_keys: forgive }\n"),
            problems: [
                "2:14: listen.plaintext needs \"address\"",
                "2:30: \"forgive\" is not one of report, revoke",
            ]),
    ]

    @Test("of the listeners", arguments: listen)
    func ofTheListeners(_ mistake: Mistake) { Self.expect(mistake) }

    static let tiersAndKeys: [Mistake] = [
        Mistake(
            replaced: ("100/minute", "100/minuet"),
            problems: [
                "8:24: \"minuet\" is not a window: second, minute, hour, day, or like 10s, 5m, 2h"
            ]),
        Mistake(
            replaced: ("[100/minute]", "[5/second, 100/1s]"),
            problems: ["8:23: two limits for the same window in \"5/second,100/1s\""]),
        Mistake(replaced: ("[100/minute]", "[]"), problems: ["8:23: at least one limit is needed"]),
        Mistake(
            replaced: ("standard:", "my tier:"),
            problems: ["8:3: \"my tier\" is not a name: letters, digits, - and _, up to 64"]),
        Mistake(
            added: "keys: { static: [ { sha256: \"00\", tier: profesional } ] }",
            problems: [
                "14:29: sha256 is 64 hexadecimal digits",
                "14:41: unknown tier \"profesional\" (did you mean \"pro\"?)",
            ]),
        Mistake(
            added: "keys: { static: [ { sha256: \(digest) } ] }",
            problems: ["14:19: a static key needs \"tier\""]),
        Mistake(
            added: "keys: { static: [ { sha256: \(digest), tier: pro, expires_at: soon } ] }",
            problems: ["14:118: unreadable field \"expires_at\""]),
        Mistake(
            added: "keys: { static: [ { sha256: \(digest), tier: pro, status: revokd } ] }",
            problems: [
                "14:114: \"revokd\" is not one of active, disabled, revoked (did you mean \"revoked\"?)"
            ]),
        Mistake(
            added: """
                keys:
                  static:
                    - { sha256: \(digest), tier: pro, id: a }
                    - { sha256: \(digest), tier: pro, id: b }
                    - { sha256: \(digest.replacing("0", with: "1")), tier: pro, id: a }
                """,
            problems: [
                "17:7: this key stands here more than once", "18:7: another key above has the same id",
            ]),
        Mistake(
            added: "keys: { prefixes: [sk_, sk_, \"bad prefix\"] }",
            problems: [
                "14:25: this prefix stands here more than once",
                "14:30: a prefix is 1 to 32 letters, digits and -._~+/, like sk_live_",
            ]),
        Mistake(
            added: "keys: { prefixes: [a, b, c, d, e, f, g, h, i] }",
            problems: ["14:19: more than 8 prefixes"]),
        Mistake(
            added: "keys: { cache: { ttl: 1500ms, stale_for: 8d } }",
            problems: [
                "14:23: 1500ms is not a number of whole seconds", "14:42: 8d is not between 0ms and 7d",
            ]),
    ]
    static let digest = String(repeating: "0", count: 64).replacing("0000", with: "00ab")

    @Test("of tiers and keys", arguments: tiersAndKeys)
    func ofTiersAndKeys(_ mistake: Mistake) { Self.expect(mistake) }

    static let upstreams: [Mistake] = [
        Mistake(
            replaced: ("[\"http://127.0.0.1:3000\"]", "[\"http://a:1\", \"http://a:1/\"]"),
            problems: ["11:37: \"http://a:1/\" stands here more than once"]),
        Mistake(
            replaced: ("127.0.0.1:3000", "127.0.0.999:3000"),
            problems: ["11:23: \"http://127.0.0.999:3000\" names no host and port that could be connected to"]
        ),
        Mistake(
            replaced: ("127.0.0.1:3000", "a:70000"),
            problems: ["11:23: \"http://a:70000\" names no host and port that could be connected to"]),
        Mistake(
            replaced: ("http://127.0.0.1:3000", "tcp://a:1"),
            problems: [
                "11:23: \"tcp://a:1\" is not an endpoint like http://127.0.0.1:3000, https://host or "
                    + "unix:/path"
            ]),
        Mistake(
            replaced: ("http://127.0.0.1:3000", "http://a/v1"),
            problems: ["11:23: \"http://a/v1\": an endpoint has no path; a route may have add_prefix"]),
        Mistake(
            replaced: ("[\"http://127.0.0.1:3000\"]", "[]"),
            problems: ["11:22: upstream \"main\" needs at least one endpoint"]),
        Mistake(
            replaced: ("3000\"]", "3000\"], retries: 6, balance: hsah"),
            problems: [
                "11:58: 6 is not between 0 and 5",
                "11:70: \"hsah\" is not one of least_outstanding, round_robin, hash (did you mean \"hash\"?)",
            ]),
        Mistake(
            replaced: ("3000\"]", "3000\"], health: { interval: 1ms }"),
            problems: ["11:57: health needs \"path\"", "11:69: 1ms is not between 100ms and 1h"]),
    ]

    @Test("of upstreams", arguments: upstreams)
    func ofUpstreams(_ mistake: Mistake) { Self.expect(mistake) }

    static let routes: [Mistake] = [
        Mistake(
            added: "  - { path: \"/b/x{y}\", upstream: main }",
            problems: [
                "14:13: \"x{y}\" in \"/b/x{y}\" is not a plain word, * or {name} for any, ** for the rest"
            ]),
        Mistake(
            added: "  - { path: /b//c, upstream: main }",
            problems: ["14:13: \"\" in \"/b//c\" is not a plain word, * or {name} for any, ** for the rest"]),
        Mistake(
            added:
                "  - { path: \"/b/{x}\", upstream: main }\n  - { path: /b/*, methods: GET, upstream: main }",
            problems: ["15:5: GET /b/* is already covered by the route in line 14"]),
        Mistake(
            added: "  - { path: /b, methods: [], upstream: main }",
            problems: ["14:26: an empty list; without \"methods\" a route takes all"]),
        Mistake(
            added: "  - { path: /b, access: public, scopes: [\"a:b\"], upstream: main }",
            problems: ["14:41: a public route has no scopes"]),
        Mistake(
            added: "  - { path: /b, scopes: [\"a::b\"], upstream: main }",
            problems: ["14:26: \"a::b\" is not a scope like projects:read"]),
        Mistake(
            added: "  - { path: /b, scopes: , upstream: main }",
            problems: ["14:17: \"scopes\" has no value"]),
        Mistake(
            added: "  - { path: /b/**, strip_prefix: /c, upstream: main }",
            problems: ["14:34: no request to this route begins so"]),
        Mistake(
            added: "  - { path: /b, add_prefix: /c?d, upstream: main }",
            problems: ["14:29: \"/c?d\" is not a prefix like /api: plain words between single slashes"]),
        Mistake(
            added: "  - { path: /b, host: \"a b\", cost: 0, upstream: main }",
            problems: ["14:23: \"a b\" is not a host name", "14:36: 0 is not between 1 and 1000"]),
    ]

    @Test("of routes", arguments: routes)
    func ofRoutes(_ mistake: Mistake) { Self.expect(mistake) }

    static let rest: [Mistake] = [
        Mistake(
            added: "limits: { head: 4KiB, target: 8KiB }",
            problems: ["14:31: a target of 8KiB never fits in a head of 4KiB"]),
        Mistake(added: "limits: { head: 1MiB }", problems: ["14:17: 1MiB is not between 1KiB and 48KiB"]),
        Mistake(
            added: "limits: { failed_authentications: 5/hour }",
            problems: ["14:35: \"5/hour\" is not a number a minute like 20/minute, or off"]),
        Mistake(added: "timeouts: [5s]", problems: ["14:11: expected names with values, found a list"]),
        Mistake(
            added: "access_log: { path: [a] }", problems: ["14:21: expected a single value, found a list"]),
        Mistake(
            added: "rate_limit_headers: legasy",
            problems: ["14:21: \"legasy\" is not one of standard, legacy (did you mean \"legacy\"?)"]),
        Mistake(
            replaced: ("memory:", "rdis://h/0"),
            problems: ["6:15: unknown store \"rdis://\" (did you mean \"redis\"?)"]),
        Mistake(
            added: "log: { level: \"${1X}\" }",
            problems: ["14:15: between \"${\" and \"}\" stands NAME or NAME:-default"]),
        Mistake(
            replaced: ("store: { url: \"memory:\" }\n", "store:\n"), problems: ["6:1: \"store\" has no value"]
        ),
    ]

    @Test("of the small sections", arguments: rest)
    func ofTheSmallSections(_ mistake: Mistake) { Self.expect(mistake) }

    /// The parser stops at the first name that stands twice; the report must not.
    @Test("names that stand twice do not hide other problems")
    func repeatedNames() {
        let mistake = Mistake(
            added: "workers: 1\nworkers: x\nworkers: 3\nbogus: 1",
            replaced: ("  pro:", "  \"standard\": { limits: [1/day] }\n  pro:"),
            problems: [
                "9:3: \"standard\" already stands in line 8", "17:1: \"workers\" already stands in line 15",
                "17:1: \"workers\" already stands in line 16", "18:1: unknown key \"bogus\"",
            ])
        Self.expect(mistake)
    }

    @Test(
        "a file that is no YAML is refused with a place",
        arguments: [
            ("", "1:1: the file holds no configuration"),
            ("# nothing\n", "1:1: the file holds no configuration"),
            ("- a\n", "1:1: expected names with values, found a list"),
            ("a: [", "2:1: did not find expected node content"),
            ("a: 1\nb: \u{1}\n", "2:4: control characters are not allowed"),
            ("a: 1\n---\nb: 2\n", "2:1: but found another document"),
            ("a: *nowhere\n", "1:4: found undefined alias"),
        ])
    func noYAML(_ text: String, _ problem: String) {
        #expect(LoaderTests.problems(text) == ["gateway.conf:\(problem)"])
    }

    @Test("nesting without end does not take the process down")
    func nesting() {
        #expect(LoaderTests.problems(String(repeating: "[", count: 100_000)).count == 1)
        #expect(LoaderTests.problems(String(repeating: "{a: ", count: 100_000)).count == 1)
    }
}
