import Foundation
import Glibc
import Synchronization

/// What went wrong in a test's surroundings, in words.
struct HarnessError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// An instant that a test does not wait beyond.
struct Deadline {
    private let instant: ContinuousClock.Instant

    init(seconds: Double) { instant = .now + .seconds(seconds) }

    var hasPassed: Bool { .now >= instant }
    /// For `poll`: at least 0.
    var remainingMilliseconds: Int32 {
        let left = ContinuousClock.now.duration(to: instant)
        return Int32(
            max(0, left.components.seconds * 1000 + left.components.attoseconds / 1_000_000_000_000_000))
    }

    /// Asks again and again until there is an answer.
    func wait<Answer>(_ what: String, for answer: () throws -> Answer?) throws -> Answer {
        while true {
            if let answer = try answer() { return answer }
            if hasPassed { throw HarnessError("waited in vain for \(what)") }
            // Nothing to poll on but time itself: the thing awaited belongs to another process.
            poll(nil, 0, 2)
        }
    }

    /// Asks again and again until the condition holds.
    func wait(_ what: String, until condition: () throws -> Bool) throws {
        try wait(what) { try condition() ? () : nil }
    }
}

/// A folder that disappears with its owner.
final class TemporaryFolder: Sendable {
    let root: String

    init() throws {
        let url = FileManager.default.temporaryDirectory.appending(path: "gateway-test-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        root = url.path
    }

    deinit { try? FileManager.default.removeItem(atPath: root) }

    func path(_ name: String) -> String { root + "/" + name }

    @discardableResult
    func write(_ name: String, _ text: String) throws -> String {
        try text.write(toFile: path(name), atomically: false, encoding: .utf8)
        return path(name)
    }

    /// The file's text; empty when there is no such file.
    func read(_ name: String) throws -> String {
        guard let data = FileManager.default.contents(atPath: path(name)) else { return "" }
        return String(decoding: data, as: UTF8.self)
    }
}

/// SHA-256 after FIPS 180-4, written for the tests so that they need not trust the program's own.
func sha256Hexadecimal(_ text: String) -> String {
    let k: [UInt32] = (2...311).filter { n in !(2..<n).contains { n % $0 == 0 } }.map { prime in
        let root = cbrt(Double(prime))
        return UInt32((root - root.rounded(.down)) * 4_294_967_296)
    }
    var h: [UInt32] = [2, 3, 5, 7, 11, 13, 17, 19].map { (prime: Double) in
        UInt32((prime.squareRoot() - prime.squareRoot().rounded(.down)) * 4_294_967_296)
    }
    var message = Array(text.utf8)
    let bits = UInt64(message.count) * 8
    message.append(0x80)
    while message.count % 64 != 56 { message.append(0) }
    for shift in stride(from: 56, through: 0, by: -8) {
        message.append(UInt8(truncatingIfNeeded: bits >> shift))
    }
    func rotate(_ x: UInt32, _ n: UInt32) -> UInt32 { x >> n | x << (32 - n) }
    for start in stride(from: 0, to: message.count, by: 64) {
        var w = [UInt32](repeating: 0, count: 64)
        for i in 0..<16 {
            w[i] = (0..<4).reduce(0) { $0 << 8 | UInt32(message[start + i * 4 + $1]) }
        }
        for i in 16..<64 {
            let s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ (w[i - 15] >> 3)
            let s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ (w[i - 2] >> 10)
            w[i] = w[i - 16] &+ s0 &+ w[i - 7] &+ s1
        }
        var v = h
        for i in 0..<64 {
            let s1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)
            let choice = (v[4] & v[5]) ^ (~v[4] & v[6])
            let t1 = v[7] &+ s1 &+ choice &+ k[i] &+ w[i]
            let s0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)
            let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2])
            v = [t1 &+ s0 &+ majority, v[0], v[1], v[2], v[3] &+ t1, v[4], v[5], v[6]]
        }
        for i in 0..<8 { h[i] = h[i] &+ v[i] }
    }
    return h.map { String(format: "%08x", $0) }.joined()
}

/// Something that one thread of a test tells another, once.
final class Signal: Sendable {
    private let isSet = Mutex(false)

    func set() { isSet.withLock { $0 = true } }

    var hasCome: Bool { isSet.withLock { $0 } }

    func wait(_ what: String, seconds: Double = 10) throws {
        try Deadline(seconds: seconds).wait(what) { isSet.withLock { $0 } }
    }
}
