// A `Block` is a plain handle on a piece of memory that a pool owns: base, capacity, and the part in use.
//
// It is copyable on purpose: connections keep it in their slots, the worker borrows a local copy while it
// parses, and no reference counting ever happens. The price is the rule that whoever takes a block from a
// pool gives it back once. All access is bounds-checked; only the C edges see addresses.

@safe
public struct Block {
    @usableFromInline var base: UnsafeMutablePointer<UInt8>?
    /// Bytes of memory behind the block; 0 when it holds none.
    public var capacity: Int
    @usableFromInline var start: Int
    @usableFromInline var end: Int

    /// A block without memory.
    @inlinable
    public init() {
        unsafe base = nil
        capacity = 0
        start = 0
        end = 0
    }

    @inlinable
    public static var none: Block { Block() }

    /// Memory of its own, outside any pool; `deallocate` ends it.
    ///
    /// - Parameter capacity: bytes, at least 1.
    public static func allocate(capacity: Int) -> Block {
        precondition(capacity > 0, "a block has room")
        var block = Block()
        unsafe block.base = .allocate(capacity: capacity)
        block.capacity = capacity
        return block
    }

    /// Frees memory that `allocate` made.
    public mutating func deallocate() {
        unsafe base?.deallocate()
        self = Block()
    }

    @inlinable public var isAllocated: Bool { unsafe base != nil }
    /// Bytes readable.
    @inlinable public var count: Int { end &- start }
    @inlinable public var isEmpty: Bool { end == start }
    /// Bytes that may still be appended without compacting.
    @inlinable public var freeCount: Int { capacity &- end }

    /// The bytes in use.
    @inlinable
    public var readable: Span<UInt8> {
        @_lifetime(borrow self)
        get {
            let bytes = unsafe Span(
                _unsafeElements: UnsafeBufferPointer(
                    start: base.map { unsafe UnsafePointer($0 + start) }, count: end &- start))
            return unsafe _overrideLifetime(bytes, borrowing: self)
        }
    }

    /// A part of the bytes in use, counted from the first readable byte.
    @inlinable
    @inline(__always)
    @_lifetime(borrow self)
    public func span(_ range: Range<Int>) -> Span<UInt8> {
        precondition(range.lowerBound >= 0 && range.upperBound <= count, "range outside the block")
        let bytes = unsafe Span(
            _unsafeElements: UnsafeBufferPointer(
                start: base.map { unsafe UnsafePointer($0 + start + range.lowerBound) },
                count: range.count))
        return unsafe _overrideLifetime(bytes, borrowing: self)
    }

    /// A handle on a part of the bytes in use, counted from the first readable byte. It is to be read only.
    public func part(_ range: Range<Int>) -> Block {
        precondition(range.lowerBound >= 0 && range.upperBound <= count, "range outside the block")
        var part = self
        part.start = start &+ range.lowerBound
        part.end = start &+ range.upperBound
        return part
    }

    /// Copies as much as fits and returns how much that was.
    @inlinable
    @discardableResult
    public mutating func append(_ bytes: Span<UInt8>) -> Int {
        let n = Swift.min(bytes.count, freeCount)
        guard n > 0, let base = unsafe base else { return 0 }
        unsafe bytes.withUnsafeBufferPointer { source in
            guard let from = source.baseAddress else { return }
            unsafe (base + end).update(from: from, count: n)
        }
        end &+= n
        return n
    }

    @inlinable
    public mutating func append(_ text: StaticString) {
        let n = Swift.min(text.utf8CodeUnitCount, freeCount)
        guard n > 0, let base = unsafe base else { return }
        unsafe (base + end).update(from: text.utf8Start, count: n)
        end &+= n
    }

    @inlinable
    @inline(__always)
    public mutating func append(byte: UInt8) {
        guard freeCount > 0, let base = unsafe base else { return }
        unsafe base[end] = byte
        end &+= 1
    }

    /// Takes bytes from the front.
    @inlinable
    public mutating func consume(_ n: Int) {
        precondition(n >= 0 && n <= count, "more consumed than there is")
        start &+= n
        if start == end {
            start = 0
            end = 0
        }
    }

    /// Counts bytes that a C function wrote at `writableAddress`.
    @inlinable
    @inline(__always)
    public mutating func advanceEnd(_ n: Int) {
        precondition(n >= 0 && n <= freeCount, "more written than fits")
        end &+= n
    }

    @inlinable
    @inline(__always)
    public mutating func clear() {
        start = 0
        end = 0
    }

    /// Takes bytes from the end, so that `count` stay.
    @inlinable
    public mutating func truncate(to count: Int) {
        precondition(count >= 0 && count <= self.count, "a block does not grow by cutting")
        end = start &+ count
    }

    /// Moves the readable bytes to the front so that all free room is behind them.
    public mutating func compact() {
        guard start > 0, let base = unsafe base else { return }
        let n = count
        unsafe base.update(from: base + start, count: n)
        start = 0
        end = n
    }

    /// Appends what fits of `other` and takes that from it.
    public mutating func moveContents(from other: inout Block) -> Int {
        let n = append(other.readable)
        other.consume(n)
        return n
    }

    /// Overwrites one byte already in use, counted from the first readable byte.
    @inlinable
    public mutating func replace(at index: Int, with byte: UInt8) {
        precondition(index >= 0 && index < count, "index outside the block")
        unsafe base?[start + index] = byte
    }

    /// Where the next byte would go; for C functions that fill a block.
    @inlinable
    @unsafe public var writableAddress: UnsafeMutablePointer<UInt8>? {
        unsafe base.map { unsafe $0 + end }
    }

    /// The first readable byte; for C functions that read a block.
    @inlinable
    @unsafe public var readableAddress: UnsafeMutablePointer<UInt8>? {
        unsafe base.map { unsafe $0 + start }
    }

    /// Counts what a writer that began at this block's end has written.
    @inlinable
    @inline(__always)
    public mutating func commit(_ writer: ByteWriter) {
        precondition(unsafe writer.base == writableAddress, "the writer belongs to another block")
        advanceEnd(writer.count)
    }
}
