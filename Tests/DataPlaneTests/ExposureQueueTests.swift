import DataPlane
import Keys
import Reactor
import Testing

@Suite("Credentials that came in clear")
struct ExposureQueueTests {
    private func key(_ number: UInt64) -> ExposedKey {
        ExposedKey(digest: Digest256((number, 0, 0, 0)), address: SocketAddress(ipv4: 0x7F00_0001, port: 1))
    }

    @Test("one that is sent again and again takes one place, and what finds no room is counted")
    func crowding() throws {
        let queue = try ExposureQueue()
        for _ in 0..<5_000 { queue.post(key(1)) }
        queue.post(key(2))
        #expect(queue.takeAll().map(\.digest.word0) == [1, 2] && queue.takeDropped() == 0)
        // After it was taken it may come again.
        queue.post(key(1))
        #expect(queue.takeAll().count == 1)
        for number in 0..<UInt64(ExposureQueue.waitingMax + 7) { queue.post(key(number)) }
        #expect(queue.takeAll().count == ExposureQueue.waitingMax && queue.takeDropped() == 7)
        #expect(queue.takeDropped() == 0)
    }
}
