/// `${NAME}` and `${NAME:-default}`.
enum Substitution {
    /// Why a text cannot be filled in. The sentence shows names only: what stands behind them may be secret.
    struct Problem: Error {
        let text: String
    }

    /// The text with every `${...}` replaced. As in a shell, `:-` also stands in for a variable that is
    /// empty.
    static func fill(_ text: String, from environment: [String: String]) throws(Problem) -> String {
        var result = ""
        var rest = Substring(text)
        while let start = rest.firstRange(of: "${") {
            result += rest[..<start.lowerBound]
            let inside = rest[start.upperBound...]
            guard let end = inside.firstIndex(of: "}") else { throw Problem(text: "\"${\" without \"}\"") }
            result += try value(of: inside[..<end], environment)
            rest = inside[inside.index(after: end)...]
        }
        return result + rest
    }

    private static func value(
        of body: Substring, _ environment: [String: String]
    ) throws(Problem) -> String {
        let mark = body.firstRange(of: ":-")
        let name = String(body[..<(mark?.lowerBound ?? body.endIndex)])
        guard isName(name) else {
            throw Problem(text: "between \"${\" and \"}\" stands NAME or NAME:-default")
        }
        let found = environment[name]
        if let mark {
            guard let found, !found.isEmpty else { return String(body[mark.upperBound...]) }
            return found
        }
        guard let found else { throw Problem(text: "the environment variable \(name) is not set") }
        return found
    }

    private static func isName(_ text: String) -> Bool {
        guard let first = text.utf8.first, !Bytes.isDigit(first) else { return false }
        return text.utf8.allSatisfy { Bytes.isLetterOrDigit($0) || $0 == UInt8(ascii: "_") }
    }
}
