/// `admin`.
enum AdminSection {
    /// A shorter token can be guessed in the time that a listener lives.
    static let tokenBytesMin = 16
    static let tokenBytesMax = 512

    static func read(_ value: Value) -> AdminConfiguration? {
        guard let section = value.section(AdminKeys.description) else { return nil }
        defer { section.finish() }
        let token = section["token_file"].flatMap(Self.token)
        let path = token == nil ? nil : section["token_file"]?.text()
        let readToken = section["read_token_file"].flatMap(Self.token)
        if let readToken, let file = section["read_token_file"] {
            if section["token_file"] == nil {
                file.problem("read_token_file needs token_file beside it")
            } else if readToken.reveal() == token?.reveal() {
                file.problem("read_token_file holds the same token as token_file")
            }
        }
        let hosts = section["hosts"]?.list().compactMap(Addresses.host) ?? []
        let publicURL = section["public_url"].flatMap(Self.url)
        guard let address = section.required("address", "admin").flatMap(Addresses.listen) else { return nil }
        return AdminConfiguration(
            address: address, tokenFile: path, token: token, readToken: readToken, hosts: hosts,
            publicURL: publicURL)
    }

    /// A bearer token stands in a header field: visible ASCII.
    private static func token(_ value: Value) -> StorePassword? {
        guard let text = Paths.secret(value) else { return nil }
        guard text.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            value.problem("the token in that file has characters other than visible ASCII")
            return nil
        }
        guard (tokenBytesMin...tokenBytesMax).contains(text.utf8.count) else {
            value.problem(
                "the token in that file is not of \(tokenBytesMin) to \(tokenBytesMax) characters: "
                    + "make one with openssl rand -hex 32")
            return nil
        }
        return StorePassword(text)
    }

    private static func url(_ value: Value) -> String? {
        guard let text = value.text() else { return nil }
        guard text.hasPrefix("https://"),
            Addresses.hostAndPort(text.dropFirst("https://".count), port: 443) != nil
        else {
            value.problem("\"\(value.written)\" is not like https://api.example.com, without a path")
            return nil
        }
        return text
    }
}

enum AdminKeys {
    static let description = SectionDescription(
        "admin",
        "Health, metrics, the admin API and the dashboard, in plain HTTP. Keep it on an address that only "
            + "operators reach.",
        [
            .key(
                "token_file", "path of a file", default: "API and dashboard answer 403",
                "holds the token of those who may read and change everything: "
                    + "\(AdminSection.tokenBytesMin) to \(AdminSection.tokenBytesMax) visible characters"),
            .key(
                "read_token_file", "path of a file", default: "none",
                "the same for those who may only look; needs `token_file`"),
            .key(
                "hosts", "list of host names", default: "none",
                "names under which a browser may reach this listener, besides `localhost` and addresses"),
            .key(
                "public_url", "like `https://api.example.com`", default: "the dashboard's host",
                "where callers find the gateway; for calls to paste that the dashboard shows"),
            .key("address", "address and port", default: nil, "as under `listen.https`"),
        ])
}
