internal import COpenSSL

/// SHA-256 with the algorithm fetched once; `SHA256()` would fetch it again at every call (0.9 us).
@safe
package final class Digester {
    private let algorithm: OpaquePointer
    private let context: OpaquePointer
    private let output: UnsafeMutablePointer<UInt8>

    package init() throws(TLSError) {
        guard let algorithm = unsafe EVP_MD_fetch(nil, "SHA256", nil),
            let context = unsafe EVP_MD_CTX_new()
        else { throw .openSSL("SHA-256 is not available") }
        unsafe self.algorithm = algorithm
        unsafe self.context = context
        unsafe output = .allocate(capacity: 32)
    }

    deinit {
        unsafe EVP_MD_CTX_free(context)
        unsafe EVP_MD_free(algorithm)
        unsafe output.deallocate()
    }

    /// The digest as four big-endian words.
    package func sha256(_ bytes: Span<UInt8>) -> (UInt64, UInt64, UInt64, UInt64) {
        unsafe EVP_DigestInit_ex2(context, algorithm, nil)
        unsafe bytes.withUnsafeBufferPointer { buffer in
            _ = unsafe EVP_DigestUpdate(context, buffer.baseAddress, buffer.count)
        }
        unsafe EVP_DigestFinal_ex(context, output, nil)
        return words()
    }

    /// HMAC-SHA-256 (RFC 2104), for stores whose digests are peppered.
    package func hmacSHA256(key: [UInt8], _ bytes: Span<UInt8>) -> (UInt64, UInt64, UInt64, UInt64) {
        var count: UInt32 = 0
        unsafe bytes.withUnsafeBufferPointer { buffer in
            _ = unsafe HMAC(
                algorithm, key, Int32(key.count), buffer.baseAddress, buffer.count, output, &count)
        }
        return words()
    }

    private func words() -> (UInt64, UInt64, UInt64, UInt64) {
        let raw = unsafe UnsafeRawPointer(output)
        return unsafe (
            UInt64(bigEndian: raw.loadUnaligned(fromByteOffset: 0, as: UInt64.self)),
            UInt64(bigEndian: raw.loadUnaligned(fromByteOffset: 8, as: UInt64.self)),
            UInt64(bigEndian: raw.loadUnaligned(fromByteOffset: 16, as: UInt64.self)),
            UInt64(bigEndian: raw.loadUnaligned(fromByteOffset: 24, as: UInt64.self))
        )
    }
}
