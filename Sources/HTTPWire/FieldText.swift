import Reactor

/// Fields outside a head's text, as HTTP/2 has them.
package enum FieldText {
    /// The identity of a name of `tchar` without capitals (RFC 9110 section 5.6.2, RFC 9113 section 8.2.1),
    /// nil for any other.
    package static func identify(lowercase name: Span<UInt8>) -> FieldID? {
        var isPlain = isPlainLowercase(name)
        if !isPlain {
            guard !name.isEmpty else { return nil }
            isPlain = true
            for index in 0..<name.count {
                let byte = name[index]
                guard ByteClass.isToken(byte), byte &- 65 >= 26 else { return nil }
                if !ByteClass.isPlainName(byte) { isPlain = false }
            }
        }
        return FieldID.identify(name, 0, name.count, isPlain: isPlain)
    }

    /// Whether a name of at least eight bytes holds nothing but small letters, digits and `-`, as nearly all
    /// do: by whole words, of which the last overlaps the one before.
    @inline(__always)
    private static func isPlainLowercase(_ name: Span<UInt8>) -> Bool {
        guard name.count >= 8 else { return false }
        var index = 0
        while index < name.count &- 8 {
            guard ByteClass.isPlainLowercase(name.word(at: index)) else { return false }
            index &+= 8
        }
        return ByteClass.isPlainLowercase(name.word(at: name.count &- 8))
    }

    /// The value of a `content-length`, nil where it is none (RFC 9110 section 8.6).
    package static func contentLength(_ value: Span<UInt8>) -> Int64? {
        FieldSection.contentLength(value, 0..<value.count)
    }

    /// Whether a `content-type` is that of gRPC.
    package static func isGRPC(_ value: Span<UInt8>) -> Bool { FieldFacts.isGRPC(value, 0..<value.count) }

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
            || hasPrefix(name, "x-http-method")
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
        guard value.count >= 8 else {
            for index in 0..<value.count where !ByteClass.isFieldValue(value[index]) { return false }
            return true
        }
        // Whole words, of which the last overlaps the one before.
        var found = ByteClass.controls(value.word(at: value.count &- 8))
        var index = 0
        while index < value.count &- 8 {
            found |= ByteClass.controls(value.word(at: index))
            index &+= 8
        }
        // A tab is one of them, and rare.
        return found == 0 || ByteClass.endOfFieldValue(value, 0, value.count) == value.count
    }

    /// Whether no byte up to the space is among them.
    package static func hasNoBlank(_ value: Span<UInt8>) -> Bool {
        guard value.count >= 8 else {
            for index in 0..<value.count where value[index] <= 0x20 { return false }
            return true
        }
        var found = ByteClass.blanks(value.word(at: value.count &- 8))
        var index = 0
        while index < value.count &- 8 {
            found |= ByteClass.blanks(value.word(at: index))
            index &+= 8
        }
        return found == 0
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
