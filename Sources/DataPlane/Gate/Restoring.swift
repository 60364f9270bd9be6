import Keys
import Limits
import Reactor
import Redis

// A Redis that has lost its last writes, by a failover or a restart, is told what this process has let in
// within the window, and puts back what is later than the end of the list it was left with. It is told once
// for each account: with its next debit, or by a walk over all accounts that begins when Redis is back.

extension Worker {
    /// Accounts that one turn looks at.
    private static let restoreStep = 512

    /// A connection has led to a master for the first time.
    func noteHistory(_ lane: StoreLane) {
        let history = lane.connection.history
        guard !history.name.isEmpty, shared.generations.isLossy(history) else {
            lane.state.value.history = []
            lane.state.value.historyNumber = 0
            return
        }
        let name = Array(history.name.utf8)
        guard name != lane.state.value.history else {
            // What was under way when the connection broke may not have arrived.
            if !lane.state.value.telling.isOver { beginTelling(lane) }
            return
        }
        lane.state.value.history = name
        lane.state.value.historyNumber = name.reduce(14_695_981_039_346_656_037) {
            ($0 ^ UInt64($1)) &* 1_099_511_628_211
        }
        beginTelling(lane)
        for index in store.value.leased {
            let account = account(at: Int(index))
            if self.lane(of: account) === lane, let lease = lease(of: account) { lease.value.withdraw() }
        }
    }

    private func beginTelling(_ lane: StoreLane) {
        lane.state.value.restorePosition = 0
        lane.state.value.telling = .walking
    }

    /// Whether a debit has to speak of what may have been lost.
    private func isRestored(_ account: Slot<Account>, _ lane: StoreLane) -> Bool {
        !lane.state.value.history.isEmpty && isCautious(account.value.debitedPlan)
    }

    /// Decides what the debit that is being made up tells Redis of what it may have lost.
    ///
    /// - Returns: whether Redis has to know of the history.
    func prepareRestoring(_ account: Slot<Account>, _ lane: StoreLane) -> Bool {
        account.value.toldMicroseconds = 0
        guard isRestored(account, lane) else { return false }
        let (words, number) = (account.value.hash.words, lane.state.value.historyNumber)
        let lost = shared.windows.tell(
            account: words, plan: account.value.debitedPlan, history: number,
            nowMicroseconds: MonotonicClock.nowMicroseconds())
        if !lost.isEmpty {
            store.value.restored[Int32(account.index)] = lost
            account.value.isRestoring = true
        }
        account.value.toldMicroseconds = shared.windows.told(account: words, history: number)
        return true
    }

    /// Whether Redis has been told is not known.
    func restoringIsLost(_ account: Slot<Account>) {
        guard account.value.isRestoring else { return }
        account.value.isRestoring = false
        shared.windows.untell(account: account.value.hash.words)
    }

    /// Goes on with the walk over the accounts.
    func restoreTick(_ lane: StoreLane) {
        guard lane.state.value.restorePosition < accounts.highWater, lane.isReady else { return }
        let end = min(accounts.highWater, lane.state.value.restorePosition + Self.restoreStep)
        for index in lane.state.value.restorePosition..<end {
            guard let account = accounts.occupant(at: index), account.value.debitedPlan.count > 0,
                self.lane(of: account) === lane, isRestored(account, lane)
            else { continue }
            enqueue(account)
        }
        lane.state.value.restorePosition = end
    }
}
