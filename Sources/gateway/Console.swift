import Foundation
import Reactor

/// Standard output and standard error, for people.
enum Console {
    private static let output = Descriptor(rawValue: 1)

    /// - Returns: whether all of it was written.
    @discardableResult
    static func out(_ text: String) -> Bool {
        FileReader.write(Array((text + "\n").utf8), to: output)
    }

    /// Whether standard output takes anything at all, before something is done whose result cannot be had
    /// twice. A disk that is full shows only when it is written to.
    static var canShow: Bool { FileReader.canWrite(to: output) }

    /// Never repeats an argument that may be a key.
    static func error(_ text: String) {
        FileReader.write(Array((KeyText.masked(text) + "\n").utf8), to: Descriptor(rawValue: 2))
    }
}

enum Environment {
    static func all() -> [String: String] { ProcessInfo.processInfo.environment }
}
