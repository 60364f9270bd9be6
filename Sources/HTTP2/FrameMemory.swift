internal import CNghttp2
import Glibc

// The library takes and gives back half a dozen small pieces of memory for every stream, and hundreds of
// streams come and go together, which is what general allocators are slow at. One worker's sessions take
// theirs from here: a few sizes, each with a list of pieces that wait for reuse.

/// Memory of the sessions of one engine, used by one thread.
@safe
final class FrameMemory {
    /// Bytes of the smallest and of the largest piece that is kept for reuse; each size doubles the one
    /// before. A stream's state takes 256, a header list 1,024.
    private static let smallestBytes = 32
    private static let sizes = 7
    /// Pieces of one size that wait for reuse: what 512 streams hold, at most 2 MiB in all.
    private static let keptMax = 512
    /// Before each piece stands the index of its size; 16 bytes keep the piece aligned for any type.
    private static let headerBytes = 16
    /// The index of pieces that are too large to be kept.
    private static let large = sizes

    @safe
    private struct Shelf {
        var first: UnsafeMutableRawPointer?
        var count = 0
    }

    private let shelves: UnsafeMutablePointer<Shelf>
    /// What the library calls.
    let functions: UnsafeMutablePointer<nghttp2_mem>

    init() {
        unsafe shelves = .allocate(capacity: Self.sizes)
        unsafe shelves.initialize(repeating: Shelf(), count: Self.sizes)
        unsafe functions = .allocate(capacity: 1)
        unsafe functions.initialize(
            to: nghttp2_mem(
                mem_user_data: nil, malloc: takeMemory, free: giveMemory, calloc: takeClearMemory,
                realloc: resizeMemory))
        unsafe functions.pointee.mem_user_data = Unmanaged.passUnretained(self).toOpaque()
    }

    deinit {
        for index in 0..<Self.sizes {
            while let piece = unsafe shelves[index].first {
                unsafe shelves[index].first = piece.load(as: UnsafeMutableRawPointer?.self)
                unsafe free(piece - Self.headerBytes)
            }
        }
        unsafe shelves.deallocate()
        unsafe functions.deallocate()
    }

    @inline(__always)
    private static func index(for count: Int) -> Int {
        guard count > smallestBytes else { return 0 }
        // 33 to 64 bytes are size 1, and so on.
        return min(large, Int.bitWidth - (count - 1).leadingZeroBitCount - 5)
    }

    fileprivate func take(_ count: Int) -> UnsafeMutableRawPointer? {
        let index = Self.index(for: count)
        if index < Self.large, let piece = unsafe shelves[index].first {
            unsafe shelves[index].first = piece.load(as: UnsafeMutableRawPointer?.self)
            unsafe shelves[index].count -= 1
            return unsafe piece
        }
        let bytes = index < Self.large ? Self.smallestBytes << index : count
        let (whole, overflow) = bytes.addingReportingOverflow(Self.headerBytes)
        guard !overflow, whole > 0, let base = unsafe malloc(whole) else { return nil }
        unsafe base.storeBytes(of: index, as: Int.self)
        return unsafe base + Self.headerBytes
    }

    fileprivate func give(_ piece: UnsafeMutableRawPointer) {
        let base = unsafe piece - Self.headerBytes
        let index = unsafe base.load(as: Int.self)
        guard index < Self.large, unsafe shelves[index].count < Self.keptMax else {
            unsafe free(base)
            return
        }
        unsafe piece.storeBytes(of: shelves[index].first, as: UnsafeMutableRawPointer?.self)
        unsafe shelves[index].first = piece
        unsafe shelves[index].count += 1
    }

    fileprivate func resize(_ piece: UnsafeMutableRawPointer, to count: Int) -> UnsafeMutableRawPointer? {
        let base = unsafe piece - Self.headerBytes
        let index = unsafe base.load(as: Int.self)
        guard index < Self.large else {
            let (whole, overflow) = count.addingReportingOverflow(Self.headerBytes)
            guard !overflow, let moved = unsafe realloc(base, whole) else { return nil }
            return unsafe moved + Self.headerBytes
        }
        let held = Self.smallestBytes << index
        if count <= held { return unsafe piece }
        guard let larger = unsafe take(count) else { return nil }
        unsafe larger.copyMemory(from: piece, byteCount: held)
        unsafe give(piece)
        return unsafe larger
    }
}

private func memory(_ user: UnsafeMutableRawPointer?) -> Unmanaged<FrameMemory> {
    guard let user = unsafe user else { preconditionFailure("every allocator names its memory") }
    return unsafe Unmanaged<FrameMemory>.fromOpaque(user)
}

@c
private func takeMemory(_ count: Int, _ user: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    unsafe memory(user)._withUnsafeGuaranteedRef { unsafe $0.take(count) }
}

@c
private func takeClearMemory(
    _ members: Int, _ size: Int, _ user: UnsafeMutableRawPointer?
) -> UnsafeMutableRawPointer? {
    let (count, overflow) = members.multipliedReportingOverflow(by: size)
    guard !overflow, let piece = unsafe takeMemory(count, user) else { return nil }
    unsafe memset(piece, 0, count)
    return unsafe piece
}

@c
private func giveMemory(_ piece: UnsafeMutableRawPointer?, _ user: UnsafeMutableRawPointer?) {
    guard let piece = unsafe piece else { return }
    unsafe memory(user)._withUnsafeGuaranteedRef { unsafe $0.give(piece) }
}

@c
private func resizeMemory(
    _ piece: UnsafeMutableRawPointer?, _ count: Int, _ user: UnsafeMutableRawPointer?
) -> UnsafeMutableRawPointer? {
    guard let piece = unsafe piece else { return unsafe takeMemory(count, user) }
    return unsafe memory(user)._withUnsafeGuaranteedRef { unsafe $0.resize(piece, to: count) }
}
