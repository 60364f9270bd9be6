import Keys
import Testing

@Suite("Keys")
struct KeyTests {
    static func make(_ seed: UInt8) throws -> String {
        let format = try #require(KeyFormat(prefixes: ["sk_live_"]))
        var next = seed
        return format.generate { (span: inout MutableSpan<UInt8>) in
            for index in 0..<span.count {
                next = next &* 31 &+ 17
                span[index] = next
            }
        }.reveal()
    }

    @Test("a made key has its shape, and one wrong character is noticed")
    func checksum() throws {
        let format = try #require(KeyFormat(prefixes: ["sk_live_"]))
        let key = try Self.make(3)
        #expect(key.count == 8 + 32 + 6)
        #expect(format.classify(Array(key.utf8).span) == .generatedShapeValid)
        for index in 8..<key.utf8.count {
            var bytes = Array(key.utf8)
            bytes[index] = bytes[index] == 0x61 ? 0x62 : 0x61
            #expect(format.classify(bytes.span) == .generatedShapeInvalid)
        }
        #expect(format.classify(Array("sk_live_abc123def456ghi789".utf8).span) == .otherShape)
        #expect(format.classify(Array("sk_test_abc".utf8).span) == .wrongPrefix)
    }

    @Test("SipHash agrees with its authors' vectors")
    func sipHash() {
        let key = SipKey(0x0706_0504_0302_0100, 0x0F0E_0D0C_0B0A_0908)
        let nothing: [UInt8] = []
        let empty = key.hash(nothing.span)
        #expect(empty.low == 0xE6A8_25BA_047F_81A3 && empty.high == 0x9302_55C7_1472_F66D)
        let bytes = (0..<15).map { UInt8($0) }
        let fifteen = key.hash(bytes.span)
        #expect(fifteen.low == 0x11A8_B033_99E9_9354 && fifteen.high == 0xD9C3_CF97_0FEC_087E)
    }

    @Test(
        "scopes cover what they should and nothing else",
        arguments: [
            ("projects:*", "projects:read", true), ("*", "anything", true),
            ("projects:read", "projects:read", true),
            ("projects:read", "projects:write", false), ("projects:*", "project:read", false),
            ("projects", "projects:read", false), ("projects:read", "projects:*", false),
        ])
    func scopes(_ held: String, _ needed: String, _ covers: Bool) throws {
        #expect(try #require(Scope(held)).covers(try #require(Scope(needed))) == covers)
    }

    @Test("a record that another program writes needs only a tier")
    func defaults() throws {
        let digest = Digest256((1, 2, 3, 4))
        let record = try KeyRecord(digest: digest, fields: [("tier", "pro")]) { $0 == "pro" }
        #expect(record.id == "key_0000000000000001" && record.account == record.id)
        #expect(record.status == .active && record.scopes == .none && record.expiresAtSeconds == nil)
        #expect(throws: KeyRecordProblem.unknownTier("x")) {
            try KeyRecord(digest: digest, fields: [("tier", "x")]) { _ in false }
        }
        for (name, value) in [
            ("status", "on"), ("expires_at", ""), ("expires_at", "-1"), ("account", "a\r\nb: c"),
            ("id", "{x}"),
        ] {
            #expect(throws: KeyRecordProblem.self) {
                try KeyRecord(digest: digest, fields: [("tier", "pro"), (name, value)]) { _ in true }
            }
        }
    }

    @Test("guesses do not push out good keys, and every slot comes back")
    func cache() {
        let cache = KeyCache(entries: 8, unknownEntries: 16, seed: 1)
        var live: Set<Int32> = []
        func fingerprint(_ n: Int) -> Fingerprint { Fingerprint(low: UInt64(n) &* 977, high: UInt64(n)) }
        func digest(_ n: Int) -> Digest256 { Digest256((UInt64(n), 0, 0, 1)) }
        for number in 0..<100 {
            live.insert(Int32(number))
            let result = cache.insert(
                fingerprint(number), digest: digest(number), value: Int32(number), nowMicroseconds: 0,
                expiresAtMicroseconds: 100)
            if let evicted = result.evictedValue { live.remove(evicted) }
        }
        #expect(cache.count == 8 && live.count == 8)
        for number in 1_000..<2_000 {
            cache.insertUnknown(
                fingerprint(number), digest: digest(number), nowMicroseconds: 1, expiresAtMicroseconds: 100)
        }
        #expect(cache.unknownCount == 16 && cache.count == 8)
        let kept = Int(live.first ?? 0)
        guard case .known = cache.find(fingerprint(kept), nowMicroseconds: 50) else {
            Issue.record("a known key was lost")
            return
        }
        guard case .stale = cache.find(fingerprint(kept), nowMicroseconds: 100) else {
            Issue.record("an old entry was served")
            return
        }
        #expect(cache.invalidate(digest(kept)) == Int32(kept))
        #expect(cache.find(fingerprint(kept), nowMicroseconds: 50) == .absent)
        cache.invalidateAll()
        for value in live where Int(value) != kept {
            guard case .stale = cache.find(fingerprint(Int(value)), nowMicroseconds: 1) else {
                Issue.record("an unverified entry was served")
                return
            }
        }
    }

    @Test("what is not heard of any more is served for a second after it was confirmed, and no longer")
    func unheard() {
        let cache = KeyCache(entries: 8, unknownEntries: 8, seed: 1)
        let (good, bad) = (Fingerprint(low: 1, high: 1), Fingerprint(low: 2, high: 2))
        let digest = Digest256((1, 0, 0, 0))
        _ = cache.insert(
            good, digest: digest, value: 1, nowMicroseconds: 100, expiresAtMicroseconds: 9_000_000)
        cache.insertUnknown(
            bad, digest: Digest256((2, 0, 0, 0)), nowMicroseconds: 100, expiresAtMicroseconds: 9_000_000)
        func isServed(_ fingerprint: Fingerprint, _ now: Int64) -> Bool {
            switch cache.find(fingerprint, nowMicroseconds: now) {
            case .known, .unknown: return true
            case .stale, .absent: return false
            }
        }
        cache.hear(untilMicroseconds: 5_000_000)
        #expect(isServed(good, 5_000_000) && isServed(bad, 5_000_000))
        #expect(!isServed(good, 5_000_001) && !isServed(bad, 5_000_001))
        _ = cache.insert(
            good, digest: digest, value: 1, nowMicroseconds: 5_000_000, expiresAtMicroseconds: 9_000_000)
        #expect(isServed(good, 6_000_000) && !isServed(good, 6_000_001))
        cache.hear(untilMicroseconds: 7_000_000)
        #expect(isServed(good, 6_500_000))
    }
}
