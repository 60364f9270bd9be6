import KeyManagement
import Keys
import Reactor
import Redis
import Synchronization
import TestSupport
import Testing

/// A program that ends at any point of a change: before or after each command that it sends.
@Suite("Programs that die in the middle", .enabled(if: RedisServer.isAvailable))
struct FaultTests {
    /// A Redis, and a way to it that ends where the test wants.
    private struct Stage {
        let scene: Scene
        let proxy: FaultProxy
        let store: KeyStore

        init(spreads: Bool) throws {
            scene = try Scene(spreads: spreads)
            proxy = try FaultProxy(to: scene.server.port)
            store = try KeyStore(
                try Scene.configuration("redis://127.0.0.1:\(proxy.port)/0"), timeoutMilliseconds: 5_000,
                connects: false, spreads: spreads)
        }

        /// Stops `body` at every point in turn, and has the state looked at each time.
        ///
        /// - Returns: how many points there were.
        func everyPoint(
            prepare: () throws -> Void = {}, body: () throws -> Void, check: (Bool) throws -> Void
        ) throws -> Int {
            var points = 0
            for point in FaultProxy.Point.allCases {
                var number = 0
                while true {
                    _ = try scene.redis.command(["FLUSHALL"])
                    try prepare()
                    proxy.arm(at: number, point)
                    let failure = problem(body)
                    let wasReached = proxy.commands > number
                    try check(failure == nil)
                    guard wasReached else { break }
                    #expect(failure != nil, "the fault at command \(number) was not noticed")
                    number += 1
                    points += 1
                }
            }
            return points
        }

        /// Every record that authenticates can be found in every way there is.
        func expectNoOrphan() throws {
            let names = try #require(try scene.redis.command(["KEYS", "gateway:key:*"]).elements)
            for name in names.compactMap(\.text) {
                let digest = try #require(Digest256(hex: String(name.suffix(64))))
                let key = try #require(try scene.store.find(digest: digest))
                guard key.status() == .active else { continue }
                let id = key.record.id
                #expect(try scene.redis.command(["GET", "gateway:id:\(id)"]).text == digest.hexadecimal)
                #expect(try scene.redis.command(["ZSCORE", "gateway:keys", id]) != .null)
                #expect(try scene.ids().contains(id))
                let lines = try scene.store.trail(TrailFilter(id: id)).entries
                #expect(lines.contains { $0.action == "create" })
                #expect(key.record.account == "acme" && key.record.hint?.count == 4)
            }
        }
    }

    @Test("a creation leaves a whole key that can be found, or none", arguments: [false, true])
    func create(_ spreads: Bool) throws {
        let stage = try Stage(spreads: spreads)
        defer { stage.proxy.stop() }
        let once = Idempotency(key: "k", request: [])
        func create() throws {
            _ = try stage.store.create(try Scene.request(), idempotency: once, by: Scene.actor)
        }
        func check(isDone: Bool) throws {
            try stage.expectNoOrphan()
            let made = try stage.scene.ids().filter { $0 != "key_ci" }
            #expect(isDone ? made.count == 1 : made.count <= 1)
            // What was left behind does not stand in the way for longer than a creation may take.
            let again = problem { _ = try stage.scene.create(try Scene.request()) }
            if !made.isEmpty || spreads {
                #expect(again == nil || again?.field == "name")
            } else {
                #expect(again == nil)
            }
        }
        let points = try stage.everyPoint(body: create, check: check)
        #expect(points >= (spreads ? 12 : 4))
    }

    @Test(
        "a rotation never loses the old key, and never leaves an unknown new one", arguments: [false, true])
    func rotate(_ spreads: Bool) throws {
        let stage = try Stage(spreads: spreads)
        defer { stage.proxy.stop() }
        var old = ""
        let expires = WallClock.nowSeconds() + 10_000
        func create() throws { old = try stage.scene.create(try Scene.request(expires: expires)).record.id }
        func rotate() throws {
            let warning = try stage.store.rotate(old, overlapSeconds: 600, by: Scene.actor).warning
            if let warning { throw KeyStoreProblem.unavailable(warning) }
        }
        func check(isDone: Bool) throws {
            try stage.expectNoOrphan()
            let key = try stage.scene.store.find(id: old)
            #expect(key.status() == .active)
            let others = try stage.scene.store.list(KeyFilter(status: .active)).keys.filter {
                !$0.isStatic && $0.record.id != old
            }
            // Whatever works beside the old key is named by it, and the old one ends only if there is one.
            for other in others {
                #expect(key.record.rotatedTo == other.record.id && other.record.rotatedFrom == old)
            }
            if key.record.expiresAtSeconds != expires { #expect(others.count == 1) }
            if isDone { #expect(others.count == 1 && key.record.expiresAtSeconds != expires) }
            // The owner can go on, from the old key or from the new one.
            let next = others.first?.record.id ?? old
            _ = try stage.scene.store.rotate(next, overlapSeconds: 60, by: Scene.actor)
        }
        let points = try stage.everyPoint(prepare: create, body: rotate, check: check)
        #expect(points >= (spreads ? 20 : 4))
    }

    @Test("a replacement that works is handed out, whatever becomes of the old key's end", arguments: [1, 9])
    func late(_ changes: Int) throws {
        let stage = try Stage(spreads: true)
        defer { stage.proxy.stop() }
        let now = WallClock.nowSeconds()
        let (old, _) = try stage.scene.create(try Scene.request(expires: now + 10_000))
        let record = "gateway:key:\(old.digest.hexadecimal)"
        let port = Int(stage.scene.server.port)
        let left = Mutex(changes)
        // Another program changes the old record whenever it is about to get its end.
        stage.proxy.watch { command in
            let text = String(decoding: command, as: UTF8.self)
            guard text.contains(record), text.contains("?fields"),
                let redis = try? Scene.client(port: port),
                (try? redis.command(["HGET", record, "rotated_to"]))?.text != nil
            else { return }
            left.withLock { left in
                if left > 0 { _ = try? redis.command(["HSET", record, "name", "other \(left)"]) }
                left -= 1
            }
        }
        let rotated = try stage.store.rotate(old.id, overlapSeconds: 600, by: Scene.actor)
        let (secret, warning) = (Array(rotated.secret.reveal().utf8), rotated.warning)
        #expect(try stage.scene.store.verify(secret.span).verdict == .valid)
        let found = try stage.scene.store.find(id: old.id).record
        #expect(found.name?.hasPrefix("other") == true && found.rotatedTo != nil)
        if changes == 1 {
            #expect(warning == nil && found.expiresAtSeconds ?? .max <= now + 660)
        } else {
            #expect(warning?.contains(old.id) == true && found.expiresAtSeconds == now + 10_000)
        }
    }

    @Test("a change is done with its line in the trail, or not at all", arguments: [false, true])
    func revoke(_ spreads: Bool) throws {
        let stage = try Stage(spreads: spreads)
        defer { stage.proxy.stop() }
        var id = ""
        func create() throws { id = try stage.scene.create(try Scene.request()).record.id }
        func revoke() throws { _ = try stage.store.revoke(id, reason: "leak", by: Scene.actor) }
        func check(isDone: Bool) throws {
            let isRevoked = try stage.scene.store.find(id: id).record.status == .revoked
            let lines = try stage.scene.store.trail(TrailFilter(id: id, action: "revoke")).entries
            #expect(!isRevoked || lines.count == 1)
            #expect(!isDone || isRevoked)
        }
        let points = try stage.everyPoint(prepare: create, body: revoke, check: check)
        #expect(points >= 4)
    }
}
