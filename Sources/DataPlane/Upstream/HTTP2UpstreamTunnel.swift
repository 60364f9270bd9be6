import HTTP2
import HTTPWire
import Reactor

// Upgrades to endpoints of HTTP/2: an extended CONNECT (RFC 8441) for those that have announced it. To the
// exchange, and to the caller, it reads like the 101 of an upstream of HTTP/1.1.

extension Worker {
    /// Whether a call for a tunnel may begin. Where the endpoint takes no tunnels it is answered.
    func mayTunnel(_ stream: Slot<UpstreamConnection>, _ exchange: Slot<Exchange>) -> Bool {
        guard let connection = upstreamConnections.lookup(stream.value.stream.connection) else {
            return false
        }
        guard connection.value.multiplex.session.allowsTunnels else {
            failExchange(exchange, .upgradeUnsupported)
            return false
        }
        return true
    }

    /// The one protocol that is asked for: `websocket` where it is named, else the first.
    static func chosenProtocol(_ text: Span<UInt8>, _ upgrade: Range<Int>) -> Range<Int> {
        var first = 0..<0
        var start = upgrade.lowerBound
        while start < upgrade.upperBound {
            var end = start
            while end < upgrade.upperBound, text[end] != 0x2C, text[end] != 0x20, text[end] != 0x09 {
                end += 1
            }
            if end > start {
                if text.extracting(start..<end).equalsIgnoringCase("websocket") { return start..<end }
                if first.isEmpty { first = start..<end }
            }
            start = end + 1
        }
        return first
    }

    /// The endpoint agrees to a tunnel. Called by the engine: nothing may be sent here.
    func takeAgreement(_ stream: Slot<UpstreamConnection>, endsStream: Bool) {
        guard let exchange = exchanges.lookup(stream.value.exchange), !exchange.value.isDead else { return }
        let head = exchange.value.head
        let key = webSocketKey(head)
        pool.ensureRoom(
            for: http2.block.value.textBytesMax + exchange.value.upgrade.count, in: &stream.value.input)
        var writer = ByteWriter(stream.value.input)
        http2.block.value.writeSwitch(
            into: &writer,
            protocolName: head.span(Self.chosenProtocol(head.readable, exchange.value.upgrade)),
            key: head.span(key))
        stream.value.input.commit(writer)
        stream.value.stream.hasAnswerHead = true
        if endsStream {
            stream.value.stream.answerHasEnded = true
            stream.value.inputEnded = true
        }
        answerLater(stream)
    }
}
