internal import COpenSSL
package import Reactor

/// How far a handshake has come.
package enum TLSProgress { case done, wantsInput, failed }

/// What one read of plaintext came to.
package enum TLSReadResult {
    case bytes(Int)
    case wantsInput
    /// The peer has said goodbye (`close_notify`).
    case closed
    case failed
}

package enum TLSVersion: Sendable, Equatable { case v12, v13 }

/// A handle on one connection's TLS state. Plain data: the slot that holds it frees it once.
@safe
package struct TLSSession {
    private var ssl: OpaquePointer?

    /// A connection without TLS.
    package init() { unsafe ssl = nil }

    init(_ ssl: OpaquePointer) { unsafe self.ssl = unsafe ssl }

    package var isOpen: Bool { unsafe ssl != nil }

    /// Goes on with the handshake, with what the wire holds.
    package func handshake() -> TLSProgress {
        guard let ssl = unsafe ssl else { return .failed }
        ERR_clear_error()
        let result = unsafe SSL_do_handshake(ssl)
        if result == 1 { return .done }
        return unsafe SSL_get_error(ssl, result) == SSL_ERROR_WANT_READ ? .wantsInput : .failed
    }

    /// Decrypts into the block's free room; at most one record per call.
    package func read(into block: inout Block) -> TLSReadResult {
        guard let ssl = unsafe ssl else { return .failed }
        let room = Int32(truncatingIfNeeded: min(block.freeCount, 1 << 20))
        precondition(room > 0, "a read needs room")
        // SSL_get_error takes what another session has left in the thread's queue for this one's failure.
        if ERR_peek_error() != 0 { ERR_clear_error() }
        let n = unsafe SSL_read(ssl, block.writableAddress, room)
        if n > 0 {
            block.advanceEnd(Int(n))
            return .bytes(Int(n))
        }
        switch unsafe SSL_get_error(ssl, n) {
        case SSL_ERROR_WANT_READ: return .wantsInput
        case SSL_ERROR_ZERO_RETURN: return .closed
        default:
            ERR_clear_error()
            return .failed
        }
    }

    /// Encrypts all bytes onto the wire. False ends the connection: the wire is full or the session broken.
    package func write(_ bytes: Span<UInt8>) -> Bool {
        guard let ssl = unsafe ssl else { return false }
        if bytes.isEmpty { return true }
        let n = unsafe bytes.withUnsafeBufferPointer { buffer in
            unsafe SSL_write(ssl, buffer.baseAddress, Int32(truncatingIfNeeded: buffer.count))
        }
        if n == Int32(truncatingIfNeeded: bytes.count) { return true }
        ERR_clear_error()
        return false
    }

    /// Whether OpenSSL holds decrypted bytes that the next read returns.
    package var hasPendingPlaintext: Bool {
        guard let ssl = unsafe ssl else { return false }
        return unsafe SSL_pending(ssl) > 0
    }

    /// Puts the goodbye onto the wire, once: a second one would read what another session is to get.
    package func closeNotify() {
        guard let ssl = unsafe ssl, unsafe SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN == 0 else { return }
        _ = unsafe SSL_shutdown(ssl)
        ERR_clear_error()
    }

    package mutating func free() {
        guard let ssl = unsafe ssl else { return }
        // Without this OpenSSL counts a connection cut without goodbye as a failed session.
        unsafe SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN)
        unsafe SessionCount.forget(ssl)
        unsafe SSL_free(ssl)
        unsafe self.ssl = nil
    }

    package var version: TLSVersion {
        guard let ssl = unsafe ssl else { return .v13 }
        return unsafe SSL_version(ssl) >= 0x304 ? .v13 : .v12
    }

    /// Whether both sides have agreed on HTTP/2 (RFC 7301).
    package var speaksHTTP2: Bool {
        guard let ssl = unsafe ssl else { return false }
        var name: UnsafePointer<UInt8>?
        var count: UInt32 = 0
        unsafe SSL_get0_alpn_selected(ssl, &name, &count)
        guard count == 2, let name = unsafe name else { return false }
        return unsafe name[0] == 0x68 && name[1] == 0x32
    }

    package var isResumed: Bool {
        guard let ssl = unsafe ssl else { return false }
        return unsafe SSL_session_reused(ssl) == 1
    }

    /// Whether the certificate in use covers `host` (a name without port, or an address).
    package func certificateCovers(host: String) -> Bool {
        guard let ssl = unsafe ssl, let certificate = unsafe SSL_get_certificate(ssl) else { return false }
        if unsafe X509_check_host(certificate, host, host.utf8.count, 0, nil) == 1 { return true }
        return unsafe X509_check_ip_asc(certificate, host, 0) == 1
    }

    /// Why the last handshake failed, for the log. Empties OpenSSL's queue.
    package func takeFailureReason() -> String {
        guard let ssl = unsafe ssl else { return "no session" }
        let verify = unsafe SSL_get_verify_result(ssl)
        if verify != Int(X509_V_OK), let text = unsafe X509_verify_cert_error_string(verify) {
            ERR_clear_error()
            return unsafe "certificate verification failed: " + String(cString: text)
        }
        let reason = TLSError.drainReason()
        return reason.isEmpty ? "handshake failed" : reason
    }
}
