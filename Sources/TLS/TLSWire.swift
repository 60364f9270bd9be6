internal import COpenSSL
package import Reactor

// OpenSSL does no I/O of its own here. The worker reads ciphertext with one `recv` into a block and points
// the wire at it; a custom BIO hands the records to OpenSSL from there and appends what OpenSSL writes to
// the wire's outbound block, which the worker sends with one `send`. A worker handles one connection at a
// time, so one BIO without state of its own serves every session: a connection costs no BIO, no buffer.

/// What lies under every TLS session of one worker.
@safe
package final class TLSWire {
    /// Ciphertext that OpenSSL has produced; the owner sends and clears it.
    package var outbound: Block {
        get { cell.value.outbound }
        set { cell.value.outbound = newValue }
    }

    struct Cell {
        var inbound = Block()
        var outbound: Block
    }

    let cell: Mutable<Cell>
    let bio: OpaquePointer
    private let method: OpaquePointer

    /// - Parameter outboundCapacity: bytes of ciphertext that may collect before the owner sends them; a
    ///   handshake flight or one burst of records must fit.
    package init(outboundCapacity: Int = 262_144) throws(TLSError) {
        cell = Mutable(Cell(outbound: Block.allocate(capacity: outboundCapacity)))
        guard let method = unsafe BIO_meth_new(BIO_TYPE_SOURCE_SINK | 0x70, "gateway wire") else {
            throw .openSSL("no BIO method")
        }
        unsafe self.method = method
        unsafe BIO_meth_set_read(method, wireRead)
        unsafe BIO_meth_set_write(method, wireWrite)
        unsafe BIO_meth_set_ctrl(method, wireControl)
        guard let bio = unsafe BIO_new(method) else { throw .openSSL("no BIO") }
        unsafe self.bio = bio
        unsafe BIO_set_init(bio, 1)
        // Unretained: the wire outlives every session, and sessions never outlive their worker.
        unsafe BIO_set_data(bio, Unmanaged.passUnretained(self).toOpaque())
    }

    deinit {
        unsafe BIO_free(bio)
        unsafe BIO_meth_free(method)
        cell.value.outbound.deallocate()
        cell.deallocate()
    }

    /// Points the wire at ciphertext that has arrived; the memory must stay until it is consumed.
    package func setInbound(_ block: Block) { cell.value.inbound = block }

    /// Bytes of ciphertext that no session has taken yet.
    package var inboundRemaining: Int { cell.value.inbound.count }

    package var hasOutbound: Bool { !cell.value.outbound.isEmpty }

    package func clearOutbound() { cell.value.outbound.clear() }

    /// Gives a session this BIO in both directions; the session holds a reference each.
    func attach(to ssl: OpaquePointer) {
        // SSL_set_bio consumes one reference when both directions are the same BIO.
        unsafe BIO_up_ref(bio)
        unsafe SSL_set_bio(ssl, bio, bio)
    }

    fileprivate func read(into target: UnsafeMutablePointer<CChar>, count: Int) -> Int {
        let n = min(count, cell.value.inbound.count)
        guard n > 0, let source = unsafe cell.value.inbound.readableAddress else { return 0 }
        unsafe UnsafeMutableRawPointer(target).copyMemory(from: source, byteCount: n)
        cell.value.inbound.consume(n)
        return n
    }

    fileprivate func write(_ source: UnsafePointer<CChar>, count: Int) -> Bool {
        guard cell.value.outbound.freeCount >= count,
            let target = unsafe cell.value.outbound.writableAddress
        else { return false }
        unsafe UnsafeMutableRawPointer(target).copyMemory(from: source, byteCount: count)
        cell.value.outbound.advanceEnd(count)
        return true
    }
}

private func wire(of bio: OpaquePointer?) -> Unmanaged<TLSWire>? {
    guard let data = unsafe BIO_get_data(bio) else { return nil }
    return unsafe Unmanaged<TLSWire>.fromOpaque(data)
}

@c
private func wireRead(_ bio: OpaquePointer?, _ target: UnsafeMutablePointer<CChar>?, _ count: Int32) -> Int32
{
    guard let bio = unsafe bio, let target = unsafe target, let wire = unsafe wire(of: bio) else { return -1 }
    unsafe gw_BIO_clear_retry_flags(bio)
    let n = unsafe wire._withUnsafeGuaranteedRef { unsafe $0.read(into: target, count: Int(count)) }
    if n > 0 { return Int32(truncatingIfNeeded: n) }
    // Nothing more has arrived: OpenSSL reports "wants read" and keeps its place.
    unsafe gw_BIO_set_retry_read(bio)
    return -1
}

@c
private func wireWrite(_ bio: OpaquePointer?, _ source: UnsafePointer<CChar>?, _ count: Int32) -> Int32 {
    guard let bio = unsafe bio, let source = unsafe source, let wire = unsafe wire(of: bio) else { return -1 }
    unsafe gw_BIO_clear_retry_flags(bio)
    let taken = unsafe wire._withUnsafeGuaranteedRef { unsafe $0.write(source, count: Int(count)) }
    // No retry flag: a full wire is our own bug and must end the connection, not wait for ever.
    return taken ? count : -1
}

@c
private func wireControl(
    _ bio: OpaquePointer?, _ command: Int32, _ number: Int, _ pointer: UnsafeMutableRawPointer?
) -> Int {
    switch command {
    case BIO_CTRL_FLUSH, BIO_CTRL_DUP: return 1
    default: return 0
    }
}
