/// `listen` and `admin`.
struct ListenSection {
    var configuration: ListenConfiguration
    var exposedKeys: ExposedKeyPolicy?

    static func read(_ value: Value) -> ListenSection? {
        guard let section = value.section() else { return nil }
        defer { section.finish() }
        var exposed: ExposedKeyPolicy?
        let plaintext = section["plaintext"].flatMap { plaintextValue -> PlaintextListen? in
            guard let plain = plaintextValue.section() else { return nil }
            defer { plain.finish() }
            exposed = plain["exposed_keys"]?.choice([("report", .report), ("revoke", .revoke)])
            guard let address = plain.required("address", "listen.plaintext").flatMap(Addresses.listen) else {
                return nil
            }
            return PlaintextListen(address: address)
        }
        guard let https = section.required("https", "listen")?.section() else { return nil }
        defer { https.finish() }
        let address = https.required("address", "listen.https").flatMap(Addresses.listen)
        let certificates = readCertificates(https)
        let minimum = https["minimum_version"]?.choice([("1.2", TLSMinimum.v1_2), ("1.3", .v1_3)]) ?? .v1_2
        let clientCA = https["client_ca"].flatMap(Paths.readable)
        let strictHost = https["strict_host"]?.bool() ?? false
        guard let address, !certificates.isEmpty else { return nil }
        return ListenSection(
            configuration: ListenConfiguration(
                httpsAddress: address, certificates: certificates, minimumTLSVersion: minimum,
                clientCAPath: clientCA, strictHost: strictHost, plaintext: plaintext),
            exposedKeys: exposed)
    }

    private static func readCertificates(_ https: Section) -> [CertificateFiles] {
        guard let value = https.required("certificates", "listen.https") else { return [] }
        let list = value.list()
        if value.isEmptyList { value.problem("listen.https needs at least one certificate") }
        return list.compactMap { item in
            guard let section = item.section() else { return nil }
            defer { section.finish() }
            let chain = section.required("chain", "a certificate").flatMap(Paths.readable)
            let key = section.required("private_key", "a certificate").flatMap(Paths.readable)
            guard let chain, let key else { return nil }
            return CertificateFiles(chainPath: chain, privateKeyPath: key)
        }
    }
}
