import Reactor

/// Whom an event is for: kind (8 bits), generation (24 bits), index (32 bits).
///
/// The generation makes an event that was fetched for a previous occupant of a slot harmless.
struct Token {
    enum Kind: UInt8 {
        case listener, plaintextListener, downstream, upstream, mailbox, store
    }

    let rawValue: UInt64

    init(_ kind: Kind, _ reference: SlotReference = SlotReference(index: 0, generation: 0)) {
        rawValue =
            UInt64(kind.rawValue) << 56 | UInt64(reference.generation) << 32
            | UInt64(UInt32(bitPattern: reference.index))
    }

    init(rawValue: UInt64) { self.rawValue = rawValue }

    var kind: Kind {
        guard let kind = Kind(rawValue: UInt8(rawValue >> 56)) else {
            preconditionFailure("tokens are made by Token")
        }
        return kind
    }

    var reference: SlotReference {
        SlotReference(
            index: Int(UInt32(truncatingIfNeeded: rawValue)),
            generation: UInt32(truncatingIfNeeded: rawValue >> 32) & 0xFF_FFFF)
    }
}
