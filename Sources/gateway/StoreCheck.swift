import Configuration
import KeyManagement
import Redis

/// Whether the store can be used, for `check --live` and for the program's own log.
enum StoreCheck {
    /// - Returns: what is wrong, or nil.
    static func problem(_ configuration: GatewayConfiguration) -> String? {
        guard let options = StoreOptions(configuration.store) else { return nil }
        do {
            let client = try RedisClient(options, timeoutMilliseconds: 2_000)
            for answer in try client.everywhere(["PING"]) where answer.text != "PONG" {
                // Redis says what keeps it: a password, a right, a file that it still loads.
                if case .error(let text) = answer { return "it refuses PING: \(text)" }
                return "it does not answer PING: not Redis"
            }
            if case .cluster = options.transport {
                let topology = try StoreDirectory(options, timeoutMilliseconds: 2_000).find()
                let homeless = topology.owners.count { $0 == ClusterSlot.nobody }
                if homeless > 0 { return "\(homeless) slots of the cluster have no master" }
            }
            return nil
        } catch {
            return error.text
        }
    }

    /// The same for settings that the gateway runs with, but that break a promise; empty without a store.
    static func warnings(_ configuration: GatewayConfiguration) -> [String] {
        guard let options = StoreOptions(configuration.store),
            let client = try? RedisClient(options, timeoutMilliseconds: 2_000)
        else { return [] }
        return warnings(client)
    }

    /// A sentence about each setting of Redis that would break the promise of exact limits.
    static func warnings(_ client: RedisClient) -> [String] {
        // Who may not ask, at a provider that hides its settings, is told nothing.
        guard let answers = try? client.everywhere(["CONFIG", "GET", "maxmemory-policy"]) else { return [] }
        let policies = answers.compactMap { $0.elements?.last?.text }.filter { $0 != "noeviction" }
        return Set(policies).sorted().map {
            "store: maxmemory-policy is \($0): an evicted window resets its limit; use noeviction"
        }
    }
}
