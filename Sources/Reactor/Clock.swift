import Glibc

/// Time that only moves forward; the data plane measures with nothing else. It runs as the machine's counter
/// does: NTP makes other clocks up to a tenth faster or slower for as long as one of them is off, and what
/// Redis says of the time would then look as if Redis's clock had been set.
public enum MonotonicClock {
    @inline(__always)
    public static func nowMicroseconds() -> Int64 { microseconds(of: CLOCK_MONOTONIC_RAW) }

    /// The same on the clock by which the kernel and systemd measure, whose rate NTP corrects.
    static func systemMicroseconds() -> Int64 { microseconds(of: CLOCK_MONOTONIC) }

    @inline(__always)
    private static func microseconds(of clock: clockid_t) -> Int64 {
        var time = timespec()
        _ = unsafe clock_gettime(clock, &time)
        return Int64(time.tv_sec) &* 1_000_000 &+ Int64(time.tv_nsec) / 1_000
    }
}

/// Time of day; for records, logs and expiry.
public enum WallClock {
    /// Microseconds since 1970.
    public static func nowMicroseconds() -> Int64 {
        var time = timespec()
        _ = unsafe clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) &* 1_000_000 &+ Int64(time.tv_nsec) / 1_000
    }

    /// Seconds since 1970.
    public static func nowSeconds() -> Int64 { nowMicroseconds() / 1_000_000 }
}

/// A moment in the calendar, in UTC; enough for `Date` headers and log lines.
public struct CalendarTime {
    public let year: Int, month: Int, day: Int
    public let hour: Int, minute: Int, second: Int
    /// 0 is Sunday.
    public let weekday: Int

    /// - Parameter unixSeconds: seconds since 1970, not negative.
    public init(unixSeconds: Int64) {
        let days = unixSeconds / 86_400
        let rest = Int(unixSeconds % 86_400)
        hour = rest / 3_600
        minute = rest / 60 % 60
        second = rest % 60
        weekday = Int((days + 4) % 7)
        // Days to civil date, counted in 400-year eras that begin on 1 March.
        let shifted = days + 719_468
        let era = shifted / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        day = Int(dayOfYear - (153 * monthFromMarch + 2) / 5 + 1)
        month = Int(monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9)
        year = Int(yearOfEra + era * 400) + (month <= 2 ? 1 : 0)
    }

    /// `2026-11-24T05:02:40`, without fraction and zone.
    public func writeISO8601(into writer: inout ByteWriter) {
        writer.append(decimal: Int64(year))
        writer.append(byte: 45)
        Self.writeTwo(month, into: &writer)
        writer.append(byte: 45)
        Self.writeTwo(day, into: &writer)
        writer.append(byte: 84)
        writeClock(into: &writer)
    }

    /// IMF-fixdate of RFC 9110 section 5.6.7: `Tue, 24 Nov 2026 05:02:40 GMT`.
    public func writeHTTPDate(into writer: inout ByteWriter) {
        switch weekday {
        case 0: writer.append("Sun, ")
        case 1: writer.append("Mon, ")
        case 2: writer.append("Tue, ")
        case 3: writer.append("Wed, ")
        case 4: writer.append("Thu, ")
        case 5: writer.append("Fri, ")
        default: writer.append("Sat, ")
        }
        Self.writeTwo(day, into: &writer)
        switch month {
        case 1: writer.append(" Jan ")
        case 2: writer.append(" Feb ")
        case 3: writer.append(" Mar ")
        case 4: writer.append(" Apr ")
        case 5: writer.append(" May ")
        case 6: writer.append(" Jun ")
        case 7: writer.append(" Jul ")
        case 8: writer.append(" Aug ")
        case 9: writer.append(" Sep ")
        case 10: writer.append(" Oct ")
        case 11: writer.append(" Nov ")
        default: writer.append(" Dec ")
        }
        writer.append(decimal: Int64(year))
        writer.append(byte: 32)
        writeClock(into: &writer)
        writer.append(" GMT")
    }

    private func writeClock(into writer: inout ByteWriter) {
        Self.writeTwo(hour, into: &writer)
        writer.append(byte: 58)
        Self.writeTwo(minute, into: &writer)
        writer.append(byte: 58)
        Self.writeTwo(second, into: &writer)
    }

    private static func writeTwo(_ value: Int, into writer: inout ByteWriter) {
        writer.append(byte: 48 + UInt8(truncatingIfNeeded: value / 10))
        writer.append(byte: 48 + UInt8(truncatingIfNeeded: value % 10))
    }
}
