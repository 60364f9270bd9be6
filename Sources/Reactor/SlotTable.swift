import Glibc

// Connections and exchanges live in slots: preallocated, addressed by (index, generation), never moved and
// never reference-counted. A generation counts how often a slot has been freed, so that an event or a
// timer which arrives for a previous occupant is recognised and dropped.

/// A reference to an occupied slot: a pointer with the identity needed to tell one occupant from the next.
@safe
public struct Slot<Element: ~Copyable> {
    @usableFromInline let pointer: UnsafeMutablePointer<Element>
    /// Position in its table.
    public let index: Int
    /// 24 bits; differs for each occupant of a slot.
    public let generation: UInt32

    @inlinable
    init(pointer: UnsafeMutablePointer<Element>, index: Int, generation: UInt32) {
        unsafe self.pointer = unsafe pointer
        self.index = index
        self.generation = generation
    }

    /// The element in place. Exclusivity is by construction: one thread, run to completion.
    @inlinable
    public var value: Element {
        @inline(__always) unsafeAddress { unsafe UnsafePointer(pointer) }
        @inline(__always) nonmutating unsafeMutableAddress { unsafe pointer }
    }

    @inlinable
    public var reference: SlotReference { SlotReference(index: index, generation: generation) }
}

/// The name of a slot's occupant, small enough to keep anywhere.
public struct SlotReference: Equatable, Sendable {
    /// Position in the table, -1 for none.
    public var index: Int32
    public var generation: UInt32

    @inlinable
    public init(index: Int, generation: UInt32) {
        self.index = Int32(truncatingIfNeeded: index)
        self.generation = generation
    }

    @inlinable public static var none: SlotReference { SlotReference(index: -1, generation: 0) }
    @inlinable public var isNone: Bool { index < 0 }
}

/// A fixed number of slots in lazily mapped memory: pages never touched cost nothing.
@safe
public struct SlotTable<Element: ~Copyable> {
    @usableFromInline
    struct Header {
        @usableFromInline var nextFree: Int32 = -1
        @usableFromInline var generation: UInt32 = 0
        @usableFromInline var isOccupied = false
        @usableFromInline init() {}
    }

    @usableFromInline
    struct State {
        @usableFromInline var firstFree: Int32 = -1
        /// Slots from here on have never been used.
        @usableFromInline var untouched = 0
        @usableFromInline var occupied = 0
        @usableFromInline init() {}
    }

    @usableFromInline let elements: UnsafeMutablePointer<Element>
    @usableFromInline let headers: UnsafeMutablePointer<Header>
    @usableFromInline let state: UnsafeMutablePointer<State>
    /// Slots in all.
    public let capacity: Int

    /// - Parameter capacity: 1 to 2^24 slots. The memory is returned when the process ends.
    public init(capacity: Int) {
        precondition(capacity > 0 && capacity <= 1 << 24, "slot tables hold 1 to 2^24 slots")
        self.capacity = capacity
        unsafe elements = LazyPages.map(Element.self, count: capacity)
        unsafe headers = LazyPages.map(Header.self, count: capacity)
        unsafe state = .allocate(capacity: 1)
        unsafe state.initialize(to: State())
    }

    /// Occupied slots.
    @inlinable public var count: Int { unsafe state.pointee.occupied }

    /// Slots that have ever been used: every occupied index is below it.
    @inlinable public var highWater: Int { unsafe state.pointee.untouched }

    /// Places `element` in a free slot, or returns nil and drops it when there is none.
    @inlinable
    public func allocate(_ element: consuming Element) -> Slot<Element>? {
        guard let index = takeIndex() else { return nil }
        unsafe (elements + index).initialize(to: element)
        return unsafe Slot(
            pointer: elements + index, index: index, generation: headers[index].generation)
    }

