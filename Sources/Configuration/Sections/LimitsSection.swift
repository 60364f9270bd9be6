import Limits

/// `limits` and `timeouts`.
enum LimitsSection {
    static func read(_ value: Value?) -> (sizes: SizeLimits, failedAuthentications: Int64) {
        let section = value?.section(LimitKeys.description)
        let sizes = SizeLimits(
            headBytes: LimitKeys.head.value(in: section), fields: LimitKeys.fields.value(in: section),
            targetBytes: LimitKeys.target.value(in: section),
            bodyBytes: Int64(LimitKeys.body.value(in: section)),
            connections: LimitKeys.connections.value(in: section),
            handshakes: LimitKeys.handshakes.value(in: section),
            memoryBytes: LimitKeys.memory.value(in: section))
        guard let section else { return (sizes, LimitKeys.failedAuthentications) }
        defer { section.finish() }
        if let target = section["target"], sizes.targetBytes > sizes.headBytes {
            target.problem(
                "a target of \(Units.text(bytes: sizes.targetBytes)) never fits in a head of "
                    + Units.text(bytes: sizes.headBytes))
        }
        let failed = section["failed_authentications"].flatMap(readFailed)
        return (sizes, failed ?? LimitKeys.failedAuthentications)
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
        let section = value?.section(TimeoutKeys.description)
        section?.finish()
        return Timeouts(
            handshake: TimeoutKeys.handshake.value(in: section), head: TimeoutKeys.head.value(in: section),
            body: TimeoutKeys.body.value(in: section), bodyRate: TimeoutKeys.bodyRate.value(in: section),
            idle: TimeoutKeys.idle.value(in: section), drainDelay: TimeoutKeys.drainDelay.value(in: section),
            drain: TimeoutKeys.drain.value(in: section))
    }
}

/// The small sections.
enum MiscellaneousSection {
    /// More workers than this share too little traffic to be worth their memory.
    static let workersMax = 256

    /// Where syslog daemons listen on Linux.
    static let syslogPath = "/dev/log"

    static func accessLog(_ value: Value?) -> AccessLogConfiguration {
        var log = AccessLogConfiguration(target: .standardOutput)
        guard let value, let section = value.section(AccessLogKeys.description) else { return log }
        defer { section.finish() }
        log.format = AccessLogKeys.format.value(in: section)
        log.sampleMillionths = AccessLogKeys.sample.value(in: section)
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

    static func log(_ value: Value?) -> LogConfiguration {
        let section = value?.section(LogKeys.description)
        section?.finish()
        return LogConfiguration(
            level: LogKeys.level.value(in: section), isJSON: LogKeys.isJSON.value(in: section))
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

enum LimitKeys {
    static let failedAuthentications: Int64 = 20
    // The upper bounds of these three are what a worker's scratch blocks hold.
    static let head = Setting.size(
        "head", in: 1_024...49_152, default: 32_768, "a request's whole head; 431 above")
    static let fields = Setting.integer(
        "fields", in: 8...256, default: 100, "field lines of a request; 431 above")
    static let target = Setting.size(
        "target", in: 256...32_768, default: 8_192, "the request target; 414 above; no more than `head`")
    static let body = Setting.size(
        "body", in: 0...Int.max, default: 10 << 20,
        "a request's body; 413 above; never kept in memory or on disk")
    static let connections = Setting.integer(
        "connections", in: 16...4_000_000, default: 65_536,
        "open connections of callers, at least 64 for each worker; each needs up to two descriptors")
    static let handshakes = Setting.integer(
        "handshakes", in: 16...1_000_000, default: 4_096,
        "handshakes under way, at least 16 for each worker; above, the oldest is closed to make room")
    static let memory = Setting.size(
        "memory", in: 16 << 20...1 << 50, default: "no watermark",
        "resident memory from which on no connection is accepted, and a second later idle ones are closed, "
            + "until it is below nine tenths")

    static let description = SectionDescription(
        "limits", "What one caller may send, and how many callers there may be.",
        [
            head.description, fields.description, target.description, body.description,
            connections.description, handshakes.description, memory.description,
            .key(
                "failed_authentications", "a number a minute like `20/minute`, or `off`",
                default: "\(failedAuthentications)/minute",
                "failed authentications of one address (IPv6: /64) before it gets 429; "
                    + "valid keys keep working"
            ),
        ])
}

enum TimeoutKeys {
    static let handshake = Setting.duration(
        "handshake", in: 100...600_000, default: 10_000, "until TLS is up")
    static let head = Setting.duration(
        "head", in: 100...600_000, default: 10_000, "for the whole head of a request")
    static let body = Setting.duration(
        "body", in: 100...3_600_000, default: 30_000,
        "between two arrivals of a body; a caller that stops taking its answer is given the same")
    static let bodyRate = Setting.size(
        "body_rate", in: 0...1 << 30, default: 256,
        "a second, what a body has to reach on average after the first `body`; none for gRPC")
    static let idle = Setting.duration(
        "idle", in: 100...86_400_000, default: 60_000, "between two requests of a connection")
    static let drainDelay = Setting.duration(
        "drain_delay", in: 0...600_000, default: 5_000,
        "after `SIGTERM` listeners stay open for this while readiness fails")
    static let drain = Setting.duration(
        "drain", in: 0...3_600_000, default: 30_000, "calls under way may take this long after that")

    static let description = SectionDescription(
        "timeouts", "How long callers may take.",
        [
            handshake.description, head.description, body.description, bodyRate.description,
            idle.description, drainDelay.description, drain.description,
        ])
}

enum AccessLogKeys {
    static let format = Setting.choice(
        "format", [("json", LogFormat.json), ("combined", .combined)], default: "json",
        "an object for each call, or the format of web servers")
    static let sample = Setting.share(
        "sample", default: 1_000_000,
        "the share of good calls (below 400) that have a line; others always have")

    static let description = SectionDescription(
        "access_log", "A line for each call. What cannot be written in time is dropped and counted.",
        [
            format.description, sample.description,
            .key(
                "path", "`stdout`, `stderr`, `off`, an absolute path, `syslog`, `syslog:/path`",
                default: "stdout",
                "a file is opened again upon `SIGUSR1`; `syslog` is `\(MiscellaneousSection.syslogPath)`"),
        ])
}

enum LogKeys {
    static let level = Setting.choice(
        "level", ["debug", "info", "warning", "error"].map { ($0, $0) }, default: "info",
        "the least that is told")
    static let isJSON = Setting.choice(
        "format", [("text", false), ("json", true)], default: "text", "a line of text or an object")

    static let description = SectionDescription(
        "log", "The program's own log, on standard error.", [level.description, isJSON.description])
}
