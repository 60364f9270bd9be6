import ArgumentParser
import KeyManagement
import Limits

struct LimitsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "limits", abstract: "Show what accounts may still do.", subcommands: [Show.self])

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show an account's windows as the limiter keeps them.",
            discussion: "Reads only: no permit is spent.")

        @OptionGroup var options: KeysCommand.Options
        @Argument(help: "The account.") var account: String

        func run() throws {
            let (store, _) = try options.open()
            let limits = try KeysCommand.run { () throws(KeyStoreProblem) in
                try store.limits(ofAccount: account)
            }
            if options.output == .json {
                Console.out(limits.json)
                return
            }
            var rows = [["POLICY", "WINDOW", "LIMIT", "SPENT", "ON LEASE", "REMAINING", "NEXT FREED"]]
            for policy in limits.policies { rows += Self.rows(policy.windows, of: policy.name) }
            Console.out(KeyText.table(rows))
            var leases = [["GATEWAY", "POLICY", "WINDOW", "PERMITS", "ENDS"]]
            for policy in limits.policies { leases += Self.leases(policy.windows, of: policy.name) }
            guard leases.count > 1 else { return }
            Console.out("\nOn lease, and counted as spent until the gateway reports what it used:\n")
            Console.out(KeyText.table(leases))
        }

        private static func leases(_ windows: [WindowUse], of policy: String) -> [[String]] {
            windows.flatMap { use in
                use.holders.map { holder in
                    [
                        holder.node, policy, KeyText.length(use.window.lengthMicroseconds),
                        "\(holder.permits)", "in \(KeyText.length(holder.endsInMicroseconds))",
                    ]
                }
            }
        }

        static func rows(_ windows: [WindowUse], of policy: String) -> [[String]] {
            windows.map { use in
                [
                    policy, KeyText.length(use.window.lengthMicroseconds), "\(use.window.limit)",
                    "\(use.used - use.leased)", "\(use.leased)", "\(use.remaining)",
                    use.nextPermitInMicroseconds.map { "in \(KeyText.length($0))" } ?? "-",
                ]
            }
        }
    }
}
