// The shape of a key: <prefix> <32 base62 characters of randomness> <6 base62 characters of CRC32>.
//
// The checksum is no secret. It lets the gateway refuse random guesses and mistyped keys in some fifty
// nanoseconds, before any table and before Redis, and lets a scanner of leaked secrets tell a real key from a
// look-alike. Keys that were issued by another system have another shape and are looked up as they are.

/// What can be said of a credential without looking anything up.
package enum KeyShape: Sendable, Equatable {
    /// One of our prefixes, 38 base62 characters, and the checksum is right.
    case generatedShapeValid
    /// One of our prefixes and 38 base62 characters, but the checksum is wrong: refuse without a look-up.
    case generatedShapeInvalid
    /// One of our prefixes and something else: may have been issued by another system.
    case otherShape
    /// None of our prefixes: refuse without a look-up.
    case wrongPrefix
}

/// The configured prefixes, how to make a key, and how to judge one.
package struct KeyFormat: Sendable {
    /// Random characters of a generated key: 62^32 is a little over 190 bits.
    package static let randomCount = 32
    /// Characters of its checksum: 62^6 > 2^32.
    package static let checksumCount = 6
    /// Longest prefix, in bytes.
    package static let prefixBytesMax = 32

    /// The prefixes in the order of the configuration; the first is the default for new keys.
    package let prefixes: [String]

    /// All prefixes one after the other, and where each ends: no nested arrays on the hot path.
    private let prefixBytes: [UInt8]
    private let prefixEnds: [Int]

    /// `nil` unless there is at least one prefix and each has 1 to 32 characters of token68 (RFC 9110 11.2)
    /// without `=`.
    package init?(prefixes: [String]) {
        guard !prefixes.isEmpty else { return nil }
        var bytes: [UInt8] = []
        var ends: [Int] = []
        for prefix in prefixes {
            guard (1...Self.prefixBytesMax).contains(prefix.utf8.count),
                prefix.utf8.allSatisfy(Self.isPrefixByte)
            else { return nil }
            bytes.append(contentsOf: prefix.utf8)
            ends.append(bytes.count)
        }
        self.prefixes = prefixes
        prefixBytes = bytes
        prefixEnds = ends
    }

    /// The shape of `token`. Allocates nothing; time depends on the token's length and prefix only.
    package func classify(_ token: Span<UInt8>) -> KeyShape {
        var shape = KeyShape.wrongPrefix
        let bytes = prefixBytes.span
        let ends = prefixEnds.span
        var start = 0
        for index in ends.indices {
            let prefix = bytes.extracting(start..<ends[index])
            start = ends[index]
            guard Self.hasPrefix(token, prefix) else { continue }
            switch Self.shape(of: token, prefixCount: prefix.count) {
            case .generatedShapeValid: return .generatedShapeValid
            case .generatedShapeInvalid: shape = .generatedShapeInvalid
            // One prefix may begin with another; the more telling shape wins.
            default: if shape == .wrongPrefix { shape = .otherShape }
            }
        }
        return shape
    }

    /// Makes a key with the prefix number `prefix`. `fill` must fill the span it gets from the operating
    /// system's random source; it is called as often as rejection sampling needs, about once.
    package func generate<Failure: Error>(
        prefix: Int = 0, fill: (inout MutableSpan<UInt8>) throws(Failure) -> Void
    ) throws(Failure) -> KeySecret {
        let start = prefix == 0 ? 0 : prefixEnds[prefix - 1]
        let prefixCount = prefixEnds[prefix] - start
        let bodyCount = prefixCount + Self.randomCount
        // One piece of memory of the final size: growing would leave copies of the secret behind.
        let text = FixedArray<UInt8>(repeating: 0, count: bodyCount + Self.checksumCount)
        for index in 0..<prefixCount { text[index] = prefixBytes[start + index] }
        var random = InlineArray<48, UInt8>(repeating: 0)
        var count = prefixCount
        while count < bodyCount {
            var span = random.mutableSpan
            try fill(&span)
            for index in random.indices where count < bodyCount {
                guard let character = Base62.character(fromRandom: random[index]) else { continue }
                text[count] = character
                count += 1
            }
        }
        for index in random.indices { random[index] = 0 }
        let checksum = Base62.digits(ofChecksum: Self.checksum(text, bodyCount))
        for index in checksum.indices { text[bodyCount + index] = checksum[index] }
        return KeySecret(taking: text)
    }

    /// A function of its own, so that the span is gone before the memory changes hands.
    private static func checksum(_ text: borrowing FixedArray<UInt8>, _ count: Int) -> UInt32 {
        CRC32.checksum(text.span.extracting(..<count))
    }

    private static func shape(of token: Span<UInt8>, prefixCount: Int) -> KeyShape {
        guard token.count == prefixCount + randomCount + checksumCount else { return .otherShape }
        let body = token.extracting(prefixCount...)
        for index in body.indices where Base62.value(of: body[index]) == nil { return .otherShape }
        let checksumStart = token.count - checksumCount
        let expected = CRC32.checksum(token.extracting(..<checksumStart))
        var value: UInt64 = 0
        let digits = token.extracting(checksumStart...)
        for index in digits.indices { value = value * 62 + UInt64(Base62.value(of: digits[index]) ?? 0) }
        return value == UInt64(expected) ? .generatedShapeValid : .generatedShapeInvalid
    }

    private static func hasPrefix(_ token: Span<UInt8>, _ prefix: Span<UInt8>) -> Bool {
        guard token.count >= prefix.count else { return false }
        for index in prefix.indices where token[index] != prefix[index] { return false }
        return true
    }

    private static func isPrefixByte(_ byte: UInt8) -> Bool {
        Base62.value(of: byte) != nil || "-._~+/".utf8.contains(byte)
    }
}
