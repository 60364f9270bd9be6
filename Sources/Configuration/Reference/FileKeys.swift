/// The sections of the file, and the keys that stand beside them.
enum FileKeys {
    static let legacyHeaders = Setting.choice(
        "rate_limit_headers", [("standard", false), ("legacy", true)], default: "standard",
        "`legacy` adds `X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds) to every answer")

    static let description = SectionDescription(
        "", "The sections, and what stands beside them.",
        [
            .key("listen", "section", default: nil, "where callers connect"),
            .key(
                "admin", "section", default: "no admin listener",
                "health, metrics, admin API and dashboard"),
            .key("store", "section", default: "its defaults", "where keys and windows live"),
            .key("tiers", "section", default: nil, "limits by tier; at least one"),
            .key(
                "keys", "section", default: "its defaults", "how keys look and how long they are remembered"),
            .key(
                "limits", "section", default: "its defaults",
                "what one caller may send, how many there may be"),
            .key("upstreams", "section", default: nil, "services behind the gateway; at least one"),
            .key(
                "routes", "list of sections", default: nil,
                "what a path needs and where it goes; 1 to \(RouteSection.routesMax)"),
            .key("timeouts", "section", default: "its defaults", "how long callers may take"),
            .key("access_log", "section", default: "its defaults", "a line for each call"),
            .key("log", "section", default: "its defaults", "the program's own log"),
            .key("traces", "section", default: "no traces", "spans to an OpenTelemetry collector"),
            .key(
                "workers", "`auto`, or a whole number, 1 to \(MiscellaneousSection.workersMax)",
                default: "auto",
                "threads that serve; `auto` is one for each processor that the process may use"),
            .key(
                "trusted_proxies", "one or a list of addresses and ranges like `10.0.0.0/8`", default: "none",
                "proxies in front whose `X-Forwarded-*` and `X-Request-Id` are believed; what others send of"
                    + " `Forwarded`, `X-Forwarded-*`, `X-Real-IP`, `X-Original-URL` and `X-Rewrite-URL` is"
                    + " dropped"),
            legacyHeaders.description,
        ])
}
