internal import COpenSSL

/// Certificates that the program makes itself, for the demo and for tests: ECDSA P-256.
package enum SelfSigned {
    package struct Pair: Sendable {
        package let chainPEM: String
        package let privateKeyPEM: String
    }

    /// - Parameters:
    ///   - names: DNS names and addresses; the first is the common name.
    ///   - days: validity, from one hour ago.
    ///   - authority: whether the certificate may itself sign others.
    ///   - issuer: signs the new certificate instead of itself.
    package static func make(
        names: [String], days: Int = 30, authority: Bool = false, issuer: Pair? = nil
    ) throws(TLSError) -> Pair {
        guard let key = unsafe gw_EVP_EC_gen("P-256"), let certificate = unsafe X509_new() else {
            throw .openSSL("cannot generate a key")
        }
        defer {
            unsafe EVP_PKEY_free(key)
            unsafe X509_free(certificate)
        }
        unsafe X509_set_version(certificate, 2)
        var serial: UInt64 = 0
        _ = unsafe withUnsafeMutableBytes(of: &serial) { bytes in
            unsafe RAND_bytes(bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), 8)
        }
        unsafe ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), serial >> 1)
        unsafe X509_gmtime_adj(X509_getm_notBefore(certificate), -3_600)
        unsafe X509_gmtime_adj(X509_getm_notAfter(certificate), days * 86_400)
        unsafe X509_set_pubkey(certificate, key)
        let subject = unsafe X509_get_subject_name(certificate)
        let common = names.first ?? "localhost"
        unsafe X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, common, -1, -1, 0)
        let alternatives = names.map { name in
            let isAddress = name.contains(":") || name.allSatisfy { $0.isNumber || $0 == "." }
            return (isAddress ? "IP:" : "DNS:") + name
        }
        unsafe addExtension(
            NID_basic_constraints, authority ? "critical,CA:TRUE" : "CA:FALSE", to: certificate)
        unsafe addExtension(NID_subject_alt_name, alternatives.joined(separator: ","), to: certificate)
        try unsafe sign(certificate, key: key, issuer: issuer)
        let chain = unsafe pem { unsafe PEM_write_bio_X509($0, certificate) }
        let secret = unsafe pem { unsafe PEM_write_bio_PrivateKey($0, key, nil, nil, 0, nil, nil) }
        guard let chain, let secret else { throw .openSSL("cannot write the certificate") }
        return Pair(chainPEM: chain, privateKeyPEM: secret)
    }

    private static func sign(
        _ certificate: OpaquePointer, key: OpaquePointer, issuer: Pair?
    ) throws(TLSError) {
        guard let issuer else {
            unsafe X509_set_issuer_name(certificate, X509_get_subject_name(certificate))
            guard unsafe X509_sign(certificate, key, EVP_sha256()) > 0 else {
                throw .openSSL("cannot sign the certificate")
            }
            return
        }
        let chain = unsafe memory(issuer.chainPEM)
        let secret = unsafe memory(issuer.privateKeyPEM)
        defer {
            unsafe BIO_free(chain)
            unsafe BIO_free(secret)
        }
        guard let authority = unsafe PEM_read_bio_X509(chain, nil, nil, nil),
            let authorityKey = unsafe PEM_read_bio_PrivateKey(secret, nil, nil, nil)
        else { throw .openSSL("cannot read the issuer") }
        defer {
            unsafe X509_free(authority)
            unsafe EVP_PKEY_free(authorityKey)
        }
        unsafe X509_set_issuer_name(certificate, X509_get_subject_name(authority))
        guard unsafe X509_sign(certificate, authorityKey, EVP_sha256()) > 0 else {
            throw .openSSL("cannot sign the certificate")
        }
    }

    private static func memory(_ text: String) -> OpaquePointer? {
        let bio = unsafe BIO_new(BIO_s_mem())
        unsafe BIO_write(bio, text, Int32(text.utf8.count))
        return unsafe bio
    }

    private static func addExtension(_ kind: Int32, _ value: String, to certificate: OpaquePointer) {
        guard let made = unsafe X509V3_EXT_conf_nid(nil, nil, kind, value) else { return }
        unsafe X509_add_ext(certificate, made, -1)
        unsafe X509_EXTENSION_free(made)
    }

    private static func pem(_ write: (OpaquePointer) -> Int32) -> String? {
        guard let bio = unsafe BIO_new(BIO_s_mem()) else { return nil }
        defer { unsafe BIO_free(bio) }
        guard unsafe write(bio) == 1 else { return nil }
        var bytes = [UInt8](repeating: 0, count: unsafe Int(gw_BIO_pending(bio)))
        let n = unsafe BIO_read(bio, &bytes, Int32(bytes.count))
        return n > 0 ? String(decoding: bytes.prefix(Int(n)), as: UTF8.self) : nil
    }
}
