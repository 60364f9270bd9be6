import DataPlane

// JSON (RFC 8259) as requests carry it: strict, without duplicates, and no deeper than the API's own bodies
// are. Foundation's reader takes numbers for truth values and lets the last of two members win.

/// A JSON value.
enum JSONValue: Equatable, Sendable {
    case null
    case bool(Bool)
    /// A number without fraction and exponent that fits.
    case integer(Int64)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    /// What a message calls it.
    var kind: String {
        switch self {
        case .null: "null"
        case .bool: "a truth value"
        case .integer, .number: "a number"
        case .string: "a string"
        case .array: "a list"
        case .object: "an object"
        }
    }
}

/// Why a text is no JSON, in words.
struct JSONProblem: Error {
    let text: String
}

/// Reads one value from UTF-8.
struct JSONReader {
    private let bytes: [UInt8]
    private let depthMax: Int
    private var place = 0

    /// - Parameter depthMax: levels of lists and objects; the API's own bodies have two.
    static func read(_ bytes: [UInt8], depthMax: Int = 8) throws(JSONProblem) -> JSONValue {
        guard String(validating: bytes, as: UTF8.self) != nil else {
            throw JSONProblem(text: "The body is not UTF-8 text.")
        }
        var reader = JSONReader(bytes, depthMax)
        let value = try reader.value(depth: 0)
        reader.skipSpace()
        guard reader.place == bytes.count else { throw reader.problem("something follows the value") }
        return value
    }

    private init(_ bytes: [UInt8], _ depthMax: Int) {
        self.bytes = bytes
        self.depthMax = depthMax
    }

    private func problem(_ what: String) -> JSONProblem {
        JSONProblem(text: "The body is not JSON: \(what) at byte \(place + 1).")
    }

    private var next: UInt8? { place < bytes.count ? bytes[place] : nil }

    private mutating func skipSpace() {
        while let byte = next, [0x20, 0x09, 0x0A, 0x0D].contains(byte) { place += 1 }
    }

    private mutating func take(_ byte: Character) -> Bool {
        skipSpace()
        guard next == byte.asciiValue else { return false }
        place += 1
        return true
    }

