import Reactor
import TestSupport
import Testing

@testable import Redis

extension ReplyReader {
    func feed(_ text: String) { feed(Array(text.utf8).span) }

    /// Every reply that is there, as values.
    func values() throws(RedisError) -> [RedisValue] {
        var values: [RedisValue] = []
        while let reply = try next() { values.append(RedisValue(reply)) }
        return values
    }
}

@Suite("Replies")
struct ReplyReaderTests {
    /// One of everything, with texts that look like protocol.
    static let stream =
        "+OK\r\n-ERR no\r\n:-9223372036854775808\r\n$-1\r\n*-1\r\n$0\r\n\r\n$5\r\na\r\nb\n\r\n*0\r\n"
        + "*3\r\n:1\r\n*2\r\n$1\r\nx\r\n$-1\r\n+s\r\n*1\r\n*1\r\n*1\r\n:7\r\n:9223372036854775807\r\n"

    static let values: [RedisValue] = [
        .status("OK"), .error("ERR no"), .integer(.min), .null, .null, .string([]),
        .string(Array("a\r\nb\n".utf8)), .array([]),
        .array([.integer(1), .array([.string([0x78]), .null]), .status("s")]),
        .array([.array([.array([.integer(7)])])]), .integer(.max),
    ]

    @Test("every kind of reply is read")
    func kinds() throws {
        let reader = ReplyReader()
        reader.feed(Self.stream)
        #expect(try reader.values() == Self.values)
    }

    @Test("a reply in two pieces is the same reply, wherever it is cut")
    func splitAtEveryByte() throws {
        let bytes = Array(Self.stream.utf8)
        let reader = ReplyReader()
        for cut in 0...bytes.count {
            var values: [RedisValue] = []
            reader.feed(bytes.span.extracting(..<cut))
            values += try reader.values()
            reader.feed(bytes.span.extracting(cut...))
            values += try reader.values()
            #expect(values == Self.values, "cut at \(cut)")
        }
    }

    @Test("replies that come byte by byte are the same replies")
    func byteByByte() throws {
        let reader = ReplyReader()
        var values: [RedisValue] = []
        for byte in Self.stream.utf8 {
            reader.feed([byte].span)
            values += try reader.values()
        }
        #expect(values == Self.values)
    }

    @Test("bytes that are not text come through unchanged")
    func binary() throws {
        let bytes: [UInt8] = [0, 0xFF, 0xFE, 0xC3, 0x28, 0x0D, 0x0A, 0x80]
        let reader = ReplyReader()
        reader.feed("$\(bytes.count)\r\n")
        reader.feed(bytes.span)
        reader.feed("\r\n")
        #expect(try reader.values() == [.string(bytes)])
    }

    @Test(
        "what is not the protocol is refused, and stays refused until a new connection",
        arguments: [
            "HTTP/1.1 400 Bad Request\r\n", "?\r\n", "\r\n", ":abc\r\n", ":\r\n", ":1x\r\n",
            ":99999999999999999999\r\n", "$-2\r\n", "*-2\r\n", "$x\r\n", "$99999999999999999999\r\n",
            "*99999999999\r\n", "*2147483647\r\n", "*1\r\n?\r\n",
            String(repeating: "*1\r\n", count: 64) + ":1\r\n",
        ])
    func garbage(_ text: String) throws {
        let reader = ReplyReader()
        reader.feed(text)
        #expect(throws: RedisError.self) { try reader.values() }
        reader.feed("+OK\r\n")
        #expect(throws: RedisError.self) { try reader.values() }
        reader.reset()
        reader.feed("+OK\r\n")
        #expect(try reader.values() == [.status("OK")])
    }

    @Test("many large arrays nested in one reply are refused")
    func nestedArraysAddUp() {
        let reader = ReplyReader()
        reader.feed("*4\r\n")
        for _ in 0..<4 { reader.feed("*100000\r\n" + String(repeating: ":1\r\n", count: 100_000)) }
        #expect(throws: RedisError.self) { try reader.values() }
    }