    /// Places a copy of `blank` in a free slot, or returns nil when there is none: elements are large, and
    /// what differs between new ones is little.
    ///
    /// The copy is one of bytes: elements are plain values that own nothing, as handles do.
    @inlinable
    public func allocate(like blank: Mutable<Element>) -> Slot<Element>? {
        guard let index = takeIndex() else { return nil }
        unsafe UnsafeMutableRawPointer(elements + index).copyMemory(
            from: blank.pointer, byteCount: MemoryLayout<Element>.size)
        return unsafe Slot(
            pointer: elements + index, index: index, generation: headers[index].generation)
    }

    @inlinable
    func takeIndex() -> Int? {
        let index: Int
        if unsafe state.pointee.firstFree >= 0 {
            index = unsafe Int(state.pointee.firstFree)
            unsafe state.pointee.firstFree = headers[index].nextFree
        } else if unsafe state.pointee.untouched < capacity {
            index = unsafe state.pointee.untouched
            unsafe state.pointee.untouched += 1
            unsafe (headers + index).initialize(to: Header())
        } else {
            return nil
        }
        unsafe headers[index].isOccupied = true
        unsafe state.pointee.occupied += 1
        return index
    }

    /// Destroys the occupant; its references go stale.
    @inlinable
    public func free(_ slot: Slot<Element>) {
        let index = slot.index
        precondition(
            unsafe headers[index].isOccupied && headers[index].generation == slot.generation,
            "a slot is freed once")
        unsafe (elements + index).deinitialize(count: 1)
        unsafe headers[index].isOccupied = false
        unsafe headers[index].generation = (headers[index].generation &+ 1) & 0xFF_FFFF
        unsafe headers[index].nextFree = state.pointee.firstFree
        unsafe state.pointee.firstFree = Int32(truncatingIfNeeded: index)
        unsafe state.pointee.occupied -= 1
    }

    /// The occupant that a reference means, unless it is gone.
    @inlinable
    public func lookup(_ reference: SlotReference) -> Slot<Element>? {
        let index = Int(reference.index)
        guard index >= 0, index < capacity, unsafe headers[index].isOccupied,
            unsafe headers[index].generation == reference.generation
        else { return nil }
        return unsafe Slot(
            pointer: elements + index, index: index, generation: reference.generation)
    }

    /// Whatever occupies an index, for walks over the whole table.
    @inlinable
    public func occupant(at index: Int) -> Slot<Element>? {
        precondition(index >= 0 && index < capacity, "index outside the table")
        guard index < highWater, unsafe headers[index].isOccupied else { return nil }
        return unsafe Slot(
            pointer: elements + index, index: index, generation: headers[index].generation)
    }
}

/// One heap cell reached without exclusivity checks; for the state that a worker's thread alone touches.
@safe
public struct Mutable<Value: ~Copyable> {
    @usableFromInline let pointer: UnsafeMutablePointer<Value>

    /// The cell lives until it is deallocated, most of them until the process ends.
    @inlinable
    public init(_ value: consuming Value) {
        unsafe pointer = .allocate(capacity: 1)
        unsafe pointer.initialize(to: value)
    }

    @inlinable
    public var value: Value {
        @inline(__always) unsafeAddress { unsafe UnsafePointer(pointer) }
        @inline(__always) nonmutating unsafeMutableAddress { unsafe pointer }
    }

    /// Frees the cell, which nobody uses any more.
    public func deallocate() {
        unsafe pointer.deinitialize(count: 1)
        unsafe pointer.deallocate()
    }
}

/// Zeroed memory that the kernel backs page by page as it is touched.
@usableFromInline
enum LazyPages {
    @usableFromInline
    static func map<T: ~Copyable>(_ type: T.Type, count: Int) -> UnsafeMutablePointer<T> {
        let bytes = max(1, count) * MemoryLayout<T>.stride
        let mapped = unsafe mmap(
            nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else {
            preconditionFailure("the kernel refused \(bytes) bytes of address space")
        }
        return unsafe mapped.bindMemory(to: T.self, capacity: count)
    }
}
