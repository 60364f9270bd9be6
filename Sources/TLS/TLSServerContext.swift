internal import COpenSSL
import Reactor

/// What a listener needs to speak TLS.
package struct TLSServerSettings: Sendable {
    package struct Certificate: Sendable {
        package var chainPath: String
        package var privateKeyPath: String

        package init(chainPath: String, privateKeyPath: String) {
            self.chainPath = chainPath
            self.privateKeyPath = privateKeyPath
        }
    }

    package var certificates: [Certificate]
    package var minimumVersion: TLSVersion
    /// Callers must present a certificate that this authority has signed.
    package var clientCAPath: String?
    /// Protocols in order of preference.
    package var applicationProtocols: [String]

    package init(
        certificates: [Certificate], minimumVersion: TLSVersion = .v12, clientCAPath: String? = nil,
        applicationProtocols: [String] = ["h2", "http/1.1"]
    ) {
        self.certificates = certificates
        self.minimumVersion = minimumVersion
        self.clientCAPath = clientCAPath
        self.applicationProtocols = applicationProtocols
    }
}

/// The server side of one worker: an `SSL_CTX` per set of certificates with the same names.
@safe
package final class TLSServerContext: CountedContext {
    /// One `SSL_CTX` and the names it answers for.
    @safe
    private struct Entry {
        var names: Set<String>
        let context: OpaquePointer
        /// Which key types it has, so that an RSA and an ECDSA chain for the same names share one context.
        var keyTypes: Set<Int32>
    }

    private var entries: [Entry] = []
    private let library: TLSLibrary
    private let wire: TLSWire
    private let sessions = SessionCount()
    let tickets: TicketKeys
    let protocolList: [UInt8]

    /// - Throws: one sentence that names the file at fault.
    package init(
        settings: TLSServerSettings, tickets: TicketKeys, wire: TLSWire, library: TLSLibrary
    ) throws(TLSError) {
        self.library = library
        self.wire = wire
        self.tickets = tickets
        protocolList = settings.applicationProtocols.flatMap { name in
            [UInt8(truncatingIfNeeded: name.utf8.count)] + Array(name.utf8)
        }
        for certificate in settings.certificates {
            try add(certificate, settings: settings)
        }
        guard !entries.isEmpty else { throw TLSError("a TLS listener needs a certificate") }
        attachServerNameChoice()
    }

    deinit {
        for entry in entries { unsafe SSL_CTX_free(entry.context) }
        sessions.deallocate()
    }

    package var openSessions: Int { sessions.value }
    var cipher: OpaquePointer { unsafe library.ticketCipher }

    /// A session for a connection that has just been accepted.
    package func makeSession() -> TLSSession? {
        guard let ssl = unsafe SSL_new(entries[0].context) else {
            ERR_clear_error()
            return nil
        }
        unsafe SSL_set_accept_state(ssl)
        unsafe sessions.count(ssl)
        unsafe wire.attach(to: ssl)
        return unsafe TLSSession(ssl)
    }

    // MARK: Building

    private func add(
        _ certificate: TLSServerSettings.Certificate, settings: TLSServerSettings
    ) throws(TLSError) {
        let facts = try CertificateFacts.inspect(
            chainPath: certificate.chainPath, privateKeyPath: certificate.privateKeyPath)
        let existing = entries.firstIndex {
            $0.names == Set(facts.names) && !$0.keyTypes.contains(facts.keyType)
        }
        let context: OpaquePointer
        if let existing {
            unsafe context = unsafe entries[existing].context
            entries[existing].keyTypes.insert(facts.keyType)
        } else {
            unsafe context = try makeContext(settings)
            unsafe entries.append(
                Entry(names: Set(facts.names), context: context, keyTypes: [facts.keyType]))
        }
        guard unsafe SSL_CTX_use_certificate_chain_file(context, certificate.chainPath) == 1 else {
            throw .openSSL("cannot use the certificate chain \(certificate.chainPath)")
        }
        guard unsafe SSL_CTX_use_PrivateKey_file(context, certificate.privateKeyPath, SSL_FILETYPE_PEM) == 1
        else { throw .openSSL("cannot use the private key \(certificate.privateKeyPath)") }
        guard unsafe SSL_CTX_check_private_key(context) == 1 else {
            throw .openSSL(
                "the private key \(certificate.privateKeyPath) does not belong to the certificate "
                    + certificate.chainPath)
        }
    }

    private func makeContext(_ settings: TLSServerSettings) throws(TLSError) -> OpaquePointer {
        guard let context = unsafe SSL_CTX_new_ex(library.context, nil, TLS_server_method()) else {
            throw .openSSL("no TLS context")
        }
        unsafe TLSPolicy.apply(to: context, minimumVersion: settings.minimumVersion)
        unsafe SSL_CTX_set_options(context, TLSPolicy.serverOptions)
        _ = unsafe gw_SSL_CTX_set_session_cache_mode(context, Int(SSL_SESS_CACHE_OFF))
        // One ticket: the second of OpenSSL's default pair costs 30 us of every full handshake.
        unsafe SSL_CTX_set_num_tickets(context, 1)
        let sessions = try sessionContext(settings)
        unsafe SSL_CTX_set_session_id_context(context, sessions, UInt32(sessions.count))
        let owner = unsafe Unmanaged.passUnretained(self).toOpaque()
        unsafe SSL_CTX_set_alpn_select_cb(context, chooseProtocol, owner)
        unsafe gw_SSL_CTX_set_app_data(context, owner)
        _ = unsafe gw_SSL_CTX_set_tlsext_ticket_key_evp_cb(context, sealTicket)
        if let path = settings.clientCAPath {
            guard unsafe SSL_CTX_load_verify_file(context, path) == 1 else {
                throw .openSSL("cannot read the client authority \(path)")
            }
            unsafe SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(path))
            unsafe SSL_CTX_set_verify(
                context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nil)
        }
        return unsafe context
    }

    /// What a ticket must have been made under to be taken. A resumed caller shows no certificate: who had to
    /// show none, or one of another authority, has to shake hands anew.
    private func sessionContext(_ settings: TLSServerSettings) throws(TLSError) -> [UInt8] {
        guard let path = settings.clientCAPath else { return Array("gateway".utf8) }
        let bytes: [UInt8]
        do {
            bytes = try FileReader.read(path: path)
        } catch {
            throw TLSError("cannot read the client authority \(path): \(error.reason)")
        }
        let digest = try Digester().sha256(bytes.span)
        return [digest.0, digest.1, digest.2, digest.3].flatMap { word in
            (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(56 - 8 * $0)) }
        }
    }

    private func attachServerNameChoice() {
        let owner = unsafe Unmanaged.passUnretained(self).toOpaque()
        _ = unsafe gw_SSL_CTX_set_tlsext_servername_callback(entries[0].context, chooseCertificate)
        _ = unsafe gw_SSL_CTX_set_tlsext_servername_arg(entries[0].context, owner)
    }

    /// The context for a server name: exact before wildcard, the first certificate when none covers it.
    fileprivate func context(forServerName name: String) -> OpaquePointer? {
        let name = name.lowercased()
        if let exact = entries.first(where: { $0.names.contains(name) }) {
            return unsafe exact.context
        }
        guard let dot = name.firstIndex(of: ".") else { return nil }
        let wildcard = "*" + name[dot...]
        return unsafe entries.first { $0.names.contains(wildcard) }?.context
    }
}

