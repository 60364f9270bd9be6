import CLinux
import Glibc

/// Threads of the process; each is named, so that `top -H` tells who is who.
public struct ThreadHandle: Sendable {
    private let raw: UInt

    fileprivate init(_ thread: pthread_t) { raw = UInt(thread) }

    /// Waits until the thread has ended.
    public func join() {
        _ = pthread_join(pthread_t(raw), nil)
    }
}

public enum Thread {
    private final class Start {
        let name: String
        let body: () -> Void

        init(name: String, body: @escaping () -> Void) {
            self.name = name
            self.body = body
        }
    }

    /// Starts a thread.
    ///
    /// - Parameters:
    ///   - name: at most 15 bytes are kept by the kernel.
    ///   - body: runs on the thread; what it captures is handed over to it.
    public static func start(
        name: String, _ body: sending @escaping () -> Void
    ) throws(SystemError) -> ThreadHandle {
        var thread = pthread_t()
        let start = unsafe Unmanaged.passRetained(Start(name: name, body: body))
        let result = unsafe pthread_create(
            &thread, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let start = unsafe Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                unsafe gw_name_thread(String(start.name.prefix(15)))
                start.body()
                return nil
            }, start.toOpaque())
        guard result == 0 else {
            unsafe start.release()
            throw SystemError(code: result, operation: "pthread_create")
        }
        return ThreadHandle(thread)
    }
}
