import Foundation
import Glibc

/// Looks for keys in what programs under test have left behind: logs, output, databases. The tests' keys all
/// begin alike, whoever made them. What is found, and how much was looked at, is appended to the file that
/// `KEY_SEARCH` names; without it nothing is looked at.
package enum KeySearch {
    private static let prefix = Array("sk_live_".utf8)
    private static let report = ProcessInfo.processInfo.environment["KEY_SEARCH"]

    /// Whether anything is looked at.
    package static var isOn: Bool { report != nil }

    /// Looks through files that programs have written; one that is not there holds nothing.
    package static func look(at paths: [String]) {
        guard let report else { return }
        var lines = ""
        for path in paths {
            guard let data = try? Data(contentsOf: URL(filePath: path), options: .mappedIfSafe) else {
                continue
            }
            lines += "searched \(data.count) \(path)\n"
            for text in find(in: data).prefix(20) { lines += "found \(text) in \(path)\n" }
        }
        // In one write, so that lines of two programs do not mix.
        guard let file = unsafe fopen(report, "a") else { return }
        unsafe fputs(lines, file)
        unsafe fclose(file)
    }

    /// What stands around keys. A prefix with nothing behind it is none.
    private static func find(in data: Data) -> [String] {
        unsafe data.withUnsafeBytes { (bytes: UnsafeRawBufferPointer) in
            var found: [String] = []
            var start = 0
            // `memchr` passes over most of it faster than a loop would.
            while let base = bytes.baseAddress, start + prefix.count < bytes.count,
                let place = unsafe memchr(base + start, Int32(prefix[0]), bytes.count - start - prefix.count)
            {
                let index = unsafe base.distance(to: UnsafeRawPointer(place))
                let end = index + prefix.count
                start = index + 1
                guard unsafe bytes[index..<end].elementsEqual(prefix), unsafe isKeyByte(bytes[end]) else {
                    continue
                }
                let around = unsafe bytes[max(0, index - 60)..<min(bytes.count, end + 60)]
                let text = unsafe String(decoding: around, as: UTF8.self)
                found.append(text.replacing("\n", with: " ").replacing("\r", with: " "))
            }
            return found
        }
    }

    private static func isKeyByte(_ byte: UInt8) -> Bool {
        let letter = byte | 0x20
        return (0x30...0x39).contains(byte) || (0x61...0x7a).contains(letter) || byte == 0x5f
    }
}
