/// Files that the configuration names, and paths of requests.
enum Paths {
    /// The path, when its file can be read.
    static func readable(_ value: Value) -> String? {
        guard let path = value.text() else { return nil }
        if case .failure(let problem) = value.context.files.read(path) {
            report(problem, value)
            return nil
        }
        return path
    }

    /// The file's text without its last line break, for secrets.
    static func secret(_ value: Value) -> String? {
        guard let path = value.text() else { return nil }
        switch value.context.files.read(path) {
        case .failure(let problem):
            report(problem, value)
            return nil
        case .success(let bytes):
            // Bytes that are no text would all become the same replacement character, and secrets with them.
            guard var text = String(validating: bytes, as: UTF8.self) else {
                report(FileProblem("the file is not UTF-8 text"), value)
                return nil
            }
            while let last = text.last, last == "\n" || last == "\r" || last == "\r\n" { text.removeLast() }
            guard !text.isEmpty else {
                report(FileProblem("the file is empty"), value)
                return nil
            }
            return text
        }
    }

    private static func report(_ problem: FileProblem, _ value: Value) {
        value.problem(value.writtenPath.map { "\($0): \(problem.text)" } ?? problem.text)
    }

    /// A path as it may stand in a request line, with a query where one makes sense.
    static func request(_ value: Value) -> String? {
        guard let text = value.text() else { return nil }
        guard text.hasPrefix("/"), text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "#") })
        else {
            value.problem("\"\(value.written)\" is not a path like /healthz")
            return nil
        }
        return text
    }

    /// What may be cut off a request's path or put in front of it: whole segments in the form that paths have
    /// when they are matched.
    static func prefix(_ value: Value) -> String? {
        guard let text = request(value) else { return nil }
        let segments = text.split(separator: "/", omittingEmptySubsequences: false).dropFirst()
        for (index, segment) in segments.enumerated() where !isPlainSegment(segment) {
            if segment.isEmpty, index == segments.count - 1 { continue }
            value.problem(
                "\"\(value.written)\" is not a prefix like /api: plain words between single slashes")
            return nil
        }
        return text
    }

    /// A segment that stands for itself in the normal form of a path, and has no parameters. What is not
    /// unreserved in it may be spelt as an escape too (RFC 3986 section 2.2), with which a request for it is
    /// refused.
    static func isPlainSegment(_ segment: Substring) -> Bool {
        !segment.isEmpty && segment != "." && segment != ".."
            && !segment.contains { "*{}?#%\\;\"<>`".contains($0) }
    }
}
