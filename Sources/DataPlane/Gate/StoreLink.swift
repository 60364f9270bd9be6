import HTTPWire
import Keys
import Limits
import Reactor

// Temporary seam: filled by the Redis link.
extension Worker {
    var hasStore: Bool { false }
    var isStoreReady: Bool { false }
    func startStore() {}
    func stopStore() {}
    func handleStore(_ event: Event) {}
    func flushStore() {}
    func storeTick() {}
    func markDirty(_ digest: Digest256) {}
    func lookUp(_ slot: Slot<Downstream>, _ fingerprint: Fingerprint, _ digest: Digest256) -> Credential {
        .refused(.storeUnavailable)
    }
    func attachAccount(_ key: Slot<ActiveKey>, _ account: String) {}
    func detachAccount(_ key: Slot<ActiveKey>) {}
    func limitRemotely(_ slot: Slot<Downstream>, headCount: Int, route: Int, _ key: Slot<ActiveKey>) -> Bool {
        false
    }
}
