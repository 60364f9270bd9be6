/// Field names outside a head's text, as HTTP/2 has them.
package enum FieldName {
    /// `tchar` of RFC 9110 section 5.6.2 without capitals (RFC 9113 section 8.2.1); at least one.
    package static func isLowercaseToken(_ name: Span<UInt8>) -> Bool {
        for index in 0..<name.count {
            let byte = name[index]
            guard ByteClass.isToken(byte), byte &- 65 >= 26 else { return false }
        }
        return !name.isEmpty
    }

    /// The identity of a name; any case of its letters.
    package static func identify(_ name: Span<UInt8>) -> FieldID {
        var hasUnderscore = false
        for index in 0..<name.count where name[index] == 0x5F { hasUnderscore = true }
        return FieldID.identify(name, 0, name.count, hasUnderscore: hasUnderscore)
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
}
