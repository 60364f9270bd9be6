internal import COpenSSL
import Reactor

/// The client side of one worker: upstreams and the store. Certificates are always verified.
@safe
package final class TLSClientContext {
    private let context: OpaquePointer
    private let library: OpaquePointer
    private let wire: TLSWire

    /// - Parameter caPath: a file of trusted authorities instead of the system's.
    package init(caPath: String?, wire: TLSWire, applicationProtocols: [String] = []) throws(TLSError) {
        guard let library = unsafe OSSL_LIB_CTX_new(),
            let context = unsafe SSL_CTX_new_ex(library, nil, TLS_client_method())
        else { throw .openSSL("no TLS context") }
        unsafe self.library = library
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
        unsafe OSSL_LIB_CTX_free(library)
    }

    /// A session that will accept only a certificate for `serverName`, a DNS name or an address.
    package func makeSession(serverName: String) -> TLSSession? {
        guard let ssl = unsafe SSL_new(context) else { return nil }
        unsafe SSL_set_connect_state(ssl)
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
