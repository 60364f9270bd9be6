/// Finds the token in `Authorization: Bearer <token>` (RFC 6750 section 2.1).
package enum BearerCredential {
    /// Bytes of the longest token that is looked at.
    package static let tokenBytesMax = 256

    package enum Reading {
        case token(Range<Int>)
        /// Another scheme, or not a token68: nothing that could be a key.
        case malformed
    }

    /// Reads a field value: the scheme in any case, one or more spaces, a token68, nothing behind it.
    package static func read(_ bytes: Span<UInt8>, _ value: Range<Int>) -> Reading {
        guard value.count > 7, bytes[value.lowerBound &+ 6] == 0x20,
            bytes.isToken(value.lowerBound..<value.lowerBound &+ 6, 6, 0x6265_6172_6572)
        else { return .malformed }
        var start = value.lowerBound &+ 7
        while start < value.upperBound, bytes[start] == 0x20 { start &+= 1 }
        var index = ByteClass.skipPlainName(bytes, start, value.upperBound)
        while index < value.upperBound, ByteClass.isToken68(bytes[index]) {
            index = ByteClass.skipPlainName(bytes, index &+ 1, value.upperBound)
        }
        guard index > start else { return .malformed }
        while index < value.upperBound, bytes[index] == 0x3D { index &+= 1 }
        guard index == value.upperBound, index &- start <= tokenBytesMax else { return .malformed }
        return .token(start..<index)
    }
}
