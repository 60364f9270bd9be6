import Configuration
import Keys
import Limits
import Reactor
import Redis
import Synchronization

// A Redis that has lost its last writes knows all of them again once every gateway that was alive has told
// it what it let in. Until then a gateway that is back before the others might be given what they have let
// in; with `on_outage: closed`, which promises never to forward too much, nobody is let in meanwhile. A
// worker has told when the debits of its walk over the accounts are answered: it spends of no older lease
// then, and asks no former master. The gateway answers the roll when all of its workers have.
//
// A gateway that has died with the master answers never, so the wait has an end, and after it each keeps to
// its share for one window, see Caution.swift. A cluster has no roll: its masters fail one by one, each with
// its part of the accounts.

/// Whether all gateways have told a Redis that lost its last writes what they let in.
final class RollCall: Sendable {
    private struct State {
        /// The history that began with the loss, by number; 0 before the first.
        var history: UInt64 = 0
        var gateways: Int64 = 1
        var workers: Set<Int> = []
    }

    private let state = Mutex(State())
    private let ends = Atomic<Int64>(0)

    /// Writes were lost.
    ///
    /// - Parameter gateways: that were alive, this one included. One alone needs nobody.
    func begin(history: UInt64, gateways: Int, nowMicroseconds now: Int64) {
        guard gateways > 1 else { return }
        state.withLock { $0 = State(history: history, gateways: Int64(gateways)) }
        ends.store(now &+ HardLimits.rollCallMicroseconds, ordering: .releasing)
    }

    /// Whether somebody may still be missing.
    func isOpen(_ now: Int64) -> Bool { now < ends.load(ordering: .acquiring) }

    /// A worker has told everything.
    ///
    /// - Returns: whether all have, of so many.
    func hasTold(_ worker: Int, of workers: Int, in history: UInt64) -> Bool {
        state.withLock { state in
            guard state.history == history else { return false }
            state.workers.insert(worker)
            return state.workers.count >= workers
        }
    }

    /// So many gateways have answered the roll.
    func heard(_ gateways: Int64, in history: UInt64) {
        let isOver = state.withLock { $0.history == history && gateways >= $0.gateways }
        if isOver { ends.store(0, ordering: .releasing) }
    }
}

extension Worker {
    /// Notes in Redis who has told, and returns how many have.
    private static let script = """
        redis.call('SADD', KEYS[1], ARGV[1])
        redis.call('EXPIRE', KEYS[1], 60)
        return redis.call('SCARD', KEYS[1])
        """
    private static let roundMicroseconds: Int64 = 20_000

    /// Whether a call has to be turned away because a gateway may still have to tell what it let in.
    @inline(__always)
    func isRollCalled(_ key: Slot<ActiveKey>) -> Bool {
        rows.onOutage == .closed && isCautious(key.value.plan)
            && shared.rollCall.isOpen(state.value.nowMicroseconds)
    }

    /// Follows what this worker tells a Redis that has lost its last writes, and answers the roll.
    func rollCallTick(_ lane: StoreLane) {
        let now = state.value.nowMicroseconds
        guard !isCluster, lane.state.value.historyNumber != 0, lane.isReady, shared.rollCall.isOpen(now)
        else { return }
        switch lane.state.value.telling {
        case .walking:
            guard lane.state.value.restorePosition >= accounts.highWater, lane.state.value.queue.isEmpty
            else { return }
            lane.state.value.telling = .awaiting(sentBefore: MonotonicClock.nowMicroseconds())
            rollCallTick(lane)
        case .awaiting(let end):
            // Answers come in the order of the questions.
            if let oldest = lane.state.value.pending.oldest, oldest.sentMicroseconds <= end { return }
            lane.state.value.telling = .told
            rollCallTick(lane)
        case .told:
            guard now >= lane.state.value.nextRollMicroseconds, !lane.state.value.pending.isFull,
                shared.rollCall.hasTold(number, of: rows.workers, in: lane.state.value.historyNumber)
            else { return }
            lane.state.value.nextRollMicroseconds = now + Self.roundMicroseconds
            answerRoll(lane)
        }
    }

    private func answerRoll(_ lane: StoreLane) {
        guard lane.hasRoomForLookup else { return }
        let name = Array((plan.configuration.store.prefix + "told:").utf8) + lane.state.value.history
        let command = CommandWriter.bytes([
            Array("EVAL".utf8), Array(Self.script.utf8), [0x31], name, Array(shared.nodeName.utf8),
        ])
        var writer = ByteWriter(lane.connection.output)
        writer.append(command.span)
        lane.connection.output.commit(writer)
        lane.state.value.pending.append(
            PendingCommand(kind: .roll, sentMicroseconds: MonotonicClock.nowMicroseconds()))
        lane.connection.flush()
    }

    /// How many gateways have answered.
    func takeRoll(_ reply: Reply, _ lane: StoreLane) {
        guard reply.kind == .integer else { return }
        shared.rollCall.heard(reply.integer, in: lane.state.value.historyNumber)
    }
}
