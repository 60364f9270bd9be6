internal import COpenSSL

/// What an operator wants to know of a certificate, read from its file.
package struct CertificateFacts: Sendable {
    /// The common name, or the first alternative name.
    package let subject: String
    /// DNS names of the subject alternative name, lower case; the common name where there are none.
    package let names: [String]
    /// Unix seconds.
    package let notBefore: Int64
    /// Unix seconds.
    package let notAfter: Int64
    let keyType: Int32

    /// Reads the first certificate of a chain, and checks that the key belongs to it and that every
    /// certificate has been issued by the next one.
    package static func inspect(
        chainPath: String, privateKeyPath: String?
    ) throws(TLSError) -> CertificateFacts {
        ERR_clear_error()
        guard let certificate = unsafe read(chainPath, PEM_read_bio_X509) else {
            throw .openSSL("cannot read a certificate from \(chainPath)")
        }
        defer { unsafe X509_free(certificate) }
        if let privateKeyPath {
            guard let key = unsafe read(privateKeyPath, PEM_read_bio_PrivateKey) else {
                throw .openSSL("cannot read a private key from \(privateKeyPath)")
            }
            defer { unsafe EVP_PKEY_free(key) }
            guard unsafe X509_check_private_key(certificate, key) == 1 else {
                ERR_clear_error()
                throw TLSError(
                    "the private key \(privateKeyPath) does not belong to the certificate \(chainPath)")
            }
        }
        try checkOrder(chainPath)
        let common = unsafe commonName(of: certificate)
        var names = unsafe alternativeNames(of: certificate)
        if names.isEmpty, !common.isEmpty { names = [common.lowercased()] }
        return unsafe CertificateFacts(
            subject: common.isEmpty ? names.first ?? "unnamed" : common, names: names,
            notBefore: seconds(X509_get0_notBefore(certificate)),
            notAfter: seconds(X509_get0_notAfter(certificate)),
            keyType: EVP_PKEY_get_base_id(X509_get0_pubkey(certificate)))
    }

    /// Clients may refuse a chain that they would have to sort (RFC 8446 section 4.4.2).
    private static func checkOrder(_ path: String) throws(TLSError) {
        guard let bio = unsafe BIO_new_file(path, "r") else { return }
        defer { unsafe BIO_free(bio) }
        var subject: OpaquePointer?
        defer { unsafe X509_free(subject) }
        var position = 1
        while let issuer = unsafe PEM_read_bio_X509(bio, nil, { _, _, _, _ in 0 }, nil) {
            if let subject = unsafe subject {
                guard unsafe X509_check_issued(issuer, subject) == X509_V_OK else {
                    unsafe X509_free(issuer)
                    throw TLSError(
                        "the chain \(path) is out of order: certificate \(position) has not issued "
                            + "certificate \(position - 1)")
                }
                unsafe X509_free(subject)
            }
            unsafe subject = issuer
            position += 1
        }
        // The end of the file is an error to OpenSSL.
        ERR_clear_error()
    }

    private typealias PasswordCallback =
        @convention(c) (UnsafeMutablePointer<CChar>?, Int32, Int32, UnsafeMutableRawPointer?) -> Int32

    private static func read(
        _ path: String,
        _ decode: (
            OpaquePointer?, UnsafeMutablePointer<OpaquePointer?>?, PasswordCallback?, UnsafeMutableRawPointer?
        ) -> OpaquePointer?
    ) -> OpaquePointer? {
        guard let bio = unsafe BIO_new_file(path, "r") else { return nil }
        defer { unsafe BIO_free(bio) }
        // An empty password rather than nil: OpenSSL would ask the terminal for one.
        return unsafe decode(bio, nil, { _, _, _, _ in 0 }, nil)
    }

    private static func commonName(of certificate: OpaquePointer) -> String {
        var buffer = [CChar](repeating: 0, count: 256)
        let n = unsafe X509_NAME_get_text_by_NID(
            X509_get_subject_name(certificate), NID_commonName, &buffer, 256)
        guard n > 0 else { return "" }
        return String(decoding: buffer.prefix(Int(n)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private static func alternativeNames(of certificate: OpaquePointer) -> [String] {
        guard let raw = unsafe X509_get_ext_d2i(certificate, NID_subject_alt_name, nil, nil) else {
            return []
        }
        let list = OpaquePointer(raw)
        defer { unsafe gw_GENERAL_NAMES_free(list) }
        var names: [String] = []
        for index in unsafe 0..<gw_GENERAL_NAME_count(list) {
            guard let name = unsafe gw_GENERAL_NAME_at(list, index),
                unsafe gw_GENERAL_NAME_is_dns(name) == 1,
                let text = unsafe gw_GENERAL_NAME_dns(name),
                let bytes = unsafe ASN1_STRING_get0_data(text)
            else { continue }
            let buffer = unsafe UnsafeBufferPointer(start: bytes, count: Int(ASN1_STRING_length(text)))
            unsafe names.append(String(decoding: buffer, as: UTF8.self).lowercased())
        }
        return names
    }

    /// Whether a client that asks for a host accepts the certificate: by name, or by a wildcard for its first
    /// label (RFC 9525 section 6.3).
    package func covers(_ host: String) -> Bool {
        let host = host.lowercased()
        if names.contains(host) { return true }
        guard let dot = host.firstIndex(of: ".") else { return false }
        return names.contains("*" + host[dot...])
    }

    private static func seconds(_ time: UnsafePointer<ASN1_TIME>?) -> Int64 {
        var days: Int32 = 0
        var seconds: Int32 = 0
        // From the epoch, not from now: two looks at one certificate must agree.
        let epoch = unsafe ASN1_TIME_set(nil, 0)
        defer { unsafe ASN1_TIME_free(epoch) }
        guard unsafe ASN1_TIME_diff(&days, &seconds, epoch, time) == 1 else { return 0 }
        return Int64(days) * 86_400 + Int64(seconds)
    }
}
