import Reactor

/// Fields outside a head's text, as HTTP/2 has them.
package enum FieldText {
    /// The identity of a name of `tchar` without capitals (RFC 9110 section 5.6.2, RFC 9113 section 8.2.1),
    /// nil for any other.
    package static func identify(lowercase name: Span<UInt8>) -> FieldID? {
        guard !name.isEmpty else { return nil }
        var hasUnderscore = false
        // Behind the last whole word that holds nothing but letters, digits and dashes, byte by byte.
        let rest = ByteClass.skipPlainName(name, 0, name.count) & ~7
        for index in stride(from: 0, to: rest, by: 8) {
            // Of these, only capitals have bit 6 and not bit 5.
            let word = name.word(at: index)
            guard word & ~(word << 1) & 0x4040_4040_4040_4040 == 0 else { return nil }
        }
        for index in rest..<name.count {
            let byte = name[index]
            guard ByteClass.isToken(byte), byte &- 65 >= 26 else { return nil }
            if byte == 0x5F { hasUnderscore = true }
        }
        return FieldID.identify(name, 0, name.count, hasUnderscore: hasUnderscore)
    }

    /// The value of a `content-length`, nil where it is none (RFC 9110 section 8.6).
    package static func contentLength(_ value: Span<UInt8>) -> Int64? {
        FieldSection.contentLength(value, 0..<value.count)
    }

    /// Whether a field that has no identity here may still not stand in a trailer section (RFC 9110 section
    /// 6.5.1): whoever sees it would have acted on it before, or takes it for what the head said.
    static func isForbiddenInTrailers(_ name: Span<UInt8>) -> Bool {
        name.equalsIgnoringCase("cookie") || name.equalsIgnoringCase("range")
            || name.equalsIgnoringCase("age") || name.equalsIgnoringCase("vary")
            || name.equalsIgnoringCase("pragma") || name.equalsIgnoringCase("expires")
            || name.equalsIgnoringCase("warning") || name.equalsIgnoringCase("location")
            || name.equalsIgnoringCase("retry-after") || name.equalsIgnoringCase("cache-control")
            || hasPrefix(name, "content-") || hasPrefix(name, "if-") || hasPrefix(name, "accept-")
            || hasPrefix(name, "ratelimit") || hasPrefix(name, "x-ratelimit")
            || hasPrefix(name, "x-forwarded-") || hasPrefix(name, "x-http-method")
    }

    private static func hasPrefix(_ name: Span<UInt8>, _ prefix: StaticString) -> Bool {
        let count = prefix.utf8CodeUnitCount
        return name.count >= count && name.extracting(first: count).equalsIgnoringCase(prefix)
    }

    /// No control characters but tabs, no blank at either end (RFC 9113 section 8.2.1).
    package static func isValue(_ value: Span<UInt8>) -> Bool {
        guard !value.isEmpty else { return true }
        let first = value[0]
        let last = value[value.count &- 1]
        guard first != 0x20, first != 0x09, last != 0x20, last != 0x09 else { return false }
        // Whole words, of which the last overlaps the one before: never byte by byte.
        let words = value.count & ~7
        guard ByteClass.endOfFieldValue(value, 0, words) == words else { return false }
        let rest = value.count >= 8 ? value.count &- 8 : words
        return ByteClass.endOfFieldValue(value, rest, value.count) == value.count
    }
}

/// Field lines that have been checked before: written by the gateway, or handed out by a decoder.
package enum FieldLines {
    /// The line that begins at `offset`, which moves behind it; nil at the end.
    package static func next(_ bytes: Span<UInt8>, _ offset: inout Int) -> FieldSlice? {
        guard case .field(let slice, let next) = FieldSection.line(bytes, offset, bytes.count) else {
            return nil
        }
        offset = next
        return slice
    }

    /// The same for lines that this process has written as `name: value`: only their ends are looked for.
    package static func next(written bytes: Span<UInt8>, _ offset: inout Int) -> FieldSlice? {
        guard let slice = FieldSection.written(bytes, offset) else { return nil }
        offset = slice.value.upperBound &+ 2
        return slice
    }
}
