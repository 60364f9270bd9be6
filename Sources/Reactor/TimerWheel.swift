/// A hashed timing wheel (Varghese and Lauck, 1987) over preallocated links.
///
/// Timers are numbers, one per connection slot. Setting, moving and cancelling are O(1) and touch a few
/// words; a timer never fires early and is late by less than one tick. A deadline beyond one turn of the
/// wheel stays in its bucket and is passed over until its turn comes.
@safe
public struct TimerWheel {
    @usableFromInline static let buckets = 1_024

    @usableFromInline
    struct Node {
        @usableFromInline var next: Int32
        @usableFromInline var previous: Int32
        @usableFromInline var deadlineTick: Int64
        @usableFromInline var isSet: Bool
    }

    @usableFromInline
    struct State {
        @usableFromInline var currentTick: Int64
        @usableFromInline var count = 0
        @usableFromInline init(currentTick: Int64) { self.currentTick = currentTick }
    }

    /// Nodes 0..<buckets are the heads of the buckets' rings; timer t is node buckets + t.
    @usableFromInline let nodes: UnsafeMutablePointer<Node>
    @usableFromInline let state: UnsafeMutablePointer<State>
    @usableFromInline let timers: Int
    @usableFromInline let tickMicroseconds: Int64

    /// - Parameters:
    ///   - timers: how many timers there are, numbered from 0.
    ///   - tickMilliseconds: resolution; 1,024 ticks make a turn.
    public init(timers: Int, tickMilliseconds: Int = 32, nowMicroseconds: Int64) {
        precondition(timers > 0 && tickMilliseconds > 0, "a wheel has timers and a tick")
        self.timers = timers
        tickMicroseconds = Int64(tickMilliseconds) * 1_000
        unsafe nodes = LazyPages.map(Node.self, count: Self.buckets + timers)
        unsafe state = .allocate(capacity: 1)
        unsafe state.initialize(to: State(currentTick: nowMicroseconds / tickMicroseconds))
        for bucket in 0..<Self.buckets {
            let link = Int32(bucket)
            unsafe nodes[bucket] = Node(next: link, previous: link, deadlineTick: 0, isSet: false)
        }
    }

    /// Timers set.
    @inlinable public var count: Int { unsafe state.pointee.count }

    /// Sets or moves a timer.
    @inlinable
    public func set(_ timer: Int, atMicroseconds deadline: Int64) {
        precondition(timer >= 0 && timer < timers, "no such timer")
        let node = Self.buckets &+ timer
        // Rounded up, and never into the tick that is being handled: late by less than a tick, never early.
        let current = unsafe state.pointee.currentTick
        let tick = Swift.max(deadline / tickMicroseconds &+ 1, current &+ 1)
        if unsafe nodes[node].isSet {
            if unsafe nodes[node].deadlineTick == tick { return }
            unlink(node)
        }
        unsafe nodes[node].deadlineTick = tick
        link(node, bucket: Int(truncatingIfNeeded: tick) & (Self.buckets &- 1))
    }

    /// Clears a timer; clearing one that is not set is nothing.
    @inlinable
    public func cancel(_ timer: Int) {
        precondition(timer >= 0 && timer < timers, "no such timer")
        let node = Self.buckets &+ timer
        if unsafe nodes[node].isSet { unlink(node) }
    }

    /// Collects the timers that are due, and clears them. Call again while `expired` comes back full.
    ///
    /// - Parameter expired: emptied first; filled up to its reserved capacity.
    public func advance(toMicroseconds now: Int64, expired: inout [Int]) {
        expired.removeAll(keepingCapacity: true)
        let target = now / tickMicroseconds
        let limit = max(1, expired.capacity)
        while unsafe state.pointee.currentTick < target {
            let tick = unsafe state.pointee.currentTick + 1
            // An empty wheel jumps; otherwise every passed bucket is looked at once.
            if unsafe state.pointee.count == 0 {
                unsafe state.pointee.currentTick = target
                return
            }
            let bucket = Int(truncatingIfNeeded: tick) & (Self.buckets - 1)
            var node = unsafe Int(nodes[bucket].next)
            while node != bucket {
                let following = unsafe Int(nodes[node].next)
                if unsafe nodes[node].deadlineTick <= target {
                    if expired.count == limit { return }
                    unlink(node)
                    expired.append(node - Self.buckets)
                }
                node = following
            }
            unsafe state.pointee.currentTick = tick
        }
    }

    /// Milliseconds until the next tick, for the poller; -1 when no timer is set.
    @inlinable
    public func millisecondsToNextTick(nowMicroseconds now: Int64) -> Int32 {
        if count == 0 { return -1 }
        let next = unsafe (state.pointee.currentTick &+ 1) &* tickMicroseconds
        return Int32(truncatingIfNeeded: Swift.max(0, (next &- now &+ 999) / 1_000))
    }

    @usableFromInline
    @inline(__always)
    func link(_ node: Int, bucket: Int) {
        let last = unsafe nodes[bucket].previous
        unsafe nodes[node].next = Int32(truncatingIfNeeded: bucket)
        unsafe nodes[node].previous = last
        unsafe nodes[Int(last)].next = Int32(truncatingIfNeeded: node)
        unsafe nodes[bucket].previous = Int32(truncatingIfNeeded: node)
        unsafe nodes[node].isSet = true
        unsafe state.pointee.count &+= 1
    }

    @usableFromInline
    @inline(__always)
    func unlink(_ node: Int) {
        let next = unsafe nodes[node].next
        let previous = unsafe nodes[node].previous
        unsafe nodes[Int(previous)].next = next
        unsafe nodes[Int(next)].previous = previous
        unsafe nodes[node].isSet = false
        unsafe state.pointee.count &-= 1
    }
}
