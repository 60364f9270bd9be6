/// Blocks of a few sizes, handed out last-in first-out so that a busy worker keeps reusing warm memory.
///
/// A connection holds a block only while it has bytes to keep: an idle one holds none. What comes back
/// beyond `bytesRetainedMax` is freed, so a burst does not stay resident for ever.
public final class BufferPool {
    /// 4 KiB holds a head; 16 KiB a TLS record; 64 KiB one large read; 160 KiB one burst of records with
    /// their overhead; 512 KiB is the most that any connection may ever hold back.
    public static let sizes = [4_096, 16_384, 65_536, 163_840, 524_288]

    /// Blocks of one size that wait for reuse.
    private struct Shelf {
        var count = 0
        /// Blocks that are kept of this size.
        let blocks: FixedArray<Block>

        init(capacity: Int) { blocks = FixedArray(repeating: .none, count: capacity) }
    }

    private struct Counts {
        var retained = 0
        var outstanding = 0
    }

    // Plain cells: as variables of the class they would pay for exclusivity checks on every call.
    private let shelves: FixedArray<Shelf>
    private let counts = Mutable(Counts())
    private let bytesRetainedMax: Int

    /// Bytes handed out and not yet given back.
    public var bytesOutstanding: Int { counts.value.outstanding }

    /// - Parameter bytesRetainedMax: idle bytes that the pool keeps for reuse.
    public init(bytesRetainedMax: Int = 16 << 20) {
        self.bytesRetainedMax = bytesRetainedMax
        shelves = FixedArray(Self.sizes.map { Shelf(capacity: bytesRetainedMax / $0) })
    }

    /// An empty block of the smallest size that holds `capacity` bytes.
    ///
    /// Callers ask for no more than the largest size: every limit on a message is below it.
    public func take(atLeast capacity: Int) -> Block {
        let index = Self.sizeIndex(for: capacity)
        counts.value.outstanding += Self.size(at: index)
        guard shelves[index].count > 0 else { return Block.allocate(capacity: Self.size(at: index)) }
        shelves[index].count -= 1
        var block = shelves[index].blocks[shelves[index].count]
        counts.value.retained -= block.capacity
        block.clear()
        return block
    }

    /// Takes a block back and leaves an empty handle behind. A handle without memory is accepted.
    @inlinable
    public func give(_ block: inout Block) {
        guard block.isAllocated else { return }
        keep(block)
        block = Block()
    }

    @usableFromInline
    func keep(_ block: Block) {
        let index = Self.sizeIndex(for: block.capacity)
        counts.value.outstanding -= block.capacity
        if counts.value.retained + block.capacity <= bytesRetainedMax,
            shelves[index].count < shelves[index].blocks.count
        {
            counts.value.retained += block.capacity
            shelves[index].blocks[shelves[index].count] = block
            shelves[index].count += 1
        } else {
            var spare = block
            spare.deallocate()
        }
    }

    /// Makes sure that `block` has room for `more` bytes, moving its content to a larger one if need be.
    public func ensureRoom(for more: Int, in block: inout Block) {
        if block.freeCount >= more && block.isAllocated { return }
        if block.isAllocated && block.capacity - block.count >= more {
            block.compact()
            return
        }
        var larger = take(atLeast: block.count + more)
        larger.append(block.readable)
        give(&block)
        block = larger
    }

    private static func sizeIndex(for capacity: Int) -> Int {
        if capacity <= 4_096 { return 0 }
        if capacity <= 16_384 { return 1 }
        if capacity <= 65_536 { return 2 }
        if capacity <= 163_840 { return 3 }
        precondition(capacity <= 524_288, "no message part is larger than the largest block")
        return 4
    }

    private static func size(at index: Int) -> Int {
        switch index {
        case 0: return 4_096
        case 1: return 16_384
        case 2: return 65_536
        case 3: return 163_840
        default: return 524_288
        }
    }
}
