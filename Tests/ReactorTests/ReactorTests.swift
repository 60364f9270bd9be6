import Reactor
import Testing

@Suite("Reactor")
struct ReactorTests {
    @Test("a timer never fires early, and late by less than a tick")
    func timers() {
        var random = FastRandom(seed: 5)
        var now: Int64 = 1_000_000
        let tick: Int64 = 32_000
        let wheel = TimerWheel(timers: 200, nowMicroseconds: now)
        var deadlines: [Int: Int64] = [:]
        var expired: [Int] = []
        expired.reserveCapacity(16)
        for _ in 0..<20_000 {
            let timer = Int.random(in: 0..<200, using: &random)
            switch Int.random(in: 0..<4, using: &random) {
            case 0:
                wheel.cancel(timer)
                deadlines[timer] = nil
            case 1, 2:
                let deadline = now + Int64.random(in: 0...100_000_000, using: &random)
                wheel.set(timer, atMicroseconds: deadline)
                deadlines[timer] = deadline
            default:
                now += Int64.random(in: 0...1_000_000, using: &random)
                repeat {
                    wheel.advance(toMicroseconds: now, expired: &expired)
                    for fired in expired {
                        let deadline = deadlines.removeValue(forKey: fired)
                        #expect(deadline.map { $0 <= now } == true)
                    }
                } while !expired.isEmpty
                #expect(deadlines.values.allSatisfy { $0 > now - 2 * tick })
            }
            #expect(wheel.count == deadlines.count)
        }
    }

    @Test("a reference to a slot's last occupant leads nowhere")
    func slots() throws {
        let table = SlotTable<Int>(capacity: 2)
        let first = try #require(table.allocate(1))
        _ = try #require(table.allocate(2))
        #expect(table.allocate(3) == nil)
        let old = first.reference
        table.free(first)
        #expect(table.lookup(old) == nil)
        let again = try #require(table.allocate(4))
        #expect(again.index == 0 && again.reference != old && table.lookup(old) == nil)
        #expect(table.lookup(again.reference)?.value == 4)
    }

    @Test("a writer says when it has no room, and writes nothing past it")
    func writer() {
        var block = Block.allocate(capacity: 8)
        defer { block.deallocate() }
        var writer = ByteWriter(block)
        writer.append("12345")
        writer.append(decimal: -420)
        #expect(writer.overflowed && writer.count <= 8)
        var exact = ByteWriter(block)
        exact.append(hexadecimal: 0xAB, minimumDigits: 8)
        #expect(!exact.overflowed && exact.count == 8)
    }

    private func text(_ write: (inout ByteWriter) -> Void) -> String {
        var block = Block.allocate(capacity: 32)
        defer { block.deallocate() }
        var writer = ByteWriter(block)
        write(&writer)
        block.commit(writer)
        let bytes = block.readable
        return String(decoding: (0..<bytes.count).map { bytes[$0] }, as: UTF8.self)
    }

    @Test("a number is written with each of its digits")
    func decimals() {
        var numbers: [Int64] = [0, 5, .max, .min, -1, -10, -99, -100]
        var power: Int64 = 1
        for _ in 0..<18 {
            power *= 10
            numbers += [power - 1, power, power + 1, power * 9 / 10 + 7]
        }
        for number in numbers { #expect(text { $0.append(decimal: number) } == String(number)) }
        for number in Int64(0)..<2_000 { #expect(text { $0.append(decimal: number) } == String(number)) }
    }

    @Test("an address is written with each of its octets", arguments: 0...255)
    func octets(_ octet: Int) throws {
        for address in ["\(octet).0.10.100", "1.\(octet).\(255 - octet).\(octet)"] {
            let parsed = try #require(SocketAddress(ip: address, port: 1))
            #expect(text { parsed.write(ipInto: &$0) } == address)
        }
    }

    @Test("a field line is written whole or not at all", arguments: 0...20)
    func fieldLines(_ capacity: Int) {
        var block = Block.allocate(capacity: 32)
        defer { block.deallocate() }
        for _ in 0..<32 - capacity { block.append(byte: 0x2E) }
        let (name, value) = (Array("Accept".utf8), Array("text/*".utf8))
        var writer = ByteWriter(block)
        writer.append(field: name.span, value.span)
        #expect(writer.overflowed == (capacity < 16))
        block.commit(writer)
        let text = block.readable.extracting(last: writer.count)
        let written = text.equals(capacity < 16 ? "" : "Accept: text/*\r\n")
        #expect(written)
        var empty = ByteWriter(block)
        empty.append(field: name.span.extracting(0..<0), value.span.extracting(0..<0))
        #expect(empty.overflowed == (block.freeCount < 4))
    }

    @Test(
        "addresses are read and written alike",
        arguments: ["127.0.0.1:80", "[::1]:8443", "[2001:db8::5]:1", "255.255.255.255:65535"])
    func addresses(_ text: String) throws {
        #expect(try #require(SocketAddress.parse(text)).description == text)
    }

    @Test(
        "what is no address is refused",
        arguments: ["", "a:1", "1.2.3:4", "1.2.3.4", "[::1]", "1.2.3.4:65536"])
    func noAddresses(_ text: String) { #expect(SocketAddress.parse(text) == nil) }

    @Test("an IPv6 caller is counted by its /64, and a mapped IPv4 by its address")
    func prefixes() throws {
        let one = try #require(SocketAddress(ip: "2001:db8:1:2::1", port: 1))
        let two = try #require(SocketAddress(ip: "2001:db8:1:2:ffff::9", port: 2))
        #expect(one.rateLimitPrefix == two.rateLimitPrefix)
        let range = try #require(AddressRange.parse("10.0.0.0/8"))
        #expect(range.contains(try #require(SocketAddress(ip: "10.200.3.4", port: 0))))
        #expect(!range.contains(try #require(SocketAddress(ip: "11.0.0.1", port: 0))))
    }

    @Test("a pool hands back what it was given")
    func pool() {
        let pool = BufferPool(bytesRetainedMax: 1 << 20)
        var blocks = (0..<300).map { pool.take(atLeast: $0 * 100) }
        #expect(pool.bytesOutstanding > 0)
        for index in blocks.indices { pool.give(&blocks[index]) }
        #expect(pool.bytesOutstanding == 0)
    }
}
