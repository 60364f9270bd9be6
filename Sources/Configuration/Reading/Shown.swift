// Problems end up on terminals, in logs and in tickets, so a message may show a value only as far as it
// cannot be a secret. Three rules: a value is shown as it stands in the file, before the environment is
// filled in; credentials of a url are cut out of it; and where the value was meant to name a file, it is
// shown only when it looks like a path, because people paste the secret itself there.

/// Values as messages may show them.
enum Shown {
    private static let scalarsMax = 80

    /// One line of at most `scalarsMax` characters, without credentials.
    static func text(_ written: String) -> String {
        var scalars = String.UnicodeScalarView()
        for scalar in withoutCredentials(written).unicodeScalars {
            guard scalars.count < scalarsMax else { return String(scalars) + "..." }
            let isPrintable = scalar.value >= 0x20 && !(0x7F...0x9F).contains(scalar.value)
            scalars.append(isPrintable ? scalar : "?")
        }
        return String(scalars)
    }

    /// A path, or `nil` for what may be something else.
    static func path(_ written: String) -> String? {
        let starts = ["/", "./", "../", "${"]
        let isPath = written.utf8.allSatisfy { byte in
            Bytes.isLetterOrDigit(byte) || "._-/${}:".utf8.contains(byte)
        }
        return isPath && starts.contains { written.hasPrefix($0) } ? text(written) : nil
    }

    /// `redis://user:password@host` without what stands before the last `@`.
    private static func withoutCredentials(_ written: String) -> String {
        guard let at = written.lastIndex(of: "@"), written[..<at].contains(":") else { return written }
        var start = written.startIndex
        if let mark = written[..<at].firstRange(of: "://") { start = mark.upperBound }
        return written[..<start] + "[hidden]" + written[at...]
    }
}

/// Kinds of ASCII characters.
enum Bytes {
    static func isDigit(_ byte: UInt8) -> Bool { byte >= 48 && byte <= 57 }

    static func isLetter(_ byte: UInt8) -> Bool { byte >= 65 && byte <= 90 || byte >= 97 && byte <= 122 }

    static func isLetterOrDigit(_ byte: UInt8) -> Bool { isDigit(byte) || isLetter(byte) }
}
