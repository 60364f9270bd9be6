import Glibc

/// Zeroed memory that the kernel backs page by page as it is touched; never returned before exit.
enum LazyMemory {
    /// - Returns: zero-filled storage for `count` elements, which must be valid when all bits are zero.
    static func allocate<Element: ~Copyable>(
        of type: Element.Type, count: Int
    ) -> UnsafeMutablePointer<Element> {
        let bytes = max(1, count) * MemoryLayout<Element>.stride
        let mapped = unsafe mmap(
            nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else {
            preconditionFailure("the kernel refused \(bytes) bytes of address space")
        }
        return unsafe mapped.bindMemory(to: Element.self, capacity: count)
    }
}
