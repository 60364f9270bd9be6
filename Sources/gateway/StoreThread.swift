import Configuration
import DataPlane

final class StoreThread {
    static func make(_ configuration: GatewayConfiguration, _ server: GatewayServer) -> StoreThread? { nil }
    func start() throws(ServerProblem) {}
    func stop() {}
}

enum StoreCheck {
    static func problem(_ configuration: GatewayConfiguration) -> String? { nil }
}
