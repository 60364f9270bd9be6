/// What the parser learns from the fields of a request, and the rules that bind them together.
struct FieldFacts {
    private var hostCount = 0
    private var contentLength: Int64 = -1
    private var transferEncodings = 0
    private var connection = ConnectionOptions()
    private var hasConnection = false
    private var upgradeCount = 0
    private var mayBeTunnelled = true
    private var expectsContinue = false

    /// Takes note of a field with a meaning for the gateway.
    mutating func note(_ slice: FieldSlice, _ bytes: Span<UInt8>, _ head: inout RequestHead) -> Refusal? {
        switch slice.id {
        case .host:
            hostCount += 1
            head.host = slice.value
        case .contentLength:
            // A second line is refused even when equal: whoever sends two is not to be trusted with either.
            guard contentLength < 0 else { return Refusal(400, "more than one Content-Length") }
            guard let length = FieldSection.contentLength(bytes, slice.value) else {
                return Refusal(400, "malformed Content-Length")
            }
            contentLength = length
        case .transferEncoding:
            transferEncodings += 1
            guard transferEncodings == 1, FieldSection.isChunked(bytes, slice.value) else {
                return Refusal(400, "a transfer coding other than exactly chunked")
            }
        case .connection:
            hasConnection = true
            connection.read(slice.value, of: bytes)
        case .upgrade:
            upgradeCount += 1
            head.upgrade = slice.value
            mayBeTunnelled = mayBeTunnelled && UpgradeProtocols.mayBeTunnelled(bytes, slice.value)
        case .authorization:
            head.authorizationCount += 1
            head.authorization = slice.value
        case .expect:
            // RFC 9110 section 10.1.1: 100-continue is the only expectation there is.
            guard bytes.isToken(slice.value, 12, 0x3130_302D_636F_6E74, 0x696E_7565) else {
                return Refusal(417, "an expectation other than 100-continue")
            }
            expectsContinue = true
        case .te:
            var index = slice.value.lowerBound
            while index < slice.value.upperBound {
                let item = ConnectionOptions.nextItem(&index, slice.value.upperBound, bytes)
                if bytes.isToken(item, 8, 0x7472_6169_6C65_7273) { head.acceptsTrailers = true }
            }
        case .contentType:
            head.isGRPC = Self.isGRPC(bytes, slice.value)
        default: break
        }
        return nil
    }

    /// The rules that need all fields (RFC 9112 sections 3.2 and 6.3).
    func conclude(_ bytes: Span<UInt8>, _ head: inout RequestHead) -> Refusal? {
        if connection.isMalformed { return Refusal(400, "malformed Connection") }
        if connection.nominatesFraming {
            return Refusal(400, "Connection names a field that is not its to remove")
        }
        if let refusal = concludeHost(bytes, &head) { return refusal }
        if transferEncodings > 0 {
            guard head.minorVersion == 1 else {
                return Refusal(400, "Transfer-Encoding in an HTTP/1.0 request")
            }
            guard contentLength < 0 else {
                return Refusal(400, "both Content-Length and Transfer-Encoding")
            }
            head.body = .chunked
        } else if contentLength > 0 {
            head.body = .length(contentLength)
        }
        if hasConnection {
            head.hasNominations = connection.nominates
            // Others are not wrong, only not offered here: the request goes on without (RFC 9110 section
            // 7.8).
            head.wantsUpgrade =
                connection.upgrade && upgradeCount == 1 && mayBeTunnelled && head.minorVersion == 1
                && head.body == .none && head.method == .get
        }
        head.keepAlive =
            head.minorVersion == 1 ? !connection.close : connection.keepAlive && !connection.close
        // A client of HTTP/1.0 does not know 100; without a body there is nothing to wait for.
        head.expectsContinue = expectsContinue && head.minorVersion == 1 && head.body != .none
        return nil
    }

    private func concludeHost(_ bytes: Span<UInt8>, _ head: inout RequestHead) -> Refusal? {
        if hostCount > 1 { return Refusal(400, "more than one Host") }
        if hostCount == 0 {
            return head.minorVersion == 1 ? Refusal(400, "missing Host") : nil
        }
        guard HostName.isValid(bytes, head.host) else { return Refusal(400, "malformed Host") }
        guard head.targetForm == .absolute else { return nil }
        guard let authority = AbsoluteTarget.authority(bytes, head.target),
            authority.count == head.host.count
        else { return Refusal(400, "the request target and Host disagree") }
        for offset in 0..<authority.count {
            let a = bytes[authority.lowerBound + offset]
            let b = bytes[head.host.lowerBound + offset]
            let same = a == b || (a | 0x20 == b | 0x20 && (a | 0x20) &- 97 < 26)
            guard same else { return Refusal(400, "the request target and Host disagree") }
        }
        return nil
    }

    /// `application/grpc`, alone or followed by `+`, `;` or a space.
    private static func isGRPC(_ bytes: Span<UInt8>, _ value: Range<Int>) -> Bool {
        guard value.count >= 16,
            bytes.isToken(
                value.lowerBound..<value.lowerBound + 16, 16, 0x6170_706C_6963_6174, 0x696F_6E2F_6772_7063)
        else { return false }
        guard value.count > 16 else { return true }
        let next = bytes[value.lowerBound + 16]
        return next == 0x2B || next == 0x3B || next == 0x20
    }
}

/// `uri-host [ ":" port ]` (RFC 9110 section 7.2), without the parts of RFC 3986 that only serve tricks:
/// no user information, no percent-encoding, no sub-delimiters.
package enum HostName {
    package static func isValid(_ bytes: Span<UInt8>, _ host: Range<Int>) -> Bool {
        guard !host.isEmpty else { return false }
        var index = host.lowerBound
        if bytes[index] == 0x5B {
            index += 1
            let start = index
            while index < host.upperBound, bytes[index] != 0x5D {
                let byte = bytes[index]
                guard ByteClass.hexadecimal(byte) != nil || byte == 0x3A || byte == 0x2E else { return false }
                index += 1
            }
            guard index < host.upperBound, index > start + 1 else { return false }
            index += 1
        } else {
            let start = index
            while index < host.upperBound, ByteClass.isUnreserved(bytes[index]) { index += 1 }
            guard index > start else { return false }
        }
        guard index < host.upperBound else { return true }
        guard bytes[index] == 0x3A else { return false }
        var port = 0
        index += 1
        guard index < host.upperBound, host.upperBound - index <= 5 else { return false }
        while index < host.upperBound {
            guard ByteClass.isDigit(bytes[index]) else { return false }
            port = port * 10 + Int(bytes[index] - 48)
            index += 1
        }
        return port > 0 && port <= 65_535
    }

    /// The host without its port.
    package static func withoutPort(_ bytes: Span<UInt8>, _ host: Range<Int>) -> Range<Int> {
        var end = host.upperBound
        while end > host.lowerBound, ByteClass.isDigit(bytes[end - 1]) { end -= 1 }
        return end > host.lowerBound && end < host.upperBound && bytes[end - 1] == 0x3A
            ? host.lowerBound..<end - 1 : host
    }
}
