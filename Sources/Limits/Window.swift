/// One sliding window: at most `limit` permits in any trailing `lengthMicroseconds`.
package struct Window: Hashable, Sendable {
    /// Permits in any trailing window, 0 to 1,000,000,000. Zero admits nothing.
    package var limit: Int64
    /// 1 second to 31 days, in microseconds; tests may go below.
    package var lengthMicroseconds: Int64

    /// - Parameters:
    ///   - limit: 0 to 1,000,000,000 permits.
    ///   - lengthMicroseconds: above 0.
    @inlinable
    package init(limit: Int64, lengthMicroseconds: Int64) {
        self.limit = limit
        self.lengthMicroseconds = lengthMicroseconds
    }

    /// The length in whole seconds, at least 1: what `w=` of `RateLimit-Policy` says.
    package var lengthSeconds: Int64 { max(1, lengthMicroseconds / 1_000_000) }
}

/// The windows that bind one account, all or nothing. Plain memory: copied without reference counting.
package struct LimitPlan: Sendable {
    /// More windows than this say nothing that fewer could not.
    package static let windowsMaximum = 4

    /// The first `count` are meant.
    package var windows: InlineArray<4, Window>
    /// 1 to `windowsMaximum`.
    package var count: Int

    /// Keeps the first `windowsMaximum` windows.
    package init(_ list: [Window]) {
        windows = InlineArray(repeating: Window(limit: 0, lengthMicroseconds: 1_000_000))
        count = min(list.count, LimitPlan.windowsMaximum)
        for index in 0..<count { windows[index] = list[index] }
    }
}

extension LimitPlan: Equatable {
    /// Whether both bind alike, as written: order counts.
    package static func == (left: LimitPlan, right: LimitPlan) -> Bool {
        guard left.count == right.count else { return false }
        for index in 0..<left.count where left.windows[index] != right.windows[index] { return false }
        return true
    }
}

/// What a limiter answers to one request. Instants are on the clock that the caller passed in.
package struct Decision: Sendable {
    package var isGranted: Bool
    /// Windows that the two arrays below speak of.
    package var count: Int
    /// Permits left in each window after this decision, never below 0.
    package var remaining: InlineArray<4, Int64>
    /// When each window next gets a permit back, in microseconds; 0 when the window is empty.
    package var resetMicroseconds: InlineArray<4, Int64>
    /// When refused: the first instant at which this cost is granted if nobody else spends; 0 when it never
    /// is.
    package var retryMicroseconds: Int64

    /// A decision that speaks of `count` windows, all of them empty of news.
    package init(isGranted: Bool, count: Int) {
        self.isGranted = isGranted
        self.count = count
        remaining = InlineArray(repeating: 0)
        resetMicroseconds = InlineArray(repeating: 0)
        retryMicroseconds = 0
    }
}
