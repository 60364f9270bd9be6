package import Reactor

/// Brings a path into the one form that is matched and forwarded.
///
/// Routing on one reading and forwarding another is how requests slip past an access rule, so there is a
/// single form: percent-encoded unreserved characters are decoded, other escapes get upper-case digits,
/// `//` and dot segments are resolved (RFC 3986 section 6.2.2). What servers read in different ways -
/// encoded slashes and backslashes, NUL, `..;` - is refused.
package enum TargetNormaliser {
    /// - Parameters:
    ///   - path: starts with `/`; empty stands for `/`.
    ///   - writer: receives the normal form.
    /// - Returns: nil when done, or why the path is refused.
    package static func normalise(
        _ bytes: Span<UInt8>, _ path: Range<Int>, into writer: inout ByteWriter
    ) -> StaticString? {
        let base = writer.count
        writer.append(byte: 0x2F)
        var index = path.lowerBound
        var segmentStart = writer.count
        while index < path.upperBound {
            let byte = bytes[index]
            index &+= 1
            if byte == 0x2F {
                if let problem = closeSegment(&writer, base, &segmentStart, isLast: false) { return problem }
                continue
            }
            guard byte == 0x25 else {
                writer.append(byte: byte)
                continue
            }
            guard index &+ 1 < path.upperBound, let high = ByteClass.hexadecimal(bytes[index]),
                let low = ByteClass.hexadecimal(bytes[index &+ 1])
            else { return "invalid percent-encoding in the path" }
            let decoded = high << 4 | low
            if decoded == 0x2F || decoded == 0x5C { return "encoded slash in the path" }
            if decoded == 0 { return "NUL in the path" }
            if ByteClass.isUnreserved(decoded) {
                writer.append(byte: decoded)
            } else {
                writer.append(byte: 0x25)
                writer.append(byte: upperDigit(high))
                writer.append(byte: upperDigit(low))
            }
            index &+= 2
        }
        return closeSegment(&writer, base, &segmentStart, isLast: true)
    }

    /// Resolves the segment that has just been written, and starts the next one.
    @inline(__always)
    private static func closeSegment(
        _ writer: inout ByteWriter, _ base: Int, _ segmentStart: inout Int, isLast: Bool
    ) -> StaticString? {
        let count = writer.count &- segmentStart
        if count == 0 { return nil }
        if writer.byte(at: segmentStart) == 0x2E {
            if let problem = dotProblem(writer, segmentStart, count) { return problem }
            if count == 1 {
                writer.truncate(to: segmentStart)
                return nil
            }
            if count == 2, writer.byte(at: segmentStart + 1) == 0x2E {
                writer.truncate(to: segmentStart)
                removeLastSegment(&writer, base, &segmentStart)
                return nil
            }
        }
        if !isLast {
            writer.append(byte: 0x2F)
            segmentStart = writer.count
        }
        return nil
    }

    /// `.;x` and `..;x` are dot segments to servers with path parameters, and names to all others; `..%3Bx`
    /// is one behind a server that decodes it.
    private static func dotProblem(_ writer: ByteWriter, _ start: Int, _ count: Int) -> StaticString? {
        let dots = count > 1 && writer.byte(at: start + 1) == 0x2E ? 2 : 1
        guard count > dots else { return nil }
        let next = writer.byte(at: start + dots)
        let isEscaped =
            next == 0x25 && count > dots + 2 && writer.byte(at: start + dots + 1) == 0x33
            && writer.byte(at: start + dots + 2) == 0x42
        return next == 0x3B || isEscaped ? "dot segment with a parameter in the path" : nil
    }

    /// Drops the segment before the slash that ends the text; the root stays.
    private static func removeLastSegment(_ writer: inout ByteWriter, _ base: Int, _ segmentStart: inout Int)
    {
        var end = writer.count &- 1
        guard end > base else { return }
        while end > base, writer.byte(at: end &- 1) != 0x2F { end &-= 1 }
        writer.truncate(to: end)
        segmentStart = end
    }

    /// Appends to `block`, which begins with a path in normal form, what some servers route it by.
    ///
    /// - Parameters:
    ///   - cutting: whether they cut path parameters off, which RFC 3986 section 3.3 leaves to them: `/a/b`
    ///     for `/a;x=1/;y/b`. A segment that is nothing but a parameter leaves two slashes, which such
    ///     servers merge. Dot segments with a parameter have no normal form.
    ///   - decoding: whether they decode what the normal form keeps escaped: `/a:b` for `/a%3Ab`. A semicolon
    ///     that was escaped begins no parameter.
    package static func append(
        reading block: inout Block, pathCount: Int, cutting: Bool, decoding: Bool
    ) {
        let start = block.count
        var isParameter = false
        var index = 0
        while index < pathCount {
            var byte = block.readable[index]
            index &+= 1
            if cutting, byte == 0x2F || byte == 0x3B { isParameter = byte == 0x3B }
            if isParameter { continue }
            if byte == 0x2F, block.count > start, block.readable[block.count &- 1] == 0x2F { continue }
            if decoding, byte == 0x25, index &+ 1 < pathCount,
                let high = ByteClass.hexadecimal(block.readable[index]),
                let low = ByteClass.hexadecimal(block.readable[index &+ 1])
            {
                byte = high << 4 | low
                index &+= 2
            }
            block.append(byte: byte)
        }
    }

    /// Whether the normal form of a path may have this byte of a segment as an escape too: RFC 3986 section
    /// 2.2 gives the two different meanings.
    package static func mayBeEscaped(_ byte: UInt8) -> Bool { !ByteClass.isUnreserved(byte) }

    private static func upperDigit(_ value: UInt8) -> UInt8 { value < 10 ? 48 &+ value : 55 &+ value }
}
