import Glibc

/// Whole small files: configuration, keys, tokens.
public enum FileReader {
    /// - Parameter maximumBytes: refuses larger files, so that a wrong path cannot fill memory.
    public static func read(path: String, maximumBytes: Int = 16 << 20) throws(SystemError) -> [UInt8] {
        let raw = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard raw >= 0 else { throw .last("open") }
        defer { _ = close(raw) }
        var bytes: [UInt8] = []
        let room = min(65_536, maximumBytes + 1)
        var chunk = [UInt8](repeating: 0, count: room)
        while true {
            let n = unsafe chunk.withUnsafeMutableBytes { unsafe Glibc.read(raw, $0.baseAddress, room) }
            if n == 0 { return bytes }
            if n < 0 {
                if errno == EINTR { continue }
                throw .last("read")
            }
            guard bytes.count + n <= maximumBytes else {
                throw SystemError(code: EFBIG, operation: "read")
            }
            bytes.append(contentsOf: chunk[..<n])
        }
    }

    /// Writes all bytes to an open descriptor, waiting as needed; not for loops.
    @discardableResult
    public static func write(_ bytes: [UInt8], to descriptor: Descriptor) -> Bool {
        var offset = 0
        while offset < bytes.count {
            let n = unsafe bytes.withUnsafeBytes { buffer in
                unsafe Glibc.write(
                    descriptor.rawValue, buffer.baseAddress.map { unsafe $0 + offset }, bytes.count - offset)
            }
            if n > 0 {
                offset += n
                continue
            }
            if n < 0 && errno == EINTR { continue }
            if n < 0 && errno == EAGAIN {
                var waiting = pollfd(fd: descriptor.rawValue, events: Int16(POLLOUT), revents: 0)
                _ = unsafe poll(&waiting, 1, 1_000)
                continue
            }
            return false
        }
        return true
    }

    /// Whether a write of nothing is taken, and somebody is left to read it; `/dev/full` takes none.
    public static func canWrite(to descriptor: Descriptor) -> Bool {
        // A pipe takes nothing from everybody; that nobody reads it is only seen so.
        var state = pollfd(fd: descriptor.rawValue, events: Int16(POLLOUT), revents: 0)
        _ = unsafe poll(&state, 1, 0)
        guard Int32(state.revents) & (POLLERR | POLLNVAL) == 0 else { return false }
        var nothing: UInt8 = 0
        return unsafe Glibc.write(descriptor.rawValue, &nothing, 0) == 0
    }

    /// Occupies standard streams that are closed, so that no connection gets their number and what is meant
    /// for people. They are at their end, and refuse what is written.
    ///
    /// Call before anything else is opened.
    public static func reserveStandardStreams() {
        while true {
            let raw = unsafe open("/dev/null", O_RDONLY)
            guard raw > 2 else {
                if raw < 0 { return }
                continue
            }
            _ = close(raw)
            return
        }
    }

    /// Opens a file for appending, creating it with `permissions` when missing.
    public static func openForAppending(
        path: String, permissions: UInt32 = 0o640
    ) throws(SystemError) -> Descriptor {
        // Non-blocking: a pipe that nobody reads is an error here, not a wait for somebody.
        let raw = unsafe open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, permissions)
        guard raw >= 0 else { throw .last("open") }
        return Descriptor(rawValue: raw)
    }

    /// What tells one state of a file from another without reading it, symbolic links followed: device,
    /// inode, size and time of change. The reason, when it cannot be reached.
    public static func identity(path: String) -> String {
        var info = stat()
        guard unsafe stat(path, &info) == 0 else { return SystemError.last("stat").reason }
        let changed = "\(info.st_mtim.tv_sec).\(info.st_mtim.tv_nsec)"
        return "\(info.st_dev):\(info.st_ino):\(info.st_size):\(changed)"
    }
}
