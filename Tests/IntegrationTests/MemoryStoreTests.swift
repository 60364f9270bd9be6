import Foundation
import Glibc
import Testing

/// Keys of a gateway without a store: made by way of its API, as on its dashboard.
@Suite("Keys without a store", .serialized)
struct MemoryStoreTests {
    @Test("the command prints an entry that the configuration reads", arguments: [true, false])
    func entry(_ isJSON: Bool) throws {
        let gateway = try Gateway(Setup(try Upstream()))
        let account = "a\"b\\c"
        let outcome = try ChildProcess.run(
            try Gateway.binary(),
            [
                "keys", "create", "--tier", "pro", "--account", account, "--name", "a ${HOME} # b: {c}",
                "--output", isJSON ? "json" : "table", "--config", gateway.configurationPath,
            ])
        #expect(outcome.status == 0, "\(outcome.error)")
        let entry: String
        let secret: String
        if isJSON {
            let json = try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any]
            entry = try #require(json?["static_entry"] as? String)
            secret = try #require(json?["key"] as? String)
        } else {
            let lines = outcome.output.split(separator: "\n").map(String.init)
            entry = try #require(lines.last).trimmingCharacters(in: .whitespaces)
            secret = try #require(lines.first)
        }
        #expect(entry.contains("sha256: \"\(sha256Hexadecimal(secret))\""))
        let setup = Setup(try Upstream()).with {
            $0.keysExtra = "static:\n  \(entry)\n"
            $0.keys = []
        }
        let second = try Gateway(setup)
        let key = TestKey(secret: secret, id: "", account: account, tier: "pro")
        #expect(try second.call(key: key).status == 200)
        let list = try ChildProcess.run(
            try Gateway.binary(),
            ["keys", "list", "--output", "json", "--config", second.configurationPath])
        let keys = try JSONSerialization.jsonObject(with: Data(list.output.utf8)) as? [[String: Any]]
        #expect(keys?.first?["account"] as? String == account)
        #expect(keys?.first?["name"] as? String == "a ${HOME} # b: {c}")
    }

    @Test("a key made in memory works until it is revoked, outlives a reload, and says how it is kept")
    func life() throws {
        let tokens = try AdminTokens.shared.get()
        let gateway = try Gateway(Setup(try Upstream()).with { $0.admin += tokens.lines })
        let made = try gateway.generate(
            "{\"tier\":\"pro\",\"account\":\"acme\",\"name\":\"ci\",\"limits\":\"50/minute\"}")
        let key = TestKey(
            secret: try #require(made["key"] as? String), id: try #require(made["id"] as? String),
            account: "acme", tier: "pro")
        func expect(_ status: Int, of key: TestKey) throws {
            try Deadline(seconds: 3).wait("\(status) for \(key.id)") {
                try gateway.call(key: key).status == status
            }
        }
        try expect(200, of: key)
        #expect(try gateway.call(key: key).status == 200)
        let window = try gateway.manage("GET", "/v1/accounts/acme/limits").object()
        let policies = try #require(window["policies"] as? [[String: Any]])
        let own = try #require(policies.first { $0["name"] as? String == "custom" })
        let use = try #require((own["windows"] as? [[String: Any]])?.first)
        #expect(use["used"] as? Int ?? 0 >= 2 && use["limit"] as? Int == 50)
        let shown = try gateway.manage("GET", "/v1/keys/\(key.id)").object()
        #expect(shown["last_used"] as? Int != nil && shown["key"] == nil && shown["static"] == nil)
        // A reload reads the file, where this key does not stand.
        gateway.child.signal(SIGHUP)
        try Deadline(seconds: 5).wait("the reload") { gateway.log.contains("the configuration is good") }
        try expect(200, of: key)
        try expect(200, of: .pro)
        let rotated = try gateway.manage(
            "POST", "/v1/keys/\(key.id)/rotate", json: "{\"overlap_seconds\":600}"
        ).object()
        let new = try #require(rotated["new"] as? [String: Any])
        let fresh = TestKey(
            secret: try #require(new["key"] as? String), id: try #require(new["id"] as? String),
            account: "acme", tier: "pro")
        try expect(200, of: fresh)
        try expect(200, of: key)
        #expect(
            try gateway.manage("POST", "/v1/keys/\(key.id)/revoke", json: "{\"reason\":\"leak\"}").status
                == 200)
        try expect(401, of: key)
        try expect(200, of: fresh)
        let list = try gateway.manage("GET", "/v1/keys?account=acme").object()["keys"] as? [[String: Any]]
        #expect(Set(list?.compactMap { $0["id"] as? String } ?? []) == [key.id, fresh.id, "key_std"])
        let settings = try gateway.manage("GET", "/v1/config").text
        #expect(settings.contains("keys.static[key_std]") && !settings.contains(fresh.id))
        // The line that it is shown with makes it a key for good.
        let entry = try #require(new["static_entry"] as? String)
        let setup = Setup(try Upstream()).with {
            $0.keysExtra = "static:\n  \(entry)\n"
            $0.keys = []
        }
        #expect(try Gateway(setup).call(key: fresh).status == 200)
    }

    @Test("a revocation acts although the certificate files are being replaced and do not fit")
    func revokedBesideBrokenFiles() throws {
        let (main, other) = (try Certificate.shared.get(), try Certificate.other.get())
        let folder = try TemporaryFolder()
        func install(_ name: String, _ path: String) throws {
            try folder.write(name, try String(contentsOfFile: path, encoding: .utf8))
        }
        try install("chain", main.chainPath)
        try install("key", main.keyPath)
        let tokens = try AdminTokens.shared.get()
        let gateway = try Gateway(
            Setup(try Upstream()).with {
                $0.admin += tokens.lines
                $0.https =
                    "certificates: [{ chain: \"\(folder.path("chain"))\", "
                    + "private_key: \"\(folder.path("key"))\" }]"
            })
        let made = try gateway.generate("{\"tier\":\"pro\",\"account\":\"acme\"}")
        let key = TestKey(
            secret: try #require(made["key"] as? String), id: try #require(made["id"] as? String),
            account: "acme", tier: "pro")
        try Deadline(seconds: 3).wait("the key") { try gateway.call(key: key).status == 200 }
        try install("chain", other.chainPath)
        let revoked = try gateway.manage("POST", "/v1/keys/\(key.id)/revoke", json: "{\"reason\":\"leak\"}")
        #expect(revoked.status == 200)
        try Deadline(seconds: 3).wait("the revocation") { try gateway.call(key: key).status == 401 }
        #expect(try gateway.call().status == 200)
    }

    @Test("a key in memory is good throughout a reload of the file, where it does not stand")
    func throughoutReloads() throws {
        let tokens = try AdminTokens.shared.get()
        let gateway = try Gateway(Setup(try Upstream()).with { $0.admin += tokens.lines })
        let made = try gateway.generate("{\"tier\":\"enterprise\",\"account\":\"acme\"}")
        let key = TestKey(
            secret: try #require(made["key"] as? String), id: "", account: "acme", tier: "enterprise")
        try Deadline(seconds: 3).wait("the key") { try gateway.call(key: key).status == 200 }
        let callers = Callers(4, of: gateway, key: key)
        for _ in 0..<20 {
            try callers.wait(for: 20)
            let accepted = try gateway.metric("gateway_config_reloads_total{result=\"accepted\"}") ?? 0
            gateway.child.signal(SIGHUP)
            try Deadline(seconds: 5).wait("a reload") {
                try gateway.metric("gateway_config_reloads_total{result=\"accepted\"}") ?? 0 > accepted
            }
        }
        let calls = try callers.stop()
        #expect(calls.count { $0.status != 200 } == 0, "of \(calls.count) calls")
    }

    @Test("the page makes such keys as well, says that they pass, and shows the line that keeps one")
    func page() throws {
        let tokens = try AdminTokens.shared.get()
        let gateway = try Gateway(Setup(try Upstream()).with { $0.admin += tokens.lines })
        let browser = try Browser(width: 1280, height: 860)
        try browser.signIn(gateway, AdminTokens.write)
        try browser.click("a[data-place=keys]")
        _ = try browser.find(".notice", holding: "no store")
        try browser.keepPicture("30-memory-keys")
        try browser.click("#generate")
        try browser.type("ci", into: "dialog input[name=name]")
        try browser.type("acme", into: "dialog input[name=account]")
        try browser.click("dialog button[type=submit]")
        let secret = try browser.value("dialog input.secret")
        let entry = try browser.text("dialog pre.entry")
        #expect(entry.hasPrefix("- { sha256: \"\(sha256Hexadecimal(secret))\"") && !entry.contains(secret))
        try browser.keepPicture("31-memory-shown-once")
        try browser.click("dialog footer button", holding: "Done")
        try browser.waitUntilGone("dialog")
        let key = TestKey(secret: secret, id: "", account: "acme", tier: "standard")
        try Deadline(seconds: 3).wait("the key") { try gateway.call(key: key).status == 200 }
        try browser.click("td a.strong", holding: "ci")
        _ = try browser.find(".slot")
        try browser.keepPicture("32-memory-key")
        #expect(try browser.complaints() == [])
    }
}
