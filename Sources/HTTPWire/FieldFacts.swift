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
            // RFC 9110 section 10.1.1: 100-continue is the only expectation there is, in a list of them.
            var index = slice.value.lowerBound
            while index < slice.value.upperBound {
                let item = ConnectionOptions.nextItem(&index, slice.value.upperBound, bytes)
                if item.isEmpty { continue }
                guard bytes.isToken(item, 12, 0x3130_302D_636F_6E74, 0x696E_7565) else {
                    return Refusal(417, "an expectation other than 100-continue")
                }
                expectsContinue = true
            }
        case .maxForwards where head.method == .options || head.method == .trace:
            guard head.maxForwards < 0, let count = FieldSection.contentLength(bytes, slice.value) else {
                return Refusal(400, "malformed Max-Forwards")
            }
            head.maxForwards = count
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
        head.saysEmptyBody = contentLength == 0
        // RFC 9110 section 9.3.8: it would have to be reflected, and nobody expects to read it.
        if head.method == .trace, head.body != .none { return Refusal(400, "TRACE with content") }
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
        let authority = AbsoluteTarget.authority(bytes, head.target)
        if hostCount == 0 {
            guard head.minorVersion == 0 else { return Refusal(400, "missing Host") }
            guard let authority else { return nil }
            head.host = authority.range
            return HostName.isValid(bytes, head.host) ? nil : Refusal(400, "malformed request target")
        }
        guard HostName.isValid(bytes, head.host) else { return Refusal(400, "malformed Host") }
        guard let authority else { return nil }
        return HostName.areSame(bytes, authority.range, head.host, defaultPort: authority.defaultPort)
            ? nil : Refusal(400, "the request target and Host disagree")
    }

    /// `application/grpc`, alone or followed by `+`, `;` or a blank.
    static func isGRPC(_ bytes: Span<UInt8>, _ value: Range<Int>) -> Bool {
        guard value.count >= 16,
            bytes.isToken(
                value.lowerBound..<value.lowerBound + 16, 16, 0x6170_706C_6963_6174, 0x696F_6E2F_6772_7063)
        else { return false }
        guard value.count > 16 else { return true }
        let next = bytes[value.lowerBound + 16]
        return next == 0x2B || next == 0x3B || next == 0x20 || next == 0x09
    }
}
