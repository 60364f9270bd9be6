internal import COpenSSL

/// An `OSSL_LIB_CTX` for the contexts of one worker: a shared one costs over 600 read locks per handshake in
/// OpenSSL 3.0, and one for each context would make every changed certificate cost hundreds of kilobytes for
/// as long as a session of the old one lives.
@safe
package final class TLSLibrary {
    let context: OpaquePointer
    /// What seals session tickets, fetched once.
    let ticketCipher: OpaquePointer

    /// - Throws: when OpenSSL has no memory or lacks AES.
    package init() throws(TLSError) {
        guard let context = unsafe OSSL_LIB_CTX_new() else { throw .openSSL("no library context") }
        guard let cipher = unsafe EVP_CIPHER_fetch(context, "AES-256-CBC", nil) else {
            unsafe OSSL_LIB_CTX_free(context)
            throw .openSSL("AES-256-CBC is not available")
        }
        unsafe self.context = context
        unsafe ticketCipher = cipher
    }

    deinit {
        unsafe EVP_CIPHER_free(ticketCipher)
        unsafe OSSL_LIB_CTX_free(context)
    }
}

/// How many sessions of a context are open. The context must outlive them: they call back into it.
@safe
struct SessionCount {
    private let cell: UnsafeMutablePointer<Int>

    init() {
        unsafe cell = .allocate(capacity: 1)
        unsafe cell.initialize(to: 0)
    }

    var value: Int { unsafe cell.pointee }

    /// Counts a session until `forget`.
    func count(_ ssl: OpaquePointer) {
        unsafe cell.pointee += 1
        // Index 0 is the application's own.
        _ = unsafe SSL_set_ex_data(ssl, 0, cell)
    }

    /// Counts a session no more; one that was never counted is nothing.
    static func forget(_ ssl: OpaquePointer) {
        guard let cell = unsafe SSL_get_ex_data(ssl, 0) else { return }
        unsafe cell.assumingMemoryBound(to: Int.self).pointee -= 1
    }

    func deallocate() { unsafe cell.deallocate() }
}

/// A context that is replaced while sessions of it are open: whoever replaces it keeps it until there are
/// none.
package protocol CountedContext: AnyObject {
    /// Sessions made and not freed.
    var openSessions: Int { get }
}
