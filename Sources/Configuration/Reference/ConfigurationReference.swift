import Limits

/// The reference of the configuration file, printed from the descriptions that the loader checks against.
package enum ConfigurationReference {
    /// Every mapping of the file, the file itself first, in the order of the documentation.
    package static let sections: [SectionDescription] = [
        FileKeys.description, ListenKeys.description, ListenKeys.https, ListenKeys.certificate,
        ListenKeys.plaintext, AdminKeys.description, StoreKeys.description, KeysKeys.description,
        KeysKeys.cache, KeysKeys.staticKey, TierKeys.description, UpstreamKeys.description,
        UpstreamKeys.health, RouteKeys.description, LimitKeys.description, TimeoutKeys.description,
        AccessLogKeys.description, TraceKeys.description, LogKeys.description,
    ]

    /// The document, as Markdown, without the last line break.
    package static var markdown: String {
        """
        # Configuration

        Every key of the configuration file, printed by `gateway config reference` from what the file
        is checked against. [gateway.conf.example](../../../gateway.conf.example) has every key in its place.

        ## How values are written

        - Durations: `250ms`, `5s`, `10m`, `2h`, `90d`. Sizes: `512B`, `32KiB`, `10MiB`, `1GiB`, or a
          number of bytes. Shares: `10%`, `0.1%`.
        - Limits: `100/minute`; units are `second`, `minute`, `hour`, `day`, or like `10s`, `5m`. Of a
          list, up to \(LimitPlan.windowsMaximum), all hold together.
        - `${NAME}` and `${NAME:-default}` come from the environment.
        - A key that is left out has its default. A key without a value, an unknown key and a value out of its
          range are refused, all together, each with line and column; the exit status is 78.

        \(sections.map(text).joined(separator: "\n\n"))
        """
    }

    private static func text(_ section: SectionDescription) -> String {
        let title = section.path.isEmpty ? "The file" : "`\(section.path)`"
        let rows = section.keys.map { key in
            let standard =
                switch key.standard {
                case nil: "has to be there"
                case let text? where text.contains(" ") || text == "none": text
                case let text?: "`\(text)`"
                }
            return "| `\(key.name)` | \(key.form) | \(standard) | \(key.meaning) |"
        }
        return """
            ## \(title)

            \(section.meaning)

            | key | value | default | meaning |
            |---|---|---|---|
            \(rows.joined(separator: "\n"))
            """
    }
}
