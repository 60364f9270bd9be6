import Foundation
import TestSupport

/// A real browser, driven over the WebDriver protocol.
final class Browser {
    /// An element of the page.
    struct Element { fileprivate let id: String }

    private static let elementKey = "element-6066-11e4-a52e-4f735466cecf"

    private let driver: ChildProcess
    private let folder: TemporaryFolder
    private let port: UInt16
    private var session = ""

    init(width: Int, height: Int, isDark: Bool = false) throws {
        folder = try TemporaryFolder()
        port = try Ports.free()
        driver = try ChildProcess(
            "chromedriver", ["--port=\(port)"], output: .file(folder.path("out")),
            error: .file(folder.path("err")))
        try Deadline(seconds: 30).wait("chromedriver") { (try? self.ask("GET", "/status")) != nil }
        // Without a sandbox: in containers, tests run as root. It only ever sees the gateway's own pages.
        let arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--window-size=\(width),\(height)", "--hide-scrollbars", "--lang=en", "--disable-extensions",
            "--user-data-dir=\(folder.path("profile"))",
        ]
        let wanted: [String: Any] = [
            "capabilities": [
                "alwaysMatch": [
                    "browserName": "chrome", "goog:chromeOptions": ["args": arguments],
                    "goog:loggingPrefs": ["browser": "ALL"],
                ]
            ]
        ]
        let value = try ask("POST", "/session", wanted) as? [String: Any]
        guard let id = value?["sessionId"] as? String else { throw HarnessError("no browser session") }
        session = "/session/\(id)"
        // Headless windows have a smallest width of their own.
        let metrics: [String: Any] = [
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        ]
        let override: [String: Any] = ["cmd": "Emulation.setDeviceMetricsOverride", "params": metrics]
        _ = try command("POST", "/goog/cdp/execute", override)
        let scheme = ["name": "prefers-color-scheme", "value": isDark ? "dark" : "light"]
        let media: [String: Any] = ["cmd": "Emulation.setEmulatedMedia", "params": ["features": [scheme]]]
        _ = try command("POST", "/goog/cdp/execute", media)
    }

    deinit { _ = try? ask("DELETE", session) }

    func open(_ url: String) throws { _ = try command("POST", "/url", ["url": url]) }
    func reload() throws { _ = try command("POST", "/refresh", [:]) }

    /// The page's markup as it stands now.
    func source() throws -> String { try command("GET", "/source") as? String ?? "" }

    /// Runs a script with `return` in the page.
    @discardableResult
    func run(_ script: String, _ arguments: [Any] = []) throws -> Any {
        try command("POST", "/execute/sync", ["script": script, "args": arguments])
    }

    /// Waits for an element that is shown.
    func find(_ selector: String, holding text: String? = nil, within seconds: Double = 15) throws -> Element
    {
        let script = """
            const [selector, text] = arguments;
            return [...document.querySelectorAll(selector)].find((one) =>
              one.getClientRects().length && (text === null || one.textContent.includes(text))) ?? null
            """
        return try Deadline(seconds: seconds).wait("\(selector) holding \(text ?? "anything")") {
            let found = try self.run(script, [selector, text ?? NSNull()]) as? [String: String]
            return found?[Self.elementKey].map(Element.init)
        }
    }

    /// Waits until no element of the kind is shown.
    func waitUntilGone(_ selector: String) throws {
        try Deadline(seconds: 15).wait("the end of \(selector)") {
            try self.run("return document.querySelectorAll(arguments[0]).length", [selector]) as? Int == 0
        }
    }

    func click(_ selector: String, holding text: String? = nil) throws {
        try click(try find(selector, holding: text))
    }

    func click(_ element: Element) throws { _ = try command("POST", "/element/\(element.id)/click", [:]) }

    /// Replaces what stands in a field.
    func type(_ text: String, into selector: String) throws {
        let element = try find(selector)
        _ = try command("POST", "/element/\(element.id)/clear", [:])
        _ = try command("POST", "/element/\(element.id)/value", ["text": text])
    }

    /// Presses keys where the focus is.
    func press(_ text: String) throws {
        let focused = try command("GET", "/element/active") as? [String: String]
        guard let id = focused?[Self.elementKey] else { throw HarnessError("nothing has the focus") }
        _ = try command("POST", "/element/\(id)/value", ["text": text])
    }

    func text(_ selector: String) throws -> String {
        let element = try find(selector)
        return try command("GET", "/element/\(element.id)/text") as? String ?? ""
    }

    /// The value of a field.
    func value(_ selector: String) throws -> String {
        let element = try find(selector)
        return try command("GET", "/element/\(element.id)/property/value") as? String ?? ""
    }

    /// Keeps a picture of the page among the build's results.
    func keepPicture(_ name: String) throws {
        guard let text = try command("GET", "/screenshot") as? String, let data = Data(base64Encoded: text)
        else { throw HarnessError("no screenshot") }
        let place = Self.pictures
        try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
        try data.write(to: place.appending(path: "\(name).png"))
    }

    /// What the page has complained of: scripts that failed, resources that its policy refused. That a call
    /// was answered with 4xx is said here too, and is what the page was told.
    func complaints() throws -> [String] {
        let lines = try command("POST", "/se/log", ["type": "browser"]) as? [[String: Any]] ?? []
        return lines.filter { $0["level"] as? String == "SEVERE" }.compactMap { $0["message"] as? String }
            .filter { !$0.contains("responded with a status of 4") }
    }

    /// `.build/screenshots`.
    static let pictures = URL(filePath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: ".build/screenshots")

    private func command(_ method: String, _ path: String, _ body: [String: Any]? = nil) throws -> Any {
        try ask(method, session + path, body)
    }

    private func ask(_ method: String, _ path: String, _ body: [String: Any]? = nil) throws -> Any {
        var request = "\(method) \(path) HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        let bytes = try body.map { try JSONSerialization.data(withJSONObject: $0) } ?? Data()
        if body != nil { request += "Content-Type: application/json\r\nContent-Length: \(bytes.count)\r\n" }
        let client = try PlainClient(port: port)
        try client.send(request + "\r\n" + String(decoding: bytes, as: UTF8.self))
        let response = try client.response(to: method, within: 90)
        let answer = try response.object()
        if response.status != 200 {
            throw HarnessError("\(method) \(path): \(String(response.text.prefix(600)))")
        }
        return answer["value"] ?? NSNull()
    }
}
