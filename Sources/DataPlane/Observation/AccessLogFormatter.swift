package import Configuration
import HTTPWire
import Reactor

/// Turns records into lines, on the log thread.
package struct AccessLogFormatter: Sendable {
    private static let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]

    private let names: LogNames
    private let format: LogFormat

    package init(_ names: LogNames, _ format: LogFormat) {
        self.names = names
        self.format = format
    }

    /// The lines of a block of records.
    package func lines(_ bytes: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count * 3)
        AccessRecord.forEach(in: bytes) { record, texts in
            result += Array((format == .json ? line(record, texts) : combined(record, texts)).utf8)
        }
        return result
    }

    private func line(_ record: AccessRecord, _ texts: AccessRecord.Texts) -> String {
        var line = "{\"time\":\"\(Self.time(record.wallMicroseconds))\""
        func text(_ name: String, _ value: String) {
            if !value.isEmpty { line += ",\"\(name)\":\"\(JSONText.escape(value))\"" }
        }
        text("request_id", texts[.requestID])
        if record.traceHigh | record.traceLow != 0 {
            text("trace_id", Self.hexadecimal(record.traceHigh) + Self.hexadecimal(record.traceLow))
        }
        text("client", texts[.client])
        text("method", "\(record.method.name)")
        text("path", texts[.path])
        if record.route >= 0 { text("route", names.routes[Int(record.route)]) }
        line += ",\"status\":\(record.status)"
        text("reason", "\(record.reason.text)")
        text("key_id", texts[.keyID])
        text("account", texts[.account])
        text("tier", texts[.tier])
        line += ",\"bytes_in\":\(record.bytesIn),\"bytes_out\":\(record.bytesOut)"
        line += ",\"duration\":\(Self.seconds(record.durationMicroseconds))"
        if record.upstream >= 0, record.upstreamMicroseconds >= 0 {
            text("upstream", names.upstreams[Int(record.upstream)])
            line += ",\"upstream_duration\":\(Self.seconds(record.upstreamMicroseconds))"
        }
        if record.tls > 0 { text("tls", record.tls == 13 ? "1.3" : "1.2") }
        text("protocol", Self.protocolName(record.minorVersion))
        if record.limit >= 0 { line += ",\"limit\":\(record.limit),\"remaining\":\(record.remaining)" }
        return line + "}\n"
    }

    /// The combined format of web servers, with the key's id as the user.
    private func combined(_ record: AccessRecord, _ texts: AccessRecord.Texts) -> String {
        let time = CalendarTime(unixSeconds: record.wallMicroseconds / 1_000_000)
        func two(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
        func text(_ name: AccessRecord.Text) -> String {
            let raw = texts.raw(name)
            return raw.isEmpty ? "-" : Self.quotable(raw)
        }
        let day = "\(two(time.day))/\(Self.months[time.month - 1])/\(time.year)"
        let clock = "\(two(time.hour)):\(two(time.minute)):\(two(time.second))"
        let request = "\(record.method.name) \(text(.path)) \(Self.protocolName(record.minorVersion))"
        return "\(text(.client)) - \(text(.keyID)) [\(day):\(clock) +0000] \"\(request)\" "
            + "\(record.status) \(record.bytesOut) \"\(text(.referrer))\" \"\(text(.agent))\"\n"
    }

    /// As nginx does: what could end the quotes or the line, and what is not ASCII, as `\xHH`.
    private static func quotable(_ bytes: ArraySlice<UInt8>) -> String {
        var result = ""
        for byte in bytes {
            if byte >= 0x20, byte < 0x7F, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\") {
                result.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                let digits = String(byte, radix: 16, uppercase: true)
                result += digits.count == 1 ? "\\x0\(digits)" : "\\x\(digits)"
            }
        }
        return result
    }

    private static func protocolName(_ minorVersion: UInt8) -> String {
        switch minorVersion {
        case AccessRecord.http2: return "HTTP/2.0"
        case 0: return "HTTP/1.0"
        default: return "HTTP/1.1"
        }
    }

    /// `2026-11-24T05:02:40.123456Z`.
    static func time(_ wallMicroseconds: Int64) -> String {
        var block = Block.allocate(capacity: 64)
        defer { block.deallocate() }
        var writer = ByteWriter(block)
        CalendarTime(unixSeconds: wallMicroseconds / 1_000_000).writeISO8601(into: &writer)
        block.commit(writer)
        let fraction = "\(wallMicroseconds % 1_000_000 + 1_000_000)".dropFirst()
        return "\(String(copying: block.readable)).\(fraction)Z"
    }

    static func seconds(_ microseconds: Int64) -> String {
        let fraction = "\(microseconds % 1_000_000 + 1_000_000)".dropFirst()
        return "\(microseconds / 1_000_000).\(fraction)"
    }

    private static func hexadecimal(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}

/// Text inside JSON strings.
package enum JSONText {
    package static func escape(_ text: String) -> String {
        guard
            text.unicodeScalars.contains(where: {
                $0.value < 0x20 || $0 == "\"" || $0 == "\\" || $0.value == 0x7F
            })
        else { return text }
        var result = ""
        for character in text.unicodeScalars {
            switch character {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            default:
                if character.value < 0x20 || character.value == 0x7F {
                    let digits = String(character.value, radix: 16)
                    result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
                } else {
                    result.unicodeScalars.append(character)
                }
            }
        }
        return result
    }
}
