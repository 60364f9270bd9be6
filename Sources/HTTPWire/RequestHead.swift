/// One field line: where its name and its trimmed value stand in the head's bytes.
package struct FieldSlice: Sendable {
    package var nameStart: Int32
    package var nameCount: Int32
    package var valueStart: Int32
    package var valueCount: Int32
    package var id: FieldID

    package init() {
        nameStart = 0
        nameCount = 0
        valueStart = 0
        valueCount = 0
        id = .other
    }

    @inlinable package var name: Range<Int> { Int(nameStart)..<Int(nameStart &+ nameCount) }
    @inlinable package var value: Range<Int> { Int(valueStart)..<Int(valueStart &+ valueCount) }
}

/// Methods that have a name of their own in routes and metrics.
package enum Method: UInt8, Sendable, CaseIterable {
    case get, head, post, put, delete, connect, options, trace, patch, other

    /// RFC 9110 section 9.2.2.
    package var isIdempotent: Bool {
        switch self {
        case .get, .head, .put, .delete, .options, .trace: return true
        case .post, .connect, .patch, .other: return false
        }
    }

    /// The name as it stands in a request; `other` has none.
    package var name: StaticString {
        switch self {
        case .get: return "GET"
        case .head: return "HEAD"
        case .post: return "POST"
        case .put: return "PUT"
        case .delete: return "DELETE"
        case .connect: return "CONNECT"
        case .options: return "OPTIONS"
        case .trace: return "TRACE"
        case .patch: return "PATCH"
        case .other: return "OTHER"
        }
    }

    /// Methods are case-sensitive (RFC 9110 section 9.1): `get` is another method than `GET`.
    static func identify(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Method {
        var word: UInt64 = 0
        guard range.count <= 7 else { return .other }
        for index in range { word = word << 8 | UInt64(bytes[index]) }
        switch word {
        case 0x47_4554: return .get
        case 0x4845_4144: return .head
        case 0x504F_5354: return .post
        case 0x50_5554: return .put
        case 0x4445_4C45_5445: return .delete
        case 0x43_4F4E_4E45_4354: return .connect
        case 0x4F_5054_494F_4E53: return .options
        case 0x54_5241_4345: return .trace
        case 0x50_4154_4348: return .patch
        default: return .other
        }
    }
}

/// How a request's body is delimited (RFC 9112 section 6).
package enum BodyFraming: Sendable, Equatable {
    case none
    case length(Int64)
    case chunked
}

/// The four forms of a request target (RFC 9112 section 3.2).
package enum TargetForm: Sendable { case origin, absolute, authority, asterisk }

/// What the parser accepts at most.
package struct HeadLimits: Sendable {
    /// Bytes of the whole head, with its blank line.
    package var headBytes: Int
    /// Field lines, at most `RequestHead.fieldsHardMaximum`.
    package var fields: Int
    /// Bytes of the request target.
    package var targetBytes: Int

    package init(headBytes: Int, fields: Int, targetBytes: Int) {
        self.headBytes = headBytes
        self.fields = fields
        self.targetBytes = targetBytes
    }
}

/// Why a message is refused, and with which status.
package struct Refusal: Sendable {
    package let status: Int
    package let reason: StaticString

    init(_ status: Int, _ reason: StaticString) {
        self.status = status
        self.reason = reason
    }

    /// An extended CONNECT for something that is not to be tunnelled (RFC 8441 section 3).
    package static var protocolNotTunnelled: Refusal {
        Refusal(501, "this protocol is not tunnelled here")
    }

    /// More than the limits allow, in bytes or in fields.
    package static var headTooLarge: Refusal { Refusal(431, "the request head is too large") }
}

package enum ParseResult {
    /// The head is whole and takes this many bytes.
    case complete(Int)
    /// More bytes are needed; nothing wrong so far.
    case incomplete
    case refused(Refusal)
}

/// A parsed request head: positions in the bytes it was parsed from, never copies of them.
///
/// A worker makes one and refills it for every request.
package struct RequestHead: ~Copyable {
    /// Storage for field lines; a configured limit is at most this.
    package static let fieldsHardMaximum = 256

    package internal(set) var method = Method.get
    package internal(set) var methodRange = 0..<0
    /// As received.
    package internal(set) var target = 0..<0
    package internal(set) var targetForm = TargetForm.origin
    /// The path of the target without its query; empty for an absolute target without path.
    package internal(set) var path = 0..<0
    /// The query with its `?`; empty when there is none.
    package internal(set) var query = 0..<0
    /// 0 or 1.
    package internal(set) var minorVersion = 1
    package internal(set) var fieldCount = 0
    package internal(set) var fields = InlineArray<256, FieldSlice>(repeating: FieldSlice())
    package internal(set) var body = BodyFraming.none
    /// Whether the connection may carry another request after this one.
    package internal(set) var keepAlive = true
    package internal(set) var expectsContinue = false
    /// Whether `Connection: upgrade` and an `Upgrade` field stand together, without a body, for a protocol
    /// that may be tunnelled.
    package internal(set) var wantsUpgrade = false
    /// The value of `Upgrade`.
    package internal(set) var upgrade = 0..<0
    /// Whether `TE: trailers` was sent: the caller understands trailer fields.
    package internal(set) var acceptsTrailers = false
    /// Field lines named `Authorization`; exactly one is a credential.
    package internal(set) var authorizationCount = 0
    package internal(set) var authorization = 0..<0
    /// The value of `Host`; empty only in HTTP/1.0.
    package internal(set) var host = 0..<0
    package internal(set) var isGRPC = false
    /// Whether `Content-Length: 0` was sent: some servers answer 411 to a POST without it.
    package internal(set) var saysEmptyBody = false
    /// The value of `Max-Forwards` where the method gives it a meaning, else -1 (RFC 9110 section 7.6.2).
    package internal(set) var maxForwards: Int64 = -1
    /// Whether `Connection` names fields besides `close`, `keep-alive`, `upgrade` and `te`.
    package internal(set) var hasNominations = false

    package init() {}

    /// Forgets the request before.
    package mutating func reset() {
        method = .other
        fieldCount = 0
        body = .none
        keepAlive = true
        expectsContinue = false
        wantsUpgrade = false
        upgrade = 0..<0
        acceptsTrailers = false
        authorizationCount = 0
        authorization = 0..<0
        host = 0..<0
        isGRPC = false
        saysEmptyBody = false
        maxForwards = -1
        hasNominations = false
    }

    @inlinable
    package func field(_ index: Int) -> FieldSlice {
        precondition(index >= 0 && index < fieldCount, "no such field")
        return fields[index]
    }

    /// Whether `Connection` names this field, so that it ends here (RFC 9110 section 7.6.1).
    package func isNominated(_ index: Int, in bytes: Span<UInt8>) -> Bool {
        guard hasNominations else { return false }
        return ConnectionOptions.nominate(field(index).name, in: fields, fieldCount, of: bytes)
    }
}
