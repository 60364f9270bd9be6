import Keys
import Testing

@testable import DataPlane

@Suite("Known keys")
struct KnownKeysTests {
    private static func record(_ number: UInt8) throws -> KeyRecord {
        let hex = String(repeating: "0", count: 62) + (number < 16 ? "0" : "") + String(number, radix: 16)
        let digest = try #require(Digest256(hex: hex))
        return try KeyRecord(digest: digest, fields: [("tier", "pro")]) { _ in true }
    }

    @Test("what is learned is found, the newest of it, until it is forgotten")
    func forgetting() throws {
        let keys = KnownKeys(entries: 8)
        let record = try Self.record(1)
        keys.insert(record, verifiedAtMicroseconds: 5)
        keys.insert(record, verifiedAtMicroseconds: 9)
        #expect(keys.find(record.digest)?.verifiedAtMicroseconds == 9)
        keys.forget(record.digest)
        #expect(keys.find(record.digest) == nil)
    }

    @Test("a full table keeps the recent half, and a forgotten record is in neither")
    func bounded() throws {
        let keys = KnownKeys(entries: 8)
        let records = try (1...100).map { try Self.record(UInt8($0)) }
        for record in records { keys.insert(record, verifiedAtMicroseconds: 1) }
        #expect(records.suffix(4).allSatisfy { keys.find($0.digest) != nil })
        #expect(records.count { keys.find($0.digest) != nil } <= 8)
        for record in records { keys.forget(record.digest) }
        #expect(records.allSatisfy { keys.find($0.digest) == nil })
    }
}
