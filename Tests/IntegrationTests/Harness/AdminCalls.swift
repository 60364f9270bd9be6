import Foundation

/// The tokens of the tests' admin listeners, in files.
struct AdminTokens: Sendable {
    static let write = "0d9f3c51b7e24a68-write"
    static let read = "8b16e04cfa7d3952-read"

    static let shared = Result { try AdminTokens() }

    /// Lines of the `admin` section.
    let lines: String
    private let folder: TemporaryFolder

    private init() throws {
        folder = try TemporaryFolder()
        let write = try folder.write("token", Self.write + "\n")
        let read = try folder.write("read-token", Self.read + "\n")
        lines = "token_file: \"\(write)\"\nread_token_file: \"\(read)\"\n"
    }
}

extension Setup {
    /// With a store, no keys of its own, and an open admin API.
    func managed(by redis: RedisServer) throws -> Setup {
        let lines = try AdminTokens.shared.get().lines
        return with {
            $0.admin += lines
            $0.keys = []
            $0.store = "url: \"\(redis.url)\"\n"
        }
    }
}

extension Gateway {
    /// A call to the admin listener on a connection of its own.
    ///
    /// - Parameter fields: whole lines, each with its CRLF.
    func manage(
        _ method: String, _ path: String, token: String? = AdminTokens.write, fields: String = "",
        json: String? = nil, type: String = "application/json", host: String = "localhost",
        within seconds: Double = 20
    ) throws -> Response {
        var request = "\(method) \(path) HTTP/1.1\r\nHost: \(host)\r\nConnection: close\r\n\(fields)"
        if let token { request += "Authorization: Bearer \(token)\r\n" }
        if let json {
            request += "Content-Type: \(type)\r\nContent-Length: \(json.utf8.count)\r\n"
        }
        let client = try PlainClient(port: adminPort)
        try client.send(request + "\r\n" + (json ?? ""))
        return try client.response(to: method, within: seconds)
    }

    /// Makes a key by way of the API.
    func generate(_ json: String, fields: String = "") throws -> [String: Any] {
        let response = try manage("POST", "/v1/keys", fields: fields, json: json)
        guard response.status == 201 else { throw HarnessError("\(response.status): \(response.text)") }
        return try response.object()
    }
}

extension Response {
    /// The body as a JSON object.
    func object() throws -> [String: Any] {
        guard let object = try JSONSerialization.jsonObject(with: Data(body)) as? [String: Any] else {
            throw HarnessError("no JSON object: \(text)")
        }
        return object
    }

    /// The code of an error in the product's shape; nil when the body has another one.
    var errorCode: String? {
        guard let body = try? object(), body.count == 1, let error = body["error"] as? [String: String],
            error.count == 2
        else { return nil }
        return error["message"]?.isEmpty == false ? error["code"] : nil
    }
}
