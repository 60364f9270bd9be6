internal import COpenSSL

/// What went wrong, in one sentence for an operator. Never contains key material.
package struct TLSError: Error, Equatable, Sendable, CustomStringConvertible {
    package let message: String

    package init(_ message: String) { self.message = message }

    package var description: String { message }

    /// Adds the last reason in OpenSSL's queue and empties it.
    static func openSSL(_ what: String) -> TLSError {
        let reason = drainReason()
        return TLSError(reason.isEmpty ? what : "\(what): \(reason)")
    }

    /// The newest reason in this thread's error queue; the queue is empty afterwards.
    static func drainReason() -> String {
        let code = gw_ERR_reason()
        defer { ERR_clear_error() }
        guard code != 0, let text = unsafe ERR_reason_error_string(code) else { return "" }
        return unsafe String(cString: text)
    }
}
