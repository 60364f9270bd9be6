import Reactor

/// Where the texts of a call stand that its record copies.
struct RecordTexts {
    private static let referrerName: StaticString = "referer"
    private static let agentName: StaticString = "user-agent"

    /// What all but the request's identifier stand in.
    var block: Block
    var requestIDBlock: Block
    var requestID: Range<Int>
    var path: Range<Int>
    var referrer = 0..<0
    var agent = 0..<0

    init(block: Block, requestIDBlock: Block, requestID: Range<Int>, path: Range<Int>) {
        self.block = block
        self.requestIDBlock = requestIDBlock
        self.requestID = requestID
        // Of a head that was refused in the middle.
        self.path = path.upperBound <= block.count ? path : 0..<0
    }

    /// Bytes that a record of them may take.
    var count: Int {
        requestID.count + min(path.count, 8_192) + min(referrer.count, HardLimits.loggedFieldBytes)
            + min(agent.count, HardLimits.loggedFieldBytes)
    }

    /// Finds what the caller says of itself among the field lines of a head as the gateway writes them.
    mutating func findAgent() {
        let bytes = block.readable
        var start = 0
        var colon = -1
        for index in 0..<bytes.count {
            switch bytes[index] {
            case 0x3A where colon < 0: colon = index
            case 0x0A:
                // `Name: value`, and the line break has two bytes.
                if colon > start, colon + 2 <= index - 1 {
                    note(name: start..<colon, value: colon + 2..<index - 1)
                }
                start = index + 1
                colon = -1
            default: continue
            }
        }
    }

    /// Takes a field in when it is one of those that the combined format shows; the first of several.
    mutating func note(name: Range<Int>, value: Range<Int>) {
        if name.count == Self.referrerName.utf8CodeUnitCount, referrer.isEmpty, has(name, Self.referrerName) {
            referrer = value
        } else if name.count == Self.agentName.utf8CodeUnitCount, agent.isEmpty, has(name, Self.agentName) {
            agent = value
        }
    }

    private func has(_ range: Range<Int>, _ name: StaticString) -> Bool {
        block.span(range).equalsIgnoringCase(name)
    }
}
