import Limits

/// `limits` and `timeouts`.
enum LimitsSection {
    static func read(_ value: Value?) -> (sizes: SizeLimits, failedAuthentications: Int64) {
        var sizes = SizeLimits(
            headBytes: 32_768, fields: 100, targetBytes: 8_192, bodyBytes: 10 << 20, connections: 65_536)
        var failed: Int64 = 20
        guard let value, let section = value.section() else { return (sizes, failed) }
        defer { section.finish() }
        // The upper bounds are what a worker's scratch blocks hold.
        sizes.headBytes = section["head"]?.size(in: 1_024...49_152) ?? sizes.headBytes
        sizes.fields = section["fields"]?.integer(in: 8...256) ?? sizes.fields
        sizes.targetBytes = section["target"]?.size(in: 256...32_768) ?? sizes.targetBytes
        if let target = section["target"], sizes.targetBytes > sizes.headBytes {
            target.problem(
                "a target of \(Units.text(bytes: sizes.targetBytes)) never fits in a head of "
                    + Units.text(bytes: sizes.headBytes))
        }
        sizes.bodyBytes = section["body"]?.size(in: 0...Int.max).map(Int64.init) ?? sizes.bodyBytes
        sizes.connections = section["connections"]?.integer(in: 16...4_000_000) ?? sizes.connections
        sizes.handshakes = section["handshakes"]?.integer(in: 16...1_000_000) ?? sizes.handshakes
        sizes.memoryBytes = section["memory"]?.size(in: 16 << 20...1 << 50)
        if let item = section["failed_authentications"] { failed = readFailed(item) ?? failed }
        return (sizes, failed)
    }

    private static func readFailed(_ value: Value) -> Int64? {
        guard let text = value.text() else { return nil }
        if text == "off" { return 0 }
        guard let specification = try? LimitSpecification.parse(text), specification.windows.count == 1,
            specification.windows[0].lengthMicroseconds == 60_000_000
        else {
            value.problem("\"\(value.written)\" is not a number a minute like 20/minute, or off")
            return nil
        }
        return specification.windows[0].limit
    }

    static func timeouts(_ value: Value?) -> Timeouts {
        var timeouts = Timeouts(
            handshake: 10_000, head: 10_000, body: 30_000, bodyRate: 256, idle: 60_000, drainDelay: 5_000,
            drain: 30_000)
        guard let value, let section = value.section() else { return timeouts }
        defer { section.finish() }
        timeouts.handshake = section["handshake"]?.duration(in: 100...600_000) ?? timeouts.handshake
        timeouts.head = section["head"]?.duration(in: 100...600_000) ?? timeouts.head
        timeouts.body = section["body"]?.duration(in: 100...3_600_000) ?? timeouts.body
        timeouts.bodyRate = section["body_rate"]?.size(in: 0...1 << 30) ?? timeouts.bodyRate
        timeouts.idle = section["idle"]?.duration(in: 100...86_400_000) ?? timeouts.idle
        timeouts.drainDelay = section["drain_delay"]?.duration(in: 0...600_000) ?? timeouts.drainDelay
        timeouts.drain = section["drain"]?.duration(in: 0...3_600_000) ?? timeouts.drain
        return timeouts
    }
}

/// The small sections.
enum MiscellaneousSection {
    /// More workers than this share too little traffic to be worth their memory.
    private static let workersMax = 256

    /// Where syslog daemons listen on Linux.
    private static let syslogPath = "/dev/log"

    static func accessLog(_ value: Value?) -> AccessLogConfiguration {
        var log = AccessLogConfiguration(target: .standardOutput)
        guard let value, let section = value.section() else { return log }
        defer { section.finish() }
        log.format = section["format"]?.choice([("json", .json), ("combined", .combined)]) ?? log.format
        if let item = section["sample"] { log.sampleMillionths = share(item) ?? log.sampleMillionths }
        guard let path = section["path"], let text = path.text() else { return log }
        switch text {
        case "stdout": log.target = .standardOutput
        case "stderr": log.target = .standardError
        case "off": log.target = .off
        case "syslog": log.target = .syslog(path: syslogPath)
        case _ where text.hasPrefix("syslog:/"): log.target = .syslog(path: String(text.dropFirst(7)))
        case _ where text.hasPrefix("/"): log.target = .file(path: text)
        default:
            path.problem(
                "\"\(path.written)\" is not stdout, stderr, syslog, syslog:/path, off or an absolute path")
        }
        return log
    }

    /// `10%` or `0.1%`, in millionths.
    static func share(_ value: Value) -> Int? {
        guard let text = value.text() else { return nil }
        let parts = text.dropLast().split(separator: ".", omittingEmptySubsequences: false)
        guard text.hasSuffix("%"), (1...2).contains(parts.count), let whole = Units.digits(parts[0]),
            whole <= 100,
            parts.count == 1 || (1...4).contains(parts[1].count),
            let fraction = parts.count == 1
                ? 0 : Units.digits(parts[1] + String(repeating: "0", count: 4 - min(4, parts[1].count))),
            whole * 10_000 + fraction <= 1_000_000
        else {
            value.problem("\"\(value.written)\" is not a share between 0% and 100%, like 10% or 0.1%")
            return nil
        }
        return whole * 10_000 + fraction
    }

    static func log(_ value: Value?) -> LogConfiguration {
        var log = LogConfiguration(level: "info", isJSON: false)
        guard let value, let section = value.section() else { return log }
        defer { section.finish() }
        let levels = ["debug", "info", "warning", "error"]
        log.level = section["level"]?.choice(levels.map { ($0, $0) }) ?? log.level
        log.isJSON = section["format"]?.choice([("text", false), ("json", true)]) ?? log.isJSON
        return log
    }

    static func workers(_ value: Value?, processors: Int) -> Int {
        guard let value else { return min(processors, workersMax) }
        if let text = value.text(), text == "auto" { return min(processors, workersMax) }
        return value.integer(in: 1...workersMax) ?? 1
    }

    static func trustedProxies(_ value: Value?) -> [String] {
        value?.listOrOne().compactMap(Addresses.range) ?? []
    }
}
