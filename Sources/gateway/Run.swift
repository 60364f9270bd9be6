import ArgumentParser
import Configuration
import DataPlane
import Reactor
import TLS

struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Run the gateway.",
        discussion: """
            SIGTERM drains and ends it; a second SIGTERM ends it at once. SIGHUP reads the configuration \
            again.
            """)

    @OptionGroup var options: ConfigurationOption

    func run() throws {
        let configuration = try options.load()
        // Callers would refuse to talk to it; who starts it had better hear of it than they.
        try options.refuse(LiveCheck.certificates(configuration))
        do {
            try Service(configuration, source: options.read).run { service in
                service.announce(
                    "\(Version.text) serves https://\(service.server.httpsAddress) with "
                        + "\(configuration.workers) workers")
            }
        } catch {
            throw fail(Status.unavailable, error.text)
        }
    }
}
