/// `store`.
enum StoreSection {
    static let standard = StoreConfiguration(
        endpoint: .redis(host: "127.0.0.1", port: 6_379, tls: false), user: nil, password: nil, database: 0,
        caPath: nil, prefix: StoreKeys.prefix, timeoutMilliseconds: StoreKeys.timeout.standard,
        onOutage: StoreKeys.onOutage.standard)

    static func read(_ value: Value) -> StoreConfiguration? {
        guard let section = value.section(StoreKeys.description) else { return nil }
        defer { section.finish() }
        var store = standard
        if let url = section["url"] { readURL(url, into: &store) }
        store.caPath = section["ca"].flatMap(Paths.readable)
        if let prefix = section["prefix"], let text = prefix.text() {
            if isPrefix(text) {
                store.prefix = text
            } else {
                prefix.problem("a prefix is 1 to 64 letters, digits and -._:")
            }
        }
        store.timeoutMilliseconds = StoreKeys.timeout.value(in: section)
        store.onOutage = StoreKeys.onOutage.value(in: section)
        return store
    }

    private static func isPrefix(_ text: String) -> Bool {
        text.utf8.count <= 64
            && text.utf8.allSatisfy { Bytes.isLetterOrDigit($0) || "-._:".utf8.contains($0) }
    }

    /// The text may hold a password, so no message shows it.
    private static func readURL(_ value: Value, into store: inout StoreConfiguration) {
        guard let text = value.text() else { return }
        if text == "memory:" {
            store.endpoint = .memory
            return
        }
        guard let mark = text.firstRange(of: "://") else {
            value.problem(
                "a store's url starts with redis://, rediss://, redis+unix://, redis+sentinel:// or "
                    + "redis+cluster://, or is memory:")
            return
        }
        let scheme = String(text[..<mark.lowerBound])
        var rest = String(text[mark.upperBound...])
        guard readCredentials(&rest, value, into: &store) else { return }
        switch scheme {
        case "redis", "rediss": readHost(rest, tls: scheme == "rediss", value, into: &store)
        case "redis+unix":
            guard rest.hasPrefix("/"), rest.utf8.count <= 100 else {
                value.problem("redis+unix:// needs an absolute path of at most 100 bytes")
                return
            }
            store.endpoint = .unixSocket(path: rest)
        case "redis+sentinel", "rediss+sentinel":
            let halves = rest.split(separator: "/", omittingEmptySubsequences: false)
            guard let hosts = hosts(halves.first ?? "", port: 26_379), halves.count == 2, !halves[1].isEmpty
            else {
                value.problem("a sentinel url is like redis+sentinel://host:26379,host:26379/name")
                return
            }
            store.endpoint = .sentinel(
                hosts: hosts, name: String(halves[1]), tls: scheme == "rediss+sentinel")
        case "redis+cluster", "rediss+cluster":
            guard let hosts = hosts(rest[...], port: 6_379) else {
                value.problem("a cluster url is like redis+cluster://host:6379,host:6379")
                return
            }
            store.endpoint = .cluster(hosts: hosts, tls: scheme == "rediss+cluster")
        default:
            let known = [
                "redis", "rediss", "redis+unix", "redis+sentinel", "redis+cluster", "rediss+sentinel",
                "rediss+cluster",
            ]
            // What is no scheme may be credentials that lost theirs.
            let isScheme = scheme.utf8.allSatisfy { Bytes.isLetterOrDigit($0) || "+-.".utf8.contains($0) }
            let quoted = isScheme && !value.isFilledIn ? " \"\(Shown.text(scheme))://\"" : ""
            value.problem("unknown store\(quoted)" + Suggestion.text(for: scheme, among: known))
        }
    }

    /// Takes `user:password@` off the front of a url, false when it cannot be read. The part ends at the last
    /// `@` before the first slash, so that the path of a socket may hold one.
    private static func readCredentials(
        _ rest: inout String, _ value: Value, into store: inout StoreConfiguration
    ) -> Bool {
        let authority = rest[..<(rest.firstIndex(of: "/") ?? rest.endIndex)]
        guard let at = authority.lastIndex(of: "@") else { return true }
        let credentials = rest[..<at]
        rest = String(rest[rest.index(after: at)...])
        let halves = credentials.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard halves.count == 2, let user = decode(halves[0]), let password = decode(halves[1]),
            !password.isEmpty
        else {
            value.problem("credentials stand as user:password@, percent-encoded where they hold : / or @")
            return false
        }
        store.user = user.isEmpty ? nil : user
        store.password = StorePassword(password)
        return true
    }

    private static func decode(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var index = text.utf8.startIndex
        while index < text.utf8.endIndex {
            let byte = text.utf8[index]
            index = text.utf8.index(after: index)
            guard byte == 0x25 else {
                bytes.append(byte)
                continue
            }
            guard let end = text.utf8.index(index, offsetBy: 2, limitedBy: text.utf8.endIndex),
                let decoded = UInt8(text[index..<end], radix: 16)
            else { return nil }
            bytes.append(decoded)
            index = end
        }
        return String(validating: bytes, as: UTF8.self)
    }

    private static func readHost(
        _ rest: String, tls: Bool, _ value: Value, into store: inout StoreConfiguration
    ) {
        let halves = rest.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let (host, port) = Addresses.hostAndPort(halves.first ?? "", port: 6_379) else {
            value.problem("the store's url needs a host, like redis://127.0.0.1:6379/0")
            return
        }
        if halves.count == 2, !halves[1].isEmpty {
            guard let database = Units.digits(halves[1]), database <= 1_000 else {
                value.problem("the store's database is a number, like redis://127.0.0.1:6379/0")
                return
            }
            store.database = database
        }
        store.endpoint = .redis(host: host, port: port, tls: tls)
    }

    /// `host:port,host:port`, each completed with the default port.
    private static func hosts(_ text: Substring, port: Int) -> [String]? {
        var complete: [String] = []
        for item in text.split(separator: ",", omittingEmptySubsequences: false) {
            guard let (host, number) = Addresses.hostAndPort(item, port: port) else { return nil }
            complete.append(host.contains(":") ? "[\(host)]:\(number)" : "\(host):\(number)")
        }
        return complete
    }
}

enum StoreKeys {
    static let prefix = "gateway:"
    static let timeout = Setting.duration(
        "timeout", in: 10...10_000, default: 250,
        "a command that takes longer counts as an outage: no call ever hangs on Redis")
    static let onOutage = Setting.choice(
        "on_outage", [("local", OutagePolicy.local), ("closed", .closed), ("open", .open)], default: "local",
        "limits while Redis is away: this node's own exact windows with its share of the limit, 503, or none")

    static let description = SectionDescription(
        "store", "Where keys and windows live.",
        [
            .key(
                "url", "url", default: "redis://127.0.0.1:6379/0",
                "`redis://[user:password@]host:port/db`, `redis+unix://[user:password@]/path`, "
                    + "`redis+sentinel://host:port,host:port/name`, `redis+cluster://host:port,host:port`; "
                    + "`rediss://` and its kin over verified TLS; `memory:` for one process without Redis"),
            .key("ca", "path of a PEM file", default: "the system's", "trust for TLS to Redis"),
            .key(
                "prefix", "1 to 64 letters, digits and `-._:`", default: prefix,
                "before every name in Redis, so that several sets of gateways may share one"),
            timeout.description, onOutage.description,
        ])
}
