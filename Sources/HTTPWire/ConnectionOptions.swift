/// What one `Connection` field line says.
struct ConnectionOptions {
    var close = false
    var keepAlive = false
    var upgrade = false
    var te = false
    /// Names a field that is neither of these.
    var nominates = false
    /// Names a field that delimits or routes the message, which no sender may (RFC 9110 section 7.6.1).
    var nominatesFraming = false
    var isMalformed = false

    /// Adds the options of a value.
    mutating func read(_ value: Range<Int>, of bytes: Span<UInt8>) {
        var index = value.lowerBound
        while index < value.upperBound {
            let item = Self.nextItem(&index, value.upperBound, bytes)
            if item.isEmpty { continue }
            for position in item where !ByteClass.isToken(bytes[position]) { isMalformed = true }
            classify(item, bytes)
        }
    }

    private mutating func classify(_ item: Range<Int>, _ bytes: Span<UInt8>) {
        if bytes.isToken(item, 5, 0x63_6C6F_7365) {
            close = true
        } else if bytes.isToken(item, 10, 0x6B65_6570_2D61_6C69, 0x7665) {
            keepAlive = true
        } else if bytes.isToken(item, 7, 0x75_7067_7261_6465) {
            upgrade = true
        } else if bytes.isToken(item, 2, 0x7465) {
            te = true
        } else {
            nominates = true
            let id = FieldID.identify(bytes, item.lowerBound, item.count, isPlain: true)
            if id == .host || id == .contentLength || id == .transferEncoding || id == .authorization {
                nominatesFraming = true
            }
        }
    }

    /// The next element of a comma-separated list, trimmed; `index` moves behind its comma.
    static func nextItem(_ index: inout Int, _ end: Int, _ bytes: Span<UInt8>) -> Range<Int> {
        while index < end, bytes[index] == 0x20 || bytes[index] == 0x09 || bytes[index] == 0x2C {
            index += 1
        }
        let start = index
        while index < end, bytes[index] != 0x2C { index += 1 }
        var last = index
        while last > start, bytes[last - 1] == 0x20 || bytes[last - 1] == 0x09 { last -= 1 }
        return start..<last
    }

    /// Whether a `Connection` field names a field, so that it ends here (RFC 9110 section 7.6.1).
    static func nominate(
        _ name: Range<Int>, in fields: borrowing InlineArray<256, FieldSlice>, _ count: Int,
        of bytes: Span<UInt8>
    ) -> Bool {
        for index in 0..<count where fields[index].id == .connection {
            if contains(name, inValue: fields[index].value, of: bytes) { return true }
        }
        return false
    }

    /// Whether a list contains a name, ignoring case.
    static func contains(_ name: Range<Int>, inValue value: Range<Int>, of bytes: Span<UInt8>) -> Bool {
        var index = value.lowerBound
        while index < value.upperBound {
            let item = nextItem(&index, value.upperBound, bytes)
            if item.count == name.count, !item.isEmpty {
                var same = true
                for offset in 0..<item.count {
                    let a = bytes[item.lowerBound + offset] | 0x20
                    let b = bytes[name.lowerBound + offset] | 0x20
                    if a != b { same = false }
                }
                if same { return true }
            }
        }
        return false
    }
}
