import CLinux
import Glibc

/// A few bytes for the program that takes over, in memory that has no name and that nobody can change any
/// more (memfd_create(2)): they are in no file, no argument and no environment, and go with the last
/// descriptor.
public enum SealedMemory {
    private static let bytesMax = 4_096
    private static let invalid: Int32 = 22

    /// - Returns: a descriptor that is closed on exec, for the caller to own.
    public static func make(_ bytes: [UInt8]) throws(SystemError) -> Descriptor {
        precondition(!bytes.isEmpty && bytes.count <= bytesMax, "it is for a few bytes")
        var number = unsafe gw_memory("gateway", UInt32(gw_memory_flags | gw_memory_not_executable))
        // Kernels before 6.3 know nothing of executable memory, and refuse the flag.
        if number < 0, errno == invalid { number = unsafe gw_memory("gateway", UInt32(gw_memory_flags)) }
        guard number >= 0 else { throw .last("memfd_create") }
        let count = unsafe bytes.withUnsafeBytes { unsafe pwrite(number, $0.baseAddress, $0.count, 0) }
        guard count == bytes.count, gw_add_seals(number, Int32(gw_memory_seals)) == 0 else {
            let error = SystemError.last("seal")
            _ = close(number)
            throw error
        }
        return Descriptor(rawValue: number)
    }

    /// Takes over what `make` made in another process, and closes it.
    ///
    /// - Returns: nil for what is no such memory.
    public static func take(_ number: Int32) -> [UInt8]? {
        guard number > 2,
            gw_seals(number) & Int32(gw_memory_seals) == Int32(gw_memory_seals)
        else { return nil }
        defer { _ = close(number) }
        var bytes = [UInt8](repeating: 0, count: bytesMax)
        let count = unsafe bytes.withUnsafeMutableBytes { unsafe pread(number, $0.baseAddress, $0.count, 0) }
        return count > 0 ? Array(bytes.prefix(count)) : nil
    }
}
