import CLinux
import Glibc

/// Signals as readable events instead of interruptions.
public enum Signals {
    public enum Received: Sendable, Equatable {
        case terminate, reload, upgrade
        /// Log files are to be opened again.
        case reopen
        /// A program that we have started, or inherited, has ended.
        case childEnded
    }

    /// Blocks the signals that the process handles in the calling thread and all it starts later, ignores
    /// `SIGPIPE`, and returns a descriptor that becomes readable when one arrives.
    ///
    /// Call before any other thread exists.
    public static func install() throws(SystemError) -> Descriptor {
        _ = signal(SIGPIPE, SIG_IGN)
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for number in [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD] { unsafe sigaddset(&set, number) }
        _ = unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
        let raw = unsafe signalfd(-1, &set, O_CLOEXEC | O_NONBLOCK)
        guard raw >= 0 else { throw .last("signalfd") }
        return Descriptor(rawValue: raw)
    }

    /// Makes a write to a pipe that nobody reads an error instead of the end of the program.
    public static func ignoreLostReaders() { _ = signal(SIGPIPE, SIG_IGN) }

    /// The next signal that has arrived, or nil.
    public static func next(_ descriptor: Descriptor) -> Received? {
        var info = signalfd_siginfo()
        let size = MemoryLayout<signalfd_siginfo>.size
        guard unsafe read(descriptor.rawValue, &info, size) == size else { return nil }
        switch Int32(info.ssi_signo) {
        case SIGHUP: return .reload
        case SIGUSR1: return .reopen
        case SIGUSR2: return .upgrade
        case SIGCHLD: return .childEnded
        default: return .terminate
        }
    }
}

/// What the system grants this process.
public enum ProcessLimits {
    /// The host's name up to its first dot, at most 24 letters, digits and hyphens; empty when the system
    /// does not tell.
    public static var hostLabel: String {
        let path = "/proc/sys/kernel/hostname"
        guard let bytes = try? FileReader.read(path: path, maximumBytes: 256) else { return "" }
        let label = String(decoding: bytes, as: UTF8.self).prefix { $0 != "." && !$0.isNewline }
        return String(label.filter { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") }.prefix(24))
    }

    /// Raises the soft limit of open files as far as allowed, up to `wanted`; returns what holds now.
    public static func raiseDescriptorLimit(to wanted: Int) -> Int {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(7), &limit) == 0 else { return 1_024 }
        let target = min(UInt(wanted), UInt(limit.rlim_max))
        if UInt(limit.rlim_cur) < target {
            limit.rlim_cur = rlim_t(target)
            _ = unsafe setrlimit(__rlimit_resource_t(7), &limit)
            _ = unsafe getrlimit(__rlimit_resource_t(7), &limit)
        }
        return Int(clamping: UInt(limit.rlim_cur))
    }

    /// Keeps what this process holds in memory, such as keys and passwords, to itself: no core is written
    /// when it ends by a signal, wherever cores would go, and only root may trace it or read its memory.
    ///
    /// - Parameter keepsReports: whether the Swift runtime goes on reporting crashes, with what stands in
    ///   memory where the registers point.
    public static func forbidDumps(keepsReports: Bool) {
        if !keepsReports {
            for number in [SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGQUIT, SIGSEGV, SIGTRAP] {
                _ = Glibc.signal(number, SIG_DFL)
            }
        }
        // One does not replace the other: a core that is piped to a program heeds no limit of its size, and
        // whoever forbids `prctl` leaves us the limit.
        _ = gw_forbid_dumps()
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(4), &limit) == 0 else { return }
        limit.rlim_cur = 0
        _ = unsafe setrlimit(__rlimit_resource_t(4), &limit)
    }

    /// Processors that this process may use: those it may run on, and no more than its control group pays
    /// for, rounded up.
    public static func processorCount() -> Int {
        let told = Int(gw_allowed_processors())
        let allowed = told > 0 ? told : max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))
        guard let group = try? FileReader.read(path: "/proc/self/cgroup", maximumBytes: 4_096),
            let path = controlGroup(String(decoding: group, as: UTF8.self)),
            let text = try? FileReader.read(path: "/sys/fs/cgroup\(path)/cpu.max", maximumBytes: 4_096),
            let paid = processors(paidFor: String(decoding: text, as: UTF8.self))
        else { return allowed }
        return min(allowed, paid)
    }

    /// The path of a process's group in the unified hierarchy, of `/proc/self/cgroup` (cgroups(7)).
    static func controlGroup(_ text: String) -> String? {
        let line = text.split(separator: "\n").first { $0.hasPrefix("0::/") }
        return line.map { $0 == "0::/" ? "" : String($0.dropFirst(3)) }
    }

    /// What `cpu.max` allows, like `150000 100000` for one and a half processors; nil is no bound.
    static func processors(paidFor text: String) -> Int? {
        let numbers = text.split(whereSeparator: \.isWhitespace).map { Int($0) }
        guard numbers.count == 2, let quota = numbers[0], let period = numbers[1], quota > 0, period > 0
        else { return nil }
        return (quota - 1) / period + 1
    }

    public static var processIdentifier: Int32 { getpid() }

    public static func exit(_ status: Int32) -> Never { Glibc.exit(status) }

    /// Ends the process whatever its other threads do, without anything that is done at an exit.
    public static func endAtOnce(_ status: Int32) -> Never { _exit(status) }
}