    private mutating func value(depth: Int) throws(JSONProblem) -> JSONValue {
        guard depth < depthMax else { throw problem("more than \(depthMax) levels") }
        skipSpace()
        switch next {
        case UInt8(ascii: "{"): return try object(depth)
        case UInt8(ascii: "["): return try array(depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case .some(let byte) where byte == UInt8(ascii: "-") || Self.isDigit(byte): return try number()
        case .some: throw problem("no value begins")
        case nil: throw problem("it ends")
        }
    }

    private mutating func word(_ text: String, _ value: JSONValue) throws(JSONProblem) -> JSONValue {
        guard bytes[place...].starts(with: text.utf8) else { throw problem("no value begins") }
        place += text.utf8.count
        return value
    }

    private mutating func object(_ depth: Int) throws(JSONProblem) -> JSONValue {
        var members: [String: JSONValue] = [:]
        place += 1
        if take("}") { return .object(members) }
        repeat {
            skipSpace()
            guard next == UInt8(ascii: "\"") else { throw problem("no member's name begins") }
            let name = try string()
            guard take(":") else { throw problem("a colon is missing") }
            guard members.updateValue(try value(depth: depth + 1), forKey: name) == nil else {
                throw problem("a member stands twice")
            }
        } while take(",")
        guard take("}") else { throw problem("an object does not end") }
        return .object(members)
    }

    private mutating func array(_ depth: Int) throws(JSONProblem) -> JSONValue {
        var values: [JSONValue] = []
        place += 1
        if take("]") { return .array(values) }
        repeat { values.append(try value(depth: depth + 1)) } while take(",")
        guard take("]") else { throw problem("a list does not end") }
        return .array(values)
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }

    private mutating func digits() throws(JSONProblem) {
        guard let byte = next, Self.isDigit(byte) else { throw problem("a digit is missing") }
        while let byte = next, Self.isDigit(byte) { place += 1 }
    }

    private mutating func number() throws(JSONProblem) -> JSONValue {
        let start = place
        var isWhole = true
        if next == UInt8(ascii: "-") { place += 1 }
        let leadsWithZero = next == UInt8(ascii: "0")
        let first = place
        try digits()
        if leadsWithZero, place > first + 1 { throw problem("a number begins with 0") }
        if next == UInt8(ascii: ".") {
            isWhole = false
            place += 1
            try digits()
        }
        if next == UInt8(ascii: "e") || next == UInt8(ascii: "E") {
            isWhole = false
            place += 1
            if next == UInt8(ascii: "+") || next == UInt8(ascii: "-") { place += 1 }
            try digits()
        }
        let text = String(decoding: bytes[start..<place], as: UTF8.self)
        if isWhole, let value = Int64(text) { return .integer(value) }
        guard let value = Double(text), value.isFinite else { throw problem("a number is too large") }
        // 5.0 is a whole number as well.
        return Int64(exactly: value).map(JSONValue.integer) ?? .number(value)
    }

    private mutating func string() throws(JSONProblem) -> String {
        place += 1
        var text: [UInt8] = []
        while let byte = next {
            place += 1
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: text, as: UTF8.self)
            case UInt8(ascii: "\\"): try escape(into: &text)
            case 0..<0x20: throw problem("a control character stands in a string")
            default: text.append(byte)
            }
        }
        throw problem("a string does not end")
    }

    private mutating func escape(into text: inout [UInt8]) throws(JSONProblem) {
        guard let byte = next else { throw problem("a string does not end") }
        place += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "r"): text.append(0x0D)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "u"):
            var code = try hexadecimal()
            if (0xD800..<0xDC00).contains(code) {
                guard next == UInt8(ascii: "\\"), place + 1 < bytes.count,
                    bytes[place + 1] == UInt8(ascii: "u")
                else { throw problem("half a surrogate pair") }
                place += 2
                let low = try hexadecimal()
                guard (0xDC00..<0xE000).contains(low) else { throw problem("half a surrogate pair") }
                code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
            }
            guard let scalar = Unicode.Scalar(code) else { throw problem("half a surrogate pair") }
            text += Array(String(Character(scalar)).utf8)
        default: throw problem("an unknown escape")
        }
    }

    private mutating func hexadecimal() throws(JSONProblem) -> UInt32 {
        guard place + 4 <= bytes.count else { throw problem("a string does not end") }
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let digit = Character(Unicode.Scalar(bytes[place])).hexDigitValue else {
                throw problem("four hexadecimal digits are missing")
            }
            code = code << 4 | UInt32(digit)
            place += 1
        }
        return code
    }
}

/// Writes JSON, member by member, in the order in which it is told.
struct JSONWriter {
    private(set) var text = ""
    private var needsComma = false

    private mutating func separate(_ name: String?) {
        if needsComma { text += "," }
        if let name { text += "\"\(JSONText.escape(name))\":" }
        needsComma = true
    }

    mutating func string(_ name: String?, _ value: String) {
        separate(name)
        text += "\"\(JSONText.escape(value))\""
    }

    mutating func integer<Number: FixedWidthInteger>(_ name: String?, _ value: Number) {
        separate(name)
        text += "\(value)"
    }

    /// Seconds and the like, with six digits after the point.
    mutating func decimal(_ name: String?, _ value: Double) {
        separate(name)
        let millionths = Int64((value * 1_000_000).rounded())
        let digits = String(millionths.magnitude % 1_000_000)
        text += millionths < 0 ? "-" : ""
        text += "\(millionths.magnitude / 1_000_000)."
        text += String(repeating: "0", count: 6 - digits.count) + digits
    }

    mutating func bool(_ name: String?, _ value: Bool) {
        separate(name)
        text += value ? "true" : "false"
    }

    mutating func null(_ name: String?) {
        separate(name)
        text += "null"
    }

    mutating func object(_ name: String?, _ members: (inout JSONWriter) -> Void) {
        separate(name)
        nest("{", "}", members)
    }

    mutating func array(_ name: String?, _ elements: (inout JSONWriter) -> Void) {
        separate(name)
        nest("[", "]", elements)
    }

    private mutating func nest(_ open: String, _ close: String, _ body: (inout JSONWriter) -> Void) {
        text += open
        needsComma = false
        body(&self)
        text += close
        needsComma = true
    }
}
