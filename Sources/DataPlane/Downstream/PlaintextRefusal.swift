import HTTPWire
import Keys
import Reactor

// Plain HTTP is refused, never redirected: a redirect would teach clients to send their keys in clear first.
// A key that came this way is compromised, and what happens to it is decided off the worker.

extension Worker {
    /// Goes on with a connection whose first byte was not TLS.
    func refusePlaintext(_ slot: Slot<Downstream>) {
        plain.value.clear()
        if slot.value.input.isAllocated {
            _ = plain.value.moveContents(from: &slot.value.input)
            pool.give(&slot.value.input)
        }
        _ = plain.value.moveContents(from: &received.value)
        let block = plain.value
        switch RequestParser.parse(block.readable, limits: headLimits, into: &requestHead.value) {
        case .incomplete:
            stash(slot)
        case .refused:
            // Not HTTP, or not any HTTP that could be answered.
            abandon(slot, .none)
        case .complete:
            makeRequestID(slot, trusting: false)
            let hasCredential = noteExposure(slot)
            metrics.add(hasCredential ? .plaintextWithCredential : .plaintextWithoutCredential)
            var context = RefusalContext(RefusalText(.plainHTTP))
            context.isUpgradeRequired = true
            context.method = requestHead.value.method
            let requestID = state.value.requestID
            writeRefusal(slot, context, requestID: requestID.readable, key: nil)
            recordRefusal(slot, 426, .plainHTTP, route: -1, key: nil, hasHead: true)
            slot.value.isFinishing = true
        }
    }

    /// Hands an exposed credential's digest to the store thread.
    private func noteExposure(_ slot: Slot<Downstream>) -> Bool {
        guard requestHead.value.authorizationCount > 0 else { return false }
        let block = plain.value
        guard case .token(let range) = BearerCredential.read(block.readable, requestHead.value.authorization)
        else { return true }
        let token = block.span(range)
        switch plan.keyFormat.classify(token) {
        case .wrongPrefix, .generatedShapeInvalid: return true
        case .generatedShapeValid, .otherShape: break
        }
        shared.noteExposure(ExposedKey(digest: digest(of: token), address: callerAddress(slot)))
        return true
    }
}
