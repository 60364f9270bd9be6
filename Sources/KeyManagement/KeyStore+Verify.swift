import Configuration
import Keys
import Reactor

/// What the gateway would make of a key.
package struct Verification: Sendable {
    /// The answer.
    package enum Verdict: String, Sendable {
        /// It would be let in.
        case valid
        /// No prefix of ours, or a wrong checksum: refused without a look-up.
        case malformed
        /// There is no such key.
        case unknown
        case expired, disabled, revoked
        /// Its record cannot be read, or names a tier that is not configured.
        case unusable
    }

    /// The answer.
    package var verdict: Verdict
    /// The key, where there is one that can be read.
    package var key: StoredKey?
    /// More about a record that cannot be used.
    package var problem: String?
}

extension KeyStore {
    /// What the gateway would make of a key that is sent to it now. Reads only.
    package func verify(_ key: Span<UInt8>) throws(KeyStoreProblem) -> Verification {
        switch format.classify(key) {
        case .wrongPrefix, .generatedShapeInvalid: return Verification(verdict: .malformed)
        case .generatedShapeValid, .otherShape: break
        }
        let digest = try Self.digest(of: key, configuration)
        do {
            guard let key = try find(digest: digest) else { return Verification(verdict: .unknown) }
            return judge(key)
        } catch .refused(let problem) {
            return Verification(verdict: .unusable, problem: problem)
        }
    }

    /// The same for a key that is known by its id.
    ///
    /// - Throws: `.notFound`.
    package func verify(id: String) throws(KeyStoreProblem) -> Verification {
        do {
            return judge(try find(id: id))
        } catch .refused(let problem) {
            return Verification(verdict: .unusable, problem: problem)
        }
    }

    private func judge(_ found: StoredKey) -> Verification {
        guard policy(of: found) != nil else {
            let hasLimits = found.record.limits != nil
            return Verification(
                verdict: .unusable, key: found,
                problem: hasLimits ? "its limits cannot be read" : "its tier is not configured")
        }
        switch found.status() {
        case .active: return Verification(verdict: .valid, key: found)
        case .expired: return Verification(verdict: .expired, key: found)
        case .disabled: return Verification(verdict: .disabled, key: found)
        case .revoked: return Verification(verdict: .revoked, key: found)
        }
    }
}
