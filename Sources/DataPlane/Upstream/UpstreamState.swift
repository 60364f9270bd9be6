import Configuration
import HTTP2
import HTTPWire
import Reactor
import TLS

/// One connection to an endpoint, or one stream of HTTP/2 on such a connection: a connection of one call.
struct UpstreamConnection: ~Copyable {
    enum Phase: UInt8 { case connecting, handshaking, busy, idle }
    enum Kind: UInt8 { case http1, http2, stream }

    var descriptor: Descriptor
    var kind = Kind.http1
    var session = TLSSession()
    var endpoint: Int32
    var phase: Phase
    /// Bytes received that do not make a head yet.
    var input = Block.none
    /// Bytes that the socket would not take yet: plaintext, or ciphertext with TLS.
    var output = Block.none
    var interest: Interest
    var exchange = SlotReference.none
    /// Generation of the configuration under which it was opened.
    var generation: UInt32
    /// Where it leads; nil for a Unix socket.
    var address: SocketAddress?
    /// Whether its endpoint's name no longer stands for that: it is closed after its call.
    var isOutdated = false
    /// Whether it has carried a call before: only then may a silent close be retried.
    var isReused = false
    /// Whether the present answer allows another call on this connection.
    var mayBeKept = false
    /// Whether any byte of the present answer has come.
    var hasAnswered = false
    /// Whether a part of the worker's scratch block is this connection's.
    var hasUnsentOutput = false
    /// Closed: waits for the end of the turn to be freed.
    var isDead = false
    /// Whether the endpoint has ended its side.
    var inputEnded = false
    /// Whether our side is to end, or has ended, once everything is sent.
    var hasEndedOutput = false
    /// Whether a write has failed: the endpoint may still have an answer to give.
    var outputIsBroken = false
    /// Not read while the caller does not take what is there.
    var isPaused = false
    /// Neighbours among the endpoint's idle connections; last used first.
    var nextIdle = SlotReference.none
    var previousIdle = SlotReference.none

    // Last, so that what every call of HTTP/1 touches stays close together.
    /// The HTTP/2 side of a connection.
    var multiplex = UpstreamMultiplex()
    /// The HTTP/2 side of a stream.
    var stream = UpstreamStream()

    init(
        descriptor: Descriptor, endpoint: Int32, generation: UInt32, phase: Phase, interest: Interest
    ) {
        self.descriptor = descriptor
        self.endpoint = endpoint
        self.generation = generation
        self.phase = phase
        self.interest = interest
    }
}

/// One address that a worker sends calls to.
struct EndpointState {
    /// The generation of connections to an endpoint that no configuration names any more.
    static let never = UInt32.max

    var upstream: Int32 = -1
    /// Where it is; nil while its name has not been resolved.
    var address: SocketAddress?
    /// Its place among the addresses that the name stands for, see `WorkerSnapshot.addresses`.
    var addressPlace: UInt8 = 0
    /// What `Balance.hash` knows it by: the same in every process, wherever the file lists it.
    var nameHash: UInt64 = 0
    var isUnixSocket = false
    var usesTLS = false
    /// Connections of earlier generations are closed after their call.
    var validFrom = EndpointState.never
    /// What active checks say.
    var isHealthy = true
    /// Passive ejection: left out until then.
    var ejectedUntilMicroseconds: Int64 = 0
    var failuresInARow: Int = 0
    /// Calls under way.
    var outstanding: Int = 0
    var connections: Int = 0
    var firstIdle = SlotReference.none
    var lastIdle = SlotReference.none
    var idleCount: Int = 0
    /// Open connections that speak HTTP/2; the first one that has room takes the next call.
    var firstMultiplexed = SlotReference.none
    /// Calls that a connection of HTTP/2 may carry at once, by what the endpoint has said last.
    var streamsAllowed = HTTP2Engine.streamsMax
    /// Calls that one seems to take at once, which each refusal lowers and a row of answers raises: endpoints
    /// count a call for a while after its answer, or take fewer than they say.
    var callsTaken = HTTP2Engine.streamsMax
    /// Answers since one was refused, or since one more was tried.
    var answersInARow = 0
    /// Whether the endpoint has declined HTTP/2 when it could have agreed.
    var declinesHTTP2 = false

    var isRetired: Bool { validFrom == Self.never }

    /// Becomes another endpoint; the books on connections go on.
    mutating func assume(_ other: EndpointState) {
        upstream = other.upstream
        address = other.address
        addressPlace = 0
        nameHash = other.nameHash
        isUnixSocket = other.isUnixSocket
        usesTLS = other.usesTLS
        isHealthy = true
        ejectedUntilMicroseconds = 0
        failuresInARow = 0
        streamsAllowed = HTTP2Engine.streamsMax
        callsTaken = HTTP2Engine.streamsMax
        declinesHTTP2 = false
    }
}

/// One upstream of a worker: which endpoints, how they are chosen, how many retries are in hand.
struct UpstreamState {
    /// Numbers of its endpoints, in the order of the file. An upstream that is gone keeps them for calls
    /// that began with it.
    private var members: FixedArray<Int32>?
    var balance = Balance.leastOutstanding
    var turn: Int = 0
    var retries = 0
    /// Grows by one per call and pays `HardLimits.retryShare` per retry.
    var retryBudget: Int = HardLimits.retryBalance * HardLimits.retryShare
    var connectTimeoutMicroseconds: Int64 = 0
    var idleTimeoutMicroseconds: Int64 = 0
    var idleMax = 0
    var connectionsMax = 0
    var usesHTTP2 = false
    /// Calls that wait for a connection, how many may, and how long.
    var waiting = WaiterList()
    var queueMax = 0
    var queueTimeoutMicroseconds: Int64 = 0

    var endpointCount: Int { members?.count ?? 0 }

    /// The number of the endpoint at a place, from 0.
    func member(_ place: Int) -> Int {
        guard let members else { preconditionFailure("an upstream without endpoints has no places") }
        return Int(members[place])
    }

    /// Takes over settings.
    ///
    /// - Parameter isFresh: whether the row was another upstream's, or nobody's.
    mutating func assume(_ configuration: UpstreamConfiguration, members: [Int], isFresh: Bool) {
        setMembers(members)
        if isFresh {
            turn = 0
            retryBudget = HardLimits.retryBalance * HardLimits.retryShare
        }
        balance = configuration.balance
        retries = configuration.retries
        connectTimeoutMicroseconds = Int64(configuration.connectTimeoutMilliseconds) * 1_000
        idleTimeoutMicroseconds = Int64(configuration.idleTimeoutMilliseconds) * 1_000
        idleMax = configuration.idleConnectionsPerWorker
        connectionsMax = configuration.connectionsPerWorker
        queueMax = configuration.queuePerWorker
        queueTimeoutMicroseconds = Int64(configuration.queueTimeoutMilliseconds) * 1_000
        usesHTTP2 = configuration.usesHTTP2
    }

    mutating func setMembers(_ numbers: [Int]) {
        members?.deallocate()
        members = FixedArray(numbers.map(Int32.init))
    }
}
