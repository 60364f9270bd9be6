import Reactor
import Synchronization

/// A row of counters that one thread writes and any thread may read.
///
/// A worker adds with a relaxed load and a relaxed store: no locked instruction, because nobody else
/// writes. The control thread sums the banks of all workers when it is scraped. The memory is mapped
/// lazily, so a bank with a cell for every route, method, status and tier costs only the cells in use.
@safe
final class CounterBank: @unchecked Sendable {
    // `@unchecked`: the pointer never changes after init and every access to its cells is atomic.
    private let cells: UnsafeMutablePointer<Atomic<UInt64>>
    let count: Int

    /// - Parameter count: number of cells, at least 1.
    init(count: Int) {
        precondition(count > 0, "a bank holds at least one counter")
        self.count = count
        unsafe cells = LazyMemory.allocate(of: Atomic<UInt64>.self, count: count)
    }

    /// Adds to a cell. Only the bank's own thread calls this.
    @inline(__always)
    func add(_ index: Int, _ amount: UInt64 = 1) {
        precondition(index >= 0 && index < count, "counter out of range")
        let value = unsafe cells[index].load(ordering: .relaxed)
        unsafe cells[index].store(value &+ amount, ordering: .relaxed)
    }

    /// Sets a gauge. Only the bank's own thread calls this.
    @inline(__always)
    func set(_ index: Int, to value: UInt64) {
        precondition(index >= 0 && index < count, "counter out of range")
        unsafe cells[index].store(value, ordering: .relaxed)
    }

    /// Sets cells to zero; those that are zero are not touched, so that memory never used stays unused. Only
    /// the bank's own thread calls this.
    func clear(_ first: Int, count: Int) {
        for index in first..<first + count where read(index) != 0 { set(index, to: 0) }
    }

    /// Reads a cell from any thread.
    func read(_ index: Int) -> UInt64 {
        precondition(index >= 0 && index < count, "counter out of range")
        return unsafe cells[index].load(ordering: .relaxed)
    }
}
