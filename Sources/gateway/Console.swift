import Foundation
import Reactor

/// Standard output and standard error, for people.
enum Console {
    static func out(_ text: String) {
        FileReader.write(Array((text + "\n").utf8), to: Descriptor(rawValue: 1))
    }

    /// Never repeats an argument that may be a key.
    static func error(_ text: String) {
        FileReader.write(Array((KeyText.masked(text) + "\n").utf8), to: Descriptor(rawValue: 2))
    }
}

enum Environment {
    static func all() -> [String: String] { ProcessInfo.processInfo.environment }
}
