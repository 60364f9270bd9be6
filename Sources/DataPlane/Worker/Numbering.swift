import Configuration

// Counters, log records, pools and calls under way name routes, tiers, upstreams and endpoints by number. A
// number stays with its name for as long as configurations go on naming it, whatever their order: a reload
// touches no counter and no pool, and a call under way ends where it began.

/// Numbers for the names of one kind.
struct Numbering: Sendable {
    /// What a set of names came to.
    struct Assigned: Sendable {
        /// The number of each name, in the order asked for.
        var numbers: [Int]
        /// Those that stood for another name before, or for none.
        var fresh: Set<Int>
    }

    /// Numbers there are; tables are as long.
    let capacity: Int
    /// Whose each number is, or was last; empty where it was nobody's.
    private(set) var names: [String]
    private var numbers: [String: Int] = [:]
    /// Numbers whose names are gone, longest ago first.
    private var retired: [Int] = []
    private var untouched = 0

    init(capacity: Int) {
        precondition(capacity > 0, "there is something to number")
        self.capacity = capacity
        names = Array(repeating: "", count: capacity)
    }

    /// Gives every name its number; equal names have the same one. Names that are not asked for any more lose
    /// theirs, which is given away only when all others are: what still counts on it has ended by then.
    ///
    /// - Returns: nil when there are more names than numbers; then nothing has changed.
    mutating func assign(_ wanted: [String]) -> Assigned? {
        var result = Assigned(numbers: [], fresh: [])
        let kept = Set(wanted)
        guard kept.count <= capacity else { return nil }
        for (name, number) in numbers.sorted(by: { $0.value < $1.value }) where !kept.contains(name) {
            numbers[name] = nil
            retired.append(number)
        }
        for name in wanted {
            if let number = numbers[name] {
                result.numbers.append(number)
                continue
            }
            let number: Int
            if let former = retired.firstIndex(where: { names[$0] == name }) {
                number = retired.remove(at: former)
            } else if untouched < capacity {
                number = untouched
                untouched += 1
                result.fresh.insert(number)
            } else {
                number = retired.removeFirst()
                result.fresh.insert(number)
            }
            numbers[name] = number
            names[number] = name
            result.numbers.append(number)
        }
        return result
    }
}

/// The numbers of everything that a configuration names.
struct PlanNumbers: Sendable {
    /// What one configuration's names came to, in its own order.
    struct Assigned: Sendable {
        /// Routes that share a name share a number.
        var routes: Numbering.Assigned
        var tiers: Numbering.Assigned
        var upstreams: Numbering.Assigned
        /// All endpoints, upstream by upstream.
        var endpoints: Numbering.Assigned
    }

    /// Names beside those of the first configuration that later ones may bring, at least.
    private static let room = (routes: 32, tiers: 8, upstreams: 16, endpoints: 64)

    var routes: Numbering
    var tiers: Numbering
    var upstreams: Numbering
    var endpoints: Numbering

    /// Room for a configuration and for half as many names more.
    init(for configuration: GatewayConfiguration) {
        func capacity(_ count: Int, _ room: Int) -> Int { count + max(room, count / 2) }
        routes = Numbering(capacity: capacity(configuration.routes.count, Self.room.routes))
        tiers = Numbering(capacity: capacity(configuration.tiers.count, Self.room.tiers))
        upstreams = Numbering(capacity: capacity(configuration.upstreams.count, Self.room.upstreams))
        let count = configuration.upstreams.reduce(0) { $0 + $1.endpoints.count }
        endpoints = Numbering(capacity: capacity(count, Self.room.endpoints))
    }

    /// - Returns: nil when there are more names than the process has room for.
    mutating func assign(_ configuration: GatewayConfiguration) -> Assigned? {
        let endpointNames = configuration.upstreams.flatMap { upstream in
            upstream.endpoints.map { "\(upstream.name) \($0.text)" }
        }
        guard let routes = routes.assign(configuration.routes.map(\.name)),
            let tiers = tiers.assign(configuration.tiers.map(\.name)),
            let upstreams = upstreams.assign(configuration.upstreams.map(\.name)),
            let endpoints = endpoints.assign(endpointNames)
        else { return nil }
        return Assigned(routes: routes, tiers: tiers, upstreams: upstreams, endpoints: endpoints)
    }
}
