internal import COpenSSL
import Reactor

/// The client side of one worker: upstreams and the store. Certificates are always verified.
@safe
package final class TLSClientContext: CountedContext {
    private let context: OpaquePointer
    private let library: TLSLibrary
    private let wire: TLSWire
    private let sessions = SessionCount()

    package var openSessions: Int { sessions.value }

    /// - Parameters:
    ///   - caPath: a file of trusted authorities instead of the system's.
    ///   - library: shared with the other contexts of the thread; one of its own otherwise.
    package init(
        caPath: String?, wire: TLSWire, applicationProtocols: [String] = [], library: TLSLibrary? = nil
    ) throws(TLSError) {
        let library = if let library { library } else { try TLSLibrary() }
        guard let context = unsafe SSL_CTX_new_ex(library.context, nil, TLS_client_method()) else {
            throw .openSSL("no TLS context")
        }
        self.library = library
        unsafe self.context = context
        self.wire = wire
        unsafe TLSPolicy.apply(to: context, minimumVersion: .v12)
        unsafe SSL_CTX_set_options(context, TLSPolicy.clientOptions)
        unsafe SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
        if let caPath {
            guard unsafe SSL_CTX_load_verify_file(context, caPath) == 1 else {
                throw .openSSL("cannot read the authorities in \(caPath)")
            }
        } else {
            guard unsafe SSL_CTX_set_default_verify_paths(context) == 1 else {
                throw .openSSL("the system's authorities cannot be read")
            }
        }
        let list = applicationProtocols.flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) }
        if !list.isEmpty { unsafe SSL_CTX_set_alpn_protos(context, list, UInt32(list.count)) }
    }

    deinit {
        unsafe SSL_CTX_free(context)
        sessions.deallocate()
    }

    /// A session that will accept only a certificate for `serverName`, a DNS name or an address.
    package func makeSession(serverName: String) -> TLSSession? {
        guard let ssl = unsafe SSL_new(context) else { return nil }
        unsafe SSL_set_connect_state(ssl)
        unsafe sessions.count(ssl)
        let isAddress = SocketAddress(ip: serverName, port: 0) != nil
        if isAddress {
            unsafe X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), serverName)
        } else {
            _ = unsafe gw_SSL_set_tlsext_host_name(ssl, serverName)
            unsafe SSL_set1_host(ssl, serverName)
        }
        unsafe wire.attach(to: ssl)
        return unsafe TLSSession(ssl)
    }
}
