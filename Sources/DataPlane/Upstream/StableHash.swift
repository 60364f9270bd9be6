/// A hash that is the same in every process and every version, for choices that several gateways are to make
/// alike: FNV-1a (Fowler, Noll, Vo) over 64 bits. Whoever chooses the text chooses the hash.
enum StableHash {
    static func of(_ text: String) -> UInt64 {
        text.utf8.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01B3 }
    }
}
