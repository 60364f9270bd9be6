import Keys
import Reactor
import TLS

/// Whether files are still what they were.
package enum FileContents {
    /// SHA-256 of a file's bytes, or the reason why it cannot be read.
    static func digest(_ path: String) -> String {
        do {
            let bytes = try FileReader.read(path: path)
            return Digest256(try Digester().sha256(bytes.span)).hexadecimal
        } catch let error as SystemError {
            return error.reason
        } catch {
            return "no digest"
        }
    }
}
