import Foundation
import FuzzTargets
import Testing

/// Inputs that fuzzing began with or stumbled over, checked like any other test.
@Suite("Fuzz inputs")
struct FuzzTests {
    private static let folder = URL(filePath: #filePath).resolvingSymlinksInPath()
        .deletingLastPathComponent().deletingLastPathComponent().appending(path: "Fuzz/corpus")

    @Test("everything that fuzzing has kept passes", arguments: FuzzTarget.allCases)
    func kept(_ target: FuzzTarget) throws {
        let folder = Self.folder.appending(path: target.rawValue)
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path)
        try #require(!names.isEmpty, "no seeds for \(target)")
        for name in names {
            let bytes = try Data(contentsOf: folder.appending(path: name))
            do {
                try target.run(Array(bytes))
            } catch {
                Issue.record("\(target.rawValue)/\(name): \(error)")
            }
        }
    }

    @Test("damaged inputs pass as well, however the damage falls", arguments: FuzzTarget.allCases)
    func damaged(_ target: FuzzTarget) throws {
        let folder = Self.folder.appending(path: target.rawValue)
        var random = SystemRandomNumberGenerator()
        for name in try FileManager.default.contentsOfDirectory(atPath: folder.path) {
            let bytes = Array(try Data(contentsOf: folder.appending(path: name)))
            guard !bytes.isEmpty else { continue }
            for _ in 0..<(target == .configuration ? 3 : 40) {
                var copy = bytes
                for _ in 0...Int.random(in: 0..<4, using: &random) {
                    copy[Int.random(in: 0..<copy.count, using: &random)] = UInt8.random(
                        in: 0...255, using: &random)
                }
                do {
                    try target.run(copy)
                } catch {
                    Issue.record("\(target.rawValue)/\(name) damaged: \(error): \(copy)")
                }
            }
        }
    }
}
