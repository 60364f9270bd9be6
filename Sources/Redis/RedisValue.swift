/// A reply as a value of its own, for threads that take their time.
package indirect enum RedisValue: Sendable, Equatable {
    case string([UInt8])
    case status(String)
    case error(String)
    case integer(Int64)
    case null
    case array([RedisValue])

    init(_ reply: Reply) {
        switch reply.kind {
        case .string: self = .string(reply.byteArray)
        case .status: self = .status(reply.text)
        case .error: self = .error(reply.text)
        case .integer: self = .integer(reply.integer)
        case .null: self = .null
        case .array: self = .array((0..<reply.count).map { RedisValue(reply.element($0)) })
        }
    }

    /// The text of a string or a status.
    package var text: String? {
        switch self {
        case .string(let bytes): return String(decoding: bytes, as: UTF8.self)
        case .status(let text): return text
        default: return nil
        }
    }

    /// The bytes of a string, nil for anything else.
    package var bytes: [UInt8]? {
        if case .string(let bytes) = self { return bytes }
        return nil
    }

    /// The number, nil for anything else.
    package var integer: Int64? {
        if case .integer(let value) = self { return value }
        return nil
    }

    /// The elements of an array, nil for anything else.
    package var elements: [RedisValue]? {
        if case .array(let values) = self { return values }
        return nil
    }

    /// The fields of a hash as `HGETALL` returns them.
    package var fields: [(name: String, value: String)]? {
        guard let elements, elements.count % 2 == 0 else { return nil }
        var fields: [(name: String, value: String)] = []
        for index in stride(from: 0, to: elements.count, by: 2) {
            guard let name = elements[index].text, let value = elements[index + 1].text else { return nil }
            fields.append((name, value))
        }
        return fields
    }
}
