import KeyManagement

/// A request to the admin API, taken apart and checked as far as that goes without the store.
struct APIRequest: Sendable {
    var endpoint: Endpoint
    /// The free segment of the path: an id or an account.
    var name: String
    var query: [String: String]
    /// Members of the body, an empty object without one.
    var body: [String: JSONValue]
    var rawBody: [UInt8]
    /// The version that a change is meant for; nil is any.
    var ifMatch: String?
    var idempotencyKey: String?
    var actor: Actor
    var ticket: UInt64

    private static let idempotencyBytesMax = 255

    /// The segments of a path, decoded; nil when an escape is broken.
    static func segments(_ path: String) -> [String]? {
        var segments: [String] = []
        for part in path.split(separator: "/", omittingEmptySubsequences: false).dropFirst() {
            guard let text = decode(part, plusIsSpace: false) else { return nil }
            segments.append(text)
        }
        return segments
    }

    /// Takes a request apart.
    init(
        _ endpoint: Endpoint, name: String, _ request: SmallRequest, _ actor: Actor
    ) throws(AdminRefusal) {
        self.endpoint = endpoint
        self.name = name
        self.actor = actor
        ticket = request.ticket
        query = try Self.query(request.query, endpoint)
        rawBody = request.body
        body = try Self.body(request, endpoint)
        ifMatch = try Self.ifMatch(request, endpoint)
        idempotencyKey = try Self.idempotencyKey(request, endpoint)
    }

    private static func query(_ text: String, _ endpoint: Endpoint) throws(AdminRefusal) -> [String: String] {
        var found: [String: String] = [:]
        for pair in text.dropFirst().split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = decode(parts[0], plusIsSpace: true),
                let value = decode(parts.count > 1 ? parts[1] : "", plusIsSpace: true)
            else { throw bad("The query holds a broken escape.") }
            guard endpoint.parameters.contains(name) else {
                let known = endpoint.parameters.sorted().joined(separator: ", ")
                throw bad(
                    "Unknown query parameter \"\(name.prefix(64))\""
                        + (known.isEmpty ? ": there is none here." : "; there are \(known)."))
            }
            guard found.updateValue(value, forKey: name) == nil else {
                throw bad("The query parameter \(name) stands twice.")
            }
        }
        return found
    }

    private static func body(
        _ request: SmallRequest, _ endpoint: Endpoint
    ) throws(AdminRefusal) -> [String: JSONValue] {
        guard let members = endpoint.members else { return [:] }
        if request.body.isEmpty {
            guard !endpoint.needsBody else { throw bad("The body must be a JSON object; there is none.") }
            return [:]
        }
        let type = request.field("content-type")?.split(separator: ";").first ?? ""
        guard type.drop(while: { $0 == " " }).lowercased() == "application/json" else {
            throw AdminRefusal(
                415, "UNSUPPORTED_MEDIA_TYPE", "The body must be application/json (Content-Type).")
        }
        let value: JSONValue
        do throws(JSONProblem) {
            value = try JSONReader.read(request.body)
        } catch {
            throw bad(error.text)
        }
        guard case .object(let object) = value else {
            throw bad("The body must be a JSON object, not \(value.kind).")
        }
        for member in object.keys.sorted() where !members.contains(member) {
            throw invalid(
                "\(member.prefix(64))",
                "no such field here; there are \(members.sorted().joined(separator: ", "))")
        }
        return object
    }

    private static func ifMatch(
        _ request: SmallRequest, _ endpoint: Endpoint
    ) throws(AdminRefusal) -> String? {
        guard endpoint.changesSomething, ![.createKey, .reload].contains(endpoint) else { return nil }
        guard let value = request.field("if-match") else {
            guard endpoint == .updateKey else { return nil }
            throw AdminRefusal(
                428, "PRECONDITION_REQUIRED",
                "If-Match: send the ETag of the key as you read it, or *, so that nobody's change is lost.")
        }
        if value == "*" { return nil }
        let version = value.dropFirst().dropLast()
        guard value.hasPrefix("\""), value.hasSuffix("\""), version.utf8.count == 16,
            version.allSatisfy(\.isHexDigit)
        else { throw bad("If-Match: the ETag of a key as it was read, with its quotes, or *.") }
        return String(version)
    }

    private static func idempotencyKey(
        _ request: SmallRequest, _ endpoint: Endpoint
    ) throws(AdminRefusal) -> String? {
        guard endpoint == .createKey, let value = request.field("idempotency-key") else { return nil }
        guard (1...idempotencyBytesMax).contains(value.utf8.count),
            value.utf8.allSatisfy({ (0x20...0x7E).contains($0) })
        else {
            throw bad(
                "Idempotency-Key: 1 to \(idempotencyBytesMax) characters of visible ASCII.")
        }
        return value
    }

    static func bad(_ message: String) -> AdminRefusal { AdminRefusal(400, "BAD_REQUEST", message) }

    static func invalid(_ field: String, _ message: String) -> AdminRefusal {
        AdminRefusal(422, "INVALID_FIELD", "\(field): \(message)")
    }

    /// Percent-decoding; nil when an escape is broken or the bytes are no text.
    private static func decode(_ text: Substring, plusIsSpace: Bool) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(plusIsSpace && byte == UInt8(ascii: "+") ? 0x20 : byte)
                continue
            }
            guard let high = rest.popFirst().flatMap(hexadecimal),
                let low = rest.popFirst().flatMap(hexadecimal)
            else { return nil }
            bytes.append(high << 4 | low)
        }
        return String(validating: bytes, as: UTF8.self)
    }

    private static func hexadecimal(_ byte: UInt8) -> UInt8? {
        Character(Unicode.Scalar(byte)).hexDigitValue.map { UInt8($0) }
    }
}

// MARK: Reading fields

extension APIRequest {
    /// A text member, nil when it is absent; null is refused here.
    func text(_ member: String) throws(AdminRefusal) -> String? {
        switch body[member] {
        case nil: return nil
        case .string(let text): return text
        case .some(let other): throw Self.invalid(member, "a string is wanted, not \(other.kind)")
        }
    }

    /// A text member that null clears.
    func textSetting(_ member: String) throws(AdminRefusal) -> Setting<String> {
        if body[member] == .null { return .clear }
        return try text(member).map(Setting.set) ?? .keep
    }

    func integer(_ member: String) throws(AdminRefusal) -> Int64? {
        switch body[member] {
        case nil: return nil
        case .integer(let value): return value
        case .some(let other): throw Self.invalid(member, "a whole number is wanted, not \(other.kind)")
        }
    }

    /// A list of texts.
    func texts(_ member: String) throws(AdminRefusal) -> [String]? {
        guard let value = body[member] else { return nil }
        guard case .array(let elements) = value else {
            throw Self.invalid(member, "a list of strings is wanted, not \(value.kind)")
        }
        var texts: [String] = []
        for element in elements {
            guard case .string(let text) = element else {
                throw Self.invalid(member, "a list of strings is wanted; it holds \(element.kind)")
            }
            texts.append(text)
        }
        return texts
    }

    /// A number of the query within a range.
    func number(
        _ parameter: String, in range: ClosedRange<Int>, otherwise: Int
    ) throws(AdminRefusal) -> Int {
        guard let text = query[parameter] else { return otherwise }
        guard let value = Int(text), text.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            range.contains(value)
        else {
            throw Self.bad("\(parameter): a number from \(range.lowerBound) to \(range.upperBound).")
        }
        return value
    }
}
