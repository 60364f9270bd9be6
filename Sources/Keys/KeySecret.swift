/// The bytes of a key while somebody has to have them: on the way from the random source to its owner's
/// terminal.
///
/// It cannot be copied, so it cannot be printed, interpolated, put into an error or reflected upon by
/// accident: all of these take copyable values. Whoever wants the text has to write `reveal()`. The bytes
/// stand in one piece of memory that never moves and is overwritten when the owner lets go. On the data plane
/// keys are never held in this type, only hashed where they arrived.
package struct KeySecret: ~Copyable {
    /// A record keeps this many last characters so that the owner recognises the key.
    package static let hintCount = 4

    private let storage: FixedArray<UInt8>

    /// Copies `bytes`, which must not be empty; the caller wipes the original.
    package init(copying bytes: Span<UInt8>) {
        storage = FixedArray(repeating: 0, count: bytes.count)
        for index in bytes.indices { storage[index] = bytes[index] }
    }

    /// Takes over memory that is filled already.
    init(taking storage: consuming FixedArray<UInt8>) {
        self.storage = storage
    }

    deinit { wipe(storage) }

    /// The key's bytes, for hashing.
    package var bytes: Span<UInt8> {
        @_lifetime(borrow self) borrowing get { storage.span }
    }

    /// The last four characters. A key shorter than sixteen has no hint: four would be too large a part of
    /// it.
    package var hint: String {
        guard storage.count >= 4 * Self.hintCount else { return "" }
        let start = storage.count - Self.hintCount
        return String(decoding: (start..<storage.count).map { storage[$0] }, as: UTF8.self)
    }

    /// The text of the key, to be shown once to the one who asked for it.
    package borrowing func reveal() -> String {
        String(decoding: (0..<storage.count).map { storage[$0] }, as: UTF8.self)
    }
}

/// Overwrites the bytes. Out of line, so that the compiler does not see that only a deallocation follows.
@inline(never)
private func wipe(_ storage: borrowing FixedArray<UInt8>) {
    for index in 0..<storage.count { storage[index] = 0 }
}
