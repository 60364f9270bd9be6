import Limits
import Reactor

// Redis keeps the permits of an account for a day after its last one, although they count for one window
// only: a time to live ends by Redis's clock, and a clock that is set forward would take every window with it
// at once. So that idle accounts do not fill Redis for a day, the worker that spent last asks once more when
// its permits have stopped counting, and the script then drops them.

extension Worker {
    /// How many accounts one turn looks at, once in `roundMicroseconds`.
    private static let accountsMax = 2_000
    private static let roundMicroseconds: Int64 = 1_000_000
    /// Windows longer than this are left to their time to live.
    private static let longestMicroseconds: Int64 = 3_600_000_000

    /// Takes note of what the windows of an account hold after a debit.
    func noteHeld(_ account: Slot<Account>, _ decision: Decision, hasSpent: Bool, _ now: Int64) {
        guard hasSpent || account.value.tidyAtMicroseconds == 0 else { return }
        var length: Int64 = 0
        for index in 0..<decision.count where decision.resetMicroseconds[index] > 0 {
            length = max(length, account.value.debitedPlan.windows[index].lengthMicroseconds)
        }
        guard length > 0, length <= Self.longestMicroseconds else { return }
        account.value.tidyAtMicroseconds = now + length
        guard !account.value.isToTidy, store.value.toTidy.count < HardLimits.tidiedAccounts else { return }
        account.value.isToTidy = true
        account.value.holders += 1
        store.value.toTidy.append(Int32(account.index))
    }

    /// Asks about accounts whose permits have stopped counting.
    func tidyTick() {
        let now = state.value.nowMicroseconds
        guard now >= store.value.nextTidyMicroseconds else { return }
        store.value.nextTidyMicroseconds = now + Self.roundMicroseconds
        for _ in 0..<min(Self.accountsMax, store.value.toTidy.count) {
            if store.value.tidyPosition >= store.value.toTidy.count { store.value.tidyPosition = 0 }
            let position = store.value.tidyPosition
            let account = account(at: Int(store.value.toTidy[position]))
            guard now >= account.value.tidyAtMicroseconds else {
                store.value.tidyPosition += 1
                continue
            }
            store.value.toTidy[position] = store.value.toTidy[store.value.toTidy.count - 1]
            store.value.toTidy.removeLast()
            account.value.isToTidy = false
            account.value.tidyAtMicroseconds = 0
            if lane(of: account)?.isReady ?? false { enqueue(account) }
            releaseAccount(account)
        }
    }
}
