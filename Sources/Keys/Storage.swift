// The only pointers of this module.
//
// A table that lives in a class as `var array: [Slot]` pays, on every access, for an exclusivity check and
// for the array's uniqueness check. The tables here are allocated once and never resized, so both are bought
// for nothing.
// `FixedArray` is the smallest thing that avoids them: plain memory with one owner, an index checked on every
// access, and elements that need no destruction.

/// A heap array of fixed length with one owner, checked bounds and no reference counting.
///
/// Elements can be changed through a shared reference (`let`), as with a C array: the owner is one thread.
@safe struct FixedArray<Element: BitwiseCopyable>: ~Copyable {
    /// Number of elements, at least 1.
    let count: Int
    private let base: UnsafeMutablePointer<Element>

    /// Every element is `value`.
    init(repeating value: Element, count: Int) {
        self.init(uninitializedCount: count)
        unsafe base.initialize(repeating: value, count: count)
    }

    /// Memory as the allocator gives it, so that pages nobody uses are never touched. The owner must not read
    /// an element before writing it; the tables keep a high-water mark for that.
    init(uninitializedCount count: Int) {
        precondition(count > 0, "a fixed array holds at least one element")
        self.count = count
        unsafe base = UnsafeMutablePointer<Element>.allocate(capacity: count)
    }

    deinit { unsafe base.deallocate() }

    subscript(index: Int) -> Element {
        @inline(__always) _read {
            precondition(UInt(bitPattern: index) < UInt(bitPattern: count), "index outside a fixed array")
            yield unsafe base[index]
        }
        @inline(__always) nonmutating _modify {
            precondition(UInt(bitPattern: index) < UInt(bitPattern: count), "index outside a fixed array")
            yield unsafe &base[index]
        }
    }

    /// All elements, in order. Only for arrays that were fully initialised.
    var span: Span<Element> {
        @_lifetime(borrow self) borrowing get {
            unsafe _overrideLifetime(Span(_unsafeStart: base, count: count), borrowing: self)
        }
    }
}

/// The eight bytes at `offset` as a little-endian word; traps when fewer than eight are left.
///
/// Looking at bytes as words is called unsafe because it would also produce types that have padding or
/// invalid bit patterns. `UInt8` and `UInt64` have neither, and the load checks its bounds.
@inline(__always)
func littleEndianWord(_ bytes: Span<UInt8>, at offset: Int) -> UInt64 {
    unsafe UInt64(littleEndian: bytes.bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self))
}
