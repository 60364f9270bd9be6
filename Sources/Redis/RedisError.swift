/// Why Redis did not do what it was asked. Never holds a password.
package enum RedisError: Error, Equatable, Sendable {
    case unreachable(String)
    case timeout
    /// Redis refuses the connection: wrong password, no permission.
    case refused(String)
    case protocolViolation(String)
    /// An error reply to a command.
    case server(String)

    /// One sentence.
    package var text: String {
        switch self {
        case .unreachable(let why): return why
        case .timeout: return "no answer in time"
        case .refused(let why): return "the connection is refused: \(why)"
        case .protocolViolation(let why): return why
        case .server(let why): return why
        }
    }
}
