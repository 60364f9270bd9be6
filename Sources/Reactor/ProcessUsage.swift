import CLinux
import Glibc

/// What the process has used, for the `process_*` metrics.
public struct ProcessUsage: Sendable {
    public var cpuMicroseconds: Int64 = 0
    public var residentBytes: Int64 = 0
    public var openDescriptors = 0
    public var descriptorLimit = 0

    /// Resident memory alone, which costs one read.
    public static func residentBytes() -> Int64 {
        guard let bytes = try? FileReader.read(path: "/proc/self/statm", maximumBytes: 4_096) else {
            return 0
        }
        let pages = String(decoding: bytes, as: UTF8.self).split(separator: " ")
        guard pages.count > 1, let resident = Int64(pages[1]) else { return 0 }
        return resident * Int64(sysconf(Int32(_SC_PAGESIZE)))
    }

    /// Gives the kernel back what the allocator holds without need. Takes milliseconds, for which threads
    /// that allocate may wait.
    public static func returnFreedMemory() { gw_return_freed_memory() }

    public static func read() -> ProcessUsage {
        var result = ProcessUsage()
        var usage = rusage()
        if unsafe getrusage(0, &usage) == 0 {
            let user = Int64(usage.ru_utime.tv_sec) * 1_000_000 + Int64(usage.ru_utime.tv_usec)
            let system = Int64(usage.ru_stime.tv_sec) * 1_000_000 + Int64(usage.ru_stime.tv_usec)
            result.cpuMicroseconds = user + system
        }
        result.residentBytes = residentBytes()
        var limit = rlimit()
        if unsafe getrlimit(__rlimit_resource_t(7), &limit) == 0 {
            result.descriptorLimit = Int(clamping: UInt(limit.rlim_cur))
        }
        result.openDescriptors = openDescriptors()
        return result
    }

    private static func openDescriptors() -> Int {
        // Since Linux 6.2 the directory's size is their number; to list them takes a millisecond for 10,000.
        var info = stat()
        if unsafe stat("/proc/self/fd", &info) == 0, info.st_size > 0 { return Int(info.st_size) }
        guard let directory = unsafe opendir("/proc/self/fd") else { return 0 }
        defer { unsafe closedir(directory) }
        var count = 0
        while unsafe readdir(directory) != nil { count += 1 }
        // `.`, `..` and the directory itself.
        return max(0, count - 3)
    }
}
