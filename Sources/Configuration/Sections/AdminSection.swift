/// `admin`.
enum AdminSection {
    /// A shorter token can be guessed in the time that a listener lives.
    private static let tokenBytesMin = 16
    private static let tokenBytesMax = 512

    static func read(_ value: Value) -> AdminConfiguration? {
        guard let section = value.section() else { return nil }
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
        let hosts = section["hosts"]?.list().compactMap(Self.host) ?? []
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

    private static func host(_ value: Value) -> String? {
        guard let text = value.text() else { return nil }
        guard let name = Addresses.hostAndPort(text[...], port: 1), !text.contains(":") else {
            value.problem("\"\(value.written)\" is not a host name like gateway-admin.internal")
            return nil
        }
        return name.host.lowercased()
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
