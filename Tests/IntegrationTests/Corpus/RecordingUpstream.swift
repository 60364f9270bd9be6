import Synchronization

/// A server that keeps every byte it is sent and answers each whole request, read strictly, with 200.
final class RecordingUpstream: Sendable {
    let port: UInt16
    private let listener: Listener
    /// Bytes by connection since they were last taken.
    private let received = Mutex<[[UInt8]]>([])
    private let open = Mutex<[ObjectIdentifier: TCPConnection]>([:])

    init() throws {
        listener = try Listener()
        port = listener.port
        _ = TestThread { [self] in
            while let connection = listener.accept() {
                open.withLock { $0[ObjectIdentifier(connection)] = connection }
                let number = received.withLock { all in
                    all.append([])
                    return all.count - 1
                }
                _ = TestThread { [self] in serve(connection, number) }
            }
        }
    }

    func stop() {
        listener.stop()
        open.withLock { open in
            for connection in open.values {
                connection.shutdownRead()
                connection.shutdownWrite()
            }
        }
    }

    /// What has come since the last time, connection by connection.
    func take() -> [[UInt8]] {
        received.withLock { all in
            let bytes = all.filter { !$0.isEmpty }
            for index in all.indices { all[index] = [] }
            return bytes
        }
    }

    private func serve(_ connection: TCPConnection, _ number: Int) {
        // Closed under the lock: the number of a closed descriptor may be another's.
        defer {
            open.withLock { open in
                open[ObjectIdentifier(connection)] = nil
                connection.close()
            }
        }
        var pending: [UInt8] = []
        while let bytes = try? connection.stream.read(within: 120), !bytes.isEmpty {
            received.withLock { $0[number] += bytes }
            pending += bytes
            let (requests, taken) = RequestReader.strict.read(pending)
            pending.removeFirst(taken)
            for request in requests {
                let content = request.method == "HEAD" ? "" : "ok"
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\(content)"
                guard (try? connection.stream.write(answer.utf8)) != nil else { return }
            }
        }
    }
}
