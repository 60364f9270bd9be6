internal import COpenSSL

/// Which TLS we speak: Mozilla's "intermediate" profile (server side TLS 5.7), both as server and client.
enum TLSPolicy {
    static let ciphers12 =
        "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
        + "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
        + "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305"
    static let ciphers13 = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
    /// What OpenSSL offers by itself, without SHA-1, SHA-224 and DSA.
    static let signatures =
        "ECDSA+SHA256:ed25519:RSA-PSS+SHA256:RSA+SHA256:ECDSA+SHA384:RSA-PSS+SHA384:RSA+SHA384:ECDSA+SHA512:"
        + "RSA-PSS+SHA512:RSA+SHA512:ed448:rsa_pss_pss_sha256:rsa_pss_pss_sha384:rsa_pss_pss_sha512"
    static let groups = "X25519:P-256:P-384"

    /// Bits of `SSL_OP_…`, whose macros Swift does not import.
    private enum Option {
        static let noCompression: UInt64 = 1 << 17
        static let noRenegotiation: UInt64 = 1 << 30
        static let cipherServerPreference: UInt64 = 1 << 22
        static let prioritizeChaCha: UInt64 = 1 << 21
        static let noAntiReplay: UInt64 = 1 << 24
        static let ignoreUnexpectedEOF: UInt64 = 1 << 7
    }

    static let serverOptions =
        Option.noCompression | Option.noRenegotiation | Option.cipherServerPreference
        | Option.prioritizeChaCha | Option.ignoreUnexpectedEOF | Option.noAntiReplay
    static let clientOptions = Option.noCompression | Option.noRenegotiation | Option.ignoreUnexpectedEOF

    static func apply(to context: OpaquePointer, minimumVersion: TLSVersion) {
        _ = unsafe gw_SSL_CTX_set_min_proto_version(context, minimumVersion == .v13 ? 0x304 : 0x303)
        unsafe SSL_CTX_set_cipher_list(context, ciphers12)
        unsafe SSL_CTX_set_ciphersuites(context, ciphers13)
        _ = unsafe gw_SSL_CTX_set1_groups_list(context, groups)
        let isKnown = unsafe gw_SSL_CTX_set1_sigalgs_list(context, signatures) == 1
        precondition(isKnown, "these are OpenSSL's names")
        _ = unsafe gw_SSL_CTX_set_dh_auto(context)
        // Buffers of an idle connection are returned; MOVING_WRITE_BUFFER because our writes never repeat.
        _ = unsafe gw_SSL_CTX_set_mode(
            context, Int(SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER))
    }
}
