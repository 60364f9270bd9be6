/// Field names that the gateway treats by name; every other one passes through untouched.
package enum FieldID: UInt8, Sendable {
    case other
    case host, connection, contentLength, transferEncoding, authorization, proxyAuthorization
    case proxyAuthenticate, proxyConnection, keepAlive, te, trailer, upgrade, expect, contentType
    case xForwardedFor, xForwardedProto, xForwardedHost, xForwardedPort, xRealIP, forwarded, via, xRequestID
    case traceparent, tracestate, date, server, http2Settings, wwwAuthenticate, setCookie
    case maxForwards
    /// `X-Forwarded-…` of any other kind: `-Prefix`, `-Scheme`, `-Client-Cert`.
    case xForwardedOther
    /// `X-Original-URL` and `X-Rewrite-URL`, which some frameworks route by instead of the target.
    case xOriginalURL, xRewriteURL
    /// `X-Gateway-…` in any spelling: only the gateway itself may say who the caller is.
    case gatewayIdentity
    /// A framing or forwarding name spelt with other separators (`content_length`, `x.forwarded.for`), which
    /// CGI-style servers cannot tell from the real one. Never forwarded.
    case alias

    /// Fields that belong to one connection (RFC 9110 section 7.6.1), and those that would turn a
    /// connection into something else.
    package var isHopByHop: Bool {
        switch self {
        case .connection, .transferEncoding, .proxyConnection, .keepAlive, .te, .trailer, .upgrade,
            .http2Settings, .proxyAuthorization, .proxyAuthenticate:
            return true
        default: return false
        }
    }

    /// The name as HTTP/2 has it, of those that answers often have.
    package var lowercaseName: StaticString? {
        switch self {
        case .contentType: return "content-type"
        case .date: return "date"
        case .server: return "server"
        case .setCookie: return "set-cookie"
        default: return nil
        }
    }

    /// Fields that may not stand in a trailer section: framing, routing, authentication and what controls
    /// processing (RFC 9110 section 6.5.1). `FieldText` knows the rest of them.
    package var isForbiddenInTrailers: Bool {
        switch self {
        case .other, .server, .tracestate: return false
        default: return true
        }
    }

    /// The identity of a name; any case of its letters.
    ///
    /// - Parameter isPlain: whether it has letters, digits and `-` only.
    @inline(__always)
    static func identify(_ bytes: Span<UInt8>, _ start: Int, _ count: Int, isPlain: Bool) -> FieldID {
        if !isPlain { return identifyAlias(bytes, start, count) }
        if count > 24 || count < 2 { return family(bytes, start, count) }
        let words = bytes.packedLowercase(start, count)
        let id = known(count, words.first, words.second, words.third)
        // "x-", of at least eight bytes
        return words.first >> 48 == 0x782D && id == .other ? family(bytes, start, count) : id
    }

    /// The identity of a name that is known by how it begins.
    private static func family(_ bytes: Span<UInt8>, _ start: Int, _ count: Int) -> FieldID {
        if isIdentity(bytes, start, count) { return .gatewayIdentity }
        return isForwarding(bytes, start, count) ? .xForwardedOther : .other
    }

    /// Whether a name is `x-gateway-…`, with any separators.
    static func isIdentity(_ bytes: Span<UInt8>, _ start: Int, _ count: Int) -> Bool {
        guard count >= 10, bytes[start] | 0x20 == 0x78, isSeparator(bytes[start + 1]),
            isSeparator(bytes[start + 9])
        else { return false }
        return bytes.isToken(start + 2..<start + 9, 7, 0x67_6174_6577_6179)  // gateway
    }

    /// Whether a name is `x-forwarded-…`, with any separators.
    private static func isForwarding(_ bytes: Span<UInt8>, _ start: Int, _ count: Int) -> Bool {
        guard count >= 12, bytes[start] | 0x20 == 0x78, isSeparator(bytes[start + 1]),
            isSeparator(bytes[start + 11])
        else { return false }
        return bytes.isToken(start + 2..<start + 11, 9, 0x666F_7277_6172_6465, 0x64)  // forwarded
    }

    /// Whether some servers take a byte of a name for the `_` that they make of `-`: PHP a dot, lighttpd
    /// everything that is neither letter nor digit.
    private static func isSeparator(_ byte: UInt8) -> Bool {
        byte == 0x2D || !ByteClass.isPlainName(byte)
    }

    /// Names with other separators than `-`: what matters is what a server would take them for.
    private static func identifyAlias(_ bytes: Span<UInt8>, _ start: Int, _ count: Int) -> FieldID {
        switch family(bytes, start, count) {
        case .gatewayIdentity: return .gatewayIdentity
        case .xForwardedOther: return .alias
        default: guard count <= 24 else { return .other }
        }
        var words: (UInt64, UInt64, UInt64) = (0, 0, 0)
        for index in 0..<count {
            let raw = bytes[start + index]
            let byte = UInt64(isSeparator(raw) ? 0x2D : raw | 0x20)
            if index < 8 {
                words.0 = words.0 << 8 | byte
            } else if index < 16 {
                words.1 = words.1 << 8 | byte
            } else {
                words.2 = words.2 << 8 | byte
            }
        }
        switch known(count, words.0, words.1, words.2) {
        case .other, .setCookie, .wwwAuthenticate: return .other
        default: return .alias
        }
    }

    /// Names packed by `packedLowercase`.
    private static func known(_ count: Int, _ first: UInt64, _ second: UInt64, _ third: UInt64) -> FieldID {
        switch count {
        case 2:
            if first == 0x7465 { return .te }  // te
        case 3:
            if first == 0x766961 { return .via }  // via
        case 4:
            if first == 0x686F7374 { return .host }  // host
            if first == 0x64617465 { return .date }  // date
        case 6:
            if first == 0x657870656374 { return .expect }  // expect
            if first == 0x736572766572 { return .server }  // server
        case 7:
            if first == 0x747261696C6572 { return .trailer }  // trailer
            if first == 0x75706772616465 { return .upgrade }  // upgrade
        case 9:
            if first == 0x666F727761726465 && second == 0x64 { return .forwarded }  // forwarded
            if first == 0x782D7265616C2D69 && second == 0x70 { return .xRealIP }  // x-real-ip
        case 10:
            if first == 0x636F6E6E65637469 && second == 0x6F6E { return .connection }  // connection
            if first == 0x6B6565702D616C69 && second == 0x7665 { return .keepAlive }  // keep-alive
            if first == 0x7472616365737461 && second == 0x7465 { return .tracestate }  // tracestate
            if first == 0x7365742D636F6F6B && second == 0x6965 { return .setCookie }  // set-cookie
        case 11:
            if first == 0x7472616365706172 && second == 0x656E74 { return .traceparent }  // traceparent
        case 12:
            // content-type
            if first == 0x636F6E74656E742D && second == 0x74797065 {
                return .contentType
            }
            // max-forwards
            if first == 0x6D61782D666F7277 && second == 0x61726473 {
                return .maxForwards
            }
            // x-request-id
            if first == 0x782D726571756573 && second == 0x742D6964 {
                return .xRequestID
            }
        case 13:
            // authorization
            if first == 0x617574686F72697A && second == 0x6174696F6E {
                return .authorization
            }
            // x-rewrite-url
            if first == 0x782D726577726974 && second == 0x652D75726C {
                return .xRewriteURL
            }
        case 14:
            // content-length
            if first == 0x636F6E74656E742D && second == 0x6C656E677468 {
                return .contentLength
            }
            // http2-settings
            if first == 0x68747470322D7365 && second == 0x7474696E6773 {
                return .http2Settings
            }
            // x-original-url
            if first == 0x782D6F726967696E && second == 0x616C2D75726C {
                return .xOriginalURL
            }
        default: return knownLong(count, first, second, third)
        }
        return .other
    }

    private static func knownLong(
        _ count: Int, _ first: UInt64, _ second: UInt64, _ third: UInt64
    ) -> FieldID {
        switch count {
        case 15:
            // x-forwarded-for
            if first == 0x782D666F72776172 && second == 0x6465642D666F72 {
                return .xForwardedFor
            }
        case 16:
            // proxy-connection
            if first == 0x70726F78792D636F && second == 0x6E6E656374696F6E {
                return .proxyConnection
            }
            // x-forwarded-host
            if first == 0x782D666F72776172 && second == 0x6465642D686F7374 {
                return .xForwardedHost
            }
            // x-forwarded-port
            if first == 0x782D666F72776172 && second == 0x6465642D706F7274 {
                return .xForwardedPort
            }
            // www-authenticate
            if first == 0x7777772D61757468 && second == 0x656E746963617465 {
                return .wwwAuthenticate
            }
        case 17:
            // transfer-encoding
            if first == 0x7472616E73666572 && second == 0x2D656E636F64696E && third == 0x67 {
                return .transferEncoding
            }
            // x-forwarded-proto
            if first == 0x782D666F72776172 && second == 0x6465642D70726F74 && third == 0x6F {
                return .xForwardedProto
            }
        case 18:
            // proxy-authenticate
            if first == 0x70726F78792D6175 && second == 0x7468656E74696361 && third == 0x7465 {
                return .proxyAuthenticate
            }
        case 19:
            // proxy-authorization
            if first == 0x70726F78792D6175 && second == 0x74686F72697A6174 && third == 0x696F6E {
                return .proxyAuthorization
            }
        default: break
        }
        return .other
    }
}
