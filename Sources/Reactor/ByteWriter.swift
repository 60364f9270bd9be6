/// Writes text into a block's free room. It never traps on a full block: it stops and remembers.
///
/// A caller writes a whole head without checking, then looks at `overflowed` once.
@safe
public struct ByteWriter {
    @usableFromInline let base: UnsafeMutablePointer<UInt8>?
    @usableFromInline let capacity: Int
    /// Bytes written.
    public var count: Int
    /// Whether something did not fit; nothing is written after that.
    public var overflowed: Bool

    /// A writer at the end of what `block` holds.
    @inlinable
    public init(_ block: Block) {
        unsafe base = block.writableAddress
        capacity = block.freeCount
        count = 0
        overflowed = false
    }

    @usableFromInline
    @inline(__always)
    mutating func room(_ n: Int) -> UnsafeMutablePointer<UInt8>? {
        guard n <= capacity &- count, !overflowed, let base = unsafe base else {
            overflowed = true
            return nil
        }
        let place = unsafe base + count
        count &+= n
        return unsafe place
    }

    @inlinable
    public mutating func append(_ bytes: Span<UInt8>) {
        let n = bytes.count
        guard n > 0, let place = unsafe room(n) else { return }
        unsafe bytes.withUnsafeBufferPointer { source in
            guard let from = source.baseAddress else { return }
            unsafe place.update(from: from, count: n)
        }
    }

    // Inlined, a short constant is a few stores; heads are made of dozens of them.
    @inlinable
    @inline(__always)
    public mutating func append(_ text: StaticString) {
        let n = text.utf8CodeUnitCount
        guard n > 0, let place = unsafe room(n) else { return }
        unsafe place.update(from: text.utf8Start, count: n)
    }

    /// Appends a field line: `name: value` and its CRLF.
    @inlinable
    public mutating func append(field name: Span<UInt8>, _ value: Span<UInt8>) {
        guard let place = unsafe room(name.count &+ value.count &+ 4) else { return }
        let line = UnsafeMutableRawPointer(place)
        unsafe name.withUnsafeBytes { source in
            if let from = source.baseAddress {
                unsafe line.copyMemory(from: from, byteCount: source.count)
            }
        }
        let rest = unsafe line + name.count
        unsafe rest.storeBytes(of: UInt16(0x203A).littleEndian, as: UInt16.self)
        unsafe value.withUnsafeBytes { source in
            if let from = source.baseAddress {
                unsafe (rest + 2).copyMemory(from: from, byteCount: source.count)
            }
        }
        unsafe (rest + 2 + value.count).storeBytes(of: UInt16(0x0A0D).littleEndian, as: UInt16.self)
    }

    /// Appends eight bytes, the lowest first.
    @inlinable
    public mutating func append(word: UInt64) {
        guard let place = unsafe room(8) else { return }
        unsafe UnsafeMutableRawPointer(place).storeBytes(of: word.littleEndian, as: UInt64.self)
    }

    @inlinable
    public mutating func append(byte: UInt8) {
        guard let place = unsafe room(1) else { return }
        unsafe place.pointee = byte
    }

    /// Appends a decimal number, with a sign when negative.
    @inlinable
    public mutating func append(decimal value: Int64) {
        if value >= 0 && value < 10 {
            append(byte: 48 &+ UInt8(truncatingIfNeeded: value))
            return
        }
        if value < 0 { append(byte: 45) }
        var rest = value.magnitude
        var digits = 1
        var bound: UInt64 = 10
        while rest >= bound, digits < 19 {
            bound &*= 10
            digits &+= 1
        }
        guard let place = unsafe room(digits) else { return }
        let raw = UnsafeMutableRawPointer(place)
        var end = digits
        // Two digits at a time: the divisions are what this costs.
        while rest >= 100 {
            end &-= 2
            let front = rest / 100
            let pair = Self.twoDigits(rest &- front &* 100)
            unsafe raw.storeBytes(of: pair, toByteOffset: end, as: UInt16.self)
            rest = front
        }
        if rest >= 10 {
            unsafe raw.storeBytes(of: Self.twoDigits(rest), as: UInt16.self)
        } else {
            unsafe place.pointee = 48 &+ UInt8(truncatingIfNeeded: rest)
        }
    }