@c
private func chooseCertificate(
    _ ssl: OpaquePointer?, _ alert: UnsafeMutablePointer<Int32>?, _ argument: UnsafeMutableRawPointer?
) -> Int32 {
    guard let argument = unsafe argument,
        let name = unsafe SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name)
    else { return SSL_TLSEXT_ERR_NOACK }
    let owner = unsafe Unmanaged<TLSServerContext>.fromOpaque(argument).takeUnretainedValue()
    guard let context = unsafe owner.context(forServerName: String(cString: name)) else {
        return SSL_TLSEXT_ERR_NOACK
    }
    unsafe SSL_set_SSL_CTX(ssl, context)
    return SSL_TLSEXT_ERR_OK
}

@c
private func chooseProtocol(
    _ ssl: OpaquePointer?, _ chosen: UnsafeMutablePointer<UnsafePointer<UInt8>?>?,
    _ chosenCount: UnsafeMutablePointer<UInt8>?, _ offered: UnsafePointer<UInt8>?, _ offeredCount: UInt32,
    _ argument: UnsafeMutableRawPointer?
) -> Int32 {
    guard let argument = unsafe argument else { return SSL_TLSEXT_ERR_ALERT_FATAL }
    let owner = unsafe Unmanaged<TLSServerContext>.fromOpaque(argument).takeUnretainedValue()
    var result: UnsafeMutablePointer<UInt8>?
    let outcome = unsafe owner.protocolList.withUnsafeBufferPointer { list in
        unsafe SSL_select_next_proto(
            &result, chosenCount, list.baseAddress, UInt32(list.count), offered, offeredCount)
    }
    // RFC 7301 section 3.2: no common protocol is a fatal no_application_protocol alert.
    guard outcome == OPENSSL_NPN_NEGOTIATED else { return SSL_TLSEXT_ERR_ALERT_FATAL }
    unsafe chosen?.pointee = unsafe UnsafePointer(result)
    return SSL_TLSEXT_ERR_OK
}

/// Encrypts (`encrypting` 1) or opens (0) a ticket. Returns 1 done, 2 done but renew, 0 unknown key, -1
/// error.
@c
private func sealTicket(
    _ ssl: OpaquePointer?, _ name: UnsafeMutablePointer<UInt8>?, _ vector: UnsafeMutablePointer<UInt8>?,
    _ cipherContext: OpaquePointer?, _ macContext: OpaquePointer?, _ encrypting: Int32
) -> Int32 {
    guard let ssl = unsafe ssl, let name = unsafe name, let vector = unsafe vector,
        let context = unsafe SSL_get_SSL_CTX(ssl), let data = unsafe gw_SSL_CTX_get_app_data(context)
    else { return -1 }
    let owner = unsafe Unmanaged<TLSServerContext>.fromOpaque(data).takeUnretainedValue()
    if encrypting == 1 {
        let key = owner.tickets.current
        guard unsafe RAND_bytes(vector, 16) == 1 else { return -1 }
        for index in 0..<16 { unsafe name[index] = key.name[index] }
        guard unsafe EVP_EncryptInit_ex(cipherContext, owner.cipher, nil, key.cipher, vector) == 1,
            unsafe gw_ticket_mac_init(macContext, key.mac, key.mac.count) == 1
        else { return -1 }
        return 1
    }
    let wanted = (0..<16).map { unsafe name[$0] }
    guard let found = owner.tickets.find(name: wanted) else { return 0 }
    guard unsafe gw_ticket_mac_init(macContext, found.key.mac, found.key.mac.count) == 1,
        unsafe EVP_DecryptInit_ex(cipherContext, owner.cipher, nil, found.key.cipher, vector) == 1
    else { return -1 }
    return found.isOld ? 2 : 1
}
