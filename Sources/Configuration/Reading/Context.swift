/// What reading one file needs everywhere.
final class Context {
    let problems = ProblemList()
    let environment: [String: String]
    let files: any FileAccess
    /// Addresses to listen on so far, and the lines that name them.
    var listening: [String: Int] = [:]

    init(environment: [String: String], files: any FileAccess) {
        self.environment = environment
        self.files = files
    }
}

/// How the loader reaches files; tests give it their own.
package protocol FileAccess: Sendable {
    /// The file's bytes, or a sentence that says why not.
    func read(_ path: String) -> Result<[UInt8], FileProblem>
}

/// Why a file cannot be read.
package struct FileProblem: Error, Sendable {
    /// One sentence without the path and without anything that the file holds.
    package let text: String

    /// - Parameter text: one sentence, such as "the file does not exist".
    package init(_ text: String) { self.text = text }
}
