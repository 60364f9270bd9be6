import HTTP2
import HTTPWire
import Reactor
import TLS

/// One caller's connection: transport state and the position in its stream of requests. A stream of HTTP/2 is
/// one too, without a socket: a connection of one request, whose bytes its connection carries.
struct Downstream: ~Copyable {
    enum Kind: UInt8 { case http1, http2, stream }

    enum Transport: UInt8 {
        /// Nothing has arrived: TLS or not is still open.
        case greeting
        case handshaking
        case open
        /// Answered and closed by us; what still arrives is dropped until the peer closes or time is up.
        case lingering
    }

    enum Request: UInt8 {
        /// Between requests, or a head is incomplete.
        case head
        /// A key look-up or a debit is under way for the head that stands first in `input`.
        case awaitingKey
        /// An exchange is under way, and its request body is still arriving.
        case body
        /// An exchange is under way, and its request has arrived in full.
        case complete
        /// The exchange has become a tunnel: bytes pass as they come.
        case tunnel
        /// The request was refused; its body is read and dropped.
        case discarding
    }

    var descriptor: Descriptor
    var kind = Kind.http1
    /// A stream has its connection's, to look at only.
    var session = TLSSession()
    var peer: SocketAddress
    /// Plaintext that could not be used yet.
    var input = Block.none
    /// Ciphertext that the socket would not take yet.
    var output = Block.none
    var transport = Transport.greeting
    var request = Request.head
    var interest = Interest.read
    /// Empty lines before the request that is awaited.
    var emptyLines: UInt8 = 0
    /// The port that only refuses.
    var isPlaintextPort: Bool
    /// Whether it counts as a handshake under way.
    var isShakingHands = false
    /// Whether a part of the worker's scratch block is this caller's.
    var hasUnsentOutput = false
    /// The caller sends no more.
    var inputEnded = false
    /// The connection closes when the current answer has been sent.
    var closesAfterAnswer = false
    /// Whether the answer has been given and the output only has to drain before closing.
    var isFinishing = false
    /// Whether this slot already waits in the worker's resume queue.
    var isQueued = false
    var exchange = SlotReference.none
    /// Framing of the body that is being discarded.
    var discardRemaining: Int64 = 0
    var discardChunks = ChunkDecoder()
    var discardIsChunked = false
    /// Closed: waits for the end of the turn to be freed, so that nobody holds a slot that is gone.
    var isDead = false
    /// Requests answered on this connection.
    var requests: Int64 = 0
    /// When the present phase began, for the body rate; monotonic microseconds.
    var phaseStartMicroseconds: Int64 = 0
    var phaseBytes: Int64 = 0
    /// Since when `output` holds bytes, and how many it has got rid of since.
    var stallStartMicroseconds: Int64 = 0
    var stallBytes: Int64 = 0
    /// The credential's slot, once a look-up has been answered; used by the second reading of the head.
    var resolvedKey: Int32 = Downstream.unresolved
    /// Whether the head has waited for its account's limits.
    var hasSeenLimits = false
    /// When the head that waits for a look-up had arrived.
    var arrivedMicroseconds: Int64 = 0

    // Last, so that what every call of HTTP/1 touches stays close together.
    /// The HTTP/2 side of a connection.
    var multiplex = MultiplexState()
    /// The HTTP/2 side of a stream.
    var stream = StreamState()

    static let unresolved: Int32 = -1
    static let resolvedUnknown: Int32 = -2
    static let resolvedUnavailable: Int32 = -3
    static let resolvedFound: Int32 = -4

    init(descriptor: Descriptor, peer: SocketAddress, isPlaintextPort: Bool) {
        self.descriptor = descriptor
        self.peer = peer
        self.isPlaintextPort = isPlaintextPort
    }

    /// A stream of HTTP/2 that is nobody's yet.
    static func blankStream() -> Downstream {
        let nobody = SocketAddress(ipv4: 0, port: 0)
        var blank = Downstream(descriptor: .none, peer: nobody, isPlaintextPort: false)
        blank.kind = .stream
        blank.transport = .open
        return blank
    }
}
