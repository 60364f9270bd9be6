/// A row of elements in memory of its own, reached without reference counting; its length never changes.
///
/// A plain handle like `Block`: whoever made it may `deallocate` it once nobody reads it any more.
@safe
public struct FixedArray<Element> {
    @usableFromInline let base: UnsafeMutablePointer<Element>
    public let count: Int

    public init(repeating element: Element, count: Int) {
        precondition(count >= 0, "a length is not negative")
        self.count = count
        unsafe base = .allocate(capacity: max(1, count))
        unsafe base.initialize(repeating: element, count: count)
    }

    public init(_ elements: [Element]) {
        count = elements.count
        unsafe base = .allocate(capacity: max(1, elements.count))
        for (index, element) in elements.enumerated() {
            unsafe (base + index).initialize(to: element)
        }
    }

    @inlinable
    public subscript(index: Int) -> Element {
        @inline(__always) unsafeAddress {
            precondition(index >= 0 && index < count, "index outside the row")
            return unsafe UnsafePointer(base + index)
        }
        @inline(__always) nonmutating unsafeMutableAddress {
            precondition(index >= 0 && index < count, "index outside the row")
            return unsafe base + index
        }
    }

    public func deallocate() {
        unsafe base.deinitialize(count: count)
        unsafe base.deallocate()
    }
}

extension Block {
    /// Bytes that are written once and read for as long as their owner lives.
    public static func constant(_ text: String) -> Block {
        constant(bytes: Array(text.utf8))
    }

    public static func constant(bytes: [UInt8]) -> Block {
        if bytes.isEmpty { return .none }
        var block = Block.allocate(capacity: bytes.count)
        block.append(bytes.span)
        return block
    }
}
