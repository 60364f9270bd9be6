import Foundation

/// A self-signed certificate in two files.
struct Certificate: Sendable {
    let chainPath: String
    let keyPath: String

    /// One for `localhost`, `gateway.test`, `*.wild.test` and 127.0.0.1, made once for all tests.
    static let shared: Result<Certificate, any Error> = Result {
        try Certificate(in: folder, file: "main", names: ["localhost", "gateway.test", "*.wild.test"])
    }
    /// The same names with an RSA key, and an earlier end.
    static let sharedRSA: Result<Certificate, any Error> = Result {
        try Certificate(
            in: folder, file: "main-rsa", names: ["localhost", "gateway.test", "*.wild.test"],
            algorithm: ["rsa:2048"], days: 20)
    }
    /// Another one, for `other.test`, with an RSA key.
    static let other: Result<Certificate, any Error> = Result {
        try Certificate(in: folder, file: "other", names: ["other.test"], algorithm: ["rsa:2048"])
    }

    private static let folder = Result { try TemporaryFolder() }

    private init(
        in folder: Result<TemporaryFolder, any Error>, file: String, names: [String],
        algorithm: [String] = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], days: Int = 30
    ) throws {
        let folder = try folder.get()
        chainPath = folder.path(file + ".pem")
        keyPath = folder.path(file + "-key.pem")
        let alternatives = names.map { "DNS:\($0)" } + ["IP:127.0.0.1"]
        let outcome = try ChildProcess.run(
            "openssl",
            ["req", "-x509", "-nodes", "-days", "\(days)", "-subj", "/CN=\(names[0])", "-newkey"]
                + algorithm + [
                    "-addext", "subjectAltName=" + alternatives.joined(separator: ","),
                    "-keyout", keyPath, "-out", chainPath,
                ])
        guard outcome.status == 0 else { throw HarnessError(outcome.error) }
    }
}