    @Test("a text that never ends is refused before it fills the memory")
    func endlessText() {
        let reader = ReplyReader()
        let piece = [UInt8](repeating: 0x61, count: 1 << 20)
        reader.feed("$2000000000\r\n")
        #expect(throws: RedisError.self) {
            for _ in 0..<64 {
                reader.feed(piece.span)
                _ = try reader.next()
            }
        }
    }

    @Test("a line that never ends is refused before it fills the memory")
    func endlessLine() {
        let reader = ReplyReader()
        let piece = [UInt8](repeating: 0x61, count: 1 << 20)
        reader.feed("+")
        #expect(throws: RedisError.self) {
            for _ in 0..<64 {
                reader.feed(piece.span)
                _ = try reader.next()
            }
        }
    }

    @Test("a large reply within the bounds is read")
    func large() throws {
        let reader = ReplyReader()
        let text = [UInt8](repeating: 0x61, count: 8 << 20)
        reader.feed("*2\r\n$\(text.count)\r\n")
        reader.feed(text.span)
        reader.feed("\r\n:1\r\n")
        #expect(try reader.values() == [.array([.string(text), .integer(1)])])
    }

    @Test("random bytes are read or refused, never worse", arguments: 0..<200)
    func random(_ seed: UInt64) {
        var generator = Seeded(seed)
        let alphabet = Array("+-:$*0123456789\r\n\r\n\r\nax".utf8)
        let reader = ReplyReader()
        for _ in 0..<200 {
            let piece = (0..<Int.random(in: 0...24, using: &generator)).map { _ in
                alphabet[Int.random(in: 0..<alphabet.count, using: &generator)]
            }
            reader.feed(piece.span)
            if (try? reader.values()) == nil { reader.reset() }
        }
    }
}

@Suite("Commands")
struct CommandWriterTests {
    private func written(_ body: (inout ByteWriter) -> Void) -> [UInt8] {
        var block = Block.allocate(capacity: 4_096)
        defer { block.deallocate() }
        var writer = ByteWriter(block)
        body(&writer)
        #expect(!writer.overflowed)
        block.commit(writer)
        return (0..<block.count).map { block.readable[$0] }
    }

    @Test("a command is written as Redis reads it")
    func exact() {
        let bytes = written { writer in
            CommandWriter.begin(3, into: &writer)
            CommandWriter.append("SET", into: &writer)
            CommandWriter.append(Array("a\r\nb".utf8).span, into: &writer)
            CommandWriter.append(-42, into: &writer)
        }
        #expect(String(decoding: bytes, as: UTF8.self) == "*3\r\n$3\r\nSET\r\n$4\r\na\r\nb\r\n$3\r\n-42\r\n")
        #expect(bytes == CommandWriter.bytes(["SET", "a\r\nb", "-42"]))
    }

    @Test(
        "the length of a number is the length of its digits",
        arguments: [0, 9, 10, 99, 100, -1, -9, -10, .max, .min, 999_999_999, 1_000_000_000] as [Int64])
    func numbers(_ value: Int64) throws {
        let reader = ReplyReader()
        let bytes = written { writer in
            CommandWriter.begin(1, into: &writer)
            CommandWriter.append(value, into: &writer)
        }
        reader.feed(bytes.span)
        #expect(try reader.values() == [.array([.string(Array("\(value)".utf8))])])
    }

    @Test("a command that does not fit says so", arguments: 1..<28)
    func overflow(_ room: Int) {
        var block = Block.allocate(capacity: room)
        defer { block.deallocate() }
        var writer = ByteWriter(block)
        CommandWriter.begin(2, into: &writer)
        CommandWriter.append("HGETALL", into: &writer)
        CommandWriter.append(12_345, into: &writer)
        #expect(writer.overflowed)
        #expect(writer.count <= room)
    }
}
