// Every bound that is not a key of the configuration, with its reason.

enum HardLimits {
    /// Bytes of one `recv`: several TLS records, and no more than the scratch block takes with a full stash.
    static let readBytes = 65_536
    /// The same before the handshake, which begins with one record (RFC 8446 section 5.1).
    static let greetingBytes = 16_384
    /// Plaintext of one turn: a full stash, one read, and the record that OpenSSL held back.
    static let plaintextBytes = 163_840
    /// Longest target that `limits.target` allows: room for it is made once.
    static let targetBytes = 32_768
    /// Empty lines before a request: old clients send one behind a body (RFC 9112 section 2.2).
    static let emptyLines: UInt8 = 32
    /// Bytes that wait for an exchange before reading from its caller pauses.
    static let stashBytes = 16_384
    /// What a worker may have produced for one caller in one turn: a response head and a burst of body.
    static let outputBytes = 163_840
    /// What a worker may have produced for many callers, or for many upstreams, before it sends: enough calls
    /// to wake a peer once for all of them, few enough that the first does not wait long.
    static let deferredBytes = 65_536
    static let deferredParts = 64
    /// How often a caller of HTTP/2 is given the names of fields that only ever have new values, for its
    /// table of headers: `Date` alone fills that table within a minute.
    static let namesMicroseconds: Int64 = 16_000_000
    /// Longest silence of event streams, gRPC streams and tunnels where the route names none: their senders
    /// speak every 15 to 60 seconds.
    static let streamIdleMicroseconds: Int64 = 300_000_000
    /// Bytes of HTTP/2 request bodies that one worker keeps for upstreams that do not take them, before the
    /// windows of whole connections close too.
    static let bodyBytesHeld = 256 << 20
    /// Bytes of a body that are kept until its upstream of HTTP/2 has begun to answer: most calls of gRPC and
    /// most forms. With the longest head they fill what a worker may produce in one turn.
    static let keptBodyBytes = outputBytes - 131_072
    /// Body bytes of a refused request that are read and dropped to keep its connection.
    static let drainBytes: Int64 = 65_536
    /// Interim answers to one call: enough for hours of 102, an end to a stream of them.
    static let interimAnswers: Int32 = 1_000
    /// Longest kept request identifier of a trusted peer.
    static let requestIDBytes = 64
    /// Key look-ups that one worker has under way at once; beyond it callers get 503.
    static let lookupsInFlight = 256
    /// Those of keys that are new to the worker; the rest is for keys that it knows and has to confirm.
    static let unknownLookupsInFlight = 192
    /// Those of keys in use by calls under way.
    static let revisitsInFlight = 64
    /// New keys that one worker asks Redis for in a second: every key of a full cache within a few seconds,
    /// and no more of Redis than a flood of guesses may cost.
    static let newKeysPerSecond: Int64 = 10_000
    /// The same on behalf of addresses that have guessed too often: enough for the good keys among them.
    static let guessesPerSecond: Int64 = 50
    /// Keys of calls under way are looked at again when the last proof that changes are heard is older than
    /// this, and so often for as long as it is. With an idle worker's turn (200 ms), the walk that it waits
    /// for (`sweepMicroseconds`) and the look-up, a call ends within a second of a revocation that nobody
    /// told of.
    static let doubtMicroseconds: Int64 = 400_000
    /// Between two walks over the calls under way, and calls looked at in one turn.
    static let sweepMicroseconds: Int64 = 250_000
    static let sweepStep = 4_096
    /// A call that was let in just before its key expired may end by itself.
    static let expiryGraceMicroseconds: Int64 = 500_000
    /// Calls that wait for one worker's look-ups and debits.
    static let parkedCalls = 16_384
    /// Accounts that one worker can follow at once; more where `keys.cache.entries` asks for more.
    static let accounts = 262_144
    /// Those among them that are followed after their last call until their permits no longer count.
    static let tidiedAccounts = 131_072
    /// Commands under way on the only connection to Redis, and debits that they hold.
    static let storeCommands = 8_192
    static let storeDebits = 65_536
    /// The same on a connection to one of many masters, where a command holds the debits of one slot.
    static let laneCommands = 4_096
    static let laneDebits = 8_192
    /// How long a gateway that is to forward nothing in excess waits for the others after Redis has lost its
    /// last writes: they look for the new master every second, and whoever has died does not come.
    static let rollCallMicroseconds: Int64 = 5_000_000
    /// How long a closed connection is drained so that the caller can read the answer, in microseconds.
    static let lingerMicroseconds: Int64 = 2_000_000
    /// The same for a stream of HTTP/2 whose caller still sends, and body bytes that are taken meanwhile: the
    /// rest of a request that was under way when its answer went out.
    static let streamLingerMicroseconds: Int64 = 1_000_000
    static let streamDrainBytes: Int64 = 32_768
    /// How long a draining worker keeps an idle connection: its caller may be about to ask, and a call that
    /// meets a closing connection is lost. Answered, it is told not to come again.
    static let drainIdleMicroseconds: Int64 = 2_000_000
    /// Bytes of access log that one worker hands over at once.
    static let logBlockBytes = 65_536
    /// Full access-log blocks that may wait for the writer, over all workers; beyond it lines are dropped and
    /// counted.
    static let logBlocks = 64
    /// Bytes of a caller's `User-Agent` and `Referer` in a line of the log: longer ones are made up.
    static let loggedFieldBytes = 1_024
    /// Addresses of one name that are tried in turn: a call is tried again only so often.
    static let addresses = 8
    /// Failed attempts in a row after which an endpoint is left out, and for how long.
    static let ejectAfterFailures = 5
    static let ejectMicroseconds: Int64 = 10_000_000
    /// How long a connection of HTTP/2 to an upstream may be silent before a call that its caller gives up
    /// makes it suspect, and how long a suspect one without calls has to answer: longer than any round trip.
    /// As long must an endpoint have had for an answer whose late coming is its doing.
    static let pingMicroseconds: Int64 = 1_000_000
    /// Retries as a share of calls: one in `retryShare`, with a small balance for quiet times.
    static let retryShare = 5
    static let retryBalance = 10
    /// Bytes that may wait for an upstream to take them: what a turn forwards, and no more than the largest
    /// block holds.
    static let upstreamOutputBytes = 524_288
    /// Bytes of interim heads that an upstream of HTTP/2 may have waiting: with one more head, of at most
    /// 64 KiB, still less than the largest block.
    static let interimBytes = 262_144
    /// Answers of an endpoint that has refused calls, after which a connection is tried with one more at
    /// once: most such trials cost a retry, of which there is one for `retryShare` calls.
    static let answersPerTrial = 100
    /// How long a worker without file descriptors waits before it accepts again.
    static let acceptPauseMicroseconds: Int64 = 100_000
    /// Seconds between two notes that a key is in use: last use is told to the minute.
    static let seenSeconds: Int64 = 60
    /// Connections that one worker follows in the order in which their handshakes began.
    static let handshakeRow = 65_536
    /// New connections accepted per turn, so that a flood of them cannot starve the open ones.
    static let acceptsPerTurn = 16
    /// Steps of handshakes taken per turn, for the same reason: about 1 ms with ECDSA. The others wait.
    static let handshakeStepsPerTurn = 4
    /// New connections accepted after a turn that had more of them to take: a handshake is two steps, and
    /// whom nobody can serve waits better in the kernel's queue than in the row of those that are evicted.
    static let acceptsPerBusyTurn = handshakeStepsPerTurn / 2
}
