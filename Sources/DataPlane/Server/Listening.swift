package import Reactor

// Every worker has a listening socket of its own (`SO_REUSEPORT`): the kernel spreads callers, and no two
// threads wake for one. Sockets that another process has opened are served as they are: one for each worker
// when there are as many, shared by several when there are fewer, several to one when there are more.

/// What a listening socket is called when it is handed on.
package enum ListenerName: String, Sendable {
    case https, plaintext, admin
}

extension GatewayServer {
    /// The sockets of each worker for one address.
    func bindAll(
        _ text: String, count: Int, named name: ListenerName
    ) throws(ServerProblem) -> [[Descriptor]] {
        var wanted = try address(text)
        let given = inherited.take(wanted, named: name.rawValue)
        var sockets: [[Descriptor]] = []
        do {
            guard given.isEmpty else { return try share(given, count) }
            for _ in 0..<count { sockets.append([try bind(&wanted)]) }
        } catch let error as ServerProblem {
            for socket in sockets.joined() { Socket.close(socket) }
            throw error
        } catch {
            throw ServerProblem("the system refuses a descriptor: \(error)")
        }
        return sockets
    }

    /// With `SO_REUSEPORT` a second gateway of the same user would be given half of the callers without a
    /// word. For the start of a process that nobody has handed sockets to.
    func checkIsFree(_ text: String) throws(ServerProblem) {
        let address = try address(text)
        do {
            Socket.close(try Socket.listen(on: address, reusePort: false, backlog: 1))
        } catch {
            throw ServerProblem(Socket.bindSentence(error, address: "\(address)"))
        }
    }

    /// Spreads sockets over workers. One that two of them serve has a descriptor for each.
    private func share(_ given: [Descriptor], _ count: Int) throws(SystemError) -> [[Descriptor]] {
        var sockets: [[Descriptor]] = Array(repeating: [], count: count)
        for (index, socket) in given.enumerated() { sockets[index % count].append(socket) }
        for index in given.count..<max(given.count, count) {
            sockets[index].append(try Socket.duplicate(given[index % given.count]))
        }
        return sockets
    }

    /// Notes which sockets are served from now on; nil is the same as before.
    func noteSockets(https: [[Descriptor]]?, plaintext: [[Descriptor]]?) {
        if let https {
            sockets.https = https.flatMap(\.self)
            httpsAddress = sockets.https.first.flatMap(Socket.localAddress) ?? httpsAddress
        }
        if let plaintext {
            sockets.plaintext = plaintext.flatMap(\.self)
            plaintextAddress = sockets.plaintext.first.flatMap(Socket.localAddress)
        }
    }

    /// The sockets that callers connect to, each with its name, for a process that takes over.
    package var namedSockets: [(name: String, descriptor: Descriptor)] {
        sockets.https.map { (ListenerName.https.rawValue, $0) }
            + sockets.plaintext.map { (ListenerName.plaintext.rawValue, $0) }
    }

    private func address(_ text: String) throws(ServerProblem) -> SocketAddress {
        guard let address = SocketAddress.parse(text) else {
            throw ServerProblem("\"\(text)\" is not an address like 0.0.0.0:8443 or [::]:8443")
        }
        return address
    }

    /// Port 0 is chosen once; the other workers share it.
    private func bind(_ address: inout SocketAddress) throws(ServerProblem) -> Descriptor {
        do {
            let socket = try Socket.listen(on: address, reusePort: true)
            if let bound = Socket.localAddress(socket) { address.port = bound.port }
            return socket
        } catch {
            throw ServerProblem(Socket.bindSentence(error, address: "\(address)"))
        }
    }
}