    /// A number below 100 as two digits, in the order of memory.
    @usableFromInline
    @inline(__always)
    static func twoDigits(_ value: UInt64) -> UInt16 {
        let tens = (value &* 103) >> 10
        let units = value &- tens &* 10
        return (UInt16(truncatingIfNeeded: units << 8 | tens) &+ 0x3030).littleEndian
    }

    /// Appends four numbers with dots between them, an IPv4 address from its first byte to its last.
    mutating func append(octets address: UInt64) {
        guard let place = unsafe room(16) else { return }
        var written = 0
        var shift: UInt64 = 32
        while shift > 0 {
            shift &-= 8
            let octet = address &>> shift & 0xFF
            let hundreds = (octet &* 41) >> 12
            let twoDigits = Self.twoDigits(octet &- hundreds &* 100).littleEndian
            if hundreds > 0 {
                unsafe place[written] = 48 &+ UInt8(truncatingIfNeeded: hundreds)
                written &+= 1
            }
            if octet >= 10 {
                unsafe place[written] = UInt8(truncatingIfNeeded: twoDigits)
                written &+= 1
            }
            unsafe place[written] = UInt8(truncatingIfNeeded: twoDigits >> 8)
            unsafe place[written &+ 1] = 0x2E
            written &+= 2
        }
        // Without the last dot.
        written &-= 1
        count &-= 16 &- written
    }

    /// Appends lower-case hexadecimal, padded with zeros to at least `minimumDigits` (1 to 16).
    @inlinable
    public mutating func append(hexadecimal value: UInt64, minimumDigits: Int = 1) {
        let needed = value == 0 ? 1 : (67 &- value.leadingZeroBitCount) / 4
        let digits = Swift.max(needed, Swift.min(16, minimumDigits))
        guard let place = unsafe room(digits) else { return }
        if digits == 16 {
            let raw = UnsafeMutableRawPointer(place)
            unsafe raw.storeBytes(of: Self.hexadecimal(value >> 32).bigEndian, as: UInt64.self)
            unsafe (raw + 8).storeBytes(of: Self.hexadecimal(value).bigEndian, as: UInt64.self)
            return
        }
        var rest = value
        var at = digits &- 1
        while at >= 0 {
            let nibble = UInt8(truncatingIfNeeded: rest & 15)
            unsafe place[at] = nibble < 10 ? 48 &+ nibble : 87 &+ nibble
            rest >>= 4
            at &-= 1
        }
    }

    /// The lower 32 bits as eight digits, most significant first: all nibbles at once instead of one by one.
    @usableFromInline
    @inline(__always)
    static func hexadecimal(_ value: UInt64) -> UInt64 {
        var nibbles = value & 0xFFFF_FFFF
        nibbles = (nibbles << 16 | nibbles) & 0x0000_FFFF_0000_FFFF
        nibbles = (nibbles << 8 | nibbles) & 0x00FF_00FF_00FF_00FF
        nibbles = (nibbles << 4 | nibbles) & 0x0F0F_0F0F_0F0F_0F0F
        let isLetter = (nibbles &+ 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101
        return nibbles &+ 0x3030_3030_3030_3030 &+ isLetter &* 39
    }

    /// Appends the UTF-8 of a string; not for the hot path.
    public mutating func append(string: String) {
        for byte in string.utf8 { append(byte: byte) }
    }

    /// Goes back to an earlier length.
    @inlinable
    public mutating func truncate(to length: Int) {
        precondition(length >= 0 && length <= count, "a writer only shrinks")
        count = length
    }

    /// A byte written before.
    @inlinable
    public func byte(at index: Int) -> UInt8 {
        precondition(index >= 0 && index < count, "nothing is written there")
        return unsafe base?[index] ?? 0
    }

    /// What has been written so far.
    @inlinable
    public var written: Span<UInt8> {
        @_lifetime(borrow self)
        get {
            let bytes = unsafe Span(
                _unsafeElements: UnsafeBufferPointer(
                    start: base.map { unsafe UnsafePointer($0) }, count: count))
            return unsafe _overrideLifetime(bytes, borrowing: self)
        }
    }
}
