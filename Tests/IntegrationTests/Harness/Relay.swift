import Foundation
import Synchronization

/// A cable between a program and a server that a test can cut without either side noticing: connections stay
/// open and nothing passes; or slow down.
final class Relay: Sendable {
    /// Two ends of one connection, and what it has carried.
    private final class Line: Sendable {
        let near: TCPConnection
        let far: TCPConnection
        let beginning = Mutex("")
        let isCut = Mutex(false)
        let delayMilliseconds = Mutex<Int32>(0)

        init(near: TCPConnection, far: TCPConnection) {
            self.near = near
            self.far = far
        }

        func pump(from source: TCPConnection, to target: TCPConnection, isOutward: Bool) {
            while let bytes = try? source.stream.read(within: 600), !bytes.isEmpty {
                if isOutward {
                    beginning.withLock { text in
                        if text.utf8.count < 4_096 { text += String(decoding: bytes, as: UTF8.self) }
                    }
                }
                if isCut.withLock({ $0 }) { continue }
                let delay = delayMilliseconds.withLock { $0 }
                // Nothing happens meanwhile that could be polled on.
                if !isOutward, delay > 0 { poll(nil, 0, delay) }
                guard (try? target.stream.write(bytes)) != nil else { break }
            }
            for end in [near, far] {
                end.shutdownRead()
                end.shutdownWrite()
            }
        }
    }

    let port: UInt16
    private let listener: Listener
    private let lines = Mutex<[Line]>([])
    private let delayMilliseconds = Mutex<Int32>(0)

    /// - Parameter port: where the server listens.
    init(to port: UInt16) throws {
        listener = try Listener()
        self.port = listener.port
        Thread.detachNewThread { [weak self, listener] in
            while let near = listener.accept() {
                guard let self, let far = try? TCPConnection(port: port) else { return }
                let line = Line(near: near, far: far)
                let delay = self.delayMilliseconds.withLock { $0 }
                line.delayMilliseconds.withLock { $0 = delay }
                self.lines.withLock { $0.append(line) }
                Thread.detachNewThread { line.pump(from: near, to: far, isOutward: true) }
                Thread.detachNewThread { line.pump(from: far, to: near, isOutward: false) }
            }
        }
    }

    deinit { listener.stop() }

    /// From now on whatever the server says arrives that much later, except on the connections that have
    /// carried `text` outward.
    func delay(milliseconds: Int32, exceptCarrying text: String? = nil) {
        delayMilliseconds.withLock { $0 = milliseconds }
        lines.withLock { lines in
            for line in lines {
                if let text, line.beginning.withLock({ $0.contains(text) }) { continue }
                line.delayMilliseconds.withLock { $0 = milliseconds }
            }
        }
    }

    /// From now on nothing passes on the connections that have carried `text` outward; empty means all.
    ///
    /// - Returns: how many there were.
    @discardableResult
    func cut(carrying text: String = "") -> Int {
        lines.withLock { lines in
            let chosen = lines.filter { line in
                text.isEmpty || line.beginning.withLock { $0.contains(text) }
            }
            for line in chosen { line.isCut.withLock { $0 = true } }
            return chosen.count
        }
    }
}
