/// `listen`.
struct ListenSection {
    var configuration: ListenConfiguration
    /// Nil without the port that it stands under.
    var exposedKeys: ExposedKeyPolicy?

    static func read(_ value: Value) -> ListenSection? {
        guard let section = value.section(ListenKeys.description) else { return nil }
        defer { section.finish() }
        var exposed: ExposedKeyPolicy?
        let plaintext = section["plaintext"].flatMap { plaintextValue -> PlaintextListen? in
            guard let plain = plaintextValue.section(ListenKeys.plaintext) else { return nil }
            defer { plain.finish() }
            exposed = ListenKeys.exposedKeys.value(in: plain)
            guard let address = plain.required("address", "listen.plaintext").flatMap(Addresses.listen) else {
                return nil
            }
            return PlaintextListen(address: address)
        }
        guard let https = section.required("https", "listen")?.section(ListenKeys.https) else { return nil }
        defer { https.finish() }
        let address = https.required("address", "listen.https").flatMap(Addresses.listen)
        let certificates = readCertificates(https)
        let minimum = ListenKeys.minimumVersion.value(in: https)
        let clientCA = https["client_ca"].flatMap(Paths.readable)
        let hosts = https["hosts"]?.listOrOne().compactMap(Addresses.host) ?? []
        let strictHost = ListenKeys.strictHost.value(in: https)
        guard let address, !certificates.isEmpty else { return nil }
        return ListenSection(
            configuration: ListenConfiguration(
                httpsAddress: address, certificates: certificates, minimumTLSVersion: minimum,
                clientCAPath: clientCA, hosts: hosts, strictHost: strictHost, plaintext: plaintext),
            exposedKeys: exposed)
    }

    private static func readCertificates(_ https: Section) -> [CertificateFiles] {
        guard let value = https.required("certificates", "listen.https") else { return [] }
        let list = value.list()
        if value.isEmptyList { value.problem("listen.https needs at least one certificate") }
        return list.compactMap { item in
            guard let section = item.section(ListenKeys.certificate) else { return nil }
            defer { section.finish() }
            let chain = section.required("chain", "a certificate").flatMap(Paths.readable)
            let key = section.required("private_key", "a certificate").flatMap(Paths.readable)
            guard let chain, let key else { return nil }
            return CertificateFiles(chainPath: chain, privateKeyPath: key)
        }
    }
}

enum ListenKeys {
    static let minimumVersion = Setting.choice(
        "minimum_version", [("1.2", TLSMinimum.v1_2), ("1.3", .v1_3)], default: "1.2",
        "the oldest version of TLS; written with quotes")
    static let strictHost = Setting.flag(
        "strict_host", default: false,
        "421 to a `Host` that the certificate chosen by SNI does not cover")
    static let exposedKeys = Setting.choice(
        "exposed_keys", [("report", ExposedKeyPolicy.report), ("revoke", .revoke)], default: "report",
        "a key that came in clear is logged, counted and audited, or also revoked; counts for both ports")

    static let description = SectionDescription(
        "listen", "Where callers connect.",
        [
            .key("https", "section", default: nil, "the port that serves"),
            .key("plaintext", "section", default: "no such port", "a port that only ever refuses plain HTTP"),
        ])
    static let https = SectionDescription(
        "listen.https", "The port that serves.",
        [
            .key(
                "address", "address and port", default: nil,
                "an address, not a name: `:8443` is every IPv4 address, `[::]:8443` every address"),
            .key(
                "certificates", "list of sections", default: nil,
                "at least one; SNI chooses by name, the first is the fallback"),
            minimumVersion.description,
            .key(
                "client_ca", "path of a PEM file", default: "none is asked for",
                "callers have to present a certificate of this authority"),
            .key(
                "hosts", "one or a list of host names", default: "none is checked",
                "names that callers use: a certificate that leaves one of them uncovered is refused"),
            strictHost.description,
        ])
    static let certificate = SectionDescription(
        "listen.https.certificates[]",
        "A chain and its key. An ECDSA and an RSA chain for the same names may stand side by side.",
        [
            .key("chain", "path of a PEM file", default: nil, "leaf first"),
            .key("private_key", "path of a PEM file", default: nil, "without a passphrase"),
        ])
    static let plaintext = SectionDescription(
        "listen.plaintext",
        "A port that only ever refuses plain HTTP, so that a wrong URL gets a clear answer.",
        [
            .key("address", "address and port", default: nil, "as above"),
            exposedKeys.description,
        ])
}
