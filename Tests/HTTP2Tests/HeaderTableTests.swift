import HTTP2
import HTTPWire
import Reactor
import Testing

/// What a caller's table of headers is used for.
@Suite("The peer's table of headers")
struct HeaderTableTests {
    /// Bytes of the frames that answer three requests of one connection.
    private func answers(teaching: [Bool]) throws -> [Int] {
        let recorder = InterleavingTests.Recorder()
        let engine = recorder.engine
        var session = try #require(engine.makeServer())
        defer { engine.free(&session) }
        let opening = InterleavingTests.opening
        let hasBegun = engine.receive(session, opening.span)
        #expect(hasBegun)
        // Settings of ours go first.
        let hasGreeted = engine.send(session)
        #expect(hasGreeted)
        var value = Block.constant("0123456789abcdef")
        defer { value.deallocate() }
        var counts: [Int] = []
        for (index, teaches) in teaching.enumerated() {
            let stream = Int32(2 * index + 1)
            let request = InterleavingTests.frame(
                1, 0x5, InterleavingTests.block("x"), stream: UInt8(stream))
            let isRead = engine.receive(session, request.span)
            #expect(isRead)
            engine.beginResponse(status: 200, teachesNames: teaches)
            engine.add("x-request-id", value, 0..<16, isFleeting: true)
            _ = engine.submitResponse(session, stream: stream, tag: 1, hasBody: false)
            let isSent = engine.send(session)
            #expect(isSent)
            counts.append(engine.frames.value.count)
        }
        return counts
    }

    @Test("a name whose values never come again is spelled out once, not in every answer")
    func namesAreTaught() throws {
        let untaught = try answers(teaching: [false, false, false])
        let taught = try answers(teaching: [true, false, false])
        #expect(Set(untaught).count == 1)
        // Coded, the name takes nine bytes and its length one.
        #expect(taught[1] <= untaught[1] - 9)
        #expect(taught[2] == taught[1], "a value has taken the name's place")
    }

    @Test("a body that is gone when its frame's turn comes resets its stream")
    func bodyIsGone() throws {
        let recorder = InterleavingTests.Recorder()
        recorder.bodyBytes = 100
        let engine = recorder.engine
        var session = try #require(engine.makeServer())
        defer { engine.free(&session) }
        let bytes = InterleavingTests.opening + InterleavingTests.frame(1, 0x5, InterleavingTests.block("x"))
        let isRead = engine.receive(session, bytes.span)
        let hasGreeted = engine.send(session)
        #expect(isRead && hasGreeted)
        engine.beginResponse(status: 200, teachesNames: false)
        _ = engine.submitResponse(session, stream: 1, tag: 1, hasBody: true)
        let isSent = engine.send(session)
        #expect(isSent)
        var kinds: [HTTP2FrameKind] = []
        var offset = 0
        let frames = engine.frames.value.readable
        while offset + 9 <= frames.count {
            kinds.append(HTTP2FrameKind(rawValue: frames[offset + 3]) ?? .unknown)
            offset += 9 + (Int(frames[offset + 1]) << 8 | Int(frames[offset + 2]))
        }
        #expect(offset == frames.count)
        #expect(kinds == [.headers, .resetStream])
    }
}
