import Configuration
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
    /// The HTTP/2 side of a connection.
    var multiplex = UpstreamMultiplex()
    /// The HTTP/2 side of a stream.
    var stream = UpstreamStream()
    var endpoint: Int32
    var phase: Phase
    /// Bytes received that do not make a head yet.
    var input = Block.none
    /// Bytes that the socket would not take yet: plaintext, or ciphertext with TLS.
    var output = Block.none
    var interest: Interest
    var exchange = SlotReference.none
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

    init(descriptor: Descriptor, endpoint: Int32, phase: Phase, interest: Interest) {
        self.descriptor = descriptor
        self.endpoint = endpoint
        self.phase = phase
        self.interest = interest
    }
}

/// One address that a worker sends calls to.
struct EndpointState {
    var upstream: Int32
    /// Where it is; nil while its name has not been resolved.
    var address: SocketAddress?
    var isUnixSocket: Bool
    var usesTLS: Bool
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
    /// Whether the endpoint has declined HTTP/2 when it could have agreed.
    var declinesHTTP2 = false
}

/// One upstream of a worker: which endpoints, how they are chosen, how many retries are in hand.
struct UpstreamState {
    var firstEndpoint: Int
    var endpointCount: Int
    var balance: Balance
    var turn: Int = 0
    var retries: Int
    /// Grows by one per call and pays `HardLimits.retryShare` per retry.
    var retryBudget: Int = HardLimits.retryBalance * HardLimits.retryShare
    var connectTimeoutMicroseconds: Int64
    var idleTimeoutMicroseconds: Int64
    var idleMax: Int
    var connectionsMax: Int
    var usesHTTP2: Bool
}
